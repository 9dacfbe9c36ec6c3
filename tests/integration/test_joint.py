"""Several runs' embeddings in one space, as a user asks for it: what is written, and what is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from productrec.artifacts import load_manifest, write_artifact
from productrec.ensembling.joint_file import load_joint
from productrec.errors import ArtifactError
from productrec.pipeline.select import load_runs
from productrec.recognition.probabilities import load_probabilities
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.stages.joint import run_joint
from tests.integration.conftest import TINY, run_in, write_recipe

JOINED = ("ensemble", "runs/tiny", "runs/wide", "--out", "runs/both", "--joint")


@pytest.fixture(scope="session")
def two(trained, drawn, tmp_path_factory):
    """A copy of `trained` with a second run of its table, of another size and not yet predicted with."""
    folder = tmp_path_factory.mktemp("two") / "work"
    shutil.copytree(trained, folder)
    recipe = write_recipe(folder, drawn, "wide", data={"source": str(drawn), "table": "data/tiny"}, seed=7)
    run_in(folder, "train", recipe, *TINY, "model.embedding_dim=24")
    return folder


@pytest.fixture
def pair(two, tmp_path, monkeypatch):
    """A copy of `two` to work in."""
    folder = tmp_path / "work"
    shutil.copytree(two, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("rule", ["concat", "product"])
def test_two_runs_answer_in_one_space_and_that_is_a_member_to_blend(pair, productrec, rule):
    done = productrec(*JOINED, rule)
    assert done.code == 0, done.err
    for told in ("tiny: vote", "wide: prototypes", "joint: nearest neighbour", "joint: vote and"):
        assert told in done.out
    assert "better than the best model alone" in done.err and "what is written:" in done.err
    saved = load_joint(pair / "runs/both/joint")
    assert saved.rule == rule and set(saved.weights) == {"tiny", "wide"} and saved.images == 18
    for split in ("val", "test"):
        written = load_probabilities(pair / f"runs/both/predictions/joint/{split}")
        single = load_probabilities(pair / f"runs/tiny/predictions/plain/{split}")
        assert written.ids == single.ids and written.class_ids == single.class_ids and written.keys == single.keys
    again = productrec(*JOINED, rule)
    assert again.code == 0 and again.out == done.out
    assert productrec("predict", "runs/wide").code == 0
    blended = productrec("ensemble", "runs/tiny", "runs/wide", "runs/both", "--out", "runs/all", "--blend", "mean")
    assert blended.code == 0, blended.err
    members = [load_probabilities(pair / f"runs/{name}/test").values for name in MEMBERS]
    mixed = load_probabilities(pair / "runs/all/predictions/blend/test").values
    np.testing.assert_allclose(mixed, np.mean(members, axis=0), atol=1e-6)
    submitted = productrec("submit", "runs/both")
    assert submitted.code == 0, submitted.err


MEMBERS = ("tiny/predictions/plain", "wide/predictions/plain", "both/predictions/joint")


def test_concatenated_embeddings_are_a_set_like_any_other(pair, productrec):
    assert productrec(*JOINED, "concat", "--weights", "1,3").code == 0
    joined = load_embedding_set(pair / "runs/both/embeddings/joint/val")
    parts = [load_embedding_set(pair / f"runs/{name}/embeddings/plain/val").embeddings for name in ("tiny", "wide")]
    assert joined.embeddings.shape == (18, 16 + 24)
    expected = sum(w * part @ part.T for w, part in zip((0.25, 0.75), parts, strict=True))
    np.testing.assert_allclose(joined.embeddings @ joined.embeddings.T, expected, atol=1e-5)
    evaluated = productrec("evaluate", "runs/both/embeddings/joint/val", "--protocol", "self")
    assert evaluated.code == 0, evaluated.err
    assert load_joint(pair / "runs/both/joint").weights == {"tiny": 0.25, "wide": 0.75}


def test_an_image_that_cannot_be_read_gets_the_class_prior(pair, productrec):
    image_id = load_probabilities(pair / "runs/tiny/predictions/plain/test").ids[2]
    shutil.rmtree("runs/tiny/embeddings")
    source = Path(json.loads(Path("tiny.yaml").read_text())["data"]["source"])
    copied = pair / "images"
    shutil.copytree(source, copied)
    next(copied.rglob(image_id)).unlink()
    for run in ("tiny", "wide"):
        done = productrec("predict", f"runs/{run}", f"data.images={copied}")
        assert done.code == 0, done.err
    done = productrec(*JOINED, "product")
    assert done.code == 0, done.err
    assert "they get the class prior" in done.err
    written = load_probabilities(pair / "runs/both/predictions/joint/test")
    assert written.fallback == [image_id]
    single = load_probabilities(pair / "runs/tiny/predictions/plain/test")
    row = single.ids.index(image_id)
    assert single.fallback == [image_id]
    np.testing.assert_array_equal(written.values[row], single.values[row])
    assert np.ptp(written.values[row]) > 0


def join_here(pair, **how):
    return run_joint(load_runs([Path("runs/tiny"), Path("runs/wide")], [], out=Path("x")).runs, pair / "x", **how)


@pytest.fixture
def embedded(pair, productrec):
    """A copy of `two` where both runs have embedded all."""
    assert productrec("predict", "runs/wide").code == 0
    return pair


def test_missing_and_damaged_sets_are_refused_by_name(embedded):
    target = embedded / "runs/wide/embeddings/plain/test"
    rows = target / "embeddings.npy"
    content = bytearray(rows.read_bytes())
    content[-3] ^= 1
    rows.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="wide/embeddings/plain/test"):
        join_here(embedded, rule="concat")
    shutil.rmtree(target)
    with pytest.raises(ArtifactError, match="wide/embeddings/plain/test"):
        join_here(embedded, rule="concat")
    assert not (embedded / "x/predictions").exists()


def rewrite(folder, name, change, **notes):
    """Change a file of an artefact as a program would that keeps its manifest in order."""
    manifest = load_manifest(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    files[name] = change(files[name])
    shutil.rmtree(folder)
    with write_artifact(
        folder, kind=manifest.kind, inputs=manifest.inputs, settings=manifest.settings, notes=manifest.notes | notes
    ) as temporary:
        for file, content in files.items():
            (temporary / file).write_bytes(content)


def test_ids_in_another_order_are_refused_by_name(embedded):
    def turn(content):
        return json.dumps(json.loads(content)[::-1]).encode()

    rewrite(embedded / "runs/wide/embeddings/plain/val", "ids.json", turn)
    with pytest.raises(ArtifactError, match=r"wide \(val\) differs from tiny \(val\): the same ones stand in another"):
        join_here(embedded, rule="product")
    rewrite(embedded / "runs/wide/embeddings/plain/train", "ids.json", turn)
    with pytest.raises(ArtifactError, match=r"wide \(gallery\) differs from tiny \(gallery\)"):
        join_here(embedded, rule="product")


def test_rows_of_zeros_are_refused_by_their_ids(embedded, tmp_path):
    def empty(content):
        (tmp_path / "rows.npy").write_bytes(content)
        rows = np.load(tmp_path / "rows.npy")
        rows[4] = 0
        np.save(tmp_path / "rows.npy", rows)
        return (tmp_path / "rows.npy").read_bytes()

    folder = embedded / "runs/wide/embeddings/plain/train"
    ids = json.loads((folder / "ids.json").read_text())
    rewrite(folder, "embeddings.npy", empty)
    with pytest.raises(ArtifactError, match=rf"wide \(gallery\).*1 \({ids[4]}\) are not"):
        join_here(embedded, rule="concat")


def test_runs_of_other_tables_and_one_run_are_refused(pair, drawn, productrec):
    more = pair / "fewer"
    shutil.copytree(drawn, more)
    listed = json.loads((more / "train.json").read_text())
    listed["images"] = [image for image in listed["images"] if image["class"] != 2]
    (more / "train.json").write_text(json.dumps(listed))
    recipe = write_recipe(pair, more, "other")
    assert productrec("ingest", more, "--out", "data/other").code == 0
    trained = productrec("train", recipe, *TINY, "train.epochs=1")
    assert trained.code == 0, trained.err
    done = productrec("ensemble", "runs/tiny", "runs/other", "--joint", "concat", "--out", "runs/x")
    assert done.code == 4 and "runs must be of one image table" in done.err and "other" in done.err
    done = productrec("ensemble", "runs/tiny", "--joint", "concat", "--out", "runs/x")
    assert done.code == 4 and "must be of two runs or more" in done.err
    done = productrec("ensemble", "runs/tiny", "runs/wide", "--joint", "sum", "--out", "runs/x")
    assert done.code == 2 and "must be concat or product" in done.err
    done = productrec("ensemble", "runs/tiny", "runs/wide", "--joint", "concat", "--out", "runs/tiny")
    assert done.code == 4 and "holds a trained run" in done.err
    done = productrec(*JOINED, "concat", "--weights", "1,2,3")
    assert done.code == 4 and "weights must be 2" in done.err


def test_queries_of_another_network_and_a_gallery_of_queries_are_refused(embedded):
    runs = load_runs([Path("runs/tiny"), Path("runs/wide")], [], out=Path("x")).runs
    folder = Path("runs/wide")
    predict = runs[folder].predict.model_copy(update={"gallery_splits": ("train", "val")})
    asking_itself = runs | {folder: runs[folder].model_copy(update={"predict": predict})}
    with pytest.raises(ArtifactError, match="wide: val must not be in the gallery"):
        run_joint(asking_itself, embedded / "x", rule="concat")
    rewrite(embedded / "runs/wide/embeddings/plain/test", "ids.json", lambda content: content, weights_digest="other")
    with pytest.raises(ArtifactError, match="wide: test images must be embedded by the network"):
        run_joint(runs, embedded / "x", rule="concat")


def test_nothing_is_fitted_on_images_that_a_run_was_trained_on(pair, drawn, productrec):
    recipe = write_recipe(pair, drawn, "all", data={"source": str(drawn), "table": "data/tiny"})
    settings = ["train.epochs=1", "train.splits=[train,val]", "train.force_splits=true"]
    trained = productrec("train", recipe, *TINY, *settings)
    assert trained.code == 0, trained.err
    done = productrec("ensemble", "runs/tiny", "runs/all", "--joint", "product", "--out", "runs/x")
    assert done.code == 0, done.err
    assert "joint space by default" in done.err and "joint: vote" not in done.out
    saved = load_joint(pair / "runs/x/joint")
    assert saved.weights == {"tiny": 0.5, "all": 0.5} and saved.chance is None and not saved.scores
    assert load_probabilities(pair / "runs/x/predictions/joint/test").made["validation"] is None
