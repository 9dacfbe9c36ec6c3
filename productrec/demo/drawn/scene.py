"""What stands around a photographed package: backgrounds, neighbours, shadows, a hand, a price tag."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from productrec.demo.drawn.marks import Pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
_SKINS = ((150, 180, 225), (120, 150, 205), (95, 125, 180), (60, 85, 130), (45, 60, 95))


def draw_background(width: int, height: int, base_y: float, difficulty: float, rng: np.random.Generator) -> Pixels:
    """A backdrop, uint8 (height, width, 3); ``base_y`` is the row the package stands on.

    A studio's paper, a room out of focus, a table, a shelf or a floor; the busier ones come with ``difficulty``.
    """
    paper = 0.5 - 0.35 * difficulty
    room = (1 - paper) / 4
    kind = int(rng.choice(5, p=(paper, room, room, room, room)))
    if kind == 0:
        return _draw_paper(width, height, rng)
    if kind == 1:
        tones = rng.uniform(25, 215, (5, 5, 1)) + rng.normal(0, 16, (5, 5, 3)) + rng.normal(0, 14, 3)
        return _enlarge(np.clip(tones, 0, 255), width, height)
    if kind == 2:
        return _draw_table(width, height, base_y, rng)
    if kind == 3:
        return _draw_shelf(width, height, base_y, rng)
    return _draw_floor(width, height, rng)


def paste(canvas: Pixels, cutout: Pixels, centre: tuple[float, float], scale: float, brightness: float = 1.0) -> None:
    """Lay ``cutout``, uint8 (h, w, 4), over ``canvas`` in place; what falls outside is cut off."""
    width, height = (max(2, round(side * scale)) for side in (cutout.shape[1], cutout.shape[0]))
    left, top = round(centre[0] - width / 2), round(centre[1] - height / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(canvas.shape[1], left + width), min(canvas.shape[0], top + height)
    if x0 >= x1 or y0 >= y1:
        return
    small = cv2.resize(cutout, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = small[y0 - top : y1 - top, x0 - left : x1 - left]
    overlay(
        canvas[y0:y1, x0:x1], cv2.convertScaleAbs(small[..., :3], alpha=brightness), small[..., 3] * np.float32(1 / 255)
    )


def overlay(canvas: Pixels, colour: Pixels, opacity: Pixels) -> None:
    """Lay ``colour`` (H, W, 3) over ``canvas`` in place, ``opacity`` float32 (H, W) in [0, 1]."""
    canvas[:] = cv2.blendLinear(colour, np.ascontiguousarray(canvas), opacity, 1 - opacity)


def draw_neighbours(
    canvas: Pixels, cutouts: Sequence[Pixels], box: Box, difficulty: float, rng: np.random.Generator
) -> None:
    """Stand other packages behind and beside the one that will fill ``box``."""
    width, height = canvas.shape[1], canvas.shape[0]
    count = int(rng.binomial(4, 0.1 + 0.55 * difficulty))
    facing = bool(rng.random() < 0.5)  # a shelf often repeats one product
    cutout = cutouts[int(rng.integers(len(cutouts)))]
    for _ in range(count):
        if not facing:
            cutout = cutouts[int(rng.integers(len(cutouts)))]
        scale = float(rng.uniform(0.45, 0.9)) * max(box[3] - box[1], 0.4 * height) / max(cutout.shape[:2])
        x = float(rng.uniform(-0.05, 1.05)) * width
        y = box[3] - cutout.shape[0] * scale / 2 + float(rng.normal(0, 0.05)) * height
        paste(canvas, cutout, (x, y), scale, float(rng.uniform(0.5, 1.05)))
    if count and rng.random() < 0.6:  # out of focus
        canvas[:] = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.6, 2.2)) * max(width, height) / 160)


def cast_shadow(canvas: Pixels, opacity: Pixels, rng: np.random.Generator) -> None:
    """Darken ``canvas`` in place beside and below what ``opacity`` (H, W) will cover."""
    height, width = opacity.shape
    small = cv2.resize(opacity, (max(2, width // 4), max(2, height // 4)), interpolation=cv2.INTER_AREA)
    shift = np.array([(1, 0, rng.uniform(-0.06, 0.06) * width / 4), (0, 1, rng.uniform(0.0, 0.05) * height / 4)])
    small = cv2.warpAffine(small, shift, (small.shape[1], small.shape[0]))
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.01, 0.04)) * max(width, height) / 2)
    shade = 1 - np.float32(rng.uniform(0.2, 0.6)) * cv2.resize(small, (width, height))
    canvas[:] = cv2.multiply(canvas, cv2.merge([shade] * 3), dtype=cv2.CV_8U)


def draw_hand(canvas: Pixels, box: Box, rng: np.random.Generator) -> None:
    """A thumb or some fingers that reach in from one side and hold what fills ``box``."""
    left, top, right, bottom = box
    skin = np.asarray(_SKINS[int(rng.integers(len(_SKINS)))]) * rng.uniform(0.85, 1.1)
    side = 1 if rng.random() < 0.5 else -1
    edge = left if side > 0 else right
    breadth, tallness = right - left, bottom - top
    thickness = max(2.0, 0.085 * tallness)
    fingers = int(rng.integers(1, 5))
    start = float(rng.uniform(0.5, 0.95 - 0.07 * fingers))
    for number in range(fingers):
        y = top + (start + 0.1 * number) * tallness
        reach = float(rng.uniform(0.12, 0.28)) * breadth
        tip = np.array((edge + side * reach, y + rng.uniform(-0.03, 0.03) * tallness))
        root = np.array((edge - side * 0.9 * tallness, y + 0.5 * tallness + 0.05 * number * tallness))
        knuckle = np.array((edge - side * 0.05 * breadth, y + 0.02 * tallness))
        for colour, grow, lift in ((0.62, 1.0, 0.0), (1.0, 0.74, -0.12)):
            points = np.stack([root, knuckle, tip]) + np.array((0, lift * thickness))
            ink = tuple(float(value) for value in np.clip(skin * colour, 0, 255))
            line = np.round(points * 16).astype(np.int32)
            cv2.polylines(canvas, [line], False, ink, max(1, round(thickness * grow)), cv2.LINE_AA, 4)


def draw_price_tag(canvas: Pixels, box: Box, rng: np.random.Generator) -> None:
    """A paper tag with a price over a lower corner of ``box``."""
    left, top, right, bottom = box
    short = min(right - left, bottom - top)
    size = np.array((0.5, 0.26)) * short * rng.uniform(0.7, 1.1)
    centre = np.array((rng.choice((left, right)), bottom - rng.uniform(0.0, 0.2) * (bottom - top)))
    corners = np.round(cv2.boxPoints((centre.tolist(), size.tolist(), float(rng.normal(0, 8)))) * 16).astype(np.int32)
    paper = ((245, 245, 245), (60, 220, 250), (60, 60, 210))[int(rng.integers(3))]
    cv2.fillConvexPoly(canvas, corners, paper, cv2.LINE_AA, 4)
    cv2.polylines(canvas, [corners], True, (90, 90, 90), 1, cv2.LINE_AA, 4)
    price = f"{int(rng.integers(1, 30))}.{int(rng.integers(0, 10))}9"
    scale = float(size[0]) / 110
    spot = (round(centre[0] - 0.38 * size[0]), round(centre[1] + 0.2 * size[1]))
    cv2.putText(
        canvas, price, spot, cv2.FONT_HERSHEY_DUPLEX, scale, (30, 30, 30), max(1, round(2 * scale)), cv2.LINE_AA
    )


def _enlarge(values: Pixels, width: int, height: int) -> Pixels:
    """A coarse grid of levels as a smooth picture; in two steps, since a cubic over every pixel would cost the most."""
    levels: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    if levels.shape[2] == 1:
        levels = cv2.merge([levels[..., 0]] * 3)
    middle = (min(width, 6 * levels.shape[1]), min(height, 6 * levels.shape[0]))
    return np.asarray(cv2.resize(cv2.resize(levels, middle, interpolation=cv2.INTER_CUBIC), (width, height)))


def _draw_paper(width: int, height: int, rng: np.random.Generator) -> Pixels:
    tone = rng.uniform(205, 255) + rng.normal(0, 5, 3)
    return _enlarge(np.clip(tone + rng.normal(0, 8, (2, 2, 1)), 0, 255), width, height)


def _draw_table(width: int, height: int, base_y: float, rng: np.random.Generator) -> Pixels:
    wall = _enlarge(rng.uniform(70, 220) + rng.normal(0, 18, 3) + rng.normal(0, 12, (3, 3, 3)), width, height)
    horizon = int(np.clip(base_y - rng.uniform(0.02, 0.35) * height, 0.2 * height, height - 2))
    wood = np.asarray((70, 110, 160)) * rng.uniform(0.4, 1.4) + rng.normal(0, 14, 3)
    grain = wood + rng.normal(0, 12, (18, 4, 1)) + rng.normal(0, 8, (18, 1, 1))
    wall[horizon:] = _enlarge(np.clip(grain, 0, 255), width, height - horizon)
    return wall


def _draw_shelf(width: int, height: int, base_y: float, rng: np.random.Generator) -> Pixels:
    tone = rng.uniform(30, 190)
    canvas = _enlarge(tone + rng.normal(0, 12, (4, 4, 3)), width, height)
    board = int(np.clip(base_y - 0.02 * height, 0.3 * height, height - 1))
    metal = np.clip(rng.uniform(140, 235) + rng.normal(0, 6, 3), 0, 255)
    canvas[board:] = metal.astype(np.uint8)
    strip = min(height, board + max(2, round(0.09 * height)))
    canvas[board + max(1, round(0.02 * height)) : strip] = (metal * 0.7).astype(np.uint8)
    for x in range(int(rng.integers(0, 30) * width / 160), width, max(8, round(width * rng.uniform(0.2, 0.45)))):
        colour = (240, 240, 240) if rng.random() < 0.6 else (70, 220, 250)
        corner = (x + max(4, round(0.13 * width)), strip - 1)
        cv2.rectangle(canvas, (x, board + max(1, round(0.025 * height))), corner, colour, -1)
    canvas[strip:] = (canvas[strip:] * np.linspace(0.7, 0.3, max(1, height - strip))[:, None, None]).astype(np.uint8)
    return canvas


def _draw_floor(width: int, height: int, rng: np.random.Generator) -> Pixels:
    tone = rng.uniform(70, 215) + rng.normal(0, 8, 3)
    speckles = tone + rng.normal(0, rng.uniform(4, 28), (max(2, height // 2), max(2, width // 2), 1))
    canvas = _enlarge(np.clip(speckles, 0, 255), width, height)
    if rng.random() < 0.6:
        dark = tuple(float(value) for value in np.clip(tone * 0.7, 0, 255))
        vanish = np.array((rng.uniform(0, 1) * width, -rng.uniform(0.5, 2) * height))
        for x in np.arange(-2, 3.1, rng.uniform(0.3, 0.6)) * width:
            ends = np.round(np.stack([vanish, (x, 1.2 * height)]) * 16).astype(np.int32)
            cv2.polylines(canvas, [ends], False, dark, max(1, width // 90), cv2.LINE_AA, 4)
        for y in np.cumsum(np.linspace(0.08, 0.4, 6)) * height:
            cv2.line(canvas, (0, int(y)), (width, int(y)), dark, max(1, width // 90), cv2.LINE_AA)
    return canvas
