"""Draws what is printed on a package: lettering, logo plates, flavour pictures. Used by `label`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from productrec.demo.drawn.catalogue import blend_colours
from productrec.demo.drawn.kinds import Colour

Pixels = npt.NDArray[Any]  # uint8 pictures and float32 maps; OpenCV's own annotations say no more
Point = tuple[float, float]

WHITE: Colour = (250, 250, 250)
BLACK: Colour = (25, 25, 25)
_GREEN: Colour = (60, 140, 70)
# Hershey faces, each with how bold it is printed; index = `Brand.font`.
_FONTS = (
    (cv2.FONT_HERSHEY_SIMPLEX, 3.2),
    (cv2.FONT_HERSHEY_COMPLEX, 2.6),
    (cv2.FONT_HERSHEY_SCRIPT_COMPLEX, 2.4),
    (cv2.FONT_HERSHEY_DUPLEX, 4.4),
    (cv2.FONT_HERSHEY_TRIPLEX, 2.2),
    (cv2.FONT_HERSHEY_COMPLEX | cv2.FONT_ITALIC, 2.8),
)
_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)


def choose_ink(ground: Colour) -> Colour:
    """Black or white, whichever reads on ``ground``."""
    return BLACK if 0.114 * ground[0] + 0.587 * ground[1] + 0.299 * ground[2] > 140 else WHITE


def fill_shape(canvas: Pixels, points: Pixels, colour: Colour, outline: Colour | None = None, width: float = 0) -> None:
    """Fill the polygon ``points`` (N, 2), in pixels; with ``outline`` draw its edge ``width`` pixels wide."""
    corners = np.round(points).astype(np.int32)
    cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA)
    if outline is not None:
        cv2.polylines(canvas, [corners], True, outline, max(1, round(width)), cv2.LINE_AA)


def draw_text(
    canvas: Pixels,
    text: str,
    centre: Point,
    room: Point,
    colour: Colour,
    *,
    font: int = 0,
    outline: Colour | None = None,
) -> None:
    """Print ``text`` as large as fits in ``room`` (width, height in pixels) around ``centre``."""
    face, boldness = _FONTS[font]
    (width, height), _ = cv2.getTextSize(text, face, 1.0, round(boldness))
    scale = min(room[0] / max(width, 1), room[1] / (height * 1.1))
    thickness = max(1, round(boldness * scale))
    corner = (round(centre[0] - width * scale / 2), round(centre[1] + height * scale / 2))
    if outline is not None:
        cv2.putText(canvas, text, corner, face, scale, outline, thickness + max(2, round(4 * scale)), cv2.LINE_AA)
    cv2.putText(canvas, text, corner, face, scale, colour, thickness, cv2.LINE_AA)


def outline_logo(logo: str, centre: Point, width: float, height: float) -> Pixels:
    """The plate that a wordmark stands on, one of `catalogue.LOGOS`, as a polygon (N, 2) in pixels."""
    x, y = np.cos(_ANGLES), np.sin(_ANGLES)
    if logo == "shield":
        unit = np.array([(-1, -1), (0, -0.8), (1, -1), (0.97, 0.1), (0.7, 0.62), (0, 1.1), (-0.7, 0.62), (-0.97, 0.1)])
    elif logo == "banner":
        unit = np.array([(-1.05, -0.85), (1.05, -0.85), (0.9, 0), (1.05, 0.85), (-1.05, 0.85), (-0.9, 0)])
    elif logo == "diamond":
        unit = np.array([(-1.1, 0), (-0.45, -0.85), (0.45, -0.85), (1.1, 0), (0.45, 0.85), (-0.45, 0.85)])
    elif logo == "hexagon":
        unit = np.array([(-1, 0), (-0.85, -0.8), (0.85, -0.8), (1, 0), (0.85, 0.8), (-0.85, 0.8)])
    elif logo == "arch":
        upper = np.linspace(np.pi, 2 * np.pi, 24)
        unit = np.concatenate([np.stack([np.cos(upper), 0.2 + 1.1 * np.sin(upper)], 1), [(1, 0.75), (-1, 0.75)]])
    elif logo == "burst":
        radius = 1 + 0.09 * np.cos(np.arange(48) * np.pi)
        unit = np.stack([x * radius, y * radius], 1)
    elif logo == "circle":
        unit = np.stack([np.sign(x) * np.abs(x) ** 0.55, np.sign(y) * np.abs(y) ** 0.55], 1)
    else:
        unit = np.stack([x, y], 1)
    return np.asarray(unit * (width / 2, height / 2) + centre)


def draw_star(
    canvas: Pixels, centre: Point, radius: float, colour: Colour, points: int = 5, inner: float = 0.45
) -> None:
    """A filled star of ``points`` tips; ``inner`` is the radius between tips as a share of ``radius``."""
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0) * radius
    fill_shape(canvas, np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1) + centre, colour)


def draw_mark(canvas: Pixels, mark: str, centre: Point, radius: float, colour: Colour) -> None:
    """The picture of a flavour (a fruit, a leaf, an ear of wheat, ...), within ``radius`` pixels of ``centre``."""
    _MARKS[mark](canvas, centre, radius, colour)


def draw_small_print(canvas: Pixels, box: tuple[float, float, float, float], seed: int) -> None:
    """Unreadable lines above a bar code inside ``box`` (left, top, right, bottom as shares of the canvas)."""
    height, width = canvas.shape[:2]
    rng = np.random.default_rng(seed)
    left, right = int(box[0] * width), int(box[2] * width)
    top, bottom = int(box[1] * height), int(box[3] * height)
    cv2.rectangle(canvas, (left, top), (right, bottom), WHITE, -1)
    room, line = right - left, max(1, (bottom - top) // 16)
    for row in range(9):
        y = top + line * (row + 1)
        cv2.line(
            canvas,
            (left + room // 12, y),
            (left + int(room * rng.uniform(0.5, 0.92)), y),
            (90, 90, 90),
            max(1, line // 3),
        )
    x = float(left + room // 8)
    while x < right - room / 8:
        bar = rng.uniform(0.01, 0.035) * room
        cv2.rectangle(canvas, (round(x), bottom - line * 5), (round(x + bar / 2), bottom - line), BLACK, -1)
        x += bar * 1.6


def _dark(colour: Colour, share: float = 0.35) -> Colour:
    return blend_colours(colour, (10, 20, 30), share)


def _light(colour: Colour, share: float = 0.5) -> Colour:
    return blend_colours(colour, (255, 255, 255), share)


def _petal(centre: Point, angle: float, length: float, breadth: float, start: float = 0.0) -> Pixels:
    """A pointed leaf from ``start`` to ``start + length`` along ``angle`` (radians)."""
    along = np.linspace(0, 1, 12)
    across = breadth * np.sin(np.pi * along**0.8)
    x = np.concatenate([along, along[::-1]]) * length + start
    y = np.concatenate([across, -across[::-1]])
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(np.stack([x * cosine - y * sine, x * sine + y * cosine], 1) + centre)


def _blob(centre: Point, radius: float, stretch: float = 1.0, tilt: float = 0.0) -> Pixels:
    x, y = np.cos(_ANGLES) * radius, np.sin(_ANGLES) * radius * stretch
    cosine, sine = np.cos(tilt), np.sin(tilt)
    return np.asarray(np.stack([x * cosine - y * sine, x * sine + y * cosine], 1) + centre)


def _draw_ball(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    fill_shape(canvas, _blob(centre, radius), _dark(colour))
    fill_shape(canvas, _blob((x - 0.08 * radius, y - 0.08 * radius), 0.9 * radius), colour)
    fill_shape(canvas, _blob((x - 0.35 * radius, y - 0.38 * radius), 0.24 * radius), _light(colour))


def _draw_round(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    _draw_ball(canvas, (x, y + 0.12 * radius), 0.86 * radius, colour)
    fill_shape(canvas, _petal((x, y - 0.68 * radius), -0.5, 0.75 * radius, 0.16 * radius), _GREEN)
    tip = (round(x + 0.1 * radius), round(y - radius))
    cv2.line(canvas, (round(x), round(y - 0.6 * radius)), tip, _dark(_GREEN), max(1, round(0.09 * radius)), cv2.LINE_AA)


def _draw_citrus(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    fill_shape(canvas, _blob(centre, radius), colour)
    fill_shape(canvas, _blob(centre, 0.86 * radius), _light(colour, 0.8))
    for angle in np.arange(8) * np.pi / 4:
        fill_shape(canvas, _petal(centre, angle, 0.74 * radius, 0.24 * radius, 0.06 * radius), colour)


def _draw_berries(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    fill_shape(canvas, _petal((x, y - 0.45 * radius), -0.7, 0.8 * radius, 0.2 * radius), _GREEN)
    fill_shape(canvas, _petal((x, y - 0.45 * radius), -2.4, 0.7 * radius, 0.18 * radius), _dark(_GREEN))
    for dx, dy in ((-0.55, -0.2), (0.0, -0.25), (0.55, -0.2), (-0.28, 0.22), (0.28, 0.22), (0.0, 0.65)):
        _draw_ball(canvas, (x + dx * radius, y + dy * radius), 0.34 * radius, colour)


def _draw_leaf(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    root = (centre[0], centre[1] + 0.8 * radius)
    for angle, length, shade in ((-2.3, 1.35, 0.25), (-0.84, 1.35, 0.25), (-1.57, 1.7, 0.0)):
        fill_shape(canvas, _petal(root, angle, length * radius, 0.3 * radius), _dark(colour, shade))
        tip = (round(root[0] + np.cos(angle) * length * radius), round(root[1] + np.sin(angle) * length * radius))
        start = (round(root[0]), round(root[1]))
        cv2.line(canvas, start, tip, _light(colour, 0.4), max(1, round(0.05 * radius)), cv2.LINE_AA)


def _draw_bean(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    for dx, dy, tilt in ((-0.4, -0.3, 0.7), (0.42, -0.1, -0.5), (-0.1, 0.48, 0.1)):
        middle = (centre[0] + dx * radius, centre[1] + dy * radius)
        fill_shape(canvas, _blob(middle, 0.52 * radius, 0.66, tilt), _dark(colour))
        fill_shape(canvas, _blob(middle, 0.47 * radius, 0.6, tilt), colour)
        fill_shape(canvas, _blob(middle, 0.4 * radius, 0.12, tilt + 0.15), _light(colour, 0.4))


def _draw_chilli(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    along = np.linspace(0, 1, 20)
    spine = np.stack([-0.6 + 1.5 * along, -0.55 + 1.45 * along**2.2], 1)
    across = np.stack([0.26 * (1 - along) ** 0.6 * np.ones(20), -0.3 * (1 - along) ** 0.6], 1)
    points = np.concatenate([spine + across, (spine - across)[::-1]]) * radius + np.asarray(centre)
    fill_shape(canvas, points, colour, _dark(colour), 0.08 * radius)
    cap = (centre[0] - 0.6 * radius, centre[1] - 0.6 * radius)
    fill_shape(canvas, _blob(cap, 0.34 * radius, 0.6, -0.8), _GREEN)
    end = (round(cap[0] - 0.3 * radius), round(cap[1] - 0.35 * radius))
    cv2.line(canvas, (round(cap[0]), round(cap[1])), end, _dark(_GREEN), max(1, round(0.12 * radius)), cv2.LINE_AA)


def _draw_flower(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    for index, angle in enumerate(np.arange(7) * 2 * np.pi / 7):
        fill_shape(canvas, _petal(centre, angle, radius, 0.3 * radius), _dark(colour, 0.12 * (index % 2)))
    fill_shape(canvas, _blob(centre, 0.26 * radius), (50, 190, 240), _dark(colour), 0.05 * radius)


def _draw_drop(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    angles = _ANGLES - np.pi / 2
    width = 0.72 * radius * np.sin(_ANGLES / 2) ** 1.5
    points = np.stack([np.cos(angles) * width, np.sin(angles) * 0.95 * radius], 1) + np.asarray(centre)
    fill_shape(canvas, points, colour, _dark(colour), 0.08 * radius)
    fill_shape(
        canvas, _blob((centre[0] - 0.22 * radius, centre[1] + 0.35 * radius), 0.18 * radius, 1.6), _light(colour, 0.7)
    )


def _draw_grain(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    foot, head = (round(x), round(y + radius)), (round(x), round(y - 0.7 * radius))
    cv2.line(canvas, foot, head, _dark(colour), max(1, round(0.08 * radius)), cv2.LINE_AA)
    for step in range(5):
        root = (x, y + (0.55 - 0.3 * step) * radius)
        for angle in (-2.2, -0.94):
            fill_shape(canvas, _petal(root, angle, 0.55 * radius, 0.14 * radius), _dark(colour, 0.1 * (step % 2)))
    fill_shape(canvas, _petal((x, y - 0.5 * radius), -np.pi / 2, 0.5 * radius, 0.13 * radius), colour)


def _draw_wedge(canvas: Pixels, centre: Point, radius: float, colour: Colour) -> None:
    top = np.array([(-0.95, 0.05), (0.75, -0.65), (0.95, 0.0)]) * radius + centre
    front = np.array([(-0.95, 0.05), (0.95, 0.0), (0.95, 0.65), (-0.95, 0.7)]) * radius + centre
    fill_shape(canvas, top, _light(colour, 0.35))
    fill_shape(canvas, front, colour, _dark(colour), 0.05 * radius)
    for dx, dy, size in ((-0.5, 0.4, 0.16), (0.1, 0.25, 0.12), (0.55, 0.42, 0.15)):
        fill_shape(canvas, _blob((centre[0] + dx * radius, centre[1] + dy * radius), size * radius), _dark(colour))


_MARKS: dict[str, Callable[[Pixels, Point, float, Colour], None]] = {
    "round": _draw_round,
    "citrus": _draw_citrus,
    "berries": _draw_berries,
    "leaf": _draw_leaf,
    "bean": _draw_bean,
    "chilli": _draw_chilli,
    "flower": _draw_flower,
    "drop": _draw_drop,
    "grain": _draw_grain,
    "wedge": _draw_wedge,
}
