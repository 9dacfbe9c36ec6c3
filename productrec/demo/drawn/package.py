"""Wraps a SKU's artwork around its package: a box with three faces, a turned body (can, bottle), or a soft pouch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from productrec.demo.drawn.catalogue import Sku, blend_colours
from productrec.demo.drawn.kinds import Colour
from productrec.demo.drawn.label import draw_front, draw_side
from productrec.demo.drawn.marks import WHITE, Pixels, choose_ink, draw_small_print

Build = Literal["box", "turned", "soft"]

# Depth over width of the boxes.
_DEPTHS = {"box": 0.32, "carton": 0.9, "case": 0.3, "bar": 0.16}


@dataclass(frozen=True)
class _Body:
    """A turned body: (height share, radius share) stations from top to bottom; shares of height for cap and label."""

    profile: tuple[tuple[float, float], ...]
    cap_end: float
    label: tuple[float, float]
    gloss: float


_BODIES = {
    "can": _Body(((0, 0.86), (0.05, 0.97), (0.07, 1), (0.94, 1), (1, 0.88)), 0.0, (0.05, 0.96), 0.5),
    "jar": _Body(((0, 0.84), (0.16, 0.84), (0.17, 0.78), (0.24, 1), (0.94, 1), (1, 0.9)), 0.16, (0.27, 0.92), 0.6),
    "tub": _Body(((0, 1), (0.12, 1), (0.13, 0.94), (1, 0.8)), 0.12, (0.13, 1.0), 0.25),
    "bottle": _Body(
        ((0, 0.36), (0.1, 0.36), (0.11, 0.3), (0.17, 0.32), (0.34, 0.98), (0.38, 1), (0.96, 1), (1, 0.9)),
        0.1,
        (0.38, 0.9),
        0.6,
    ),
}


@dataclass(frozen=True)
class Package:
    """A package ready to be photographed.

    Attributes:
        build: how it is put into a scene.
        surface: uint8 (H, W, 4), the front with its outline as opacity; for a turned body (H, T, 4), all round.
        normals: float32 (H, W, 3), unit vectors out of the front: right, down, towards the viewer.
        gloss: 0 (matt) to 1 (glass).
        depth: a box's depth over its width.
        side: a box's side panel, uint8 (H, S, 3).
        radii: a turned body's radius in each row, float32 (H,), in pixels.
        lid: colour of the top.
    """

    build: Build
    surface: Pixels
    normals: Pixels
    gloss: float
    depth: float
    side: Pixels | None
    radii: Pixels | None
    lid: Colour

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the front, in pixels."""
        height, width = self.normals.shape[:2]
        return width, height


def make_package(sku: Sku, longest_px: int) -> Package:
    """Draw ``sku`` and wrap it; the front's longer side is ``longest_px`` pixels."""
    width = longest_px if sku.aspect > 1 else max(8, round(longest_px * sku.aspect))
    height = longest_px if sku.aspect <= 1 else max(8, round(longest_px / sku.aspect))
    if sku.family.shape in _DEPTHS:
        return _make_box(sku, width, height)
    if sku.family.shape in _BODIES:
        return _make_turned(sku, width, height)
    return _make_soft(sku, width, height)


def _make_box(sku: Sku, width: int, height: int) -> Package:
    depth = _DEPTHS[sku.family.shape]
    normals = np.zeros((height, width, 3), np.float32)
    normals[..., 2] = 1
    surface = _with_opacity(draw_front(sku, width, height), np.full((height, width), 255, np.uint8))
    side = draw_side(sku, max(8, round(width * depth)), height)
    lid = blend_colours(sku.family.brand.ground, sku.flavour_colour, 0.25)
    return Package("box", surface, normals, 0.15, depth, side, None, lid)


def _make_turned(sku: Sku, width: int, height: int) -> Package:
    shape = sku.family.shape
    form = _BODIES[shape]
    brand = sku.family.brand
    rows = np.linspace(0, 1, height)
    stations, shares = zip(*form.profile, strict=True)
    radii = (np.interp(rows, stations, shares) * width / 2).astype(np.float32)
    around = round(np.pi * width)
    lid: Colour = (190, 190, 195) if shape == "can" else brand.accent
    body = lid if shape == "can" else blend_colours(brand.ground, sku.flavour_colour, 0.3)
    if shape in ("bottle", "jar") and sku.family.seed % 2 == 0:  # clear: the contents show through
        body = sku.fill_colour
    colour = np.full((height, around, 3), body, np.uint8)
    cap = round(form.cap_end * height)
    colour[:cap] = lid
    if cap:
        for x in range(0, around, max(3, around // 60)):  # ridges
            cv2.line(colour, (x, 2), (x, cap - 1), blend_colours(lid, choose_ink(lid), 0.2), 1)
    top, bottom = (round(edge * height) for edge in form.label)
    label = np.full((bottom - top, around, 3), brand.ground, np.uint8)
    front = draw_front(sku, round(0.9 * width), bottom - top)
    start = (around - front.shape[1]) // 2
    end = start + front.shape[1]
    label[:, start:end] = front
    label[:, :start], label[:, end:] = front[:, :1], front[:, -1:]  # the band goes on around
    draw_small_print(label, (0.02, 0.2, 0.2, 0.8), sku.family.seed)
    colour[top:bottom] = label
    normals = _turned_normals(radii, width)
    return Package(
        "turned",
        _with_opacity(colour, np.full(colour.shape[:2], 255, np.uint8)),
        normals,
        form.gloss,
        0.0,
        None,
        radii,
        lid,
    )


def _turned_normals(radii: Pixels, width: int) -> Pixels:
    height = len(radii)
    across = (np.arange(width) - (width - 1) / 2) / np.maximum(radii[:, None], 1)
    across = np.clip(across, -1, 1)
    slope = np.gradient(cv2.GaussianBlur(radii[:, None], (1, 0), 0.02 * height + 0.5)[:, 0])[:, None]
    facing = np.sqrt(1 - across**2)
    normals = np.stack([across, np.broadcast_to(-slope, across.shape), facing], 2)
    return np.asarray(normals / np.linalg.norm(normals, axis=2, keepdims=True), np.float32)


def _make_soft(sku: Sku, width: int, height: int) -> Package:
    shape = sku.family.shape
    front = draw_front(sku, width, height)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    seal = (200, 200, 205) if shape == "bag" else blend_colours(sku.family.brand.ground, WHITE, 0.3)
    if shape == "tube":  # wide crimp above, narrow round shoulder, cap below
        half = np.interp(y, (-1, -0.9, 0.72, 0.82, 0.83, 1), (0.98, 0.98, 0.86, 0.6, 0.5, 0.46))
        front[y > 0.83] = sku.family.brand.accent
        front[y < -0.92] = seal
        lowest = np.ones_like(x)
    else:
        teeth = 0.012 * np.abs(np.mod(np.arange(width), 6) - 3) if shape == "bag" else np.zeros(width)
        half = 0.95 + 0.04 * np.abs(y) ** 3 - (0.05 * (1 - y**2) if shape == "bag" else 0.0)
        lowest = (0.985 - teeth)[None, :] * np.ones_like(y) - (0.06 * x**4 if shape == "pouch" else 0.0)
        front[np.abs(y) > 0.93 if shape == "bag" else y < -0.93] = seal
    edge = np.minimum((half - np.abs(x)) * width / 2, (lowest - np.abs(y)) * height / 2)
    opacity = (np.clip(edge + 0.5, 0, 1) * 255).astype(np.uint8)
    puff = np.clip(1 - np.abs(x / half) ** 3, 0, 1) * np.clip(1 - y**4, 0, 1)
    rng = np.random.default_rng(sku.family.seed)
    large = cv2.resize(rng.standard_normal((9, 6)), (width, height), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(rng.standard_normal((22, 12)), (width, height), interpolation=cv2.INTER_CUBIC)
    relief = min(width, height) * (0.22 * puff + 0.011 * (large + 0.5 * small) * np.sqrt(1.05 - puff))
    down, right = np.gradient(relief)
    normals = np.stack([-right, -down, np.ones_like(x)], 2)
    normals = np.asarray(normals / np.linalg.norm(normals, axis=2, keepdims=True), np.float32)
    return Package("soft", _with_opacity(front, opacity), normals, 0.35, 0.0, None, None, seal)


def _with_opacity(colour: Pixels, opacity: Pixels) -> Pixels:
    return np.dstack([colour, opacity])
