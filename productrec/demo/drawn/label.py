"""Prints the artwork of a SKU: the front of its package, and the plain side panel of a box. Used by `package`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from productrec.demo.drawn.catalogue import Sku, blend_colours
from productrec.demo.drawn.kinds import Colour
from productrec.demo.drawn.marks import (
    BLACK,
    WHITE,
    Pixels,
    Point,
    choose_ink,
    draw_mark,
    draw_small_print,
    draw_star,
    draw_text,
    fill_shape,
    outline_logo,
)

# Artwork is printed this much larger and averaged down, so that fine lettering stays smooth; large artwork needs less.
_OVERSAMPLING, _PRINT_PX = 3, 1500


@dataclass(frozen=True)
class _Layout:
    """Where things stand on the front, as shares of its width (x) and height (y)."""

    logo: tuple[float, float, float, float]  # centre x, centre y, width, height
    kind: tuple[float, float, float, float]
    flavour: tuple[float, float, float, float]
    band: tuple[float, float]  # upper and lower edge
    mark: tuple[float, float, float, float]  # centre x, centre y, and the room on each side of it
    size: Point
    badge: Point


_TALL = (
    _Layout(
        logo=(0.5, 0.16, 0.88, 0.23),
        kind=(0.5, 0.325, 0.7, 0.06),
        flavour=(0.5, 0.81, 0.86, 0.09),
        band=(0.74, 0.88),
        mark=(0.5, 0.545, 0.42, 0.175),
        size=(0.72, 0.94),
        badge=(0.84, 0.42),
    ),
    _Layout(
        logo=(0.5, 0.37, 0.9, 0.25),
        kind=(0.5, 0.545, 0.7, 0.055),
        flavour=(0.5, 0.15, 0.86, 0.09),
        band=(0.07, 0.23),
        mark=(0.44, 0.77, 0.4, 0.18),
        size=(0.73, 0.94),
        badge=(0.84, 0.65),
    ),
    _Layout(
        logo=(0.5, 0.14, 0.86, 0.2),
        kind=(0.5, 0.285, 0.75, 0.06),
        flavour=(0.5, 0.45, 0.88, 0.09),
        band=(0.38, 1.0),
        mark=(0.5, 0.71, 0.42, 0.19),
        size=(0.28, 0.95),
        badge=(0.85, 0.58),
    ),
    _Layout(
        logo=(0.5, 0.78, 0.88, 0.23),
        kind=(0.5, 0.94, 0.7, 0.05),
        flavour=(0.5, 0.57, 0.86, 0.085),
        band=(0.0, 0.64),
        mark=(0.5, 0.29, 0.44, 0.21),
        size=(0.26, 0.05),
        badge=(0.84, 0.1),
    ),
)
_WIDE = (
    _Layout(
        logo=(0.3, 0.28, 0.52, 0.44),
        kind=(0.3, 0.6, 0.4, 0.1),
        flavour=(0.3, 0.83, 0.5, 0.14),
        band=(0.73, 0.93),
        mark=(0.77, 0.42, 0.2, 0.3),
        size=(0.86, 0.83),
        badge=(0.56, 0.18),
    ),
    _Layout(
        logo=(0.68, 0.34, 0.56, 0.44),
        kind=(0.68, 0.66, 0.4, 0.1),
        flavour=(0.36, 0.86, 0.6, 0.14),
        band=(0.76, 0.96),
        mark=(0.2, 0.4, 0.19, 0.34),
        size=(0.86, 0.86),
        badge=(0.38, 0.16),
    ),
    _Layout(
        logo=(0.4, 0.2, 0.6, 0.34),
        kind=(0.4, 0.44, 0.4, 0.08),
        flavour=(0.36, 0.68, 0.5, 0.16),
        band=(0.52, 1.0),
        mark=(0.82, 0.6, 0.17, 0.36),
        size=(0.3, 0.9),
        badge=(0.88, 0.18),
    ),
    _Layout(
        logo=(0.3, 0.71, 0.52, 0.42),
        kind=(0.78, 0.65, 0.32, 0.1),
        flavour=(0.34, 0.2, 0.5, 0.16),
        band=(0.0, 0.4),
        mark=(0.78, 0.28, 0.2, 0.25),
        size=(0.82, 0.9),
        badge=(0.6, 0.84),
    ),
)


def draw_front(sku: Sku, width: int, height: int) -> Pixels:
    """The printed front of ``sku``: uint8 (height, width, 3), blue-green-red."""
    large_width, large_height = _enlarge(width, height)
    family, brand = sku.family, sku.family.brand
    layout = (_WIDE if family.aspect > 1.1 else _TALL)[family.layout]
    short = float(min(large_width, large_height))

    def to_pixels(x: float, y: float) -> Point:
        return x * large_width, y * large_height

    canvas = _draw_ground(sku, large_width, large_height)
    _draw_band(canvas, sku, layout.band)
    # Inks are chosen before pictures cover the ground, so that siblings print the same word in the same colour.
    kind_ink, size_ink = (choose_ink(_sample(canvas, to_pixels(*spot))) for spot in (layout.kind[:2], layout.size))
    centre = to_pixels(*layout.mark[:2])
    radius = min(layout.mark[2] * large_width, layout.mark[3] * large_height)
    if family.seed % 3 == 0:  # a pale window behind the picture, as many packages have
        pale = blend_colours(sku.flavour_colour, WHITE, 0.78)
        fill_shape(canvas, _disc(centre, 1.06 * radius), pale, brand.accent, 0.012 * short)
    _draw_marks(canvas, sku, layout, centre, radius)
    _draw_logo(canvas, sku, layout, short)
    draw_text(
        canvas,
        family.kind,
        to_pixels(*layout.kind[:2]),
        to_pixels(*layout.kind[2:]),
        kind_ink,
        font=(brand.font + 1) % 6,
    )
    ink = choose_ink(sku.flavour_colour)
    draw_text(canvas, sku.flavour, to_pixels(*layout.flavour[:2]), to_pixels(*layout.flavour[2:]), ink, font=3)
    draw_text(canvas, sku.size, to_pixels(*layout.size), (0.42 * short, 0.06 * large_height), size_ink, font=3)
    if sku.badge:
        _draw_badge(canvas, sku, to_pixels(*layout.badge), 0.17 * short)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))


def draw_side(sku: Sku, width: int, height: int) -> Pixels:
    """The side panel of ``sku``'s box: small logo, lines of print, bar code; uint8 (height, width, 3)."""
    large_width, large_height = _enlarge(width, height)
    brand = sku.family.brand
    canvas = np.full((large_height, large_width, 3), brand.ground, np.uint8)
    layout = (_WIDE if sku.family.aspect > 1.1 else _TALL)[sku.family.layout]
    _draw_band(canvas, sku, layout.band)
    centre = (0.5 * large_width, 0.14 * large_height)
    fill_shape(canvas, outline_logo(brand.logo, centre, 0.8 * large_width, 0.14 * large_height), brand.accent)
    draw_text(canvas, brand.name, centre, (0.6 * large_width, 0.07 * large_height), brand.ink, font=brand.font)
    draw_small_print(canvas, (0.12, 0.32, 0.88, 0.68), sku.family.seed)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))


def _enlarge(width: int, height: int) -> tuple[int, int]:
    factor = max(1, min(_OVERSAMPLING, _PRINT_PX // max(width, height)))
    return width * factor, height * factor


def _draw_ground(sku: Sku, width: int, height: int) -> Pixels:
    """The package's colour with its family's pattern on it."""
    family = sku.family
    ground = family.brand.ground
    tone = blend_colours(ground, choose_ink(ground), 0.10)
    canvas = np.full((height, width, 3), ground, np.uint8)
    short = min(width, height)
    step = max(8, short // (4 + family.seed % 5))
    thick = max(1, step // 3)
    if family.pattern == "fade":
        share = np.linspace(0, 0.55, height)[:, None, None]
        canvas[:] = np.asarray(ground) * (1 - share) + np.asarray(family.brand.accent) * share
    elif family.pattern == "stripes":
        for x in range(-height, width, step):
            cv2.line(canvas, (x, height), (x + height // 2, 0), tone, thick, cv2.LINE_AA)
    elif family.pattern == "dots":
        for row, y in enumerate(range(0, height + step, step)):
            for x in range((row % 2) * step // 2, width + step, step):
                cv2.circle(canvas, (x, y), thick, tone, -1, cv2.LINE_AA)
    elif family.pattern == "rays":
        middle, reach = np.array((width / 2, height * 0.45)), float(width + height)
        for angle in np.arange(12) * np.pi / 6:
            edges = np.array([(np.cos(angle + turn), np.sin(angle + turn)) for turn in (0.0, 0.26)]) * reach
            fill_shape(canvas, np.concatenate([[middle], middle + edges]), tone)
    elif family.pattern == "chevrons":
        for y in range(-width, height + width, 2 * step):
            points = np.array([(0, y), (width // 2, y + width // 4), (width, y)], np.int32)
            cv2.polylines(canvas, [points], False, tone, thick, cv2.LINE_AA)
    elif family.pattern == "waves":
        along = np.linspace(0, width, 40)
        for y in range(0, height, step):
            points = np.stack([along, y + np.sin(along / short * 9 + y) * step / 3], 1).astype(np.int32)
            cv2.polylines(canvas, [points], False, tone, max(1, thick // 2), cv2.LINE_AA)
    return canvas


def _draw_band(canvas: Pixels, sku: Sku, edges: tuple[float, float]) -> None:
    height, width = canvas.shape[:2]
    x = np.linspace(0, 1, 40)
    bend = {
        "straight": np.zeros(40),
        "slanted": 0.05 * (0.5 - x),
        "wave": 0.018 * np.sin(2 * np.pi * x),
        "arc": 0.06 * (0.25 - (x - 0.5) ** 2) - 0.008,
    }[sku.family.band]
    upper, lower = (np.stack([x * width, (edge + bend) * height], 1) for edge in edges)
    if edges[0] <= 0:
        upper[:, 1] = -height
    if edges[1] >= 1:
        lower[:, 1] = 2 * height
    trim = np.array((0, 0.012 * height))
    rim: Colour = sku.family.brand.accent
    if edges[0] > 0:
        fill_shape(canvas, np.concatenate([upper - trim, upper[::-1] + trim]), rim)
    if edges[1] < 1:
        fill_shape(canvas, np.concatenate([lower - trim, lower[::-1] + trim]), rim)
    fill_shape(canvas, np.concatenate([upper, lower[::-1]]), sku.flavour_colour)


def _sample(canvas: Pixels, point: Point) -> Colour:
    height, width = canvas.shape[:2]
    blue, green, red = canvas[min(height - 1, int(point[1])), min(width - 1, int(point[0]))]
    return int(blue), int(green), int(red)


def _disc(centre: Point, radius: float) -> Pixels:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + centre


def _draw_badge(canvas: Pixels, sku: Sku, centre: Point, radius: float) -> None:
    colour, ink = ((60, 215, 250), BLACK) if sku.family.seed % 2 else ((60, 150, 70), WHITE)
    draw_star(canvas, centre, radius, colour, points=14, inner=0.8)
    draw_text(canvas, sku.badge, centre, (1.35 * radius, 0.75 * radius), ink, font=3)


def _draw_marks(canvas: Pixels, sku: Sku, layout: _Layout, centre: Point, radius: float) -> None:
    """The flavour's picture once, twice or three times, as the family has it."""
    colour = sku.flavour_colour
    band = layout.band
    if band[0] < layout.mark[1] < band[1] and sku.family.seed % 3:  # on its own colour it would vanish
        colour = blend_colours(colour, choose_ink(colour), 0.45)
    spots = {
        1: ((0.0, 0.0, 0.9),),
        2: ((-0.4, -0.18, 0.6), (0.42, 0.22, 0.6)),
        3: ((0.0, -0.42, 0.52), (-0.48, 0.36, 0.48), (0.48, 0.36, 0.48)),
    }[sku.family.marks]
    for dx, dy, size in spots:
        draw_mark(canvas, sku.mark, (centre[0] + dx * radius, centre[1] + dy * radius), size * radius, colour)


def _draw_logo(canvas: Pixels, sku: Sku, layout: _Layout, short: float) -> None:
    brand = sku.family.brand
    height, width = canvas.shape[:2]
    x, y, breadth, tallness = layout.logo
    centre = (x * width, y * height)
    breadth, tallness = breadth * width, min(tallness * height, 0.75 * breadth * width)
    line = 0.02 * short
    fill_shape(canvas, outline_logo(brand.logo, centre, breadth, tallness), brand.accent, brand.ink, line)
    if sku.logo_detail == "ring":
        inner = outline_logo(brand.logo, centre, 0.88 * breadth, 0.84 * tallness)
        fill_shape(canvas, inner, brand.accent, brand.ink, line)
    above, below = (centre[0], centre[1] - 0.29 * tallness), (centre[0], centre[1] + 0.31 * tallness)
    shift = {"star": 0.1, "crown": 0.1, "dots": -0.06, "swoosh": -0.06}.get(sku.logo_detail, 0.0)  # makes room for it
    name_centre = (centre[0], centre[1] + shift * tallness)
    draw_text(canvas, brand.name, name_centre, (0.76 * breadth, 0.37 * tallness), brand.ink, font=brand.font)
    if sku.logo_detail == "star":
        draw_star(canvas, above, 0.17 * tallness, brand.ink)
    elif sku.logo_detail == "crown":
        crown = np.array([(-1, 0.6), (-1, -0.6), (-0.5, 0.1), (0, -0.9), (0.5, 0.1), (1, -0.6), (1, 0.6)])
        fill_shape(canvas, crown * 0.15 * tallness + above, brand.ink)
    elif sku.logo_detail == "swoosh":
        x_axis = np.linspace(-0.3, 0.3, 16)
        curve = np.stack([x_axis * breadth, 0.5 * tallness * (0.09 - x_axis**2)], 1) + below - (0, 0.04 * tallness)
        cv2.polylines(canvas, [curve.astype(np.int32)], False, brand.ink, max(1, round(2.2 * line)), cv2.LINE_AA)
    elif sku.logo_detail == "dots":
        for dx in (-0.12, 0.0, 0.12):
            fill_shape(canvas, _disc((below[0] + dx * breadth, below[1]), 0.08 * tallness), brand.ink)
