"""Pair losses on an accelerator: agreement with the CPU, time beside the floor and the library, peak memory."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.circle import Circle
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.nt_xent import NTXent
from sections.figures import Row, compute_ratios, compute_spread, take_turns

_LOSSES: dict[str, tuple[Any, Any]] = {
    "Multi-Similarity + mining": (MultiSimilarity(), MultiSimilarityMining()),
    "Circle": (Circle(), None),
    "NT-Xent": (NTXent(temperature=0.07), None),
}
_LARGEST_FOR_LIBRARY = 8192


def measure_pair_losses(device: torch.device, *, quick: bool) -> list[Row]:
    """Each loss at two batch sizes of 512 dimensions, in float32 and bfloat16."""
    rows = []
    for count in (256, 512) if quick else (8192, 65_536):
        for dtype in (torch.float32, torch.bfloat16):
            embeddings, labels = _draw(count, 512, device, dtype)
            for name, (loss, mining) in _LOSSES.items():
                rows += _measure(name, loss, mining, embeddings, labels)
            del embeddings
    return rows


def _measure(name: str, loss: Any, mining: Any, embeddings: Tensor, labels: Tensor) -> list[Row]:
    count, device = len(embeddings), embeddings.device
    what = f"{name}, N {count:,}, D {embeddings.shape[1]}, {str(embeddings.dtype).removeprefix('torch.')}"

    def ours() -> Tensor:
        leaf = embeddings.detach().requires_grad_()
        value = compute_pair_loss(Comparison(leaf, labels), loss, mining=mining)
        torch.autograd.backward(value)
        return value

    def floor() -> None:
        step = max(1, (1 << 28) // count)
        for start in range(0, count, step):
            similarities = embeddings[start : start + step] @ embeddings.T
            similarities @ embeddings
            similarities.T @ embeddings[start : start + step]

    turns: dict[str, Callable[[], float]] = {"ours": lambda: _time(ours, device), "floor": lambda: _time(floor, device)}
    if name.startswith("Multi") and count <= _LARGEST_FOR_LIBRARY:
        library = _build_library()
        if library is not None:
            turns["library"] = lambda: _time(lambda: library(embeddings, labels), device)
    for turn in turns.values():
        turn()
    seen = take_turns(turns, 5 if count <= _LARGEST_FOR_LIBRARY else 2)
    peak = _measure_peak(ours, device)
    ratio = compute_ratios(seen["ours"], seen["floor"]).show()
    shown = f"{ratio} times the floor, {compute_spread(seen['ours']).middle * 1e3:.1f} ms"
    if "library" in seen:
        shown += f"; library {compute_ratios(seen['library'], seen['ours']).show(1)} times ours"
    rows = [Row("pair losses", what, shown)]
    if peak is not None:
        limit = 4.0 if count > _LARGEST_FOR_LIBRARY else None
        asked = "at most 4 GiB" if limit else ""
        rows.append(
            Row("pair losses", f"{what}: peak", f"{peak:.2f} GiB", asked, None if limit is None else peak <= limit)
        )
    if count <= _LARGEST_FOR_LIBRARY:
        expected = compute_pair_loss(Comparison(embeddings.cpu(), labels.cpu()), loss, mining=mining).item()
        error = abs(ours().item() - expected) / max(1e-12, abs(expected))
        rows.append(Row("pair losses", f"{what}: error beside the CPU", f"{error:.1e}", "at most 1e-3", error <= 1e-3))
    return rows


def _draw(count: int, dim: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) // 4
    centres = torch.randn(count // 4, dim, generator=generator)
    noise = torch.randn(count, dim, generator=generator)
    order = torch.randperm(count, generator=generator)
    rows = functional.normalize(centres[labels] + noise, dim=1)[order]
    return rows.to(device, dtype).contiguous(), labels[order].to(device)


def _build_library() -> Callable[[Tensor, Tensor], None] | None:
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        return None
    from pytorch_metric_learning import losses, miners

    loss, miner = losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)

    def run(embeddings: Tensor, labels: Tensor) -> None:
        leaf = embeddings.detach().requires_grad_()
        torch.autograd.backward(loss(leaf, labels, miner(leaf, labels)))

    return run


def _time(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _measure_peak(work: Callable[[], Any], device: torch.device) -> float | None:
    """GiB beyond what was there."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    _wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
