"""Whether an accelerator computes what the CPU computes of titles: embeddings, the loss between both, and gradients."""

from __future__ import annotations

import torch
from torch import nn

from productrec.losses.cross_modal.build import build_cross_modal_loss
from productrec.losses.pair.max_of_hinges import MaxOfHinges
from productrec.losses.pair.nt_xent import NTXent
from productrec.models.text.tokens import train_tokeniser
from productrec.models.text.tower import build_text_tower
from productrec.runtime import set_seed
from sections.agreement import build_row, compute_difference
from sections.figures import Row

_DIM = 64
_TITLES = [f"{size} {kind} of {what}" for size in ("small", "large") for kind in ("pack", "box") for what in "abcdefgh"]


def compare_titles(device: torch.device) -> list[Row]:
    """Both light towers, and two losses between images and their titles."""
    tokeniser = train_tokeniser(_TITLES, 300)
    tokens = tokeniser.encode(_TITLES, 16)
    images = nn.functional.normalize(torch.randn(len(_TITLES), _DIM, generator=torch.Generator().manual_seed(1)), dim=1)
    groups = torch.arange(len(_TITLES))
    table = []
    for name in ("gru", "transformer"):
        set_seed(0)
        tower = build_text_tower(
            name, vocabulary_size=tokeniser.vocabulary_size, embedding_dim=_DIM, width=32, layers=1, heads=4
        )
        for loss in (MaxOfHinges(), NTXent()):
            seen, values, gradients = [], [], []
            for place in (device, torch.device("cpu")):
                tower = tower.to(place)
                objective = build_cross_modal_loss(loss, embedding_dim=_DIM).to(place)
                titles = tower(tokens.ids.to(place), tokens.lengths)
                own = groups.to(place)
                value = objective(images.to(place), titles, own, own).total
                gradient = torch.autograd.grad(value, [*tower.parameters()])
                seen.append(titles)
                values.append(value)
                gradients.append(torch.cat([part.flatten() for part in gradient]))
            told = f"{name}, {loss.get_name()}"
            table.append(build_row(f"titles by {told}: embeddings", compute_difference(*seen), 5e-5))
            table.append(build_row(f"titles by {told}: loss", compute_difference(*values), 1e-5))
            table.append(build_row(f"titles by {told}: gradient", compute_difference(*gradients), 1e-3))
    return table
