"""Text towers: unit embeddings, no effect of what fills rows up, and titles embedded in any order."""

import numpy as np
import pytest
import torch

from productrec.errors import DataError, RecipeError, TrainingError
from productrec.models.text.embed_titles import embed_titles
from productrec.models.text.tokens import train_tokeniser
from productrec.models.text.tower import build_text_tower, build_tokeniser

TITLES = ["Nike Men Black Shorts", "Nike Women Shorts", "Puma", "Hafermilch Barista, ungesüßt 1 l", "Puma"]
CPU = torch.device("cpu")


def build(name, tokeniser, **changes):
    torch.manual_seed(0)
    settings = {"embedding_dim": 8, "width": 16, "layers": 2, "heads": 2} | changes
    return build_text_tower(name, vocabulary_size=tokeniser.vocabulary_size, **settings).eval()


@pytest.fixture(scope="module")
def tokeniser():
    return train_tokeniser(TITLES, 300)


@pytest.mark.parametrize("name", ["gru", "transformer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_are_float32_of_unit_norm(name, dtype, tokeniser):
    tower = build(name, tokeniser)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        embeddings = tower(*tokeniser.encode(TITLES, 64))
    assert embeddings.shape == (5, 8) and embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["gru", "transformer"])
@pytest.mark.parametrize("is_trained", [False, True])
def test_what_fills_a_row_up_changes_nothing(name, is_trained, tokeniser):
    tower = build(name, tokeniser).train(is_trained)
    tokens = tokeniser.encode(TITLES, 64)
    together = tower(*tokens)
    for row in range(len(TITLES)):
        torch.testing.assert_close(tower(*tokens.take(torch.tensor([row])))[0], together[row], atol=1e-6, rtol=0)
    filled = tokens.ids.clone()
    filled[torch.arange(filled.shape[1]) >= tokens.lengths[:, None]] = 99
    torch.testing.assert_close(tower(filled, tokens.lengths), together, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_the_order_of_subwords_counts_and_every_parameter_learns(name, tokeniser):
    tower = build(name, tokeniser).train()
    ids = torch.tensor([[70, 71, 72], [72, 71, 70]])
    embeddings = tower(ids, torch.tensor([3, 3]))
    assert (embeddings[0] - embeddings[1]).norm() > 1e-4
    embeddings[0, 0].backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in tower.parameters())
    assert list(tower.iterate_backbone_parameters()) == []
    assert {name for name, _ in tower.iterate_head_parameters()} == {name for name, _ in tower.named_parameters()}


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_titles_are_embedded_in_their_order_whatever_the_batches(name, tokeniser):
    tower = build(name, tokeniser, dropout=0.5).train()
    embeddings = embed_titles(tower, tokeniser, TITLES, batch_size=2, device=CPU, dtype=torch.float32)
    assert tower.training
    with torch.no_grad():
        expected = tower.eval()(*tokeniser.encode(TITLES, 64)).numpy()
    assert embeddings.shape == (5, 8) and embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    assert (embeddings[2] == embeddings[4]).all()
    assert embed_titles(tower, tokeniser, [], batch_size=2, device=CPU, dtype=torch.float32).shape == (0, 8)
    with pytest.raises(DataError, match="not blank"):
        embed_titles(tower, tokeniser, [" "], batch_size=2, device=CPU, dtype=torch.float32)


def test_titles_beyond_the_most_are_cut_by_callers_and_refused_by_the_tower(tokeniser):
    tower = build("transformer", tokeniser, max_tokens=4)
    assert embed_titles(tower, tokeniser, TITLES, batch_size=9, device=CPU, dtype=torch.float32).shape == (5, 8)
    with pytest.raises(TrainingError, match="at most 4 subwords; got 5"):
        tower(*tokeniser.encode(TITLES, 5))


def test_settings_that_do_not_go_together_are_refused(tokeniser):
    with pytest.raises(RecipeError, match="freeze must be false for gru"):
        build("gru", tokeniser, freeze=True)
    with pytest.raises(RecipeError, match="heads must divide width; got 3 and 16"):
        build("transformer", tokeniser, heads=3)


def test_a_light_tower_learns_its_vocabulary_from_the_titles(tokeniser):
    assert build_tokeniser("gru", TITLES, 300).to_json() == tokeniser.to_json()
