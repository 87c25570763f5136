"""Plots of scores: boxes by method and contrast, perception against distortion, and the sweep of a loss's weight."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import stats

from fastmri_ufloss.metrics.paired import LEVEL, paired_difference
from fastmri_ufloss.metrics.volumes import SPECTRUM
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.subject_tables import scores_by_subject

__all__ = [
    *("choose_scores", "difference_rows", "perception_distortion_metrics", "quartiles", "read_report"),
    *("save_box_plots", "save_perception_distortion", "save_spectra", "save_sweep", "seed_interval", "sweep_rows"),
]

T_SEEDS = 3  # are needed for an interval by Student's t: of two it is 9 times as wide as their range
_HEIGHT = 2.2  # inches, of a plot
_BOX = 0.13  # inches, of a box with its gap
_MARGIN = 0.9  # inches, of a plot's ticks and of the gaps between contrasts
_PAGE = 7.2  # inches, the width of a printed page
_FONT = 8
_LETTERS = 36  # of a name in a line
_LETTERS_AN_INCH = 14
_SMALL: dict[str, Any] = {"fontsize": _FONT, "parse_math": False}  # a $ in a method's name is a $

Rows = Sequence[Mapping[str, Any]]
SweepScores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Scores by name, of each weight, as it was typed, and seed."""


def save_box_plots(path: str | Path, document: Mapping[str, Any], *, reference: str | None = None) -> None:
    """A PNG, JPG or PDF has a plot for each metric, groups of boxes for the contrasts, a box for each method.

    A dot is a subject, the mean over its volumes of the contrast, and whiskers reach 1.5 interquartile ranges. The
    metrics are those of a report against a reference, its first if not given, or against none; without a value there
    is a ValueError. (As figure 9 of Wang et al., MRM 2022.)
    """
    reference = reference or document["references"][0]
    metrics = [metric for metric in document["metrics"] if metric["reference"] in (None, reference)]
    scores = _finite_scores(document, [metric["name"] for metric in metrics])
    metrics = [metric for metric in metrics if metric["name"] in {name for _, name, _ in scores}]
    if not metrics:
        raise ValueError(f"document must have a volume with a value of a metric against {reference}, got none")
    methods, groups = document["methods"], _groups(document)
    width = len(groups) * len(methods) * _BOX + _MARGIN
    columns = int(np.clip(_PAGE // width, 1, len(metrics)))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(max(columns * width, 3.5), rows * _HEIGHT + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    for metric, axis in zip(metrics, axes, strict=False):
        boxes = [[scores.get((contrast, metric["name"], method), []) for method in methods] for contrast in groups]
        _draw_boxes(axis, boxes, groups)
        axis.set_title(textwrap.fill(_metric_label(metric), max(12, int(width * _LETTERS_AN_INCH))), **_SMALL)
    handles = [Patch(color=drawing.method_color(index)) for index in range(len(methods))]
    columns = int(np.clip(figure.get_figwidth() * 14 // (min(max(map(len, methods)), _LETTERS) + 5), 1, len(methods)))
    _add_legend(figure, handles, methods, loc="outside lower center", ncols=columns)
    drawing.write_figure(path, figure, dpi=200)


def _draw_boxes(axis: Axes, boxes: Sequence[Sequence[Sequence[float]]], groups: Sequence[str]) -> None:
    """The scores of each group and method."""
    step = len(boxes[0]) + 1
    for number, of_methods in enumerate(boxes):
        for index, scores in enumerate(of_methods):
            if scores:
                _draw_box(axis, scores, number * step + index, drawing.method_color(index))
    axis.set_xticks([])
    if len(groups) > 1:
        axis.set_xticks([number * step + (step - 2) / 2 for number in range(len(groups))], groups, **_SMALL)
    axis.set_xlim(-1, len(groups) * step - 1)
    axis.tick_params(axis="x", length=0)
    axis.tick_params(axis="y", labelsize=_FONT - 1)
    axis.grid(axis="y", linewidth=0.4, alpha=0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_box(axis: Axes, scores: Sequence[float], place: float, color: str) -> None:
    axis.boxplot(  # without outliers: every subject has its dot
        [scores], positions=[place], widths=0.65, showfliers=False, patch_artist=True, manage_ticks=False,
        boxprops={"facecolor": (color, 0.3), "edgecolor": color}, medianprops={"color": "black", "linewidth": 1.2},
        whiskerprops={"color": color}, capprops={"color": color},
    )  # fmt: skip
    # beside each other by multiples of the golden ratio: the same in each run
    jitter = 0.45 * (np.arange(len(scores)) * 0.618034 % 1 - 0.5)
    axis.plot(place + jitter, scores, ".", color=color, markersize=2.5, zorder=3)


def perception_distortion_metrics(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of NRMSE and of the first UFLoss that no method was trained with; None if one is missing."""
    metrics = document["metrics"]
    distortions = [metric["name"] for metric in metrics if metric["label"] == "NRMSE"]
    perceptions = [m["name"] for m in metrics if m["label"].startswith("UFLoss") and m["tested"]]
    return (distortions[0], perceptions[0]) if distortions and perceptions else None


def save_perception_distortion(
    path: str | Path, document: Mapping[str, Any], *, distortion: str, perception: str
) -> None:
    """A PNG, JPG or PDF has a point for each method, the means over all subjects with their 95% intervals.

    Distortion, to the right, and perception, upwards, are `perception_distortion_metrics`; without a method that has
    both there is a ValueError. (After Blau and Michaeli, "The perception-distortion tradeoff", CVPR 2018.)
    """
    labels = {metric["name"]: _metric_label(metric) for metric in document["metrics"]}
    first = document["contrasts"][0]
    means = [row for row in document["means"] if row["contrast"] == first and row["mean"] is not None]
    rows = {(row["method"], row["metric"]): row for row in means}
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    points: dict[str, Any] = {}
    for index, method in enumerate(document["methods"]):
        across, up = rows.get((method, distortion)), rows.get((method, perception))
        if across and up:
            bars = {"xerr": _bar(across, "95% from", "95% to"), "yerr": _bar(up, "95% from", "95% to")}
            style: dict[str, Any] = {"fmt": "o", "markersize": 4.5, "linewidth": 1, **bars}
            points[method] = axis.errorbar(across["mean"], up["mean"], color=drawing.method_color(index), **style)
    if not points:
        raise ValueError(f"document must have a method with both {distortion} and {perception}, got none")
    axis.set(xlabel=labels[distortion], ylabel=labels[perception])
    axis.tick_params(labelsize=_FONT - 1)
    axis.grid(linewidth=0.4, alpha=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.locator_params(axis="x", nbins=6)
    _add_legend(figure, list(points.values()), list(points), loc="outside right upper")
    drawing.write_figure(path, figure, dpi=200)


def save_spectra(path: str | Path, document: Mapping[str, Any]) -> None:
    """A PNG, JPG or PDF has a line for each method: its power over the reference's, by band of spatial frequency.

    Points are means over all subjects with their 95% intervals. A document without such scores raises ValueError.
    """
    bands = [metric["name"] for metric in document["metrics"] if metric["name"] in SPECTRUM]
    first = document["contrasts"][0]
    means = [row for row in document["means"] if row["contrast"] == first and row["mean"] is not None]
    rows = {(row["method"], row["metric"]): row for row in means}
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    lines: dict[str, Any] = {}
    axis.axhline(1, color="black", linewidth=0.6, linestyle="--")
    for index, method in enumerate(document["methods"]):
        of_method = [rows[method, band] for band in bands if (method, band) in rows]
        if len(of_method) == len(bands) > 0:
            bars = np.concatenate([_bar(row, "95% from", "95% to") for row in of_method], axis=1)
            places = np.arange(len(bands)) + 0.02 * (index - len(document["methods"]) / 2)
            style: dict[str, Any] = {
                "fmt": "o-",
                "markersize": 3,
                "linewidth": 1,
                "color": drawing.method_color(index),
            }
            lines[method] = axis.errorbar(places, [row["mean"] for row in of_method], yerr=bars, **style)
    if not lines:
        raise ValueError(f"document must have a method with scores {', '.join(SPECTRUM)}, got none")
    axis.set_xticks(range(len(bands)), [band.removeprefix("spectrum ") for band in bands])
    axis.set(xlabel="spatial frequency / largest", ylabel="power / power of the reference")
    axis.tick_params(labelsize=_FONT - 1)
    axis.grid(linewidth=0.4, alpha=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    _add_legend(figure, list(lines.values()), list(lines), loc="outside right upper")
    drawing.write_figure(path, figure, dpi=200)


def _bar(row: Mapping[str, Any], low: str = "from", high: str = "to") -> np.ndarray:
    """Lengths of the error bar of a mean, (2, 1), NaN without an interval."""
    low_end, high_end = np.array([row[low], row[high]], dtype=float)
    return np.maximum([[row["mean"] - low_end], [high_end - row["mean"]]], 0.0)


def _add_legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str], *, loc: Any, ncols: int = 1) -> None:
    """A legend of methods, whatever letters their names have; ``loc`` as matplotlib's."""
    labels = [textwrap.fill(name, _LETTERS) for name in names]
    legend = figure.legend(handles, labels, loc=loc, ncols=ncols, fontsize=_FONT, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _metric_label(metric: Mapping[str, Any]) -> str:
    """Label, unit, and an arrow to where it is better."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric["larger_is_better"]]
    return metric["label"] + (f" ({metric['unit']})" if metric["unit"] else "") + arrow


def read_report(file: str | Path) -> dict[str, Any]:
    """The document of a report; a file that holds something else raises ValueError."""
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} must be the report.json of a report, it is not JSON ({error})") from error
    needed = ("methods", "references", "metrics", "contrasts", "volumes", "slices")
    if not isinstance(document, dict) or not document.keys() >= set(needed):
        raise ValueError(f"{file} must be the report.json of a report, it lacks some of {', '.join(needed)}")
    return document


def choose_scores(
    document: Mapping[str, Any],
    names: Sequence[str],
    reference: str,
    *,
    contrasts: Sequence[str] | None,
    by_slice: bool,
) -> dict[str, Any]:
    """A report's document of some metrics and contrasts, to draw; what the report lacks raises ValueError.

    Names are of its metrics, or their labels against the reference; "UFLoss" is that of each network. With
    ``by_slice`` a dot is a slice, though slices of one subject are not independent.
    """
    if reference not in document["references"]:
        raise ValueError(f"reference must be one of {', '.join(document['references'])}, got {reference!r}")
    metrics = []
    for name in names:
        if name == "UFLoss":
            meant = [metric for metric in document["metrics"] if metric["label"].startswith("UFLoss")]
        else:
            fitting = [metric for metric in document["metrics"] if name in (metric["name"], metric["label"])]
            meant = [m for m in fitting if name == m["name"] or m["reference"] in (None, reference)]
        if not meant:
            known = ", ".join(metric["name"] for metric in document["metrics"])
            hint = ", which a report has if it was given a feature network" if name == "UFLoss" else ""
            raise ValueError(f"the report has no metric {name!r} against {reference}{hint}, only {known}")
        # UFLoss of a complex network may be against another reference: it is shown all the same
        metrics += [{**metric, "reference": None} for metric in meant]
    every, *others = document["contrasts"]
    if unknown := sorted(set(contrasts or ()) - set(others)):
        raise ValueError(f"contrasts must be some of {', '.join(others) or 'none'}, got {unknown[0]!r}")
    rows = document["volumes"]
    if by_slice:
        rows = [{**row, "subject": f"{row['volume']}, slice {row['slice']}"} for row in document["slices"]]
    contrasts = [every, *(others if contrasts is None else contrasts)]
    return {**document, "metrics": metrics, "contrasts": contrasts, "volumes": rows}


def quartiles(document: Mapping[str, Any], unit: str) -> list[dict[str, Any]]:
    """A row for each contrast, metric and method: how many units there are, such as subjects, and their quartiles."""
    rows = []
    scores = _finite_scores(document, [metric["name"] for metric in document["metrics"]])
    for (contrast, metric, method), values in scores.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        numbers = {f"{unit}s": len(values), "median": middle, "1st quartile": low, "3rd quartile": high}
        rows.append({"contrast": contrast, "metric": metric, "method": method, **numbers})
    return rows


def _groups(document: Mapping[str, Any]) -> list[str]:
    """The contrasts, or all together where there is one only."""
    return list(document["contrasts"][1:] or document["contrasts"])


def _finite_scores(document: Mapping[str, Any], names: Sequence[str]) -> dict[tuple[str, str, str], list[float]]:
    """The values of all subjects by group, metric and method."""
    scores, every = {}, document["contrasts"][0]
    for contrast in _groups(document):
        rows = [row for row in document["volumes"] if contrast in (every, row["contrast"])]
        for metric, methods in scores_by_subject(rows, names).items():
            for method, by_subject in methods.items():
                scores[contrast, metric, method] = [x for x in by_subject.values() if np.isfinite(x)]
    return scores


def seed_interval(values: Sequence[float]) -> tuple[float, float, str]:
    """Ends and name of an interval of the mean over seeds; no value, or one that is not finite, raises ValueError."""
    scores = np.asarray(values, dtype=float)
    if not scores.size or not np.isfinite(scores).all():
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
    """A PNG, JPG or PDF has plots of three scores against the weight, and one of perception against distortion.

    Metrics are labels by score. Means over seeds, of `sweep_rows`, have their intervals, and a dot for each seed.
    Weights are equally far from each other, since they may begin with 0 and end with a word.
    """
    by_metric = {metric: [row for row in rows if row["metric"] == metric] for metric in metrics}
    figure = Figure(figsize=(8.0, 6.2), layout="constrained")
    *axes, plane = figure.subplots(2, 2).flat
    for axis, (metric, label) in zip(axes, metrics.items(), strict=True):
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
        axis.plot(np.full(len(values), place + 0.13), values, "o", color=f"C{place}", markersize=3.5, alpha=0.9)
    axis.set_xticks(range(len(rows)), [row["weight"] for row in rows])
    axis.set(xlabel="weight of UFLoss", xlim=(-0.4, len(rows) - 0.6))
    axis.grid(axis="y", alpha=0.3)


def _draw_plane(axis: Axes, distortion: Rows, perception: Rows) -> None:
    means = ([row["mean"] for row in rows] for rows in (distortion, perception))
    axis.plot(*means, color="0.8", linewidth=1, zorder=0)
    for place, (across, up) in enumerate(zip(distortion, perception, strict=True)):
        color, center = f"C{place}", (across["mean"], up["mean"])
        line: dict[str, Any] = {"color": color, "marker": "o", "markersize": 5, "capsize": 2, "linewidth": 1}
        axis.errorbar(*center, xerr=_bar(across), yerr=_bar(up), **line)
        dots = (list(row["seeds"].values()) for row in (across, up))
        axis.plot(*dots, ".", color=color, markersize=4, alpha=0.6)
        axis.annotate(across["weight"], center, xytext=(5, 5), textcoords="offset points", color=color)
    axis.margins(x=0.12, y=0.1)
    axis.grid(alpha=0.3)
