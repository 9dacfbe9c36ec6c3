"""The adversary: its own gradient goes down, that of the towers is turned round."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError
from productrec.losses.cross_modal.adversary import ModalityDiscriminator


def draw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shift = torch.tensor([1.5, 0, 0, 0])
    images = functional.normalize(torch.randn(40, 4, generator=generator) + shift, dim=1)
    return images, functional.normalize(torch.randn(30, 4, generator=generator) - shift, dim=1)


@pytest.mark.parametrize("reversal", [0.0, 0.3, 2.0])
def test_the_towers_gradient_is_reversed_and_scaled_and_the_discriminators_is_not(reversal: float) -> None:
    images, titles = (rows.requires_grad_() for rows in draw())
    torch.manual_seed(0)
    adversary = ModalityDiscriminator(4, hidden=8, reversal=reversal)
    parameters = list(adversary.parameters())
    found = torch.autograd.grad(adversary(images, titles), [images, titles, *parameters])
    logits = adversary.layers(torch.cat([images, titles]))[:, 0]
    plain = (functional.softplus(-logits[:40]).mean() + functional.softplus(logits[40:]).mean()) / 2
    torch.testing.assert_close(adversary(images, titles), plain)
    expected = torch.autograd.grad(plain, [images, titles, *parameters])
    for number, (mine, other) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(mine, (-reversal if number < 2 else 1.0) * other)


def test_a_discriminator_learns_and_towers_that_follow_it_hide() -> None:
    for reversal in (0.0, 30.0):
        torch.manual_seed(0)
        images, titles = (rows.clone().requires_grad_() for rows in draw())
        adversary = ModalityDiscriminator(4, hidden=16, reversal=reversal)
        optimiser = torch.optim.SGD([*adversary.parameters(), images, titles], lr=0.3)
        for _ in range(300):
            optimiser.zero_grad()
            loss = adversary(functional.normalize(images, dim=1), functional.normalize(titles, dim=1))
            loss.backward()
            optimiser.step()
        if reversal == 0:
            assert loss < 0.2
        else:
            assert loss.item() == pytest.approx(math.log(2), abs=0.1)


def test_modalities_weigh_the_same_whatever_their_rows() -> None:
    images, titles = draw()
    adversary = ModalityDiscriminator(4)
    torch.testing.assert_close(adversary(images, titles), adversary(images.repeat(3, 1), titles))


def test_half_precision_embeddings_are_taken() -> None:
    images, titles = (rows.half().requires_grad_() for rows in draw())
    loss = ModalityDiscriminator(4)(images, titles)
    assert loss.dtype == torch.float32
    loss.backward()
    assert images.grad is not None
    assert images.grad.dtype == torch.float16


def test_settings_that_say_nothing_are_refused() -> None:
    for settings in ({"embedding_dim": 0}, {"embedding_dim": 4, "hidden": 0}, {"embedding_dim": 4, "reversal": -1.0}):
        with pytest.raises(RecipeError, match="adversary: embedding_dim and hidden"):
            ModalityDiscriminator(**settings)  # type: ignore[arg-type]
