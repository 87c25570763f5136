"""How the terms of a loss fall over the epochs of a training, and what the images look like meanwhile."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib.image
import numpy as np
from fastmri.evaluate import nmse
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import magnitude_ufloss, texture

__all__ = ["FEW_STEPS", "LossCurves", "RunLog", "choose_images", "draw_loss_curves", "save_loss_curves"]

FEW_STEPS = 5  # of an epoch: fewer make a rough mean
_COLORS = ("tab:red", "tab:blue")  # as in the paper: pixels, features

Curve = Mapping[int, float]
"""A value of each epoch, which count from 1."""
Events = dict[tuple[str, int], tuple[int, Any]]  # epoch and value by tag and step


class RunLog:
    """What a training has logged for TensorBoard: scalars and images by epoch, of all its processes.

    A run that goes on writes a file of its own. Where steps repeat, since a run was killed or was begun anew, those
    of the later file count. Damaged files, and files that are being written, are read as far as they go. Without any
    file there is a FileNotFoundError, and without scalars, or with a file of something else, a ValueError.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.rglob("events.out.tfevents*"))
        if not paths:
            raise FileNotFoundError(f"no TensorBoard logs (events.out.tfevents*) in {folder}")
        scalars: Events = {}
        images: Events = {}
        files = [_read_file(path) for path in paths if path.stat().st_size]
        for _, later_scalars, later_images in sorted(files, key=lambda file: file[0]):
            # what earlier files have logged from the first step of this one on is of no account
            start = min((step for _, step in later_scalars), default=math.inf)
            scalars = {key: value for key, value in scalars.items() if key[1] < start} | later_scalars
            images = {key: value for key, value in images.items() if key[1] < start} | later_images
        self.scalars: dict[str, dict[int, tuple[int, float]]] = {}
        """Epoch, counting from 1, and value of each step, by tag."""
        for (tag, step), value in sorted(scalars.items()):
            self.scalars.setdefault(tag, {})[step] = value
        self.images: dict[str, dict[int, bytes]] = {}
        """The PNG of each epoch, counting from 1, by tag."""
        for (tag, _), (epoch, png) in sorted(images.items()):
            self.images.setdefault(tag, {})[epoch] = png
        if not self.scalars:
            raise ValueError(f"the TensorBoard logs in {folder} must hold scalars with their epochs, got none")

    def by_epoch(self, tag: str) -> dict[int, float]:
        """The mean of a scalar over the steps of each epoch that were logged, by epoch."""
        values: dict[int, list[float]] = {}
        for epoch, value in self.scalars[tag].values():
            values.setdefault(epoch, []).append(value)
        return {epoch: float(np.mean(of_epoch)) for epoch, of_epoch in sorted(values.items())}

    def curves(self, kind: str, terms: Sequence[str]) -> dict[str, dict[int, float]]:
        """Those of the terms of a loss that were logged in ``"train"`` or ``"val"``, `by_epoch`."""
        return {term: self.by_epoch(tag) for term in terms if (tag := f"{kind}_terms/{term}") in self.scalars}

    def read_image(self, tag: str, epoch: int) -> np.ndarray:
        """The image (rows, cols) of a tag and an epoch, float32 in 0 .. 1, of 8 bits; the first of its channels."""
        image = matplotlib.image.imread(io.BytesIO(self.images[tag][epoch]), format="png")
        return np.asarray(image if image.ndim == 2 else image[..., 0], dtype=np.float32)


def _read_file(path: Path) -> tuple[float, Events, Events]:
    """When a file begins, and its scalars and images (PNG) of which the epoch is known."""
    file = EventAccumulator(str(path), {"scalars": 0, "images": 0}, purge_orphaned_data=False).Reload()
    try:
        begin = file.FirstEventTimestamp()
    except ValueError as error:
        raise ValueError(f"{path} is not a file of TensorBoard events, or it is damaged") from error
    events = {tag: file.Scalars(tag) for tag in file.Tags()["scalars"]}
    ends = events.pop("epoch", [])  # Lightning's own scalar, which goes with all others of its step
    epochs = {end.step: round(end.value) + 1 for end in ends}
    scalars: Events = {}
    images: Events = {}
    for tag, of_tag in events.items():
        known = [event for event in of_tag if event.step in epochs]
        scalars |= {(tag, event.step): (epochs[event.step], event.value) for event in known}
    for tag in file.Tags()["images"]:
        for image in file.Images(tag):
            # images come before the scalars of their validation, with another count of steps
            step = next((end.step for end in ends if end.wall_time >= image.wall_time), None)
            if step is not None:
                images[tag, step] = (epochs[step], image.encoded_image_string)
    return begin, scalars, images


def describe_fall(curve: Curve) -> dict[str, Any]:
    """First, last and lowest value of a curve, the epoch by which 95% of its fall to the lowest value are done, and
    the change from the value halfway to the last, relative; a curve that is empty or not finite raises ValueError.
    """
    if not curve or not np.isfinite(list(curve.values())).all():
        raise ValueError(f"curve must have a finite value of at least one epoch, got {dict(curve)}")
    values = [value for _, value in sorted(curve.items())]
    middle = values[(len(values) - 1) // 2]
    return {
        "first": values[0],
        "last": values[-1],
        "lowest": min(values),
        "95% of its fall by epoch": _epoch_of_fall(curve),
        "change in the second half": (values[-1] - middle) / middle if middle else None,
    }


def compare_falls(pixel: Curve, feature: Curve) -> dict[str, Any]:
    """Whether the pixel loss is flat, with 95% of its fall done, while UFLoss still falls; None without a fall."""
    flat, other = _epoch_of_fall(pixel), _epoch_of_fall(feature)
    left = None
    if flat is not None and other is not None and flat in feature:
        first, lowest = feature[min(feature)], min(feature.values())
        left = (feature[flat] - lowest) / (first - lowest)
    return {
        "pixel loss flat from epoch": flat,
        "feature loss flat from epoch": other,
        "fall of the feature loss still to come": left,
        "pixel loss flattens first": None if flat is None or other is None else flat < other,
    }


def _epoch_of_fall(curve: Curve) -> int | None:
    """The first epoch in which a curve has done 95% of its fall."""
    first, lowest = curve[min(curve)], min(curve.values())
    if not lowest < first:
        return None
    return next(epoch for epoch in sorted(curve) if curve[epoch] <= first - 0.95 * (first - lowest))


def choose_images(
    logs: Mapping[str, RunLog], epochs: Sequence[int] | None = None, image: int | None = None
) -> tuple[list[int], int]:
    """Epochs, or else first, middle and last, and the number of a validation image that all runs have logged in them.

    The image is the most textured one if not given. Without such an image there is a ValueError.
    """
    log, *others = logs.values()
    common = {}
    for tag, known in log.images.items():
        of_image = set(known).intersection(*(other.images.get(tag, ()) for other in others))
        if of_image and (match := re.fullmatch(r"val_images_idx_(\d+)/reconstruction", tag)):
            common[int(match[1])] = of_image
    if not common:
        hint = "recipes log num_log_images of them, with limit_val_batches not 0 and the same seed"
        raise ValueError(f"the runs have logged no validation image in common: {hint}; the curves need no images")
    if image is not None and image not in common:
        raise ValueError(f"image must be one of those logged, {', '.join(map(str, sorted(common)))}, got {image}")
    common = {image: common[image]} if image is not None else common
    every = sorted(set().union(*common.values()))
    wanted = list(epochs or sorted({every[0], every[(len(every) - 1) // 2], every[-1]}))
    fitting = [i for i, of_image in common.items() if set(wanted) <= of_image]
    if not fitting:
        there = "; ".join(f"{sorted(of_image)} of image {i}" for i, of_image in sorted(common.items()))
        raise ValueError(f"epochs must be some of an image that all runs have, got {wanted}; there are {there}")
    return wanted, max(fitting, key=lambda i: texture(log.read_image(f"val_images_idx_{i}/target", wanted[0])))


class LossCurves(NamedTuple):
    """Curves of a training by term, images with a note by title, "reference" last, and whether steps are few."""

    name: str
    training: Mapping[str, Curve]
    validation: Mapping[str, Curve]
    images: Mapping[str, tuple[np.ndarray, str]]
    is_rough: bool = False


def draw_loss_curves(
    path: str | Path,
    logs: Mapping[str, RunLog],
    labels: Mapping[str, str],
    *,
    epochs: Sequence[int] = (),
    image: int = 0,
    net: PatchFeatureNet | None = None,
    stride: int | None = None,
) -> dict[str, Any]:
    """The figure of some runs, by name, is written; its numbers are returned by run.

    Labels are of the terms to show, by name. The images of `choose_images`, of 8 bits, are multiplied by the factor
    that brings them nearest to their target before they are scored, with a network of magnitudes also by UFLoss;
    without a network the mean of the validation is shown.
    """
    runs: list[LossCurves] = []
    numbers: dict[str, dict[str, Any]] = {}
    for name, log in logs.items():
        training, validation = (log.curves(kind, list(labels)) for kind in ("train", "val"))
        steps = {term: len(log.scalars[f"train_terms/{term}"]) / len(curve) for term, curve in training.items()}
        is_rough = min(steps.values(), default=FEW_STEPS) < FEW_STEPS
        images, scores = _score_images(log, epochs, image, net, stride)
        runs.append(LossCurves(name, training, validation, images, is_rough))
        numbers[name] = {"logged steps per epoch": steps, "images": scores}
        for kind, curves in (("training", training), ("validation", validation)):
            if curves:
                described = {term: {**describe_fall(curve), "by epoch": curve} for term, curve in curves.items()}
                numbers[name][kind] = described
            if len(curves) == 2 and not (kind == "training" and is_rough):
                numbers[name][kind]["comparison"] = compare_falls(*curves.values())
    save_loss_curves(path, runs, labels=labels)
    return numbers


def _score_images(
    log: RunLog, epochs: Sequence[int], image: int, net: PatchFeatureNet | None, stride: int | None
) -> tuple[dict[str, tuple[np.ndarray, str]], dict[int, dict[str, float]]]:
    """The images of `LossCurves`, and their scores by epoch."""
    images: dict[str, tuple[np.ndarray, str]] = {}
    scores: dict[int, dict[str, float]] = {}
    validation = log.curves("val", ["ufloss"]).get("ufloss", {})
    for epoch in sorted(epochs):
        target = log.read_image(f"val_images_idx_{image}/target", epoch)
        output = log.read_image(f"val_images_idx_{image}/reconstruction", epoch)
        energy = float(np.square(output, dtype=np.float64).sum())
        output = output * (float(np.sum(output * target, dtype=np.float64)) / energy if energy else 1.0)
        scores[epoch] = {"NRMSE": float(np.sqrt(nmse(target, output)))}
        if net is not None:
            scores[epoch]["UFLoss"] = magnitude_ufloss(net, output, target, stride=stride)
        elif epoch in validation:
            scores[epoch]["UFLoss (val.)"] = validation[epoch]
        note = "\n".join(f"{name} {value:.3f}" for name, value in scores[epoch].items())
        images |= {f"epoch {epoch}": (output, note)}
    return {**images, "reference": (target, "")} if images else {}, scores


def save_loss_curves(path: str | Path, runs: Sequence[LossCurves], *, labels: Mapping[str, str]) -> None:
    """A PNG, JPG or PDF has for each run its curves of one or two terms, and below them its images with a zoom.

    Lines are of the training, dashed ones of the validation; a mark is where a curve has done 95% of its fall. A
    rough training has faint lines and no marks.
    """
    count = len(runs[0].images)
    width, heights = max(1.25 * count, 3.6), [2.3]  # inches, of a run
    if count:
        target, _ = runs[0].images["reference"]
        heights.append(width / count * (target.shape[0] / target.shape[1] + 1) + 0.4)
    figure = Figure(figsize=(width * len(runs), sum(heights) + 0.3), layout="constrained")
    cells = figure.subfigures(len(heights), len(runs), squeeze=False, height_ratios=heights)
    first: list[Axes] = []
    for run, column in zip(runs, cells.T, strict=True):
        axis = column[0].subplots()
        places = [axis, axis.twinx()] if len(labels) > 1 else [axis]
        for place, other in zip(places, first, strict=False):
            place.sharey(other)  # the same scale for all runs
        first = first or places
        _draw_curves(places, run, labels)
        for cell in column[1:]:
            _draw_images(cell, run.images)
    drawing.write_figure(path, figure, dpi=200)


def _draw_curves(places: Sequence[Axes], run: LossCurves, labels: Mapping[str, str]) -> None:
    entries = {"95% of the fall": "o"}  # of the legend: style by what it is
    for place, term, color in zip(places, labels, _COLORS, strict=False):
        is_there = False
        for kind, curves, style in (("training", run.training, "-"), ("validation", run.validation, "--")):
            if term in curves:
                is_there, is_rough = True, run.is_rough and kind == "training"
                width, alpha = (0.8, 0.4) if is_rough else (1.4, 1)
                points = zip(*sorted(curves[term].items()), strict=True)
                place.plot(*points, style, color=color, linewidth=width, alpha=alpha)
                flat = None if is_rough else _epoch_of_fall(curves[term])
                if flat is not None:
                    fill: Literal["full", "none"] = "full" if style == "-" else "none"
                    place.plot(flat, curves[term][flat], "o", color=color, markersize=5, fillstyle=fill)
                entries[f"{kind}, few steps" if is_rough else kind] = style
        place.set_ylabel(labels[term] if is_there else f"{labels[term]}: not logged", color=color, fontsize=9)
        place.tick_params(axis="y", labelcolor=color, labelsize=8)
    axis = places[0]
    for label, style in entries.items():
        axis.plot([], [], style, color="0.3", markersize=5, label=label)
    axis.set_xlabel("epoch", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(axis="x", labelsize=8)
    axis.legend(fontsize=7, frameon=False, loc="upper right")
    axis.set_title(run.name, fontsize=10)


def _draw_images(cell: SubFigure, images: Mapping[str, tuple[np.ndarray, str]]) -> None:
    """A column for each image, with a zoom and the note below."""
    target, _ = images["reference"]
    axes = cell.subplots(2, len(images), height_ratios=[target.shape[0] / target.shape[1], 1])
    white, square = drawing.white_of(target), drawing.most_textured(target, organ=True)
    for (title, (image, note)), (whole, zoom) in zip(images.items(), axes.T, strict=True):
        drawing.show_with_zoom(whole, zoom, image, white, square, linewidth=0.8)
        whole.set_title(title, fontsize=8)
        zoom.set_xlabel(note, fontsize=7)
        drawing.hide_frame(whole)
        drawing.hide_frame(zoom)
