"""The report of runs that answer no classes, and of folds without validation images: what applies, and no more."""

import json
import re
import shutil

from tests.integration.conftest import TINY, write_recipe
from tests.integration.test_matches import PLAY, draw_shopee
from tests.integration.test_report import read_headings
from tests.integration.test_titles import ALONE, TEXT, draw_shop

NOT_OF_CLASSES = "Answers, mistakes and results by class: they do not apply, since "


def report(productrec, folder, target):
    outcome = productrec("report", target)
    assert outcome.code == 0, outcome.err
    return (folder / target / "report.html").read_text(encoding="utf-8"), outcome.err


def read_cells(page: str, section: str) -> list[str]:
    part = page[page.index(f'id="{section}-title"') :]
    return re.findall(r"<t[dh][^>]*>([^<]*)", part[: part.index("</section>")])


def test_matches_are_shown_by_their_threshold_and_score(place, productrec):
    (place / "shopee").mkdir()
    draw_shopee(place / "shopee")
    data = {"source": "shopee", "hold_out": "classes", "validation_fraction": 0.4}
    (place / "tiny.yaml").write_text(json.dumps({"name": "tiny", "competition": "shopee2021", "data": data}))
    done = productrec("run", "tiny.yaml", *PLAY, "train.epochs=1")
    assert done.code == 0, done.err
    page, told = report(productrec, place, "runs/tiny")
    assert f"not shown: {NOT_OF_CLASSES}the competition asks for matches, not for classes." in told
    assert "productrec predict" not in told
    fitted = json.loads((place / "runs/tiny/matches/plain/test/fitted.json").read_text())
    cells = read_cells(page, "matches")
    assert f"{fitted['rule']['threshold']:.4f}" in cells and f"{100 * fitted['f1']:.2f}" in cells
    assert not read_headings(page) & {"Scores", "Mistakes", "Hard and easy classes", "All answers"}
    assert {"Matches", "Training curves"} <= read_headings(page)


def test_titles_are_shown_by_their_figures(place, productrec):
    recipe = write_recipe(place, draw_shop(place / "shop", labelled=False), competition="plain")
    done = productrec("run", recipe, *TINY, *TEXT, *ALONE)
    assert done.code == 0, done.err
    page, told = report(productrec, place, "runs/tiny")
    assert f"not shown: {NOT_OF_CLASSES}the run learned from titles alone and knows no classes." in told
    assert "productrec predict" not in told
    full = json.loads((place / "runs/tiny/evaluations/titles/val/evaluation.json").read_text())["full"]
    cells = read_cells(page, "titles")
    assert f"{100 * full['image_to_title_recall@1']:.2f}" in cells
    assert (
        cells[cells.index("image to title median rank (not in %)") + 1] == f"{full['image_to_title_median_rank']:.3f}"
    )


def test_retrieval_is_shown_as_it_was_evaluated(finished, productrec):
    assert productrec("evaluate", "runs/tiny").code == 0
    shutil.rmtree(finished / "runs/tiny/predictions")
    recipe = finished / "runs/tiny/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("imaterialist2019", "stanford_online_products"))
    page, told = report(productrec, finished, "runs/tiny")
    assert f"not shown: {NOT_OF_CLASSES}the competition asks for retrieval, not for classes." in told
    evaluation = finished / "runs/tiny/evaluations/plain/val"
    figures = json.loads((evaluation / "evaluation.json").read_text())["figures"]
    cells = read_cells(page, "retrieval")
    assert cells[cells.index("recall@1") + 1] == f"{100 * figures['recall@1']:.2f}"
    manifest = json.loads((evaluation / "manifest.json").read_text())
    manifest["inputs"]["table"] = "0" * 64
    (evaluation / "manifest.json").write_text(json.dumps(manifest))
    page, told = report(productrec, finished, "runs/tiny")
    assert "Retrieval" not in read_headings(page)
    assert "Figures of runs/tiny/evaluations/plain/val: they are of an earlier state of the table." in told


def test_folds_without_answers_to_validation_images_are_shown_out_of_fold(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny", "--folds", "2").code == 0
    done = productrec("train", recipe, *TINY, "train.epochs=1", "--folds", "2", "--jobs", "1")
    assert done.code == 0, done.err
    page, told = report(productrec, place, "runs/tiny.folds")
    assert " of 48 training images, each out of fold, are named right" in page
    assert {"Scores", "Mistakes", "Hard and easy classes", "All answers"} <= read_headings(page)
    assert "answers out of fold" in read_cells(page, "scores")
    assert "Nearest products of mistakes: each image was answered by the run that left its fold out." in told
    assert "no trained run" not in told and "there are no predictions" not in told
