"""Images and titles together: trained in one space, searched by words and photos, with classes and without."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from productrec.artifacts import compute_file_digest
from productrec.errors import Interrupted
from productrec.training.run import loop
from productrec.training.run.loop import take_step
from tests.integration.conftest import TINY, write_recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 220), "yellow": (230, 220, 40)}
TEXT = ["model.text.tower=gru", "model.text.width=16", "model.text.vocabulary=300"]
ALONE = ["loss.metric=none", "loss.classification_weight=0"]


def draw_shop(root, *, labelled: bool, per_colour: int = 8):
    """Photos of one colour with titles that name it; every fourth has no title where there are labels."""
    root.mkdir()
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for colour, rgb in COLOURS.items():
        for number in range(per_colour):
            name = f"{colour}{number}.png"
            noise = rng.integers(-20, 20, (24, 24, 3))
            Image.fromarray((np.array(rgb) + noise).clip(0, 255).astype(np.uint8)).save(root / "images" / name)
            title = f"{colour} mug number {number}"
            if labelled:
                rows.append({"id": name, "label": colour, "title": "" if number % 4 == 3 else title})
            else:
                rows.append({"id": name, "title": title})
    with (root / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture
def named(productrec, place):
    """A run of images and titles without classes, in a folder to work in."""
    recipe = write_recipe(place, draw_shop(place / "shop", labelled=False), competition="plain")
    ran = productrec("run", recipe, *TINY, *TEXT, *ALONE, "train.epochs=4", "train.learning_rate=0.003")
    assert ran.code == 0, ran.err
    return place


class TestWordsFindWhatTheyName:
    def test_after_some_training_the_first_image_is_of_the_colour_that_is_asked_for(self, place, productrec):
        recipe = write_recipe(place, draw_shop(place / "shop", labelled=False), competition="plain")
        more = ("train.epochs=40", "train.learning_rate=0.003", "loss.titles.loss=nt_xent", "train.validate_every=40")
        ran = productrec("run", recipe, *TINY, *TEXT, *ALONE, *more)
        assert ran.code == 0, ran.err
        words = [word for colour in COLOURS for word in ("--text", f"{colour} mug")]
        asked = productrec("query", "runs/tiny", *words, "--nearest", "1", "--json")
        found = [json.loads(line)["found"][0]["image"] for line in asked.out.splitlines()]
        right = [image.startswith(colour) for image, colour in zip(found, COLOURS, strict=True)]
        assert sum(right) >= 3, found


class TestWithoutClasses:
    def test_the_run_learns_and_is_judged_by_titles(self, named, productrec):
        figures = json.loads((named / "runs/tiny/metrics.jsonl").read_text().splitlines()[-1])
        assert 0 <= figures["pair_recall"] <= 1
        assert figures["train_titles_pairs"] > 0
        assert "top_1_accuracy" not in figures

    def test_words_find_images(self, named, productrec):
        asked = productrec(
            "query", "runs/tiny", "--text", "a red mug", "--text", "blue mug", "--nearest", "4", "--json"
        )
        assert asked.code == 0, asked.err
        answers = [json.loads(line) for line in asked.out.splitlines()]
        assert [answer["query"] for answer in answers] == ["a red mug", "blue mug"]
        for answer in answers:
            similarities = [hit["similarity"] for hit in answer["found"]]
            assert len(similarities) == 4
            assert similarities == sorted(similarities, reverse=True)
            assert all(hit["title"].split()[0] in COLOURS for hit in answer["found"])

    def test_a_photo_finds_titles(self, named, productrec):
        photo = named / "shop" / "images" / "green1.png"
        asked = productrec("query", "runs/tiny", photo, "--to", "titles", "--json", "--nearest", "3")
        assert asked.code == 0, asked.err
        (answer,) = [json.loads(line) for line in asked.out.splitlines()]
        assert len(answer["found"]) == 3

    def test_a_second_run_of_everything_leaves_all_as_it_is(self, named, productrec):
        before = {path: path.stat().st_mtime_ns for path in (named / "runs").rglob("*.npy")}
        again = productrec(
            "run", named / "tiny.yaml", *TINY, *TEXT, *ALONE, "train.epochs=4", "train.learning_rate=0.003"
        )
        assert again.code == 0, again.err
        assert {path: path.stat().st_mtime_ns for path in (named / "runs").rglob("*.npy")} == before


class TestWithClasses:
    @pytest.fixture
    def sold(self, productrec, place):
        recipe = write_recipe(place, draw_shop(place / "shop", labelled=True), competition="plain")
        ran = productrec("run", recipe, *TINY, *TEXT)
        assert ran.code == 0, ran.err
        return place

    def test_all_terms_are_learned_and_judged(self, sold):
        figures = json.loads((sold / "runs/tiny/metrics.jsonl").read_text().splitlines()[-1])
        assert {"train_metric", "train_titles_pairs", "train_classification"} <= figures.keys()
        assert {"top_1_accuracy", "pair_recall"} <= figures.keys()

    def test_images_without_a_title_are_left_out_of_the_titles_alone(self, sold):
        titles = json.loads((sold / "runs/tiny/embeddings/text/train/ids.json").read_text())
        images = json.loads((sold / "runs/tiny/embeddings/plain/train/ids.json").read_text())
        assert set(titles) < set(images)
        assert not any(name.removesuffix(".png").endswith(("3", "7")) for name in titles)
        joined = np.load(sold / "runs/tiny/embeddings/joined/train/embeddings.npy")
        assert joined.shape == (len(titles), 32)
        assert np.allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-5)

    def test_words_name_classes(self, sold, productrec):
        asked = productrec("query", "runs/tiny", "--text", "yellow mug", "--json")
        (answer,) = [json.loads(line) for line in asked.out.splitlines()]
        assert {hit["class"] for hit in answer["found"]} <= set(COLOURS)


class TestDescriptions:
    @pytest.fixture
    def described(self, drawn, place, productrec):
        """A run that reads the descriptions of classes, which say which class it is."""
        shutil.copytree(drawn, place / "source")
        lines = ["class,name,description", *(f"{label},sku {label},the product number {label}" for label in range(6))]
        (place / "source" / "classes.csv").write_text("\n".join(lines) + "\n")
        ran = productrec("run", write_recipe(place, place / "source"), *TINY, *TEXT, "model.text.reads=description")
        assert ran.code == 0, ran.err
        return place / "runs" / "tiny"

    def test_they_are_learned_and_searched(self, described, productrec):
        assert json.loads((described / "embeddings/text/train/ids.json").read_text())
        asked = productrec("query", described, "--text", "the product number 3", "--to", "titles", "--json")
        (answer,) = [json.loads(line) for line in asked.out.splitlines()]
        assert answer["found"][0]["title"] == "the product number 3"

    def test_they_never_tell_the_answer_to_a_query(self, described):
        for what in ("embeddings", "neighbours"):
            for space in ("text", "joined"):
                assert not (described / what / space / "val").exists()
        fitted = json.loads((described / "classifier/plain/classifier.json").read_text())
        assert "text" not in json.dumps(fitted)


class TestUnusualTables:
    @pytest.fixture
    def shop(self, place):
        return draw_shop(place / "shop", labelled=True)

    def rewrite(self, shop, change):
        """Rows of the shop's table, each changed; columns are those of the first."""
        with (shop / "train.csv").open(newline="") as file:
            rows = [change(row) for row in csv.DictReader(file)]
        with (shop / "train.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)

    def test_titled_distractors_are_no_obstacle(self, shop, place, productrec):
        recipe = write_recipe(place, shop, competition="plain")
        ran = productrec("run", recipe, *TINY, *TEXT, "data.distractors=[yellow]")
        assert ran.code == 0, ran.err
        assert not (place / "runs/tiny/neighbours/text/distractors").exists()

    def test_titles_alone_are_learned_of_all_images_where_some_have_no_label(self, shop, place, productrec):
        self.rewrite(
            shop, lambda row: row | {"label": row["label"] if row["id"].endswith("0.png") else "", "title": row["id"]}
        )
        ran = productrec("run", write_recipe(place, shop, competition="plain"), *TINY, *TEXT, *ALONE)
        assert ran.code == 0, ran.err
        assert "images of 0 classes" in ran.err
        assert "productrec query runs/tiny --text WORDS" in ran.err.splitlines()[-1]
        with_labels = productrec(
            "train", "tiny.yaml", *TINY, *TEXT, "name=labelled", "data.table=data/tiny", "train.batch_size=4"
        )
        assert "have a title and no label; they are not trained on" in with_labels.err

    @pytest.mark.parametrize("figure", ["recall@1", "map@r", "top_1_accuracy"])
    def test_a_figure_that_needs_classes_gives_way_to_one_of_titles(self, place, productrec, figure):
        recipe = write_recipe(place, draw_shop(place / "shop", labelled=False), competition="plain")
        ran = productrec("run", recipe, *TINY, *TEXT, *ALONE, f"train.keep_best_by={figure}")
        assert ran.code == 0, ran.err

    def test_a_run_of_titles_alone_says_how_it_is_asked(self, named, productrec):
        photo = named / "shop" / "images" / "green1.png"
        for arguments in (("query", "runs/tiny", photo), ("export", "runs/tiny")):
            refused = productrec(*arguments)
            assert refused.code != 0
            assert "learned from titles alone" in refused.err and "--to titles" in refused.err

    def test_a_table_without_titles_is_answered_as_by_a_run_without_them(self, shop, place, productrec):
        recipe = write_recipe(place, shop, competition="plain")
        assert productrec("run", recipe, *TINY, *TEXT).code == 0
        self.rewrite(shop, lambda row: {"id": row["id"], "label": row["label"]})
        assert productrec("ingest", shop, "--out", "data/bare").code == 0
        predicted = productrec("predict", "runs/tiny", "data.table=data/bare")
        assert predicted.code == 0, predicted.err
        assert "no image of the gallery has a title" in predicted.err
        assert not (place / "runs/tiny/neighbours/text").exists()

    def test_titles_that_are_turned_off_do_not_vote(self, shop, place, productrec):
        ran = productrec("run", write_recipe(place, shop, competition="plain"), *TINY, *TEXT, "predict.titles=none")
        assert ran.code == 0, ran.err
        fitted = json.loads((place / "runs/tiny/classifier/plain/classifier.json").read_text())
        assert "joined" not in json.dumps(fitted)

    def test_a_removed_class_is_no_longer_found_by_its_titles(self, shop, place, productrec):
        assert productrec("run", write_recipe(place, shop, competition="plain"), *TINY, *TEXT).code == 0
        words = ("query", "runs/tiny", "--text", "red mug", "--to", "titles", "--nearest", "50", "--json")
        assert '"class": "red"' in productrec(*words).out
        assert productrec("index", "remove", "runs/tiny", "red").code == 0
        assert '"class": "red"' not in productrec(*words).out

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("loss.titles.weight=0", "loss.titles.weight must be above 0"),
            ("loss.titles.memory.rows=4", "loss.titles.memory.rows must hold a batch"),
            ("model.text.freeze=true", "freeze leaves a pretrained encoder as it is; gru has none"),
        ],
    )
    def test_settings_without_a_sense_are_refused_with_the_recipe(self, shop, place, productrec, setting, said):
        ran = productrec("train", write_recipe(place, shop, competition="plain"), *TINY, *TEXT, setting)
        assert ran.code != 0
        assert said in ran.err


class TestResume:
    @pytest.mark.parametrize(
        "own",
        [
            [
                "loss.titles.memory.rows=64",
                "loss.titles.memory.start_step=2",
                "loss.titles.warm_up_epochs=2",
                "loss.titles.loss=max_of_hinges",
            ],
            ["loss.titles.loss=nt_xent", "loss.titles.loss.learn_temperature=true", "train.ema_decay=0.9"],
        ],
        ids=["memory and warm-up", "learned temperature and average"],
    )
    def test_a_stopped_training_resumes_to_the_same_weights(self, place, productrec, monkeypatch, own):
        recipe = write_recipe(place, draw_shop(place / "shop", labelled=True), competition="plain")
        settings = [*TINY, *TEXT, "train.epochs=3", "train.batch_size=8", *own]
        assert productrec("ingest", place / "shop", "--out", "data/tiny").code == 0
        whole = productrec("train", recipe, *settings, "name=whole", "data.table=data/tiny")
        assert whole.code == 0, whole.err
        steps = []

        def stop_in_the_second_epoch(*arguments):
            if len(steps) == 4:
                raise Interrupted("stopped by the test.", 130)
            steps.append(arguments)
            return take_step(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "take_step", stop_in_the_second_epoch)
            assert productrec("train", recipe, *settings).code == 130
        resumed = productrec("train", recipe, *settings, "--resume")
        assert resumed.code == 0, resumed.err
        names = [place / f"runs/{run}/checkpoints/last/weights.safetensors" for run in ("whole", "tiny")]
        one, other = (compute_file_digest(name) for name in names)
        assert one == other


class TestRefusals:
    def test_a_table_without_titles_is_refused_before_training(self, drawn, place, productrec):
        ran = productrec("run", write_recipe(place, drawn), *TINY, *TEXT)
        assert ran.code != 0
        assert "must have titles for model.text.tower=gru" in ran.err

    def test_a_run_without_a_text_tower_says_how_to_get_one(self, finished, productrec):
        asked = productrec("query", "runs/tiny", "--text", "anything")
        assert asked.code != 0
        assert "has no text tower" in asked.err and "model.text.tower=gru" in asked.err

    def test_nothing_left_to_learn_is_refused(self, drawn, place, productrec):
        ran = productrec("train", write_recipe(place, drawn), *TINY, *ALONE)
        assert ran.code != 0
        assert "a loss must be left" in ran.err

    @pytest.mark.parametrize("arguments", [("--to", "words"), ("--to", "images"), (), ("--text", "a", "--unknown")])
    def test_a_question_without_a_sense_is_refused(self, arguments, finished, productrec):
        assert productrec("query", "runs/tiny", *arguments).code == 2
