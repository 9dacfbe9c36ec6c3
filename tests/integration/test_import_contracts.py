"""The import contracts hold, and each one notices a violation that is planted on purpose."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PLANTED = [
    ("losses/classification/cross_entropy.py", "from productrec.models import pooling", "Rooms"),
    ("artifacts.py", "from productrec.console import say", "Rooms"),
    ("settings/fields.py", "from productrec.artifacts import write_text", "Rooms"),
    ("training/tricks/average.py", "from productrec.stages import train", "Rooms"),
    ("assembly/network.py", "from productrec.stages import train", "Rooms"),
    ("stages/train.py", "from productrec.pipeline import play", "Rooms"),
    ("pipeline/play.py", "from productrec.sweep import search", "Rooms"),
    ("training/tricks/average.py", "from productrec.training.step import trainer", "Training: a run stands on"),
    ("training/step/trainer.py", "from productrec.training.run import checkpoint", "Training: a run stands on"),
    ("losses/engine/pairs.py", "from productrec.losses.centres import merging", "Losses: building stands on"),
    ("losses/declared.py", "from productrec.losses import catalogue", "Losses: building stands on"),
    ("settings/fields.py", "import torch", "Settings are told without"),
    ("data/sources/formats/csv.py", "from productrec.data.sources import reading", "A format knows nothing"),
    ("training/tricks/average.py", "from productrec.retrieval import index", "Training sees no retrieval"),
    ("recognition/vote.py", "from productrec.losses.engine import batch", "Recognition stands on"),
    ("competitions/writer.py", "from productrec.retrieval import index", "Competitions stand on"),
    ("ensembling/blend.py", "from productrec.models import pooling", "Ensembling stands on"),
    ("recognition/vote.py", "from productrec.ensembling import blend", "Rooms"),
    ("metrics/retrieval.py", "from productrec.recipe import Recipe", "Only assembly, stages, conductors"),
    ("demo/drawn/scene.py", "from productrec.recipe import Recipe", "Only assembly, stages, conductors"),
    ("stages/submit.py", "from productrec.stages import embed", "Stages meet only on disk"),
    ("stages/look.py", "from productrec.stages import ingest", "Stages meet only on disk"),
    ("models/pooling.py", "import timm", "have their own modules"),
    ("competitions/upload.py", "import kaggle", "have their own modules"),
    ("models/export.py", "import onnx", "have their own modules"),
    ("stages/export.py", "import onnxruntime", "have their own modules"),
    ("serving/forms.py", "import aiohttp", "have their own modules"),
    ("pipeline/select.py", "from productrec.serving import limits", "Rooms"),
    ("exported.py", "from productrec.recipe import Recipe", "Only assembly, stages, conductors"),
    ("library.py", "from productrec.cli import options", "Rooms"),
    ("pipeline/play.py", "from productrec.library import ingest", "Rooms"),
]


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder), "PATH": ""}
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "productrec", tmp_path / "productrec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def violated(tmp_path_factory) -> str:
    """What is said of a house with every violation in it."""
    folder = tmp_path_factory.mktemp("violated")
    shutil.copytree(ROOT / "productrec", folder / "productrec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for module, line, _ in PLANTED:
        path = folder / "productrec" / module
        path.write_text(path.read_text() + f"\n{line}\n")
    done = lint(folder)
    assert done.returncode != 0
    return " ".join(done.stdout.split())  # long lines are broken


@pytest.mark.parametrize(("module", "line", "contract"), PLANTED)
def test_a_planted_violation_is_noticed(violated, module, line, contract):
    """By its contract's own section, with the file it stands in."""
    sections = violated.partition("Broken contracts")[2].split(" --------")
    titled = {title.rpartition("  ")[2]: body for title, body in itertools.pairwise(sections)}
    importer = f"productrec.{module.removesuffix('.py').replace('/', '.')}"
    parent, *_ = line.removeprefix("from ").partition(" import ")
    imported = line.removeprefix("import ") if line.startswith("import") else parent
    assert any(contract in title and f"{importer} -> {imported}" in body for title, body in titled.items()), violated


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom productrec.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'faiss', 'albumentations', 'pandas', 'cv2', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_submitting_takes_no_torch():
    """It was 9 s and a gigabyte more, for a submission of 90,834 rows."""
    code = (
        "import sys\nfrom productrec.cli import main\n"
        "try: main(['submit', 'runs/nowhere/at/all.csv'])\nexcept SystemExit: pass\n"
        "import productrec.pipeline.submit\n"
        "heavy = {'torch', 'timm', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
