"""Embedding images: the package's path beside a bare loop that decodes, resizes and runs the network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from productrec.assembly.network import build_network
from productrec.assembly.resources import choose_loader_workers
from productrec.data.dataset import ViewBatch, ViewedImages, build_view_loader
from productrec.data.images import FileImages
from productrec.data.view_presets import get_views, plan_views
from productrec.demo.drawn.competition import draw_competition
from productrec.models.inference import ViewRecognizer
from productrec.retrieval.embedding_set import load_embedding_set, write_embedding_set
from productrec.runtime import autocast, choose_device, choose_dtype, set_seed
from sections.figures import Row, compute_ratios, compute_spread, print_row, take_turns
from sections.recipes import load_single_recipe
from sections.step import CLASSES

LEAST_RATIO = 0.9


def measure_predict(
    recipe_path: Path,
    *,
    backbone: str,
    overrides: Sequence[str],
    source: Path | None,
    image_count: int,
    repeats: int,
) -> list[Row]:
    """Compare images per second of both paths on ``image_count`` images of ``source`` (drawn ones where it is None)."""
    recipe = load_single_recipe(recipe_path, backbone=backbone, overrides=overrides)
    device = choose_device(recipe.device)
    dtype = choose_dtype(recipe.train.precision, device)
    workers = choose_loader_workers(recipe, device)
    batch_size, side_px = recipe.predict.batch_size, recipe.train.side_px
    set_seed(recipe.seed)
    network = build_network(recipe, CLASSES).to(device).eval()
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        paths = list_images(source, Path(name), image_count)
        numbers = count()
        kept: dict[str, np.ndarray] = {}

        def run_ours() -> float:
            out = Path(name) / f"embeddings-{next(numbers)}"
            started = time.perf_counter()
            embed_images(
                network,
                paths,
                out,
                views="plain",
                side_px=side_px,
                batch_size=batch_size,
                workers=workers,
                device=device,
                dtype=dtype,
            )
            seconds = time.perf_counter() - started
            kept["ours"] = np.array(load_embedding_set(out).embeddings)
            return seconds

        def run_bare() -> float:
            started = time.perf_counter()
            kept["bare"] = embed_barely(
                network, paths, side_px=side_px, batch_size=batch_size, workers=workers, device=device, dtype=dtype
            )
            return time.perf_counter() - started

        turns = {"ours": run_ours, "bare": run_bare}
        take_turns(turns, 1)  # file cache
        seen = take_turns(turns, repeats)
    apart = float(np.abs(kept["ours"] - kept["bare"]).max())
    if not apart < 0.01:
        raise RuntimeError(f"both paths must give the same embeddings; they differ by up to {apart}")
    setting = (
        f"{len(paths)} {'drawn' if source is None else source.name} images, {recipe.model.backbone}, {side_px} px, "
        f"batch {batch_size}, {workers} workers, {device.type} {str(dtype).removeprefix('torch.')}, "
        f"{torch.get_num_threads()} threads"
    )
    ratio = compute_ratios(seen["bare"], seen["ours"])  # of seconds, so the inverse of that of the rates
    rows = [
        Row(
            "predict", f"rate, ours / bare ({setting})", ratio.show(3), f">= {LEAST_RATIO}", ratio.middle >= LEAST_RATIO
        )
    ]
    for path in ("ours", "bare"):
        rate = compute_spread([len(paths) / seconds for seconds in seen[path]])
        rows.append(Row("predict", f"{path}, images per second", rate.show(0)))
    for row in rows:
        print_row(row)
    return rows


def list_images(source: Path | None, work: Path, image_count: int) -> list[str]:
    """Up to ``image_count`` JPEG files below ``source``; drawn in ``work`` where there is no source."""
    if source is None:
        skus = 20
        each = max(1, -(-image_count // skus) - 3)
        drawn = draw_competition(
            work / "drawn", skus=skus, train_images=2, val_images=1, test_images=each, max_side_px=348
        )
        source = drawn.folder
    found = sorted(str(path) for path in (source / "images").glob("*.jpg"))[:image_count]
    if not found:
        raise RuntimeError(f"{source / 'images'} must hold JPEG files; it holds none")
    return found


def embed_images(
    network: nn.Module,
    paths: Sequence[str],
    out: Path,
    *,
    views: str,
    side_px: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """The loop of the embed stage: from files to an embedding set on the disk."""
    wanted = get_views(views)
    _, plan = plan_views(wanted)
    dataset = ViewedImages(FileImages(paths), wanted, side_px)
    loader = build_view_loader(dataset, batch_size=batch_size, workers=workers, pin_memory=device.type == "cuda")
    with write_embedding_set(
        out,
        [Path(path).name for path in paths],
        dim=int(network.neck.linear.out_features),  # type: ignore[union-attr, arg-type]
        class_ids=range(int(network.head.linear.out_features)),  # type: ignore[union-attr, arg-type]
        keep_logits=True,
        views=[view.name for view in wanted],
        weights_digest="benchmark",
        inputs={},
        settings={},
    ) as writer:
        recognise = ViewRecognizer(network, plan, device=device, dtype=dtype)
        batch: ViewBatch
        for batch in loader:
            _, together = recognise(batch.cuts)
            writer.write(batch.rows.numpy(), together.embeddings.numpy(), together.logits.numpy())


class BareImages(Dataset[np.ndarray]):
    """Files to squares with OpenCV alone."""

    def __init__(self, paths: Sequence[str], side_px: int) -> None:
        self._paths = list(paths)
        self._side = (side_px, side_px)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> np.ndarray:
        pixels = cv2.imread(self._paths[row], cv2.IMREAD_COLOR_RGB)
        assert pixels is not None  # the files are sound: our path has read them
        return cv2.resize(pixels, self._side, interpolation=cv2.INTER_AREA)


@torch.inference_mode()
def embed_barely(
    network: nn.Module,
    paths: Sequence[str],
    *,
    side_px: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    dtype: torch.dtype,
) -> np.ndarray:
    """What one would write by hand: embeddings (N, D) of files that are all sound, kept in memory."""
    loader = DataLoader(
        BareImages(paths, side_px),
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
    )
    embeddings: list[Tensor] = []
    logits: list[Tensor] = []
    for images in loader:
        with autocast(device, dtype):
            recognized = network(images.to(device, non_blocking=True))
        embeddings.append(recognized.embeddings.cpu())
        logits.append(recognized.logits.cpu())
    return torch.cat(embeddings).numpy()


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # as ours: else the bare loop's workers fight for the cores and it looks worse than it is
