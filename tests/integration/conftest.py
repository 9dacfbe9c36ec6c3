"""A small drawn competition, a trained run of it, and the command line as a user types it, shared by the tests here."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from PIL import Image

from productrec.cli import main
from productrec.cli.main import app
from productrec.demo.drawn.competition import draw_competition

TINY = [
    "model.backbone=mobilenetv3_small_050",
    "model.pretrained=false",
    "model.embedding_dim=16",
    "train.side_px=32",
    "train.batch_size=16",
    "train.epochs=2",
    "train.workers=0",
    "train.precision=float32",
    "device=cpu",
]


class Outcome:
    """What a command did: its exit code and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def productrec(capfd, monkeypatch):
    """Run the command line in this process: ``productrec("ingest", folder)`` gives an `Outcome`."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0) if not isinstance(end.code, str) else 1
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


def check_command(words: list[str]) -> None:
    """The command exists, and it takes these options and arguments; it is not played."""
    assert words[0] == "productrec", words
    command, rest = typer.main.get_command(app), words[1:]
    context = command.make_context("productrec", list(rest), obj=rest)
    while rest and hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
        rest = context._protected_args + context.args if hasattr(context, "_protected_args") else context.args


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition of 6 SKUs; never written to."""
    folder = tmp_path_factory.mktemp("drawn") / "competition"
    draw_competition(folder, skus=6, train_images=8, val_images=3, test_images=3, max_side_px=48, seed=3)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(folder: Path, source: Path, name: str = "tiny", **sections: object) -> Path:
    """A recipe file; the settings of `TINY` are given on the command line."""
    path = folder / f"{name}.yaml"
    data = {"source": str(source), "table": f"data/{name}"}
    recipe = {"name": name, "competition": "imaterialist2019", "data": data} | sections
    path.write_text(json.dumps(recipe))
    return path


def run_in(folder: Path, *arguments: object) -> None:
    """A command of productrec in a folder; it must succeed."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.chdir(folder)
        main([str(argument) for argument in arguments])
    assert end.value.code in (0, None)


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a table, a finished run ``runs/tiny`` and its predictions; copy it before changing it."""
    folder = tmp_path_factory.mktemp("trained")
    run_in(folder, "run", write_recipe(folder, drawn), *TINY)
    return folder


@pytest.fixture
def finished(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `trained` to work in."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def draw(root: Path, *names: str) -> Path:
    """Images of one colour each, no two alike."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * (number % 6), 7 * number % 256, 90)).save(root / name, quality=95)
    return root


@pytest.fixture
def shop(place):
    """Three classes of class folders with test images whose folders are labels."""
    names = [f"{split}/{name}/{n}.jpg" for split in ("train", "test") for name in ("cola", "jam", "tea") for n in "123"]
    return draw(place / "shop", *names)


@pytest.fixture(scope="session")
def left(trained, tmp_path_factory):
    """A copy of `trained` whose run was exported; copy it before changing it."""
    folder = tmp_path_factory.mktemp("left") / "work"
    shutil.copytree(trained, folder)
    run_in(folder, "export", "runs/tiny")
    return folder


@pytest.fixture
def copy(left, tmp_path, monkeypatch):
    """A copy of `left` to work in."""
    folder = tmp_path / "copy"
    shutil.copytree(left, folder)
    monkeypatch.chdir(folder)
    return folder
