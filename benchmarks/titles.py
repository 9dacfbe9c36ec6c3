"""Losses between images and titles under one budget: recall both ways on held-out pairs, over seeds.

Both towers are pretrained and rest: their pooled features are computed once, and what brings them into one space is
learned, by the package's own necks and losses. ``--text gru`` learns the text tower from the titles at hand instead.
With ``--wrong 0.1`` a tenth of the training titles change places.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from productrec.assembly.titles import list_titles
from productrec.data.dataset import ViewedImages, build_view_loader
from productrec.data.images import open_images
from productrec.data.table import ImageTable, load_table
from productrec.data.titles import number_groups
from productrec.data.view_presets import get_views
from productrec.losses.catalogue import list_losses
from productrec.losses.cross_modal.build import build_cross_modal_loss
from productrec.losses.declared import PairLoss
from productrec.metrics.cross_modal import compute_cross_modal, group_equal_titles
from productrec.models.neck import EmbeddingNeck
from productrec.models.recognizer import build_recognizer
from productrec.models.text.tokens import Tokens
from productrec.models.text.tower import TextTower, build_text_tower, build_tokeniser

DIM = 256
LOSSES = {
    "sum of hinges": ("sum_of_hinges", {"margin": 0.2}),
    "max of hinges": ("max_of_hinges", {"margin": 0.2}),
    "max of hinges, warmed up": ("max_of_hinges", {"margin": 0.2}),
    "InfoNCE, 0.07": ("nt_xent", {"temperature": 0.07}),
    "InfoNCE, learned": ("nt_xent", {"temperature": 0.07, "learn_temperature": True}),
    "SigLIP": ("pair_logistic", {}),
    "N-pair": ("n_pair", {}),
    "Multi-Similarity": ("multi_similarity", {}),
    "Circle": ("circle", {}),
}


class Titles:
    """A split's image features (N, F), titles as tokens, and their features where the text tower rests."""

    def __init__(self, features: torch.Tensor, titles: list[str], tokens: Tokens, text: torch.Tensor | None) -> None:
        self.features, self.titles, self.tokens, self.text = features, titles, tokens, text


def extract_image_features(table: ImageTable, split: str, side_px: int) -> torch.Tensor:
    """Average-pooled features (N, F) of a pretrained EfficientNet-Lite0, through the plain view."""
    network = build_recognizer(
        backbone="tf_efficientnet_lite0",
        pretrained=True,
        side_px=side_px,
        pooling="average",
        gem_power=3.0,
        embedding_dim=DIM,
        class_count=0,
    ).eval()
    rows = table.select([split])
    dataset = ViewedImages(open_images(table, rows), get_views("plain"), side_px)
    parts = []
    with torch.no_grad():
        for batch in build_view_loader(dataset, batch_size=128, workers=0, pin_memory=False):
            parts.append(network.extract_features(batch.cuts[0]))
    return torch.cat(parts)


def extract_text_features(tower: TextTower, tokens: Tokens) -> torch.Tensor:
    """What a resting encoder says of titles (T, F), before the linear layer behind it."""
    order = torch.argsort(tokens.lengths)
    parts = torch.empty(len(order), tower.neck.linear.in_features)
    tower.eval()
    with torch.no_grad():
        for some in torch.split(order, 256):
            batch = tokens.take(some)
            parts[some] = tower.encoder(batch.ids, batch.lengths)
    return parts


def train_once(name: str, seed: int, train: Titles, held: Titles, options: argparse.Namespace) -> dict[str, float]:
    """Train one head on either tower by one loss; recalls in % and median ranks on the held-out pairs."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    count = len(train.titles)
    order = np.arange(count)
    wrong = rng.permutation(count)[: round(options.wrong * count)]
    order[wrong] = np.roll(wrong, 1)
    titles = [train.titles[place] for place in order]
    groups = torch.from_numpy(number_groups([[title] for title in titles], None))
    loss_name, settings = LOSSES[name]
    loss = list_losses()[loss_name](**settings)
    assert isinstance(loss, PairLoss), "these losses are over pairs"
    steps = options.epochs * (count // options.batch)
    warm_up = steps // 4 if "warmed" in name else 0
    objective = build_cross_modal_loss(
        loss,
        embedding_dim=DIM,
        warm_up_steps=warm_up,
        log_information=False,
    )
    neck = EmbeddingNeck(train.features.shape[1], DIM)
    if train.text is None:
        head: torch.nn.Module = build_text_tower(
            "gru", vocabulary_size=options.vocabulary, embedding_dim=DIM, max_tokens=options.max_tokens
        )
    else:
        head = EmbeddingNeck(train.text.shape[1], DIM, batch_norm=False)
    parameters = [*neck.parameters(), *head.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps)
    where = torch.from_numpy(order)
    for _ in range(options.epochs):
        for some in torch.split(torch.from_numpy(rng.permutation(count)), options.batch):
            if len(some) < options.batch:
                continue
            read = read_titles(head, train, where[some])
            total = objective(neck(train.features[some]), read, groups[some], groups[some]).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
    neck.eval(), head.eval()
    with torch.inference_mode():
        images = neck(held.features).numpy()
        every = torch.arange(len(held.titles))
        embedded = torch.cat([read_titles(head, held, some) for some in torch.split(every, 512)]).numpy()
    found = compute_cross_modal(
        images, embedded, np.arange(len(held.titles)), title_groups=group_equal_titles(held.titles)
    ).measure()
    return {key: 100 * value if "recall@" in key else value for key, value in found.items()}


def read_titles(head: torch.nn.Module, titles: Titles, rows: torch.Tensor) -> torch.Tensor:
    """Embeddings (B, D) of some titles."""
    if titles.text is not None:
        embedded: torch.Tensor = head(titles.text[rows])
        return embedded
    batch = titles.tokens.take(rows)
    read: torch.Tensor = head(batch.ids, batch.lengths)
    return read


def main() -> None:
    """Train each loss with each seed, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="image table with titles, of `productrec ingest`")
    parser.add_argument("--text", choices=("minilm", "gru"), default="minilm", help="text tower")
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), help="names; all by default")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--wrong", type=float, default=0.0, help="share of the training titles that change places")
    parser.add_argument("--side-px", type=int, default=96)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--features", type=Path, help="folder that features are kept in")
    parser.add_argument("--out", type=Path, help="JSON lines to add the results to")
    options = parser.parse_args()
    table = load_table(options.table)
    named = {
        split: [own[0] for own in list_titles(table, table.select([split]), "title")] for split in ("train", "val")
    }
    tokeniser = build_tokeniser(options.text, named["train"], 4096)
    options.vocabulary = tokeniser.vocabulary_size
    tower = None
    if options.text != "gru":
        tower = build_text_tower(
            options.text, vocabulary_size=options.vocabulary, embedding_dim=DIM, max_tokens=options.max_tokens
        )
    splits = {}
    for split, titles in named.items():
        tokens = tokeniser.encode(titles, options.max_tokens)
        kept = None if options.features is None else options.features / f"{split}-{options.text}-{options.side_px}.pt"
        if kept is not None and kept.exists():
            features, text = torch.load(kept, weights_only=True)
        else:
            started = time.perf_counter()
            features = extract_image_features(table, split, options.side_px)
            middle = time.perf_counter()
            text = None if tower is None else extract_text_features(tower, tokens)
            seconds = time.perf_counter() - middle
            print(f"{split}: {len(titles):,} images in {middle - started:.1f} s, titles in {seconds:.1f} s", flush=True)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save((features, text), kept)
        splits[split] = Titles(features, titles, tokens, text)
    for name in options.losses:
        for seed in options.seeds:
            started = time.perf_counter()
            found = train_once(name, seed, splits["train"], splits["val"], options)
            row = {"loss": name, "seed": seed, "text": options.text, "wrong": options.wrong, **found}
            row |= {"seconds": time.perf_counter() - started}
            shown = ", ".join(f"{key} {value:.1f}" for key, value in found.items() if "@" in key or "median" in key)
            print(f"{name}, seed {seed}: {shown} ({row['seconds']:.0f} s)", flush=True)
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
