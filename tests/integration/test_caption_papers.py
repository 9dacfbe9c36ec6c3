"""Recipes for captions, by the commands of their own headers, on drawn folders in Karpathy's layout."""

import json
from pathlib import Path

import pytest

from tests.integration.test_papers import SMALL, draw, papers, read_commands

__all__ = ["papers"]  # a fixture

TEXT = ["model.text.width=16", "model.text.vocabulary=300"]
SPLITS = {"train": 12, "restval": 4, "val": 4, "test": 5}
FOLDERS = {"coco_captions": "val2014", "flickr30k": "flickr30k-images"}
NAMES = {"coco_captions": "dataset_coco.json", "flickr30k": "dataset_flickr30k.json"}


def draw_captions(root: Path, name: str) -> None:
    """Images with five captions each, in the layout of Karpathy's files."""
    entries, label = [], 0
    for split, count in SPLITS.items():
        for _ in range(count):
            label += 1
            filename = f"{label:06}.jpg"
            draw(root / name / FOLDERS[name] / filename, label, 0)
            captions = [f"a picture of thing {label}, seen from side {side}" for side in range(5)]
            entry = {"filename": filename, "split": split, "sentences": [{"raw": caption} for caption in captions]}
            if name == "coco_captions":
                entry |= {"filepath": FOLDERS[name], "cocoid": label}
            entries.append(entry)
    (root / name / NAMES[name]).write_text(json.dumps({"images": entries}))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_captions_recipe_runs_from_the_published_folder_to_the_figures(name, papers, productrec):
    draw_captions(papers / "data" / "source", name)
    ingest, train, evaluate = read_commands(name)
    ingested = productrec(*ingest)
    assert ingested.code == 0, ingested.err
    trained = productrec(*train, *SMALL, *TEXT)
    assert trained.code == 0, trained.err
    run = Path("runs") / name
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all({"pair_recall", "train_titles_pairs"} <= epoch.keys() for epoch in epochs)

    evaluated = productrec(*evaluate, "--bootstrap", "20")
    assert evaluated.code == 0, evaluated.err
    kept = json.loads((run / "evaluations/titles/test/evaluation.json").read_text())
    assert (kept["images"], kept["titles"]) == (SPLITS["test"], 5 * SPLITS["test"])
    for direction in ("image_to_title", "title_to_image"):
        assert 0 <= kept["full"][f"{direction}_recall@1"] <= kept["full"][f"{direction}_recall@5"] <= 1
        assert kept["intervals"][f"{direction}_recall@1"]
