"""productrec as a library: the 15 lines of its page, played as they stand; light until a function is asked for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import productrec as library
from productrec.demo.drawn.competition import draw_competition
from productrec.errors import ArtifactError, RecipeError
from tests.integration.conftest import TINY, write_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/library.md").read_text()


def find_block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return block


def test_the_fifteen_lines_play_as_they_stand(place):
    draw_competition(place / "competition", skus=8, train_images=6, val_images=3, test_images=3, seed=1)
    (place / "mine.yaml").write_text(find_block("yaml"))
    script = find_block("python")
    assert len(script.splitlines()) <= 15
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "data/competition {'train': 48, 'val': 24, 'test': 24}"
    assert lines[-1] == "submissions/mine-zoom.csv"
    assert any(re.fullmatch(r"runs/mine [01]\.\d+", line) for line in lines)
    assert any(re.fullmatch(r"tta [01]\.\d+ \(0\.\d+, [01]\.\d+\)", line) for line in lines), done.stdout
    assert (place / "submissions/mine-zoom.csv").read_text().count("\n") == 25
    assert "Next: " not in done.stderr  # that is the command line's


def test_importing_it_is_light_and_all_its_functions_are_described():
    check = (
        "import sys, productrec\n"
        "assert not {'torch', 'numpy', 'pandas', 'pydantic', 'productrec.library'} & set(sys.modules)\n"
        "assert set(productrec.__all__) < set(dir(productrec))\n"
        "assert all(getattr(productrec, name).__doc__ for name in productrec.__all__)\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    for name in library.__all__:
        assert f"`{name}(" in PAGE, name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = library.trian


def test_runs_are_named_by_folder_or_by_recipe(finished):
    recipe = library.load_recipe("tiny.yaml", *TINY)
    (trained,) = library.train(recipe, resume=True)
    assert trained.skipped and trained.folder == Path("runs/tiny")
    by_recipe, by_folder = library.predict(recipe), library.predict("runs/tiny")
    assert by_recipe == by_folder and by_recipe.folder == Path("runs/tiny/predictions/plain/test")
    assert library.submit(recipe) == library.submit("runs/tiny") == Path("submissions/tiny.csv")
    assert library.submit("runs/tiny", out="x.csv").read_bytes() == Path("submissions/tiny.csv").read_bytes()
    assert library.load_recipe("runs/tiny").train.epochs == 2


def test_it_refuses_as_the_commands_do(finished, drawn):
    with pytest.raises(RecipeError, match="train.epoch: no such setting|epoch"):
        library.load_recipe("tiny.yaml", "train.epoch=1")
    with pytest.raises(RecipeError, match="has no effect on ingest"):
        library.ingest(drawn, "train.epochs=1", out="data/tiny")
    with pytest.raises(RecipeError, match="must be a recipe's YAML file to train"):
        library.train("runs/tiny")
    with pytest.raises(RecipeError, match="no such run"):
        library.predict("runs/nothing")
    with pytest.raises(ArtifactError, match="holds no predictions"):
        library.submit(write_recipe(finished, drawn, "untrained"))


def test_it_can_be_silent():
    check = "import productrec\nproductrec.silence()\nfrom productrec.console import say\nsay('loud')\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
