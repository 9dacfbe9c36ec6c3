"""Descriptions of classes as titles: ranking them for photos of classes that were trained on and of ones that were not.

Both towers are pretrained and rest, as in ``titles.py``; what brings them into one space is learned from the photos of
all classes but some, drawn by seed, each with the description of its class. All descriptions are then ranked for
validation photos: of classes whose photos were trained on, and of the others, which only their words describe.
With ``--vote`` all classes are trained on, and what the descriptions add to the class means of the photos is measured:
both as one product, its weight fitted on one half of the validation photos and judged on the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from titles import DIM, extract_image_features, extract_text_features

from productrec.data.table import ImageTable, load_table
from productrec.losses.catalogue import list_losses
from productrec.losses.cross_modal.build import build_cross_modal_loss
from productrec.losses.declared import PairLoss
from productrec.models.neck import EmbeddingNeck
from productrec.models.text.tower import build_text_tower, build_tokeniser

_SPLITS = ("train", "val")
_SCALE = 20.0  # of similarities before their softmax
_WEIGHTS = np.linspace(0, 1, 21)


def list_descriptions(table: ImageTable) -> dict[int, str]:
    """The description of each class, by id."""
    pairs = zip(table.classes["id"].tolist(), table.classes["description"].tolist(), strict=True)
    return {int(class_id): text for class_id, text in pairs if isinstance(text, str)}


def train_necks(
    features: torch.Tensor, texts: torch.Tensor, classes: torch.Tensor, loss: PairLoss, options: argparse.Namespace
) -> tuple[EmbeddingNeck, EmbeddingNeck]:
    """Learn what brings photos (N, F) of classes (N,) and descriptions (C, G) into one space."""
    image_neck, text_neck = EmbeddingNeck(features.shape[1], DIM), EmbeddingNeck(texts.shape[1], DIM, batch_norm=False)
    objective = build_cross_modal_loss(loss, embedding_dim=DIM, log_information=False)
    parameters = [*image_neck.parameters(), *text_neck.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate)
    for _ in range(options.epochs):
        for some in torch.split(torch.randperm(len(features)), options.batch):
            if len(some) < options.batch:
                continue
            own = classes[some]
            total = objective(image_neck(features[some]), text_neck(texts[own]), own, own).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    return image_neck.eval(), text_neck.eval()


def measure_vote(
    necks: tuple[EmbeddingNeck, EmbeddingNeck],
    features: dict[str, torch.Tensor],
    texts: torch.Tensor,
    labels: dict[str, np.ndarray],
    seed: int,
) -> dict[str, float]:
    """Top-1 in % by class means, by descriptions, and by the product of both, on validation photos."""
    with torch.no_grad():
        known, asked = (necks[0](features[split]).numpy() for split in _SPLITS)
        described = necks[1](texts).numpy()
    sums = np.zeros_like(described)
    np.add.at(sums, labels["train"], known)
    means = sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)
    scores = [_log_softmax(_SCALE * asked @ rows.T) for rows in (means, described)]
    right = [scores[0].argmax(1) == labels["val"], scores[1].argmax(1) == labels["val"]]
    order = np.random.default_rng(seed).permutation(len(asked))
    together = np.zeros(len(asked), bool)
    for own, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        losses = [-_product(scores, weight)[own, labels["val"][own]].mean() for weight in _WEIGHTS]
        best = _product(scores, _WEIGHTS[int(np.argmin(losses))])
        together[other] = best[other].argmax(1) == labels["val"][other]
    names = ("class means", "descriptions", "both")
    return {name: 100 * float(some.mean()) for name, some in zip(names, (*right, together), strict=True)}


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _product(scores: list[np.ndarray], weight: float) -> np.ndarray:
    return _log_softmax((1 - weight) * scores[0] + weight * scores[1])


def main() -> None:
    """For each seed: top-1 and top-3 among all descriptions, in %, of seen and of unseen classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="image table whose classes have descriptions")
    parser.add_argument("--text", default="minilm", help="text tower")
    parser.add_argument("--loss", default="nt_xent", help="a loss over pairs")
    parser.add_argument("--unseen", type=int, default=20, help="classes whose photos are left out")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--side-px", type=int, default=144)
    parser.add_argument("--vote", action="store_true", help="what descriptions add to the class means of photos")
    options = parser.parse_args()
    table = load_table(options.table)
    described = list_descriptions(table)
    ids = np.array(sorted(described))
    tokeniser = build_tokeniser(options.text, list(described.values()), 4096)
    tower = build_text_tower(options.text, vocabulary_size=tokeniser.vocabulary_size, embedding_dim=DIM, max_tokens=128)
    texts = extract_text_features(tower, tokeniser.encode([described[class_id] for class_id in ids.tolist()], 128))
    features = {split: extract_image_features(table, split, options.side_px) for split in _SPLITS}
    labels = {split: np.searchsorted(ids, table.select([split])["label"].to_numpy(dtype=np.int64)) for split in _SPLITS}
    loss = list_losses()[options.loss]()
    assert isinstance(loss, PairLoss), "descriptions are learned by a loss over pairs"
    for seed in options.seeds:
        torch.manual_seed(seed)
        if options.vote:
            necks = train_necks(features["train"], texts, torch.from_numpy(labels["train"]), loss, options)
            measured = measure_vote(necks, features, texts, labels, seed)
            print(f"seed {seed}: " + ", ".join(f"{name} {value:.1f}" for name, value in measured.items()), flush=True)
            continue
        held = np.unique(labels["val"])
        unseen = np.random.default_rng(seed).choice(held, options.unseen, replace=False)
        known = ~np.isin(labels["train"], unseen)
        classes = torch.from_numpy(labels["train"][known])
        necks = train_necks(features["train"][torch.from_numpy(known)], texts, classes, loss, options)
        with torch.no_grad():
            similar = (necks[0](features["val"]) @ necks[1](texts).T).numpy()
        own = similar[np.arange(len(similar)), labels["val"]]
        ranks = (similar > own[:, None]).sum(axis=1)
        is_new = np.isin(labels["val"], unseen)
        among = np.where(np.isin(np.arange(len(ids)), unseen)[None], similar, -np.inf)
        among_ranks = (among > own[:, None]).sum(axis=1)
        for name, rows, found in (
            (f"classes trained on, all {len(ids)} descriptions", ~is_new, ranks),
            (f"classes never seen, all {len(ids)} descriptions", is_new, ranks),
            (f"classes never seen, their {options.unseen} descriptions", is_new, among_ranks),
        ):
            print(
                f"seed {seed}, {name}: {rows.sum()} photos, top-1 {100 * (found[rows] < 1).mean():.1f}, "
                f"top-3 {100 * (found[rows] < 3).mean():.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
