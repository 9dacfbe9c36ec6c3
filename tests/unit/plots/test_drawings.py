"""The drawings: each shows what it was given."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest

from productrec.errors import DataError
from productrec.losses.catalogue import list_pair_losses
from productrec.metrics.calibration import compute_reliability
from productrec.plots.calibration import draw_calibration
from productrec.plots.class_map import draw_class_map
from productrec.plots.figure import to_svg
from productrec.plots.gains import draw_gains
from productrec.plots.leaderboard import draw_leaderboard
from productrec.plots.open_set import draw_open_set
from productrec.plots.palette import CYCLE
from productrec.plots.staircase import draw_staircase
from productrec.plots.training import draw_training_curves
from productrec.plots.weights import draw_weight_curves
from productrec.recognition.open_set import compute_open_set_curve

NAME = "<b>&"


def read_texts(figure) -> set[str]:
    """What stands in a picture, from a page that it is put into."""
    return {"".join(text.itertext()).strip() for text in ElementTree.fromstring(to_svg(figure)).iter("text")}


def get_points(line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]


def test_a_staircase_has_a_line_a_part_from_top_to_bottom() -> None:
    figure = draw_staircase([("head", 70.0, 65.0, 75.0), (NAME, 80.04, 74.0, 85.0)], "accuracy %")
    assert {"head", NAME, "70.0", "80.0", "accuracy %"} <= read_texts(figure)
    (axis,) = figure.axes
    first, last = axis.get_ylim()
    assert first > last
    spans = [get_points(line) for line in axis.lines]
    assert [(65.0, 0.0), (75.0, 0.0)] in spans and [(74.0, 1.0), (85.0, 1.0)] in spans


def test_training_curves_show_the_panels_there_are() -> None:
    epochs = [{"epoch": 0, "train_loss": 3.0, "train_metric": 1.0}, {"epoch": 1, "train_loss": 2.0}]
    (losses,) = draw_training_curves(epochs).axes
    assert [get_points(line) for line in losses.lines] == [[(1, 3.0), (2, 2.0)], [(1, 1.0)]]
    more = draw_training_curves([line | {"raw_recall@1": 0.5, "recall@1": 0.6, "active_pairs": 0.1} for line in epochs])
    assert len(more.axes) == 3
    assert {"validation", "recall@1", "raw recall@1", "active pairs", "loss", "epoch"} <= read_texts(more)
    averaged, raw = sorted(more.axes[1].lines, key=lambda line: line.get_label() != "recall@1")
    assert averaged.get_color() == raw.get_color() and averaged.get_linestyle() != raw.get_linestyle()


def test_training_curves_of_nothing_are_drawn_empty() -> None:
    assert "losses" in read_texts(draw_training_curves([]))


def test_calibration_shows_confidence_accuracy_and_counts() -> None:
    curve = compute_reliability(np.linspace(0.1, 0.9, 40), np.arange(40) % 2 == 0, bins=4)
    figure = draw_calibration({NAME: curve, "other": curve})
    upper, lower = figure.axes
    points = [get_points(line) for line in upper.lines]
    assert [pytest.approx((100 * one.confidence, 100 * one.accuracy)) for one in curve.bins] in points
    assert [path.vertices[:, 1].tolist() for path in lower.collections[0].get_paths()] == [[0, 10]] * 4
    assert any(text.startswith(f"{NAME}, off by {100 * curve.error:.1f} %") for text in read_texts(figure))


def test_an_open_set_curve_goes_through_its_points() -> None:
    known, unknown = np.array([0.9, 0.8, 0.2]), np.array([0.85, 0.1])
    curve = list(zip(*compute_open_set_curve(known, np.array([True, True, False]), unknown), strict=True))
    figure = draw_open_set({NAME: curve})
    (axis,) = figure.axes
    points = get_points(axis.lines[-1])
    assert (50.0, pytest.approx(100 / 3)) in points and points[-1] == (100.0, pytest.approx(200 / 3))
    assert min(x for x, _ in points) > 0, "what no unknown query reaches has a place on a logarithmic axis"
    assert {NAME, "100"} <= read_texts(figure)


def test_a_class_map_names_few_classes_and_colours_the_largest_groups() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    groups = [f"group {number % 10}" for number in range(19)] + ["group 0"]
    figure = draw_class_map(points, [NAME, *(f"class {number}" for number in range(1, 20))], groups)
    assert {NAME, "class 19", "group 0", "others"} <= read_texts(figure)
    drawn = [len(one.get_offsets()) for one in figure.axes[0].collections]
    assert sum(drawn) == 20 and len(drawn) == len(CYCLE) + 1 and drawn[0] == 3
    many = draw_class_map(np.zeros((41, 2)), [NAME] * 41)
    assert NAME not in read_texts(many) and len(many.axes[0].collections) == 1
    with pytest.raises(DataError, match=r"points must be \(C, 2\)"):
        draw_class_map(points, ["one"])


def test_gains_lie_right_and_losses_left_and_the_greatest_move_is_kept() -> None:
    classes = [(NAME, 5, 1), ("still", 0, 0), ("worse", 0, 3), ("little", 1, 0)]
    figure = draw_gains(classes, first="old", second="new", most=2)
    texts = read_texts(figure)
    assert {NAME, "worse", "only old", "only new"} <= texts and not {"still", "little"} & texts
    (axis,) = figure.axes
    bars = {(round(bar.get_y() + bar.get_height() / 2, 6), bar.get_width()) for bar in axis.patches}
    assert bars == {(0, 5), (0, -1), (1, 0), (1, -3)}
    assert "-" not in "".join(texts - {NAME}) and "\N{MINUS SIGN}" not in "".join(texts)


def test_a_leaderboard_has_a_panel_a_competition() -> None:
    figure = draw_leaderboard([("one", "$a$.csv", 0.7, 0.6), ("two", NAME, 0.7, 0.6), ("one", "b.csv", 0.8, 0.9)])
    assert len(figure.axes) == 2
    assert {"$a$.csv", NAME, "b.csv", "one", "two"} <= read_texts(figure)


def test_weight_curves_have_a_row_a_loss_with_weights_up_to_one() -> None:
    figure = draw_weight_curves()
    rows = len(list_pair_losses())
    assert len(figure.axes) == 3 * rows
    heights = itertools.chain.from_iterable(line.get_ydata() for axis in figure.axes for line in axis.lines)
    assert max(heights) == pytest.approx(1.0)
