"""Colours of all plots: told apart by the colour-blind, and seen on white and on dark."""

from __future__ import annotations

# The hues of Okabe and Ito, Color Universal Design, 2008. Their sky blue and reddish purple are too pale on white
# (below a contrast of 3, the least for graphics of WCAG 2.1), and are darkened until they are not. So is their orange,
# but darkened the colour-blind take it for vermilion: a violet stands in its place.
COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#C4719F",
    "sky": "#2F93C8",
    "violet": "#7048F0",
}
CYCLE = tuple(COLOURS.values())
GREY = "#767676"  # what stands behind: diagonals, what belongs to no group
# Texts, axes and outlines: black, but not the very black that matplotlib leaves out of an SVG as its default.
INK = "#010101"
MARKERS = ("o", "s", "^", "D", "v", "P")  # one a colour, so that print without colours tells them apart
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))


def get_colour(position: int) -> str:
    """The colour of the group at a position; the first comes again after the last."""
    return CYCLE[position % len(CYCLE)]
