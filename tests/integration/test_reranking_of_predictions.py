"""Re-ranking in what a run answers: tried by a fit, kept where it gains, and the same for a split and for one photo."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import productrec as library
from productrec.assembly import answering, fused_figures
from productrec.assembly.evidence import get_labels, load_evidence, number_categories
from productrec.class_order import ClassOrder
from productrec.data.table import load_table
from productrec.recipe import load_recipe
from productrec.recognition import choosing_reranking, open_set
from productrec.recognition.classifier import Evidence, compute_parts
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.probabilities import load_probabilities
from productrec.recognition.prototypes import build_prototypes, compare_prototypes
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.retrieval.reranking.catalogue import list_rerankings
from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.first_search import search_first
from productrec.retrieval.reranking.ready import ReadyReranking
from productrec.stages import classify
from productrec.training.run.checkpoint import load_checkpoint
from tests.integration.conftest import TINY, write_recipe
from tests.integration.test_grow import later, shelf  # noqa: F401  products that come after the training
from tests.integration.test_photos import read_rows

METHODS = [name for name, method in list_rerankings().items() if not method.depends_on_queries]


@pytest.fixture
def keep(monkeypatch):
    """The best of the methods that are tried is kept, whatever it gains."""
    for name in ("KEPT_FROM", "INSTEAD_FROM"):
        monkeypatch.setattr(choosing_reranking, name, 0.0)


def load_evidence_of(run, table, saved):
    ids = sorted(load_checkpoint(run / "checkpoints/best").match_classes(table))
    return load_evidence(run, table, "plain", "val", ids, saved.prototypes, saved.categories).take(slice(None))


def predict(productrec, run, *methods):
    done = productrec("predict", run, f"predict.reranking=[{','.join(methods)}]")
    assert done.code == 0, done.err
    return done


@pytest.mark.usefixtures("keep")
@pytest.mark.parametrize("method", METHODS)
def test_a_photo_is_answered_alone_as_it_is_among_others_and_in_the_prediction(finished, drawn, productrec, method):
    plain = load_probabilities(finished / "runs/tiny/predictions/plain/test")
    done = predict(productrec, "runs/tiny", method)
    assert "re-ranked" in done.out and f"re-ranked by {method}" in done.err
    known = load_probabilities(finished / "runs/tiny/predictions/plain/test")
    assert known.made["part"] == "reranked" and known.ids == plain.ids
    np.testing.assert_allclose(known.values.sum(axis=1), 1.0, atol=1e-5)
    run = library.load("runs/tiny")
    assert f"re-ranked by {method}" in run.way
    files = [str(drawn / "images" / image_id) for image_id in known.ids[:6]]
    together = run.recognise(files)
    alone = [run.recognise([file])[0] for file in files]
    for row, one, among in zip(known.values, alone, together, strict=False):
        assert one.key == among.key == known.keys[int(row.argmax())]
        assert one.confidence == pytest.approx(float(row.max()), abs=2e-4)
        assert among.confidence == pytest.approx(one.confidence, abs=2e-4)
        assert 0 < one.nearest[0].similarity <= 1.0001  # of the first search, whatever the method's own are


@pytest.mark.usefixtures("keep")
def test_where_asking_forgets_the_re_ranking_only_whether_a_product_is_known_stays(
    finished, drawn, productrec, monkeypatch
):
    monkeypatch.setattr(open_set, "_LEAST_UNKNOWN", 1)
    predict(productrec, "runs/tiny", "diffusion")
    known = load_probabilities(finished / "runs/tiny/predictions/plain/test")
    before = library.load("runs/tiny").recognise([str(drawn / "images" / image_id) for image_id in known.ids])
    monkeypatch.setattr(answering, "_prepare_living", lambda *args: None)
    answers = library.load("runs/tiny").recognise([str(drawn / "images" / image_id) for image_id in known.ids])
    away = np.abs(known.values.max(axis=1) - [one.confidence for one in answers])
    assert away.max() > 1e-3
    believed = [one.is_known for one in answers]
    assert believed == [one.is_known for one in before] and None not in believed


@pytest.mark.usefixtures("keep")
def test_a_split_is_re_ranked_block_by_block(finished, productrec, monkeypatch):
    predict(productrec, "runs/tiny", "alpha_query_expansion")
    whole = load_probabilities(finished / "runs/tiny/predictions/plain/test").values.copy()
    shutil.rmtree(finished / "runs/tiny/predictions/plain")
    asked: list[int] = []
    rerank = ReadyReranking.rerank
    monkeypatch.setattr(classify, "_BLOCK_ROWS", 5)
    monkeypatch.setattr(
        ReadyReranking,
        "rerank",
        lambda ready, queries, lists: (asked.append(len(queries)), rerank(ready, queries, lists))[1],
    )
    predict(productrec, "runs/tiny", "alpha_query_expansion")
    assert max(asked) == 5 and sum(asked) >= len(whole)
    again = load_probabilities(finished / "runs/tiny/predictions/plain/test").values
    np.testing.assert_allclose(again, whole, atol=1e-5)


@pytest.mark.usefixtures("keep")
def test_every_method_that_was_tried_is_told_and_another_choice_is_fitted_anew(finished, productrec):
    done = predict(productrec, "runs/tiny", "whitening", "{name: label_aware, weight: 2}")
    fitted = json.loads((finished / "runs/tiny/classifier/plain/classifier.json").read_text())
    steps = {step["how"]: step for step in fitted["fitted"]["steps"] if step["step"] == "reranked"}
    assert list(steps) == ["whitening", "label_aware(weight=2.0)"]
    assert sum(step["kept"] for step in steps.values()) == 1
    (out,) = (name for name, step in steps.items() if not step["kept"])
    assert f"{out} ({steps[out]['chance']:.0%})" in done.err
    assert fitted["fitted"]["scores"]["reranked"]["images"] == 18
    none = predict(productrec, "runs/tiny", "")
    assert "re-ranked" not in none.out
    assert json.loads((finished / "runs/tiny/classifier/plain/classifier.json").read_text())["reranked"] is None
    assert load_probabilities(finished / "runs/tiny/predictions/plain/test").made["part"] == "fused"


@pytest.mark.usefixtures("keep")
def test_what_its_confidence_is_worth_is_told_of_the_re_ranked_answer(finished, productrec, monkeypatch):
    predict(productrec, "runs/tiny", "whitening")
    run, recipe = finished / "runs/tiny", load_recipe(finished / "runs/tiny/recipe.yaml")
    saved = load_classifier(run / "classifier/plain")
    assert saved.reranked is not None
    # As where it was fitted on other images than those that it is judged on.
    monkeypatch.setattr(fused_figures, "load_classifier", lambda folder: replace(saved, fitted={}))
    table = load_table(recipe.table)
    judged = fused_figures.judge_fused(run, recipe, table, split="val", views="plain", draws=0)
    written = load_probabilities(run / "predictions/plain/val")
    right = written.values.argmax(axis=1) == ClassOrder(written.class_ids).positions_of(get_labels(table, written.ids))
    assert judged.reliability.accuracy == pytest.approx(right.mean())
    fused = compute_parts(load_evidence_of(run, table, saved), saved.classifier).fused
    away, before = (
        abs(judged.reliability.confidence - values.max(axis=1).mean()) for values in (written.values, fused)
    )
    assert away < 1e-6  # of the answer itself; of a network that has hardly learned all others lie near too
    assert before > 3 * away


def test_what_gains_nothing_is_not_kept(finished, productrec, monkeypatch):
    monkeypatch.setattr(choosing_reranking, "KEPT_FROM", 1.1)
    before = load_probabilities(finished / "runs/tiny/predictions/plain/test").values
    done = predict(productrec, "runs/tiny", "whitening")
    assert "whitening (" in done.err and "re-ranked" not in done.out
    np.testing.assert_array_equal(load_probabilities(finished / "runs/tiny/predictions/plain/test").values, before)


@pytest.mark.usefixtures("keep")
def test_parts_are_kept_with_the_answer_before_the_re_ranking(finished, productrec):
    before = load_probabilities(finished / "runs/tiny/predictions/plain/test").values
    done = productrec("predict", "runs/tiny", "predict.reranking=whitening", "predict.keep_parts=true")
    assert done.code == 0, done.err
    fused = load_probabilities(finished / "runs/tiny/predictions/plain/parts/fused/test")
    assert fused.made["part"] == "fused"
    np.testing.assert_array_equal(fused.values, before)


@pytest.mark.usefixtures("keep")
@pytest.mark.parametrize("method", ["whitening", "class_bridged"])
def test_products_that_come_and_go_are_re_ranked_too(shelf, productrec, method):  # noqa: F811
    predict(productrec, "runs/tiny", method)
    run = library.load("runs/tiny")
    assert productrec("index", "grow", "runs/tiny", "new").code == 0
    assert productrec("predict", "runs/tiny", "--images", "new", "--out", "own.csv").code == 0
    rows = read_rows(shelf / "own.csv")
    assert len(rows) == 3
    for name, row in rows.items():
        assert name.split("/")[0] in (row["class"], row["next_class"]), row
    photos = [str(path) for path in sorted((shelf / "new").rglob("*.*"))]
    for answer in run.recognise(photos):  # one that stays takes in what was grown
        row = rows[str((shelf / answer.photo).relative_to(shelf / "new"))]
        assert row["class"] == answer.name and float(row["probability"]) == pytest.approx(answer.confidence, abs=2e-4)
    assert productrec("index", "remove", "runs/tiny", "product 0", "1").code == 0
    assert productrec("predict", "runs/tiny", "--images", "asked", "--out", "gone.csv").code == 0
    for row in read_rows(shelf / "gone.csv").values():
        assert not {"product 0", "1"} & {row["class_id"], row["next_class_id"]}
    keys = library.load("runs/tiny").recognise(photos)
    assert productrec("index", "compact", "runs/tiny").code == 0
    for one, other in zip(library.load("runs/tiny").recognise(photos), keys, strict=True):
        assert one.key == other.key and one.confidence == pytest.approx(other.confidence, abs=1e-4)


@pytest.mark.usefixtures("keep")
@pytest.mark.parametrize("method", ["neighbourhood_blending", "class_bridged"])
def test_out_of_fold_each_image_is_re_ranked_among_its_own_runs_images(place, drawn, productrec, method):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2").code == 0
    settings = [*TINY, f"predict.reranking={method}"]
    done = productrec("train", recipe, *settings, "--folds", "2", "--jobs", "1")
    assert done.code == 0, done.err
    assert "re-ranked" in done.out
    beside = place / "runs/tiny.folds/out_of_fold/tiny"
    saved, stored = load_classifier(beside / "classifier/plain"), load_probabilities(beside / "predictions/plain/train")
    assert saved.reranked.method.get_name() == method and stored.made["part"] == "reranked"
    table = load_table(place / "data/tiny")
    order, categories = ClassOrder(stored.class_ids), number_categories(table, stored.class_ids)
    for fold in (0, 1):
        folder = place / f"runs/tiny.folds/fold-{fold}/embeddings/plain"
        queries, rest = load_embedding_set(folder / f"fold-{fold}"), load_embedding_set(folder / f"without-fold-{fold}")
        labels = order.positions_of(get_labels(table, rest.ids))
        first = search_first(queries.embeddings, rest.embeddings, k=saved.reranked.depth, labels=labels)
        chosen = saved.reranked.method
        asked, gallery = chosen.expand(first) if isinstance(chosen, Expansion) else (first.queries, first.gallery)
        lists = chosen.rerank(first)
        near = compare_prototypes(
            asked, build_prototypes(gallery, labels, len(stored.class_ids), categories=categories)
        )
        evidence = Evidence(np.asarray(queries.logits), labels[lists.rows], lists.similarities, near, categories)
        expected = compute_parts(evidence, saved.reranked.classifier).fused
        rows = [stored.ids.index(image_id) for image_id in queries.ids]
        np.testing.assert_allclose(stored.values[rows], expected, atol=1e-4)

    # The recipe's own run answers by it, as far as its recipe asks for re-ranking.
    assert productrec("train", recipe, *settings).code == 0
    assert f"re-ranked by {method}" in predict(productrec, "runs/tiny", method).err
    assert load_classifier(place / "runs/tiny/classifier/plain").reranked == saved.reranked
    assert "re-ranked" not in predict(productrec, "runs/tiny", "").out
    assert load_classifier(place / "runs/tiny/classifier/plain").reranked is None


def test_names_that_cannot_be_are_refused(finished, productrec):
    unknown = productrec("predict", "runs/tiny", "predict.reranking=[whitenning]")
    assert unknown.code == 2 and "predict.reranking: must be one of" in unknown.err and "whitening?" in unknown.err
    together = productrec("predict", "runs/tiny", "predict.reranking=k_reciprocal")
    assert together.code == 2 and "k_reciprocal looks at others too" in together.err
    twice = productrec("predict", "runs/tiny", "predict.reranking=[whitening,{name: whitening, dimensions: null}]")
    assert twice.code == 2 and "whitening twice" in twice.err
    setting = productrec("predict", "runs/tiny", "predict.reranking={name: whitening, dimension: 3}")
    assert setting.code == 2 and "Did you mean 'dimensions'?" in setting.err
