"""Pooled features of a pretrained network, through the plain view and through augmented ones, kept in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from productrec.artifacts import compute_digest, write_file
from productrec.assembly.network import build_network
from productrec.console import show_progress
from productrec.data.decode import decode_image, read_image_bytes
from productrec.data.transforms import Augmentation, build_augmentation
from productrec.data.views import resize_square
from productrec.models.recognizer import Recognizer
from productrec.recipe import build_recipe
from productrec.runtime import autocast, computes_bfloat16
from sections.halves import Pictures

_BATCH = 64


def load_features(
    pictures: Pictures, folder: Path, *, backbone: str, side_px: int, views: int, augmentation: str
) -> np.ndarray:
    """Features (V, N, F) float32 of every picture, through each of ``views``: the first is the plain one.

    The network is as a recipe builds it, with its pooling and with pretrained weights. The other views are cut by
    ``augmentation``, a preset or a file, each picture with a seed of its own. A view that is in ``folder`` is read
    from there.
    """
    device = torch.device("cpu")
    dtype = torch.bfloat16 if computes_bfloat16() else torch.float32
    recipe = {"name": "features", "model": {"backbone": backbone}, "train": {"side_px": side_px}}
    content = Path(augmentation).read_text(encoding="utf-8") if Path(augmentation).is_file() else augmentation
    digest = compute_digest([pictures.paths, recipe, str(dtype), content])[:12]
    files = [folder / f"{pictures.name}-{side_px}px-{digest}" / f"view_{view}.npy" for view in range(views)]
    network: Recognizer | None = None
    for view, file in enumerate(files):
        if file.exists():
            continue
        if network is None:
            network = build_network(build_recipe(recipe), 1).eval()
        augment = build_augmentation(augmentation, side_px)
        parts = []
        with show_progress(f"{pictures.name}, view {view}", len(pictures.paths)) as bar:
            for batch in _cut(pictures, side_px, view, augment):
                with torch.inference_mode(), autocast(device, dtype):
                    parts.append(network.extract_features(torch.from_numpy(batch)).float().numpy())
                bar.advance(len(batch))
        with write_file(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, np.concatenate(parts))
    return np.stack([np.load(file) for file in files])


def _cut(pictures: Pictures, side_px: int, view: int, augment: Augmentation) -> Iterator[np.ndarray]:
    """Squares (B, S, S, 3) uint8, in the pictures' order."""
    for start in range(0, len(pictures.paths), _BATCH):
        squares = []
        for row in range(start, min(start + _BATCH, len(pictures.paths))):
            path = pictures.root / pictures.paths[row]
            pixels = decode_image(read_image_bytes(path), path)
            seed = view * len(pictures.paths) + row
            squares.append(augment(pixels, seed) if view else resize_square(pixels, side_px))
        yield np.stack(squares)
