"""Statistics over seeds against SciPy, and the figure of a sweep."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from fastmri_ufloss.report.figures.score_plots import difference_rows, save_sweep, seed_interval, sweep_rows

METRICS = {"NRMSE": "NRMSE", "SSIM": "SSIM", "UFLoss": "UFLoss"}
VALUES = {
    "0": {1: (0.10, 0.88, 0.22), 2: (0.11, 0.87, 0.23), 3: (0.12, 0.89, 0.21)},
    "0.02": {1: (0.11, 0.89, 0.15), 2: (0.13, 0.86, 0.14), 3: (0.12, 0.90, 0.16)},
    "alone": {1: (0.20, 0.80, 0.12), 3: (0.22, 0.81, 0.13)},
}
SCORES = {
    weight: {seed: dict(zip(METRICS, values, strict=True)) for seed, values in of.items()}
    for weight, of in VALUES.items()
}


@pytest.mark.parametrize("count", [3, 5, 10])
def test_interval_of_several_seeds_is_students(count: int) -> None:
    values = np.random.default_rng(count).normal(1, 0.1, count)
    low, high, kind = seed_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((low, high), (expected.low, expected.high))
    assert kind == "95%, Student's t"


def test_interval_of_few_seeds_is_their_range() -> None:
    assert seed_interval([0.3, 0.1]) == (0.1, 0.3, "smallest to largest")
    assert seed_interval([0.3]) == (0.3, 0.3, "smallest to largest")
    for wrong in ([], [0.1, np.nan, 0.2]):
        with pytest.raises(ValueError, match="a finite number of each seed"):
            seed_interval(wrong)


def test_rows_hold_means_and_say_which_interval() -> None:
    rows = {(row["weight"], row["metric"]): row for row in sweep_rows(SCORES, list(METRICS))}
    assert len(rows) == 9
    assert rows["0", "NRMSE"]["mean"] == pytest.approx(0.11)
    assert rows["0", "NRMSE"]["seeds"] == {1: 0.10, 2: 0.11, 3: 0.12}
    assert rows["0", "NRMSE"]["interval"] == "95%, Student's t"
    alone = rows["alone", "UFLoss"]
    assert (alone["from"], alone["to"], alone["interval"]) == (0.12, 0.13, "smallest to largest")


def test_differences_are_paired_by_seed() -> None:
    rows = {(row["weight"], row["metric"]): row for row in difference_rows(SCORES, list(METRICS))}
    assert {weight for weight, _ in rows} == {"0.02", "alone"}
    a, b = ([VALUES[weight][seed][0] for seed in (1, 2, 3)] for weight in ("0", "0.02"))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    found = rows["0.02", "NRMSE"]
    assert found["difference"] == pytest.approx(np.mean(b) - np.mean(a))
    np.testing.assert_allclose((found["95% from"], found["95% to"]), (expected.low, expected.high))
    assert rows["alone", "NRMSE"]["seeds"] == 2
    assert rows["alone", "NRMSE"]["difference"] == pytest.approx(0.10)  # of seeds 1 and 3, which both have


def test_difference_of_one_seed_has_no_interval() -> None:
    (row,) = difference_rows({"0": {1: {"SSIM": 0.8}}, "1": {1: {"SSIM": 0.9}}}, ["SSIM"])
    assert (row["95% from"], row["95% to"]) == (None, None) and row["difference"] == pytest.approx(0.1)


def draw(scores: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    rows = sweep_rows(scores, list(METRICS))
    save_sweep("unused.png", rows, metrics=METRICS, distortion="NRMSE", perception="UFLoss")


def test_the_figure_shows_means_seeds_and_the_plane(figures: list[Figure]) -> None:
    draw(SCORES)
    (figure,) = figures
    *plots, plane = figure.axes
    for number, (axis, metric) in enumerate(zip(plots, METRICS, strict=True)):
        means, *seeds = (line for line in axis.lines if line.get_marker() == "o")
        expected = [np.mean([values[number] for values in of.values()]) for of in VALUES.values()]
        np.testing.assert_allclose(np.asarray(means.get_ydata(), dtype=float), expected)
        assert [list(dots.get_ydata()) for dots in seeds] == [
            [values[number] for values in of.values()] for of in VALUES.values()
        ]
        assert axis.get_ylabel() == metric
        assert [label.get_text() for label in axis.get_xticklabels()] == list(VALUES)
    points = [np.asarray(line.get_xydata(), dtype=float)[0] for line in plane.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(
        points, [[np.mean([values[i] for values in of.values()]) for i in (0, 2)] for of in VALUES.values()]
    )
    assert [text.get_text() for text in plane.texts] == list(VALUES)


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ((1,), "one seed"),
        ((1, 3), "2 seeds; bars: smallest to largest"),
        ((1, 2, 3), "2 to 3 seeds; bars: 95%, Student's t or smallest to largest"),
    ],
)
def test_the_figure_says_which_interval_it_shows(figures: list[Figure], seeds: tuple[int, ...], text: str) -> None:
    scores = {weight: {seed: of[seed] for seed in seeds if seed in of} for weight, of in SCORES.items()}
    draw(scores)
    assert figures[0].get_suptitle() == text


def test_a_pdf(tmp_path: Path) -> None:
    rows = sweep_rows(SCORES, list(METRICS))
    save_sweep(tmp_path / "sweep.pdf", rows, metrics=METRICS, distortion="NRMSE", perception="UFLoss")
    assert (tmp_path / "sweep.pdf").read_bytes()[:5] == b"%PDF-"
