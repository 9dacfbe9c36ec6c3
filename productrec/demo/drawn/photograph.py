"""Photographs a drawn package: a pose, a scene, light and a camera with its faults."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import cv2
import numpy as np

from productrec.demo.drawn.marks import Pixels
from productrec.demo.drawn.package import Package
from productrec.demo.drawn.pose import Pose, draw_posed
from productrec.demo.drawn.scene import (
    Box,
    cast_shadow,
    draw_background,
    draw_hand,
    draw_neighbours,
    draw_price_tag,
    overlay,
    paste,
)

# Looked up by random bytes, these give normal noise an order of magnitude faster than drawing it does.
_NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((level + 0.5) / 256) for level in range(256)])
_SHAPES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75), (0.8, 1.0), (0.667, 1.0))


def take_photograph(
    package: Package, cutouts: Sequence[Pixels], *, max_side_px: int, difficulty: float, rng: np.random.Generator
) -> bytes:
    """A JPEG of ``package``.

    Args:
        package: what is photographed.
        cutouts: other packages to stand around it, from `cut_out`; at least one.
        max_side_px: the picture's longer side.
        difficulty: 0 to 1; how far pose, clutter, light, blur, noise and compression go.
        rng: where every choice comes from.
    """
    wide, tall = _SHAPES[int(rng.integers(len(_SHAPES)))]
    width, height = round(wide * max_side_px), round(tall * max_side_px)
    light = _choose_light(rng, difficulty)
    pose = _choose_pose(rng, difficulty, width, height)
    colour, opacity = draw_posed(package, pose, light, width, height)
    box = _find_box(opacity)

    canvas = draw_background(width, height, box[3], difficulty, rng)
    draw_neighbours(canvas, cutouts, box, difficulty, rng)
    cast_shadow(canvas, opacity, rng)
    overlay(canvas, colour, opacity)
    _cover(canvas, cutouts, box, difficulty, rng)
    return _expose(canvas, max_side_px, difficulty, rng)


def cut_out(package: Package, side_px: int, rng: np.random.Generator) -> Pixels:
    """A posed package without background, uint8 (h, w, 4), to stand around others."""
    pose = Pose(
        yaw=float(rng.uniform(-0.4, 0.4)),
        pitch=0.15,
        roll=float(rng.normal(0, 0.04)),
        distance=3.0,
        centre=(side_px / 2, side_px / 2),
        fill=0.98,
        room=(side_px, side_px),
    )
    colour, opacity = draw_posed(package, pose, _choose_light(rng, 0.5), side_px, side_px)
    left, top, right, bottom = (int(value) for value in _find_box(opacity))
    cutout = np.dstack([colour, (opacity * 255).astype(np.uint8)])
    return np.ascontiguousarray(cutout[top : bottom + 1, left : right + 1])


def _choose_light(rng: np.random.Generator, difficulty: float) -> Pixels:
    spread = 0.3 + 0.8 * difficulty
    light = np.array((rng.uniform(-spread, spread), -rng.uniform(0.1, 0.2 + spread), 1.0))
    return np.asarray(light / np.linalg.norm(light))


def _choose_pose(rng: np.random.Generator, difficulty: float, width: int, height: int) -> Pose:
    fill = float(rng.uniform(0.92 - 0.42 * difficulty, 0.96 + 0.14 * difficulty))
    slack = max(0.02, 0.5 * (1 - fill) + 0.08 * difficulty)
    return Pose(
        yaw=float(np.clip(rng.normal(0, 0.1 + 0.5 * difficulty), -1.0, 1.0)),
        pitch=float(np.clip(rng.normal(0.12, 0.05 + 0.25 * difficulty), -0.5, 0.6)),
        roll=float(np.clip(rng.normal(0, 0.03 + 0.25 * difficulty), -0.9, 0.9)),
        distance=float(rng.uniform(1.6, 4.5)),
        centre=(width * (0.5 + rng.uniform(-slack, slack)), height * (0.5 + rng.uniform(-slack, slack))),
        fill=fill,
        room=(width, height),
    )


def _find_box(opacity: Pixels) -> Box:
    """The box (left, top, right, bottom) around what is opaque."""
    left, top, breadth, tallness = cv2.boundingRect((opacity > 0.5).astype(np.uint8))
    return left, top, left + max(1, breadth), top + max(1, tallness)


def _cover(canvas: Pixels, cutouts: Sequence[Pixels], box: Box, difficulty: float, rng: np.random.Generator) -> None:
    """Sometimes something stands in front: a hand, a price tag, a neighbour's edge."""
    if rng.random() > 0.05 + 0.6 * difficulty:
        return
    kind = int(rng.integers(3))
    if kind == 0:
        draw_hand(canvas, box, rng)
    elif kind == 1:
        draw_price_tag(canvas, box, rng)
    else:
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        scale = float(rng.uniform(0.5, 1.0)) * (box[3] - box[1]) / max(cutout.shape[:2])
        overlap = float(rng.uniform(0.05, 0.1 + 0.2 * difficulty)) * (box[2] - box[0])
        shift = cutout.shape[1] * scale / 2 - overlap
        x = box[0] - shift if rng.random() < 0.5 else box[2] + shift
        paste(canvas, cutout, (x, box[3] - cutout.shape[0] * scale / 2 + 0.06 * canvas.shape[0]), scale)


def _expose(canvas: Pixels, max_side_px: int, difficulty: float, rng: np.random.Generator) -> bytes:
    """Room light, lens, sensor and JPEG."""
    height, width = canvas.shape[:2]
    lit = cv2.multiply(canvas, _draw_room_light(width, height, difficulty, rng), dtype=cv2.CV_8U)
    if rng.random() < 0.1 + 0.4 * difficulty:
        lit = _add_glare(lit, difficulty, rng)
    unit = max_side_px / 160
    if rng.random() < 0.3 * difficulty:
        lit = cv2.filter2D(lit, -1, _draw_motion(unit * rng.uniform(1.5, 2.5 + 5 * difficulty), rng))
    else:
        lit = cv2.GaussianBlur(lit, (0, 0), float(unit * rng.uniform(0.25, 0.4 + 1.0 * difficulty)))
    noise = _draw_noise(width, height, float(rng.uniform(0.5, 2 + 10 * difficulty)), rng)
    quality = int(rng.uniform(95 - 55 * difficulty, 96))
    _, data = cv2.imencode(".jpg", cv2.add(lit, noise, dtype=cv2.CV_8U), (cv2.IMWRITE_JPEG_QUALITY, quality))
    return data.tobytes()


def _draw_noise(width: int, height: int, strength: float, rng: np.random.Generator) -> Pixels:
    """Grain of ``strength`` levels, coarser and weaker in colour than in brightness: int16 (height, width, 3)."""
    table = (_NORMAL_QUANTILES * strength).astype(np.int16)
    grain = cv2.LUT(rng.integers(0, 256, (height, width), np.uint8), table)
    coarse = rng.integers(0, 256, (height // 2 + 1, width // 2 + 1, 3), np.uint8)
    tint = cv2.resize(cv2.LUT(coarse, (0.4 * _NORMAL_QUANTILES * strength).astype(np.int16)), (width, height))
    return np.asarray(cv2.add(tint, cv2.merge([grain] * 3)))


def _draw_room_light(width: int, height: int, difficulty: float, rng: np.random.Generator) -> Pixels:
    """How much of each colour reaches each pixel: float32 (height, width, 3) around 1."""
    gain = 2 ** rng.normal(0, 0.05 + 0.35 * difficulty)
    warmth, green = rng.normal(0, 0.02 + 0.14 * difficulty), rng.normal(0, 0.01 + 0.05 * difficulty)
    cast = np.array((1 - warmth, 1 + green, 1 + warmth))
    y, x = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 12), indexing="ij")
    angle, steepness = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.05 + 0.4 * difficulty)
    along = np.cos(angle) * x + np.sin(angle) * y
    field = (1 + steepness * along) * (1 - 0.12 * difficulty * (x * x + y * y))
    if rng.random() < 0.5 * difficulty:  # the shadow of something outside the picture
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.7)
        across = np.cos(angle) * x + np.sin(angle) * y
        field *= 1 - rng.uniform(0.2, 0.55) / (1 + np.exp(-12 * (across - offset)))
    smooth = cv2.resize(field.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.merge([smooth * np.float32(gain * share) for share in cast]))


def _add_glare(lit: Pixels, difficulty: float, rng: np.random.Generator) -> Pixels:
    """A soft reflection of a lamp on top of ``lit``."""
    height, width = lit.shape[:2]
    small = np.zeros((24, 24), np.float32)
    centre = (int(rng.integers(3, 21)), int(rng.integers(3, 21)))
    axes = (int(rng.integers(1, 4)), int(rng.integers(1, 7)))
    tilt, strength = float(rng.uniform(0, 180)), float(rng.uniform(50, 90 + 150 * difficulty))
    cv2.ellipse(small, centre, axes, tilt, 0, 360, strength, -1)
    glare = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.2), (width, height)).astype(np.uint8)
    return np.asarray(cv2.add(lit, cv2.merge([glare] * 3)))


def _draw_motion(length: float, rng: np.random.Generator) -> Pixels:
    """A shaken hand: a blur along one direction, ``length`` pixels."""
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array((np.cos(angle), np.sin(angle))) * length / 2
    middle = side // 2
    ends = np.round(np.stack([middle - reach, middle + reach]) * 16).astype(np.int32)
    cv2.polylines(kernel, [ends], False, 1.0, 1, cv2.LINE_AA, 4)
    return np.asarray(kernel / max(float(kernel.sum()), 1e-6))
