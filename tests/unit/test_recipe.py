"""Recipes: what is read, what is mended, what is refused, and what a person is told."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from productrec.errors import RecipeError
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.recipe import Recipe, build_recipe, list_settings, load_recipe, save_recipe, select_settings
from productrec.settings.fields import walk_settings

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [
    *sorted((ROOT / "pipelines").glob("*.yaml")),
    *sorted((ROOT / "pipelines" / "papers").glob("*.yaml")),
    ROOT / "productrec" / "demo" / "demo.yaml",
]


@pytest.fixture
def write(tmp_path: Path):
    """Writes a recipe's text and gives its path."""

    def write_recipe(text: str, name: str = "shoes.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def refuse(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


# ---------------------------------------------------------------- reading


def test_an_empty_mapping_gives_the_defaults_and_the_files_name(write) -> None:
    recipe = load_recipe(write("{}"))
    assert recipe == Recipe(name="shoes")
    assert recipe.table == Path("data/shoes")
    assert recipe.run_folder == Path("runs/shoes")


def test_a_given_name_and_table_count_before_the_files_name(write) -> None:
    recipe = load_recipe(write("name: boots\ndata: {table: elsewhere/table}\nruns: out"))
    assert (recipe.name, recipe.table, recipe.run_folder) == ("boots", Path("elsewhere/table"), Path("out/boots"))


def test_a_float_that_yaml_reads_as_text_is_mended(write) -> None:
    assert isinstance(yaml.safe_load("1e-3"), str)  # YAML 1.1 wants 1.0e-3: the trap this test is about
    assert load_recipe(write("train: {learning_rate: 1e-3}")).train.learning_rate == 1e-3
    assert load_recipe(write("{}"), ["train.weight_decay=5e-2"]).train.weight_decay == 5e-2
    assert load_recipe(write("predict: {power_grid: [1e1, 4]}")).predict.power_grid == (10.0, 4.0)


def test_a_recipe_does_not_change_after_reading(write) -> None:
    recipe = load_recipe(write("{}"))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_loads_and_so_do_its_members(path: Path) -> None:
    recipe = load_recipe(path)
    members = recipe.resolve_members()
    assert set(members) == (set(recipe.members) or {recipe.name})
    assert all(not member.members for member in members.values())


def test_shipped_recipes_are_there() -> None:
    assert len(SHIPPED) >= 7
    assert all(path.is_file() for path in SHIPPED)


# ---------------------------------------------------------------- unknown keys


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("trian: {epochs: 3}", "train"),
        ("train: {epohs: 3}", "train.epochs"),
        ("train: {learning_rte: 0.1}", "train.learning_rate"),
        ("loss: {memory: {row: 3}}", "loss.memory.rows"),
        ("model: {embeding_dim: 64}", "model.embedding_dim"),
        ("epochs: 3", "train.epochs"),  # the right name in the wrong section
        ("model: {learning_rate: 0.1}", "train.learning_rate"),
        ("train: {metric: soft_triple}", "loss.metric"),
        ("predict: {embedding_dim: 3}", "model.embedding_dim"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(write, text: str, meant: str) -> None:
    message = refuse(write(text))
    assert "shoes.yaml: unknown key" in message
    assert f"Did you mean '{meant}'?" in message


def test_an_unknown_key_in_an_override_names_the_nearest_valid_one(write) -> None:
    message = refuse(write("{}"), "train.epoch=3")
    assert "unknown key 'train.epoch'" in message
    assert "Did you mean 'train.epochs'?" in message


def test_an_unknown_key_in_a_member_names_the_member_and_the_nearest_valid_one(write) -> None:
    with pytest.raises(RecipeError, match="member small: unknown key 'train.epohs'. Did you mean 'train.epochs'"):
        load_recipe(write("members: {small: {train: {epohs: 3}}}"))


def test_a_key_like_no_other_points_to_the_list(write) -> None:
    assert "`productrec settings` lists the valid ones" in refuse(write("qqqqqqqq: 1"))


def test_several_faults_are_told_at_once(write) -> None:
    message = refuse(write("trian: 1\nseed: -1"))
    assert "'trian'" in message
    assert "seed" in message


# ---------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("train: {epochs: many}", "train.epochs: input should be a valid integer"),
        ("train: {epochs: 2.5}", "train.epochs: "),
        ("train: {epochs: 0}", "train.epochs: input should be greater than or equal to 1; got 0"),
        ("train: {batch_size: 1}", "train.batch_size: "),
        ("train: {splits: []}", "train.splits: "),
        ("train: {splits: [test]}", "train.splits.0: input should be 'train' or 'val'; got 'test'"),
        ("train: {learning_rate: .inf}", "train.learning_rate: "),
        ("train: {learning_rate: .nan}", "train.learning_rate: "),
        ("train: {learning_rate: -0.1}", "train.learning_rate: "),
        ("train: {bands: -1}", "train.bands: "),
        ("train: {band_share: 0}", "train.band_share: "),
        ("train: {band_share: 1}", "train.band_share: "),
        ("train: {keep_best_by: accuracy}", "train.keep_best_by: "),
        ("train: 3", "train: "),
        ("loss: {metric: triplets}", "Did you mean triplet?"),
        ("loss: {label_smoothing: 1}", "loss.label_smoothing: "),
        ("data: {validation_fraction: 1.0}", "data.validation_fraction: "),
        ("predict: {power_grid: [0, -1.5]}", "predict.power_grid.1: "),
        ("predict: {member_weights: {a: -1}}", "predict.member_weights.a: "),
        ("members: {small: }", "members.small: "),
        ("members: {'../up': {}}", "members: a member's name must be letters, digits, - and _; got '../up'"),
        ("name: ../up", "name: "),
        ("name: ''", "name: "),
        ("name: 2019-01-02", "name: "),
        ("1: 2", "shoes.yaml: "),
    ],
)
def test_a_wrong_value_is_refused_and_named(write, text: str, where: str) -> None:
    assert where in refuse(write(text))


def test_a_loss_with_nothing_to_learn_from_is_refused(write) -> None:
    for text in (
        "loss: {metric: none, classification_weight: 0}",
        "loss: {metric_weight: 0, classification_weight: 0}",
    ):
        message = refuse(write(text))
        assert "a loss must be left; all terms are off" in message
        assert "loss.classification_weight above 0" in message
    assert load_recipe(write("loss: {metric: none}")).loss.metric is None
    assert load_recipe(write("loss: {classification_weight: 0}")).loss.metric_weight == 0.5


@pytest.mark.parametrize(
    ("batch_size", "wanted", "mend"), [(64, 5, "4 or 8"), (30, 4, "3 or 5"), (7, 4, "7"), (6, 5, "3 or 6")]
)
def test_images_per_class_must_divide_the_batch(write, batch_size: int, wanted: int, mend: str) -> None:
    text = f"train: {{batch_size: {batch_size}, images_per_class: {wanted}}}"
    message = refuse(write(text))
    assert f"images_per_class must divide train.batch_size; got {wanted} and {batch_size}. Use {mend}." in message
    for option in mend.split(" or "):
        load_recipe(write(text), [f"train.images_per_class={option}"])


def test_images_per_class_need_not_divide_where_no_pk_batches_are_drawn(write) -> None:
    path = write("train: {batch_size: 64, images_per_class: 5}")
    assert not load_recipe(path, ["loss.metric=soft_triple"]).uses_pk_sampler
    assert not load_recipe(path, ["train.sampler=shuffle"]).uses_pk_sampler
    assert "must divide" in refuse(path, "loss.metric=soft_triple", "train.sampler=pk")
    assert load_recipe(path, ["train.images_per_class=8"]).uses_pk_sampler


# ---------------------------------------------------------------- files that are no recipe


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such recipe. See pipelines/" in refuse(tmp_path / "absent.yaml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refuse(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert "cannot be read" in refuse(path)


@pytest.mark.parametrize("text", ["train: [1, 2", "a: b: c", "\tname: x", "name: 2019-99-99"])
def test_text_that_is_no_yaml_is_refused_in_one_line(write, text: str) -> None:
    message = refuse(write(text))
    assert "is not valid YAML" in message
    assert "\n" not in message


@pytest.mark.parametrize(("text", "got"), [("", "NoneType"), ("- a\n- b", "list"), ("just words", "str")])
def test_yaml_that_is_no_mapping_is_refused(write, text: str, got: str) -> None:
    assert f"must hold settings by name; got {got}" in refuse(write(text))


def test_yaml_tags_do_not_run_code(write, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    message = refuse(write(f"name: !!python/object/apply:os.mkdir ['{mark}']"))
    assert "is not valid YAML" in message
    assert not mark.exists()


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=7", "train.epochs", 7),
        (" train.epochs =7", "train.epochs", 7),
        ("predict.k_grid=[1, 3]", "predict.k_grid", (1, 3)),
        ("train.splits=[train, val]", "train.splits", ("train", "val")),
        ("data.source=null", "data.source", None),
        ("data.source=", "data.source", None),
        ("data.source=a=b", "data.source", Path("a=b")),
        ("data.source=/data/with space", "data.source", Path("/data/with space")),
        ("loss.metric.base=-0.25", "loss.metric.base", -0.25),
        ("model.pretrained=false", "model.pretrained", False),
        ("model.pretrained=weights/a.pt", "model.pretrained", "weights/a.pt"),
        ("data.id_column='007'", "data.id_column", "007"),
        ("data.id_column=a: b: c", "data.id_column", "a: b: c"),
        ("data.id_column=2019-99-99", "data.id_column", "2019-99-99"),
        ("predict.member_weights={a: 2, b: 0.5}", "predict.member_weights", {"a": 2.0, "b": 0.5}),
        ("predict.member_weights.a=2", "predict.member_weights", {"a": 2.0}),
    ],
)
def test_an_override_sets_one_value(write, override: str, path: str, value: object) -> None:
    found = load_recipe(write("data: {source: here}"), [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


def test_an_override_leaves_its_section_alone_and_the_last_one_wins(write) -> None:
    recipe = load_recipe(write("train: {epochs: 5, side_px: 96}"), ["train.epochs=6", "train.epochs=7"])
    assert (recipe.train.epochs, recipe.train.side_px) == (7, 96)


def test_an_override_reaches_into_a_member(write) -> None:
    path = write("members: {a: {train: {epochs: 5, side_px: 96}}}")
    member = load_recipe(path, ["members.a.train.epochs=6"]).resolve_members()["a"]
    assert (member.train.epochs, member.train.side_px) == (6, 96)


def test_an_empty_mapping_empties(write) -> None:
    path = write("members: {a: {seed: 1}}\ntrain: {epochs: 3}")
    recipe = load_recipe(path, ["members={}", "train={}"])
    assert not recipe.members
    assert recipe.train.epochs == load_recipe(write("{}")).train.epochs


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2", "train: {epochs: 3, epochs: 4}", "members: {a: {}, a: {}}"])
def test_a_key_that_stands_twice_is_refused(write, text: str) -> None:
    with pytest.raises(RecipeError, match=r"the key '(seed|epochs|a)' stands twice"):
        load_recipe(write(text))


@pytest.mark.parametrize("override", ["train.epochs", "=3", " =3", ""])
def test_an_override_without_key_or_value_is_refused(write, override: str) -> None:
    assert "must be key=value, for instance train.epochs=10" in refuse(write("{}"), override)


def test_a_negative_number_is_read_as_a_number_and_checked(write) -> None:
    assert "seed: input should be greater than or equal to 0; got -1" in refuse(write("{}"), "seed=-1")


def test_a_value_below_a_value_is_refused(write) -> None:
    assert "name: input should be a valid string" in refuse(write("name: x"), "name.y=1")


# ---------------------------------------------------------------- members


def test_a_recipe_without_members_is_its_own_only_model(write) -> None:
    recipe = load_recipe(write("{}"))
    assert recipe.resolve_members() == {"shoes": recipe}


def test_members_have_their_own_settings_and_share_the_table(write) -> None:
    recipe = load_recipe(
        write(
            """
            runs: out
            data: {source: here, validation_fraction: 0.2}
            train: {epochs: 4, side_px: 96}
            members:
              wide: {model: {backbone: resnet10t}, train: {epochs: 9}, seed: 5}
              soft: {loss: {metric: {name: soft_triple, scale: 15}}}
            """
        )
    )
    members = recipe.resolve_members()
    wide, soft = members["wide"], members["soft"]
    assert list(members) == ["wide", "soft"]
    assert (wide.model.backbone, wide.train.epochs, wide.train.side_px, wide.seed) == ("resnet10t", 9, 96, 5)
    assert (soft.model.backbone, soft.train.epochs, soft.seed) == ("resnet50", 4, 0)
    assert soft.loss.metric == SoftTriple(scale=15.0)
    for name, member in members.items():
        assert member.name == name
        assert member.run_folder == Path("out/shoes") / name
        assert member.table == recipe.table == Path("data/here")
        assert member.data.validation_fraction == 0.2
        assert not member.members


def test_a_member_whose_settings_do_not_fit_together_is_refused(write) -> None:
    with pytest.raises(RecipeError, match="member odd: train.images_per_class must divide"):
        load_recipe(write("members: {odd: {train: {images_per_class: 5}}}"))


@pytest.mark.parametrize("setting", ["name: other", "runs: elsewhere", "members: {b: {}}"])
def test_a_member_cannot_change_what_it_is_given(write, setting: str) -> None:
    with pytest.raises(RecipeError, match=f"member a: {setting.partition(':')[0]} must be left to the recipe above"):
        load_recipe(write(f"members: {{a: {{{setting}}}}}"))


# ---------------------------------------------------------------- writing and listing


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_saved_recipe_reads_back_the_same(write, path: Path) -> None:
    recipe = load_recipe(
        path, ["train.learning_rate=1e-7", "loss.metric={name: multi_similarity, base: -0.5}", "data.id_column=NA"]
    )
    assert load_recipe(write(save_recipe(recipe))) == recipe
    assert build_recipe(recipe.dump()) == recipe


def test_a_saved_recipe_spells_out_every_setting() -> None:
    saved = yaml.safe_load(save_recipe(Recipe(name="x")))
    for key, *_ in walk_settings(Recipe):
        value = saved
        for part in key.split("."):
            assert part in value, key
            value = value[part]


def test_building_needs_a_name() -> None:
    with pytest.raises(RecipeError, match="'name' must be given"):
        build_recipe({})


def count_leaves(section: type[BaseModel]) -> int:
    return sum(
        count_leaves(type(field.default)) if isinstance(field.default, BaseModel) else 1
        for field in section.model_fields.values()
    )


def test_the_list_of_settings_has_every_leaf_with_default_and_meaning() -> None:
    assert len(list(walk_settings(Recipe))) == count_leaves(Recipe)
    settings = list(list_settings())
    for info in settings:
        assert info.default, info.key
        assert len(info.meaning) > 5, f"{info.key} has no description"
        assert "likewise" not in info.meaning
    lines = {(info.key, info.default, info.meaning) for info in settings}
    gamma = "soft_triple: entropy weight: temperature of the softmax over centres"
    assert ("loss.metric.gamma", "0.1", gamma) in lines
    assert {(info.key, info.default) for info in settings} >= {("name", "required"), ("members", "{}")}


def test_what_a_setting_decides_stands_beside_it() -> None:
    """A resume, a sweep and a command's refusals are derived from it, and know every setting."""
    decides = {info.key: info.decides for info in list_settings()}
    assert decides["data.box_margin"] == "table"
    assert decides["train.track"] == decides["train.workers"] == decides["device"] == "nothing"
    assert decides["loss.metric.margin"] == decides["train.learning_rate"] == "run"
    recipe = build_recipe({"name": "x", "loss": {"metric": "circle"}})
    chosen = select_settings(recipe, "run")
    assert chosen["loss.metric.gamma"] == 80.0
    assert not any(key.startswith(("data.", "predict.", "submit.")) or key == "train.track" for key in chosen)
    other = build_recipe({"name": "x", "loss": {"metric": "triplet"}})
    assert "loss.metric.gamma" not in select_settings(other, "run")


def test_settings_of_a_loss_as_they_were_written_before_are_explained(write) -> None:
    message = refuse(write("loss: {metric: circle, circle: {margin: 0.3}}"))
    assert "unknown key 'loss.circle'. The settings of a loss stand with its name now" in message


def test_the_count_of_leaves_notices_a_missing_one() -> None:
    class Wider(Recipe):
        extra: int = 1

    assert count_leaves(Wider) == len(list(walk_settings(Recipe))) + 1


def test_reading_a_recipe_imports_no_heavy_library() -> None:
    code = "import sys, productrec.recipe; print([m for m in ('torch', 'timm', 'pandas', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "table"),
    [("../mine", "mine"), ("a/set.tar.gz", "set"), ("my.data.zip", "my.data"), ("x/v1.2", "v1.2"), ("/", "source")],
)
def test_a_table_is_named_by_its_source_so_that_recipes_share_it(source: str, table: str) -> None:
    for name in ("first", "second"):
        assert build_recipe({"name": name, "data": {"source": source}}).table == Path("data") / table
    assert build_recipe({"name": "alone"}).table == Path("data/alone")
    named = build_recipe({"name": "first", "data": {"source": source, "table": "there"}})
    assert named.table == Path("there")


def test_re_rankings_are_names_or_names_with_settings_and_come_back_as_they_were(write):
    path = write("predict: {reranking: [label_aware, {name: whitening, dimensions: 64}]}")
    recipe = load_recipe(path)
    assert [method.tell() for method in recipe.predict.reranking] == ["label_aware", "whitening(dimensions=64)"]
    again = load_recipe(write(save_recipe(recipe), "again.yaml"))
    assert again.predict.reranking == recipe.predict.reranking
    assert select_settings(recipe, "predictions")["predict.reranking"][1]["dimensions"] == 64
    assert [method.tell() for method in load_recipe(path, ["predict.reranking=diffusion"]).predict.reranking] == [
        "diffusion"
    ]
    assert load_recipe(path, ["predict.reranking=none"]).predict.reranking == ()
    assert load_recipe(path, ["predict.reranking=[]"]).predict.reranking == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[difusion]", "Did you mean diffusion?"),
        ("[3]", "must be one of"),
        ("{k: 3}", "must be one of"),
        ("k_reciprocal", "k_reciprocal looks at others too"),
        ("[whitening, whitening]", "whitening twice"),
        ("{name: diffusion, k: 0}", "diffusion: k: input should be greater than or equal to 1"),
    ],
)
def test_re_rankings_that_cannot_be_are_refused(write, value, message):
    told = refuse(write("name: shoes"), f"predict.reranking={value}")
    assert "predict.reranking" in told and message in told


def test_a_warm_up_leads_to_the_max_of_hinges_alone(write) -> None:
    message = refuse(write("loss: {titles: {loss: nt_xent, warm_up_epochs: 1}}"))
    assert "warm_up_epochs leads from the sum of hinges to max_of_hinges; got nt_xent" in message
    titles = load_recipe(write("loss: {titles: {loss: max_of_hinges, warm_up_epochs: 1}}")).loss.titles
    assert titles.warm_up_epochs == 1


def test_titles_are_compared_by_a_loss_over_pairs(write) -> None:
    assert "must be a loss over pairs; soft_triple" in refuse(write("loss: {titles: {loss: soft_triple}}"))
