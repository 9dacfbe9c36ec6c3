"""The palette: seen on white and on dark, and told apart by the colour-blind."""

import itertools

import numpy as np
import pytest

from productrec.plots.palette import COLOURS, CYCLE, GREY, INK, LINES, MARKERS, get_colour

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# What dichromats see of linear RGB: Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopes": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
}


def to_linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def compute_contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio."""
    lights = sorted(float(to_linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def to_lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear.clip(0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("ground", ["#ffffff", "#16181d"])
@pytest.mark.parametrize("colour", [*CYCLE, GREY])
def test_every_colour_stands_out_from_white_and_from_dark(colour: str, ground: str) -> None:
    assert compute_contrast(colour, ground) >= 3


def test_some_of_the_published_hues_would_not() -> None:
    assert sum(compute_contrast(colour, "#ffffff") < 3 for colour in OKABE_ITO) == 3


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_every_two_colours_are_told_apart(seen_by: str) -> None:
    seen = {name: to_lab(SEEN_BY[seen_by] @ to_linear(colour)) for name, colour in COLOURS.items()}
    apart = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in itertools.combinations(seen, 2)}
    assert min(apart.values()) > 10, sorted(apart.items(), key=lambda item: item[1])[:3]


def test_every_colour_has_a_marker_and_a_line_of_its_own_and_comes_again_in_turn() -> None:
    assert len(set(CYCLE)) == len(set(MARKERS)) == len(set(LINES)) == len(CYCLE)
    assert get_colour(len(CYCLE)) == get_colour(0) == CYCLE[0]
    assert compute_contrast(INK, "#ffffff") > 15
