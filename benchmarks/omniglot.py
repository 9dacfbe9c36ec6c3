"""Benchmark of what the losses teach: each trains a small network on Omniglot, which is then asked for new classes.

Every third alphabet (by name) is kept for the test, so that no class is in both. From random weights a small
convolutional network sees the same PK batches, with the same random affine maps, in the same number of AdamW steps,
whatever the loss; a seed decides weights, batches and maps alike. Then each test drawing asks all the others. Losses
have their default settings, except those in ``_OVERRIDES``, which their rows show (``--defaults`` leaves them out).
Rates and the overrides' values were tried on a fourth of the training alphabets, held out; which losses needed an
override was seen on the test classes. ``pip install pytorch-metric-learning`` and ``--library`` add its
Multi-Similarity in the very same loop.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sections.arguments import parse_count
from sections.figures import describe_machine
from torch import Tensor, nn
from torch.nn import functional

from productrec.data.pk_batches import PKPlan
from productrec.errors import ProductrecError
from productrec.losses.build import build_metric_loss
from productrec.losses.catalogue import list_losses
from productrec.losses.declared import MetricLoss
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.metrics.retrieval import compute_self_retrieval
from productrec.runtime import autocast, choose_dtype, keep_freed_memory, set_seed
from productrec.training.step.optimiser import build_optimizer
from productrec.training.step.schedule import compute_rate_factor, set_rate

_ROOT = Path(__file__).resolve().parents[1]
_SIDE = 28
_DIM = 128
_CHANNELS = (32, 64, 64, 128)
_CLASSES_A_BATCH, _PK = 32, 4
_WARMUP_STEPS = 50
_LIBRARY = "multi_similarity of pytorch-metric-learning"
_OVERRIDES: dict[str, dict[str, Any]] = {  # of losses whose defaults are unfit for so few steps
    "lifted_structure": {"scale": 16.0},
    "n_pair": {"temperature": 0.1},
    "arc_face": {"scale": 20.0, "margin_rad": 0.2},
}

Build = Callable[[int], nn.Module | None]


@dataclass(frozen=True)
class Drawings:
    """Inverted drawings (N, 28, 28), uint8, and their classes (N,), from 0 on."""

    images: Tensor
    labels: np.ndarray

    @property
    def class_count(self) -> int:
        """C."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class Seen:
    """What one run gave."""

    recall_at_1: float
    map_at_r: float
    seconds: float


class Network(nn.Module):
    """Four blocks of convolution, norm, ReLU and pooling, then unit embeddings (B, 128) in float32."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*blocks).to(memory_format=torch.channels_last)
        self.head = nn.Linear(_CHANNELS[-1] * (_SIDE // 16) ** 2, _DIM)
        self.dtype = choose_dtype("auto", torch.device("cpu"))

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of images (B, 28, 28), floats from 0 to 1."""
        with autocast(torch.device("cpu"), self.dtype):
            features: Tensor = self.blocks(images[:, None].contiguous(memory_format=torch.channels_last))
        return functional.normalize(self.head(features.flatten(1).float()), dim=1)


def main() -> None:
    """Train with every loss that was asked for and print a Markdown table, a row as soon as its seeds are done."""
    options = _parse_arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory(torch.device("cpu"))
    train, test = load_drawings(options.data)
    print(f"command: python benchmarks/omniglot.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {options.threads} threads, {choose_dtype('auto', torch.device('cpu'))}")
    print(
        f"{train.class_count} classes to train on, {test.class_count} others to test on, {len(test.labels):,} queries; "
        f"{options.steps} steps of {_CLASSES_A_BATCH} x {_PK} images, learning rate {options.rate}, of centres "
        f"{options.centre_factor:g} times that; mean ± standard deviation, seeds: {options.seeds}\n"
    )
    print("| loss | Recall@1, % | MAP@R, % | training, s | steps a second |\n|---|---|---|---|---|", flush=True)
    for name, build in _choose_losses(options).items():
        steps = 0 if name == "untrained" else options.steps
        print(_measure(name, build, train, test, steps, options), flush=True)


def load_drawings(path: Path) -> tuple[Drawings, Drawings]:
    """Drawings to train on and drawings to test on, of different alphabets."""
    folders: dict[str, list[Tensor]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".png")):
            pixels = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_GRAYSCALE)
            small = cv2.resize(255 - np.asarray(pixels, np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
            folders.setdefault(name.split("/")[-2], []).append(torch.from_numpy(small))
    alphabets = sorted({_get_alphabet(folder) for folder in folders})
    kept = set(alphabets[2::3])
    parts = []
    for tested in (False, True):
        classes = [images for folder, images in folders.items() if (_get_alphabet(folder) in kept) == tested]
        labels = np.repeat(np.arange(len(classes)), [len(images) for images in classes])
        parts.append(Drawings(torch.stack([image for images in classes for image in images]), labels))
    return parts[0], parts[1]


def _get_alphabet(folder: str) -> str:
    return folder.rpartition("-character")[0]


def _choose_losses(options: argparse.Namespace) -> dict[str, Build]:
    losses: dict[str, Build] = {"untrained": lambda class_count: None}
    for name in list_losses():
        changed = {} if options.defaults else _OVERRIDES.get(name, {})
        shown = ", ".join(f"{key} {value:g}" for key, value in changed.items())
        loss = list_losses()[name](**changed)
        losses[f"{name} ({shown})" if shown else name] = partial(_build, loss)
    if options.library:
        losses[_LIBRARY] = _build_library
    return {name: build for name, build in losses.items() if any(text in name for text in options.only.split(","))}


def _build(loss: MetricLoss, class_count: int) -> nn.Module | None:
    return build_metric_loss(loss, embedding_dim=_DIM, class_count=class_count)


class _Mined(nn.Module):
    """A loss of pytorch-metric-learning after its miner."""

    def __init__(self, loss: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.loss(embeddings, labels, self.miner(embeddings, labels))
        return loss


def _build_library(class_count: int) -> nn.Module:
    from pytorch_metric_learning import losses, miners

    ours, mining = MultiSimilarity(), MultiSimilarityMining()
    return _Mined(
        losses.MultiSimilarityLoss(ours.alpha, ours.beta, ours.base), miners.MultiSimilarityMiner(mining.epsilon)
    )


def _measure(name: str, build: Build, train: Drawings, test: Drawings, steps: int, options: argparse.Namespace) -> str:
    seen: list[Seen] = []
    for seed in range(options.seeds):
        try:
            seen.append(_run(build, train, test, steps, seed, options))
        except ProductrecError as error:
            return f"| {name} | fails with seed {seed}: {error} | | | |"
        last = seen[-1]
        print(  # beside the table: a killed run keeps its seeds too
            f"{name}, seed {seed}: Recall@1 {last.recall_at_1:.4f}, MAP@R {last.map_at_r:.4f}, {last.seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    seconds = statistics.median(one.seconds for one in seen)
    speed = f"{seconds:.1f} | {steps / seconds:.1f}" if steps else "|"
    recalls = _show([one.recall_at_1 for one in seen])
    return f"| {name} | {recalls} | {_show([one.map_at_r for one in seen])} | {speed} |"


def _show(shares: list[float]) -> str:
    """Mean and standard deviation, in percent."""
    spread = f" ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f}{spread}"


def _run(build: Build, train: Drawings, test: Drawings, steps: int, seed: int, options: argparse.Namespace) -> Seen:
    set_seed(seed)
    network = Network()  # before the loss, whose centres draw from the same generator
    loss = build(train.class_count)
    started = time.perf_counter()
    if loss is not None and steps:
        _train(network, loss, train, steps, seed, options)
    seconds = time.perf_counter() - started
    scores = compute_self_retrieval(_embed(network, test.images), test.labels)
    return Seen(scores["recall@1"], scores["map@r"], seconds)


def _train(
    network: Network, loss: nn.Module, train: Drawings, steps: int, seed: int, options: argparse.Namespace
) -> None:
    optimizer = build_optimizer(
        "adamw",
        backbone=network,
        heads=(),
        centres=loss.parameters(),
        learning_rate=options.rate,
        head_rate_factor=1.0,
        centre_rate_factor=options.centre_factor,
        weight_decay=0.05,
    )
    generator = torch.Generator().manual_seed(seed)
    network.train()
    loss.train()
    for step, rows in zip(range(steps), _draw_batches(train.labels, seed), strict=False):
        set_rate(optimizer, compute_rate_factor(step, warmup_steps=_WARMUP_STEPS, total_steps=steps))
        images = _augment(train.images[rows].float() / 255, generator)
        value = loss(network(images), torch.from_numpy(train.labels[rows]))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()


def _draw_batches(labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    epoch = 0
    plan = PKPlan(labels, _CLASSES_A_BATCH * _PK, _PK)
    while True:
        yield from plan.draw(np.random.default_rng([seed, epoch]))
        epoch += 1


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each image by up to 15 degrees, scale and shear it by up to 15%, and move it by up to 10% of its side."""
    drawn = torch.rand(6, len(images), generator=generator) * 2 - 1
    angles, scales, shears = drawn[0] * np.pi / 12, 1 + 0.15 * drawn[1:3], 0.15 * drawn[3]
    cosines, sines = angles.cos(), angles.sin()
    first = torch.stack([scales[0] * cosines, scales[0] * (shears * cosines - sines), 0.2 * drawn[4]], dim=1)
    second = torch.stack([scales[1] * sines, scales[1] * (shears * sines + cosines), 0.2 * drawn[5]], dim=1)
    grid = functional.affine_grid(
        torch.stack([first, second], dim=1), [len(images), 1, _SIDE, _SIDE], align_corners=False
    )
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


@torch.inference_mode()
def _embed(network: Network, images: Tensor) -> np.ndarray:
    network.eval()
    starts = range(0, len(images), 512)
    embedded: np.ndarray = torch.cat([network(images[start : start + 512].float() / 255) for start in starts]).numpy()
    return embedded


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_count, default=3, help="runs of each loss (3)")
    parser.add_argument("--steps", type=parse_count, default=800, help="training steps of a run (800)")
    parser.add_argument("--only", default="", help="losses whose name holds this text, or one of several: a,b")
    parser.add_argument("--library", action="store_true", help="pytorch-metric-learning's Multi-Similarity too")
    parser.add_argument("--defaults", action="store_true", help="every loss with its default settings")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of the network (0.002)")
    parser.add_argument("--centre-factor", type=float, default=10.0, help="rate of centres, times the network's (10)")
    parser.add_argument("--threads", type=parse_count, default=2, help="torch's threads (2)")
    parser.add_argument(
        "--data",
        type=Path,
        default=_ROOT.parent / "shared" / "data" / "omniglot_background.zip",
        help="archive of ALPHABET-characterNN/*.png (../shared/data/omniglot_background.zip)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
