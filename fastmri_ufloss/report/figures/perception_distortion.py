"""The perception-distortion plot: what a method loses in one metric against what it wins in another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.box_plots import add_legend, metric_label

__all__ = ["perception_distortion_metrics", "save_perception_distortion"]

_FONT = 8


def perception_distortion_metrics(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of NRMSE and of the first UFLoss that no method was trained with; None if one is missing."""
    metrics = document["metrics"]
    distortions = [metric["name"] for metric in metrics if metric["label"] == "NRMSE"]
    perceptions = [m["name"] for m in metrics if m["label"].startswith("UFLoss") and m["tested"]]
    return (distortions[0], perceptions[0]) if distortions and perceptions else None


def save_perception_distortion(
    path: str | Path, document: Mapping[str, Any], *, distortion: str, perception: str
) -> None:
    """Write a PNG, JPG or PDF: a point for each method, means over all subjects with their 95% intervals.

    After Blau and Michaeli, "The perception-distortion tradeoff", CVPR 2018.

    Args:
        path: of the picture, its suffix says what it is.
        document: of the report.
        distortion: name of the metric to the right.
        perception: name of the metric upwards.

    Raises:
        ValueError: if a name is no metric, no method has both, or as `write_figure`.
    """
    metrics = {metric["name"]: metric for metric in document["metrics"]}
    for argument, name in (("distortion", distortion), ("perception", perception)):
        if name not in metrics:
            raise ValueError(f"{argument} must be one of the metrics {', '.join(metrics)}, got {name!r}")
    first = document["contrasts"][0]
    rows = {(r["method"], r["metric"]): r for r in document["means"] if r["contrast"] == first}
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    points: dict[str, Any] = {}
    for index, method in enumerate(document["methods"]):
        across, up = rows.get((method, distortion)), rows.get((method, perception))
        if across is None or up is None or across["mean"] is None or up["mean"] is None:
            continue
        points[method] = axis.errorbar(
            across["mean"], up["mean"], xerr=_reach(across), yerr=_reach(up), fmt="o", markersize=4.5, linewidth=1,
            color=drawing.method_color(index),
        )  # fmt: skip
    if not points:
        raise ValueError(f"document must have a method with both {distortion} and {perception}, got none")
    axis.set_xlabel(metric_label(metrics[distortion]), fontsize=_FONT)
    axis.set_ylabel(metric_label(metrics[perception]), fontsize=_FONT)
    axis.tick_params(labelsize=_FONT - 1)
    axis.grid(linewidth=0.4, alpha=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.locator_params(axis="x", nbins=6)
    add_legend(figure, list(points.values()), list(points), loc="outside right upper")
    drawing.write_figure(path, figure, dpi=200)


def _reach(row: Mapping[str, Any]) -> list[list[float]] | None:
    """From the mean to the ends of its interval, if there is one."""
    if row["95% from"] is None or row["95% to"] is None:
        return None
    return [[max(row["mean"] - row["95% from"], 0.0)], [max(row["95% to"] - row["mean"], 0.0)]]
