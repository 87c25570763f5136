"""Numbers of curves against their formulas, and the figure of figure 10."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures.loss_curves import (
    LossCurves,
    compare_falls,
    describe_fall,
    save_loss_curves,
)

EPOCHS = range(1, 31)


def decay(rate: float, *, floor: float = 1.0, height: float = 2.0) -> dict[int, float]:
    return {epoch: floor + height * math.exp(-rate * (epoch - 1)) for epoch in EPOCHS}


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_95_percent_of_an_exponential_fall(rate: float) -> None:
    left = math.exp(-rate * (len(EPOCHS) - 1))  # of the fall to the floor, at the last epoch
    expected = math.ceil(-math.log(0.05 + 0.95 * left) / rate) + 1
    found = describe_fall(decay(rate))
    assert found["95% of its fall by epoch"] == expected
    assert (found["first"], found["last"]) == (3.0, found["lowest"])


def test_fall_does_not_depend_on_scale_and_offset() -> None:
    curve = decay(0.3)
    moved = {epoch: 1e-4 * value + 7 for epoch, value in curve.items()}
    assert describe_fall(moved)["95% of its fall by epoch"] == describe_fall(curve)["95% of its fall by epoch"]


def test_change_in_the_second_half() -> None:
    assert describe_fall({1: 8.0, 2: 4.0, 3: 3.0})["change in the second half"] == pytest.approx(-0.25)


def test_a_pixel_loss_that_is_flat_while_the_other_falls() -> None:
    fast, slow = decay(1.0), decay(0.1, floor=0.5)
    found = compare_falls(fast, slow)
    flat = found["pixel loss flat from epoch"]
    assert flat < found["feature loss flat from epoch"]
    assert found["pixel loss flattens first"] is True
    expected = (slow[flat] - slow[30]) / (slow[1] - slow[30])
    assert found["fall of the feature loss still to come"] == pytest.approx(expected)
    assert expected > 0.5
    assert compare_falls(slow, slow)["pixel loss flattens first"] is False
    swapped = compare_falls(slow, fast)
    assert swapped["pixel loss flattens first"] is False
    assert swapped["fall of the feature loss still to come"] < 0.05


def test_a_curve_that_rises_has_no_fall() -> None:
    rising = {1: 1.0, 2: 2.0}
    assert describe_fall(rising)["95% of its fall by epoch"] is None
    assert compare_falls(rising, {1: 2.0, 2: 1.0})["pixel loss flattens first"] is None


@pytest.mark.parametrize("curve", [{}, {1: 1.0, 2: math.nan}])
def test_curves_without_numbers_are_refused(curve: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="curve must have a finite value"):
        describe_fall(curve)


def run(name: str, *, terms: tuple[str, ...] = ("l2", "ufloss"), epochs: tuple[int, ...] = (1, 5)) -> LossCurves:
    curves = {"l2": decay(0.8), "ufloss": decay(0.2)}
    target = np.random.default_rng(0).random((24, 20))
    images = {f"epoch {epoch}": (target / epoch, f"NRMSE {1 - 1 / epoch:.2f}") for epoch in epochs}
    images |= {"reference": (target, "")} if epochs else {}
    return LossCurves(name, {term: curves[term] for term in terms}, {}, images)


LABELS = {"l2": "pixel loss", "ufloss": "UFLoss"}


def test_runs_stand_side_by_side_on_one_scale(figures: list[Figure]) -> None:
    lower = run("lower")._replace(training={"l2": {1: 1.0, 2: 0.25}})
    save_loss_curves("unused.png", [run("both"), lower], labels=LABELS)
    (figure,) = figures
    plots = [axis for axis in figure.axes if axis.get_ylabel()]
    assert [axis.get_ylabel() for axis in plots] == ["pixel loss", "UFLoss", "pixel loss", "UFLoss: not logged"]
    assert plots[0].get_ylim() == plots[2].get_ylim() and plots[1].get_ylim() == plots[3].get_ylim()
    assert plots[0].get_ylim()[0] < 0.25
    for axis, term in ((plots[0], "l2"), (plots[1], "ufloss")):
        curve = run("both").training[term]
        line, mark, *_ = axis.lines
        assert list(line.get_xdata()) == list(EPOCHS) and list(line.get_ydata()) == list(curve.values())
        assert list(mark.get_xdata()) == [describe_fall(curve)["95% of its fall by epoch"]]


def test_one_term_has_one_scale(figures: list[Figure]) -> None:
    save_loss_curves("unused.png", [run("one", epochs=())], labels={"l2": "pixel loss"})
    assert [axis.get_ylabel() for axis in figures[0].axes] == ["pixel loss"]


def test_images_and_zooms_are_those_of_the_epochs(figures: list[Figure]) -> None:
    save_loss_curves("unused.png", [run("both", epochs=(1, 5))], labels=LABELS)
    (figure,) = figures
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["epoch 1", "epoch 5", "reference", "", "", ""]
    assert [axis.get_xlabel() for axis in shown[3:5]] == ["NRMSE 0.00", "NRMSE 0.80"]
    target, _ = run("both").images["reference"]
    for axis, factor in zip(shown, (1, 0.2, 1), strict=False):
        np.testing.assert_allclose(axis.images[0].get_array(), factor * target)
        assert axis.images[0].get_clim() == (0, pytest.approx(np.percentile(target, 99.5)))
    frame = shown[0].patches[0]
    col, row, side = round(frame.get_x() + 0.5), round(frame.get_y() + 0.5), round(frame.get_width())
    np.testing.assert_allclose(shown[5].images[0].get_array(), target[row : row + side, col : col + side])


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF-")])
def test_a_file_of_each_kind(tmp_path: Path, suffix: str, start: bytes) -> None:
    save_loss_curves(tmp_path / f"x.{suffix}", [run("run", epochs=())], labels=LABELS)
    assert (tmp_path / f"x.{suffix}").read_bytes().startswith(start)
