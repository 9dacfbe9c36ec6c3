"""Invents the products of a drawn competition: brands, families and the near-identical SKUs inside each family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from productrec.demo.drawn.kinds import ASPECTS, KINDS, Colour

_T = TypeVar("_T")

LOGOS = ("oval", "shield", "banner", "diamond", "hexagon", "circle", "burst", "arch")
PATTERNS = ("plain", "fade", "stripes", "dots", "rays", "chevrons", "waves")
BANDS = ("straight", "slanted", "wave", "arc")
FONT_COUNT = 6
LAYOUT_COUNT = 4

_SYLLABLES = [
    "al",
    "ar",
    "bel",
    "bo",
    "cal",
    "cor",
    "da",
    "del",
    "do",
    "el",
    "fen",
    "fi",
    "ga",
    "gra",
    "hol",
    "il",
    "jun",
    "ka",
    "kor",
    "la",
    "lo",
    "lum",
    "ma",
    "mi",
    "mon",
    "na",
    "nor",
    "ol",
    "pa",
    "per",
    "qui",
    "ra",
    "ro",
    "sa",
    "sol",
    "ta",
    "tor",
    "ul",
    "va",
    "ven",
    "wen",
    "xa",
    "yo",
    "zel",
    "zo",
]

# Ground, accent, ink. Few palettes on purpose: unrelated brands share colours, so colour alone names no product.
_PALETTES: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((235, 240, 242), (40, 40, 190), (255, 255, 255)),
    ((232, 236, 240), (150, 70, 20), (255, 255, 255)),
    ((40, 40, 185), (245, 245, 245), (30, 30, 150)),
    ((45, 45, 175), (70, 200, 245), (35, 35, 120)),
    ((140, 70, 25), (245, 245, 245), (110, 50, 20)),
    ((135, 75, 30), (60, 205, 245), (90, 40, 15)),
    ((70, 120, 40), (235, 245, 245), (50, 90, 30)),
    ((60, 105, 45), (70, 205, 240), (35, 60, 20)),
    ((60, 195, 240), (40, 40, 180), (255, 255, 255)),
    ((45, 42, 42), (90, 180, 215), (35, 30, 30)),
    ((205, 225, 235), (60, 95, 50), (240, 250, 250)),
    ((190, 215, 232), (40, 65, 110), (235, 245, 250)),
)

_BADGES = ("", "BIO", "NEW", "0%", "+20%", "XL", "2x")
_DETAILS = ("", "star", "ring", "swoosh", "crown", "dots")


_SIZE_STEPS = (1.0, 0.86, 1.16)  # how a size changes the aspect, at difficulty 0


@dataclass(frozen=True)
class Brand:
    """A name with its colours, the shape its logo sits on (one of `LOGOS`) and its lettering (an index)."""

    name: str
    ground: Colour
    accent: Colour
    ink: Colour
    logo: str
    font: int


@dataclass(frozen=True)
class Family:
    """What siblings share: brand, kind of product, package shape, and how the front is arranged."""

    brand: Brand
    branch: str
    kind: str
    name: str
    shape: str
    aspect: float
    layout: int
    pattern: str
    band: str
    marks: int
    seed: int


@dataclass(frozen=True)
class Sku:
    """One product; ``aspect`` is width over height, ``flavour_colour`` is its band's, ``fill_colour`` a bottle's."""

    family: Family
    flavour: str
    mark: str
    flavour_colour: Colour
    fill_colour: Colour
    size: str
    aspect: float
    badge: str
    logo_detail: str


def blend_colours(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours; ``share`` in [0, 1] is how much of ``second``."""
    blue, green, red = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return blue, green, red


def design_catalogue(skus: int, *, difficulty: float, rng: np.random.Generator) -> list[Sku]:
    """Invent ``skus`` products, families contiguous, no two products alike.

    Args:
        skus: how many, at least 1.
        difficulty: 0 to 1; at 0 siblings differ in flavour, with its natural colour; towards 1 more of them share the
            flavour and differ only in size, badge or a logo detail, and flavours' colours draw together.
        rng: where every choice comes from.
    """
    brands: list[Brand] = []
    names: set[str] = set()
    catalogue: list[Sku] = []
    while len(catalogue) < skus:
        if not brands or rng.random() < 0.55:
            brands.append(_design_brand({brand.name for brand in brands}, rng))
        family = _design_family(brands[int(rng.integers(max(0, len(brands) - 3), len(brands)))], names, rng)
        names.add(family.name)
        count = min(int(rng.integers(3, 7)), skus - len(catalogue))
        catalogue += _design_siblings(family, count, difficulty, rng)
    return sorted(catalogue, key=lambda sku: sku.family.branch)  # stable: families stay together


def _design_brand(taken: set[str], rng: np.random.Generator) -> Brand:
    syllables = 2
    while True:
        name = "".join(_SYLLABLES[row] for row in rng.permutation(len(_SYLLABLES))[:syllables]).capitalize()
        if name not in taken:
            break
        syllables = min(syllables + 1, 4)
    ground, accent, ink = _pick(_PALETTES, rng)
    return Brand(
        name, _jitter(ground, rng), _jitter(accent, rng), ink, _pick(LOGOS, rng), int(rng.integers(FONT_COUNT))
    )


def _design_family(brand: Brand, taken: set[str], rng: np.random.Generator) -> Family:
    kind = _pick(KINDS, rng)
    shape = _pick(kind.shapes, rng)
    name = f"{brand.name} {kind.name}"
    edition = 2
    while name in taken:
        name, edition = f"{brand.name} {kind.name} {edition}", edition + 1
    return Family(
        brand=brand,
        branch=kind.branch,
        kind=kind.name,
        name=name,
        shape=shape,
        aspect=ASPECTS[shape] * float(rng.uniform(0.92, 1.08)),
        layout=int(rng.integers(LAYOUT_COUNT)),
        pattern=_pick(PATTERNS, rng),
        band=_pick(BANDS, rng),
        marks=int(rng.integers(1, 4)),
        seed=int(rng.integers(2**31)),
    )


def _design_siblings(family: Family, count: int, difficulty: float, rng: np.random.Generator) -> list[Sku]:
    kind = next(kind for kind in KINDS if kind.name == family.kind)
    flavours = list(kind.flavours)
    anchor = kind.flavours[_pick(flavours, rng)][1]

    def describe(flavour: str, size: int, badge: str, detail: str) -> Sku:
        mark, natural = kind.flavours[flavour]
        colour = blend_colours(natural, anchor, 0.7 * difficulty)
        step = 1.0 + (_SIZE_STEPS[size] - 1.0) * (1.0 - 0.7 * difficulty)
        return Sku(
            family=family,
            flavour=flavour,
            mark=mark,
            flavour_colour=colour,
            fill_colour=blend_colours(colour, (40, 60, 80), 0.35),
            size=kind.sizes[size],
            aspect=family.aspect * step,
            badge=badge,
            logo_detail=detail,
        )

    siblings = [describe(_pick(flavours, rng), 0, "", "")]
    while len(siblings) < count:
        parent = _pick(siblings, rng)
        flavour, badge, detail = parent.flavour, parent.badge, parent.logo_detail
        size = kind.sizes.index(parent.size)
        if rng.random() < 0.85 - 0.5 * difficulty:
            flavour = _pick(flavours, rng)
        else:
            change = int(rng.integers(3))
            size = int(rng.integers(len(kind.sizes))) if change == 0 else size
            badge = _pick(_BADGES, rng) if change == 1 else badge
            detail = _pick(_DETAILS, rng) if change == 2 else detail
        sibling = describe(flavour, size, badge, detail)
        if sibling not in siblings:
            siblings.append(sibling)
    return siblings


def _jitter(colour: Colour, rng: np.random.Generator) -> Colour:
    blue, green, red = (int(np.clip(value + rng.integers(-14, 15), 0, 255)) for value in colour)
    return blue, green, red


def _pick(choices: Sequence[_T], rng: np.random.Generator) -> _T:
    return choices[int(rng.integers(len(choices)))]
