import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.build import build_metric_loss
from productrec.losses.catalogue import describe_losses, list_losses
from productrec.losses.engine.mining import HardestMining, MultiSimilarityMining, SemiHardMining
from productrec.losses.engine.module import MetricModule
from productrec.losses.engine.pair_module import PairModule
from productrec.recipe import build_recipe
from productrec.recipe.loss import LossSettings

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "losses.md"


def build(name: str, *, allow_code: bool = True, mining: object = "auto", **settings: object) -> MetricModule:
    chosen = LossSettings(metric={"name": name, **settings}, mining=mining)
    assert chosen.metric is not None
    return build_metric_loss(chosen.metric, mining=chosen.mining, embedding_dim=8, class_count=5, allow_code=allow_code)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of the documentation's example."""
    example = DOCUMENT.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_losses.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    return "my_losses"


@pytest.mark.parametrize("name", list_losses())
def test_every_loss_is_built_from_a_recipe_and_learns(name: str) -> None:
    recipe = build_recipe({"name": "any", "loss": {"metric": name}})
    assert recipe.loss.metric == list_losses()[name]()
    module = build(name)
    embeddings = functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    embeddings.requires_grad_()
    module(embeddings, torch.arange(20) % 5).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0


def test_every_loss_says_what_it_is() -> None:
    described = {loss.name: loss for loss in describe_losses()}
    assert described.keys() == list_losses().keys() and len(described) > 20
    assert all(loss.formula and loss.source for loss in described.values())
    assert described["circle"].settings == "margin 0.4, gamma 80.0"


def test_the_recipe_knows_the_losses_without_torch() -> None:
    code = "import sys, productrec.recipe as r; list(r.list_settings()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loss_stands_in_a_file_of_its_name_alone(tmp_path: Path) -> None:
    """A newcomer adds one file, and every list knows the loss."""
    root = Path(__file__).resolve().parents[3]
    shutil.copytree(root / "productrec", tmp_path / "productrec", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "productrec" / "losses" / "pair" / "plain_hinge.py").write_text(
        "from productrec.losses.declared import PairLoss\n"
        "from productrec.settings.fields import setting\n\n\n"
        "class PlainHinge(PairLoss):\n"
        "    formula = 'sum_n [n - margin]+'\n"
        "    source = 'nobody'\n"
        "    margin: float = setting(0.3, 'where negatives are pushed to')\n\n"
        "    def compute(self, positives, negatives):\n"
        "        return (negatives - self.margin).clamp(min=0).sum(dim=1)\n"
    )
    code = (
        "from productrec.recipe import build_recipe, list_settings\n"
        "from productrec.losses.build import build_metric_loss\n"
        "import torch\n"
        "chosen = build_recipe({'name': 'a', 'loss': {'metric': {'name': 'plain_hinge', 'margin': 0.0}}}).loss.metric\n"
        "assert any(info.meaning.startswith('plain_hinge: where') for info in list_settings())\n"
        "module = build_metric_loss(chosen, embedding_dim=2, class_count=2)\n"
        "rows = torch.eye(2).repeat(2, 1).requires_grad_()\n"
        "module(rows + 0.1, torch.tensor([0, 1, 0, 1])).backward()\n"
        "assert rows.grad.abs().sum() > 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})


def test_mining_is_the_papers_for_multi_similarity_alone_unless_it_is_named() -> None:
    built = {name: build(name) for name in ("multi_similarity", "circle")}
    assert isinstance(built["multi_similarity"], PairModule)
    assert built["multi_similarity"].mining == MultiSimilarityMining(epsilon=0.1)
    assert isinstance(built["circle"], PairModule)
    assert built["circle"].mining is None
    named = build("triplet", mining="hardest")
    assert isinstance(named, PairModule)
    assert named.mining == HardestMining()


def test_semi_hard_mining_has_a_margin_of_its_own() -> None:
    for mining, margin in (("semi_hard", 0.1), ({"name": "semi_hard", "margin": 0.3}, 0.3)):
        built = build("lifted_structure", mining=mining, margin=1.0)
        assert isinstance(built, PairModule)
        assert built.mining == SemiHardMining(margin=margin)


def test_the_documented_loss_of_ones_own_works(own_module: str) -> None:
    recipe = build_recipe({"name": "own", "loss": {"metric": {"name": f"{own_module}:Squared", "strength": 2.0}}})
    assert recipe.uses_pk_sampler
    assert build_recipe(recipe.model_dump()) == recipe
    module = build(f"{own_module}:Squared", strength=2.0)
    assert "strength=2.0" in repr(module)
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaf = functional.normalize(rows, dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda one: module(one, torch.arange(9) % 3), (leaf,))


def test_code_from_outside_is_neither_imported_nor_called_unasked(own_module: str) -> None:
    with pytest.raises(RecipeError, match=r"my_losses:Squared.*--allow-code"):
        build(f"{own_module}:Squared", allow_code=False)
    assert own_module not in sys.modules
    built = build("productrec.losses.pair.circle:Circle", allow_code=False, margin=0.3)
    assert "margin=0.3" in repr(built)
    for path in ("subprocess:call", "subprocess:Popen", "productrec.losses.own_loss:inspect"):
        with pytest.raises(RecipeError, match="which was not called"):
            build(path)


def test_what_cannot_be_built_is_said(own_module: str) -> None:
    for name, message in (
        (f"{own_module}:Cubed", "my_losses:Cubed cannot be imported"),
        ("nowhere:Squared", "nowhere:Squared cannot be imported"),
        (f"{own_module}:dataclass", "must be a class with a method compute"),
    ):
        with pytest.raises(RecipeError, match=message):
            build(name)
    with pytest.raises(RecipeError, match="its settings do not fit"):
        build(f"{own_module}:Squared", weakness=1.0)
    with pytest.raises(RecipeError, match=r"loss.mining: must be auto or none for soft_triple"):
        build("soft_triple", mining="hardest")
