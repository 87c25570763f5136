"""What the weight of a loss does to the scores of a network, trained several times with each weight."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from fastmri_ufloss.metrics.paired import LEVEL, paired_difference
from fastmri_ufloss.report.figures import drawing

__all__ = ["difference_rows", "save_sweep", "seed_interval", "sweep_rows"]

T_SEEDS = 3  # are needed for an interval by Student's t: of two it is 9 times as wide as their range

Rows = Sequence[Mapping[str, Any]]
SweepScores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Scores by name, of each weight, as it was typed, and seed."""


def seed_interval(values: Sequence[float]) -> tuple[float, float, str]:
    """Ends of an interval of the mean over seeds, and its name: 95% by Student's t, or the range of fewer than three.

    A value that is not finite, or no value, raises ValueError.
    """
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"values must hold a finite number of each seed, at least one, got {list(values)}")
    if scores.size < T_SEEDS:
        return float(scores.min()), float(scores.max()), "smallest to largest"
    mean, half = scores.mean(), stats.t.ppf((1 + LEVEL) / 2, scores.size - 1) * stats.sem(scores)
    return float(mean - half), float(mean + half), f"{LEVEL:.0%}, Student's t"


def sweep_rows(scores: SweepScores, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each weight that has seeds and each score: mean over seeds, its `seed_interval`, and the values."""
    rows = []
    for weight, by_seed in scores.items():
        for metric in metrics if by_seed else ():
            seeds = {seed: of_seed[metric] for seed, of_seed in sorted(by_seed.items())}
            values = list(seeds.values())
            low, high, kind = seed_interval(values)
            interval = {"mean": float(np.mean(values)), "from": low, "to": high, "interval": kind}
            rows.append({"weight": weight, "metric": metric, **interval, "seeds": seeds})
    return rows


def difference_rows(scores: SweepScores, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each weight but the first and each score: the difference from the first weight, paired by seed.

    A seed has the same first weights of the network and the same order of slices whatever the loss. The interval is
    that of Student's t, None for fewer than two seeds that both have.
    """
    first, rows = next(iter(scores), ""), []
    for weight, by_seed in scores.items():
        seeds = sorted(set(by_seed) & set(scores[first]))
        for metric in metrics if seeds and weight != first else ():
            pair = ([scores[of][seed][metric] for seed in seeds] for of in (first, weight))
            paired = paired_difference(*pair, larger_is_better=False)
            low, high = (None if math.isnan(end) else end for end in (paired.low, paired.high))
            interval = {"difference": paired.difference, "95% from": low, "95% to": high, "seeds": len(seeds)}
            rows.append({"weight": weight, "minus": first, "metric": metric, **interval})
    return rows


def save_sweep(
    path: str | Path, rows: Rows, *, metrics: Mapping[str, str], distortion: str, perception: str, title: str = ""
) -> None:
    """A PNG, JPG or PDF has a plot of each score against the weight, and one of perception against distortion.

    Means over seeds have their intervals, and a dot for each seed. The weights are equally far from each other, since
    they may begin with 0 and end with a word.

    Args:
        rows: of `sweep_rows`; a score without a row raises ValueError.
        metrics: label of each score by its name; three at most.
        distortion, perception: the scores of the last plot, to the right and upwards.
    """
    by_metric = {metric: [row for row in rows if row["metric"] == metric] for metric in metrics}
    for metric in (*metrics, distortion, perception):
        if not by_metric.get(metric):
            raise ValueError(f"rows must have the score {metric!r}, got {sorted({row['metric'] for row in rows})}")
    figure = Figure(figsize=(8.0, 6.2), layout="constrained")
    *axes, plane = figure.subplots(2, 2).flat
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    for axis, (metric, label) in zip(axes, metrics.items(), strict=False):
        _draw_score(axis, by_metric[metric])
        axis.set_ylabel(label)
    _draw_plane(plane, by_metric[distortion], by_metric[perception])
    plane.set(xlabel=f"{metrics[distortion]}: distortion", ylabel=f"{metrics[perception]}: perception")
    few, many = (end(len(row["seeds"]) for row in rows) for end in (min, max))
    seeds = f"{few} seeds" if few == many else f"{few} to {many} seeds"
    what = f"{seeds}; bars: {' or '.join(sorted({row['interval'] for row in rows}))}" if many > 1 else "one seed"
    figure.suptitle("\n".join(filter(None, (title, what))), fontsize=10)
    drawing.write_figure(path, figure, dpi=200)


def _draw_score(axis: Axes, rows: Rows) -> None:
    bars = np.hstack([_bar(row) for row in rows])
    line: dict[str, Any] = {"color": "0.25", "marker": "o", "markersize": 4, "capsize": 3, "linewidth": 1.2}
    axis.errorbar(range(len(rows)), [row["mean"] for row in rows], yerr=bars, **line)
    for place, row in enumerate(rows):
        values = list(row["seeds"].values())
        # beside the bar, or else it hides them
        axis.plot(np.full(len(values), place + 0.13), values, "o", color=f"C{place % 10}", markersize=3.5, alpha=0.9)
    axis.set_xticks(range(len(rows)), [row["weight"] for row in rows])
    axis.set(xlabel="weight of UFLoss", xlim=(-0.4, len(rows) - 0.6))
    axis.grid(axis="y", alpha=0.3)


def _draw_plane(axis: Axes, distortion: Rows, perception: Rows) -> None:
    x, y = ([row["mean"] for row in rows] for rows in (distortion, perception))
    axis.plot(x, y, color="0.8", linewidth=1, zorder=0)
    for place, (across, up) in enumerate(zip(distortion, perception, strict=True)):
        color, center = f"C{place % 10}", (across["mean"], up["mean"])
        line: dict[str, Any] = {"color": color, "marker": "o", "markersize": 5, "capsize": 2, "linewidth": 1}
        axis.errorbar(*center, xerr=_bar(across), yerr=_bar(up), **line)
        dots = (list(row["seeds"].values()) for row in (across, up))
        axis.plot(*dots, ".", color=color, markersize=4, alpha=0.6)
        axis.annotate(across["weight"], center, xytext=(5, 5), textcoords="offset points", color=color)
    axis.margins(x=0.12, y=0.1)
    axis.grid(alpha=0.3)


def _bar(row: Mapping[str, Any]) -> np.ndarray:
    """Lengths of an error bar, (2, 1)."""
    return np.array([[row["mean"] - row["from"]], [row["to"] - row["mean"]]])
