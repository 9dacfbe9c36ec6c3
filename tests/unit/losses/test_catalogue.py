import inspect
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.build import PAIR_LOSSES, PROXY_LOSSES, build_metric_loss, describe_losses
from productrec.losses.engine.mining import HardestMining, MultiSimilarityMining
from productrec.losses.pair.pairwise import PairwiseLoss
from productrec.recipe import build_recipe
from productrec.recipe import loss as known
from productrec.recipe.loss import LossSettings

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "losses.md"


def build(name: str, **settings: object) -> torch.nn.Module | None:
    return build_metric_loss(name, settings, embedding_dim=8, class_count=5, allow_code=True)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of the documentation's example."""
    example = DOCUMENT.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_losses.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    return "my_losses"


def test_recipe_and_catalogue_know_the_same_losses() -> None:
    assert tuple(PAIR_LOSSES) == known.PAIR_LOSSES
    assert (*PAIR_LOSSES, *PROXY_LOSSES) == known.METRIC_LOSSES
    assert tuple(one.name for one in describe_losses()) == known.METRIC_LOSSES


@pytest.mark.parametrize("name", known.METRIC_LOSSES)
def test_a_recipes_settings_are_the_losses_own_with_their_defaults(name: str) -> None:
    entry = (PAIR_LOSSES | PROXY_LOSSES)[name]
    parameters = inspect.signature(entry.build).parameters.values()
    own = {
        one.name: one.default
        for one in parameters
        if one.default is not one.empty and one.name not in ("class_sizes", "mining")
    }
    assert LossSettings(metric=name).get_metric_settings() == own


@pytest.mark.parametrize("name", known.METRIC_LOSSES)
def test_every_loss_is_built_from_a_recipe_and_learns(name: str) -> None:
    module = build(name, **LossSettings(metric=name).get_metric_settings())
    assert module is not None
    embeddings = functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    embeddings.requires_grad_()
    module(embeddings, torch.arange(20) % 5).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0


def test_mining_is_the_papers_for_multi_similarity_alone_unless_it_is_named() -> None:
    found = {name: build(name) for name in ("multi_similarity", "circle")}
    assert isinstance(found["multi_similarity"], PairwiseLoss)
    assert found["multi_similarity"].mining == MultiSimilarityMining(0.1)
    assert isinstance(found["circle"], PairwiseLoss)
    assert found["circle"].mining is None
    named = build_metric_loss("triplet", {}, mining="hardest", embedding_dim=8, class_count=5)
    assert isinstance(named, PairwiseLoss)
    assert named.mining == HardestMining()
    assert build("none") is None


def test_the_documented_loss_of_ones_own_works(own_module: str) -> None:
    recipe = build_recipe({"name": "own", "loss": {"metric": f"{own_module}:Squared", "options": {"strength": 2.0}}})
    assert recipe.uses_pk_sampler
    module = build(recipe.loss.metric, **recipe.loss.get_metric_settings())
    assert module is not None
    assert "strength=2.0" in repr(module)
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaf = functional.normalize(rows, dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda one: module(one, torch.arange(9) % 3), (leaf,))


def test_code_from_outside_is_neither_imported_nor_called_unasked(own_module: str) -> None:
    with pytest.raises(RecipeError, match=r"my_losses:Squared.*--allow-code"):
        build_metric_loss(f"{own_module}:Squared", {}, embedding_dim=8, class_count=5)
    assert own_module not in sys.modules
    built = build_metric_loss("productrec.losses.pair.pairwise:Circle", {"margin": 0.3}, embedding_dim=8, class_count=5)
    assert built is not None and "margin=0.3" in repr(built)
    for path in ("subprocess:call", "subprocess:Popen", "productrec.losses.build:inspect"):
        with pytest.raises(RecipeError, match="which was not called"):
            build(path)


def test_what_cannot_be_built_is_said(own_module: str) -> None:
    for name, message in (
        (f"{own_module}:Cubed", "my_losses:Cubed cannot be imported"),
        ("nowhere:Squared", "nowhere:Squared cannot be imported"),
        (f"{own_module}:dataclass", "must be a class with a method weigh"),
        ("multi", "must be one of multi_similarity"),
    ):
        with pytest.raises(RecipeError, match=message):
            build(name)
    with pytest.raises(RecipeError, match="its settings do not fit"):
        build(f"{own_module}:Squared", weakness=1.0)
    with pytest.raises(RecipeError, match=r"loss.mining: must be auto or none for soft_triple"):
        build_metric_loss("soft_triple", {}, mining="hardest", embedding_dim=8, class_count=5)
