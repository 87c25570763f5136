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
_EPOCH = "epoch"  # Lightning's own scalar, which goes with all others of its step
_IMAGE = re.compile(r"val_images_idx_(\d+)/reconstruction")
_PART_OF_FALL = 0.95  # a curve that has done so much of its fall is called flat
_COLORS = ("tab:red", "tab:blue")  # as in the paper: pixels, features
_COLUMN_WIDTH = 1.25  # inches, of an image
_LEAST_WIDTH = 3.6  # of a run
_CURVES_HEIGHT = 2.3

Curve = Mapping[int, float]
"""A value of each epoch, which count from 1."""


class RunLog:
    """What a training has logged for TensorBoard: scalars and images by epoch, of all its processes.

    A run that goes on writes a file of its own. Where steps repeat, since a run was killed or was begun anew, those
    of the later file count. Damaged files, and files that are being written, are read as far as they go.

    Raises:
        FileNotFoundError: if there is no event file in the folder or below.
        ValueError: if a file is not one of events, or there are no scalars.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.rglob("events.out.tfevents*"))
        if not paths:
            raise FileNotFoundError(f"no TensorBoard logs (events.out.tfevents*) in {folder}")
        self.scalars: dict[str, dict[int, tuple[int, float]]] = {}
        """Epoch, counting from 1, and value of each step, by tag."""
        self._images: dict[str, dict[int, tuple[int, bytes]]] = {}  # epoch and PNG
        files = [_open(path) for path in paths if path.stat().st_size]
        for file in sorted(files, key=lambda file: file.FirstEventTimestamp()):
            self._append(file)
        if not self.scalars:
            raise ValueError(f"the TensorBoard logs in {folder} must hold scalars with their epochs, got none")

    def _append(self, file: EventAccumulator) -> None:
        """Add a file; what earlier ones have logged from its first step on is of no account."""
        events = {tag: file.Scalars(tag) for tag in file.Tags()["scalars"]}
        ends = events.pop(_EPOCH, [])
        epochs = {end.step: round(end.value) + 1 for end in ends}
        scalars = {
            tag: {event.step: (epochs[event.step], event.value) for event in of_tag if event.step in epochs}
            for tag, of_tag in events.items()
        }
        images: dict[str, dict[int, tuple[int, bytes]]] = {tag: {} for tag in file.Tags()["images"]}
        for tag, by_step in images.items():
            for image in file.Images(tag):
                # images come before the scalars of their validation, with another count of steps
                step = next((end.step for end in ends if end.wall_time >= image.wall_time), None)
                if step is not None:
                    by_step[step] = (epochs[step], image.encoded_image_string)
        start = min((step for by_step in scalars.values() for step in by_step), default=math.inf)
        _replace_from(start, self.scalars, scalars)
        _replace_from(start, self._images, images)

    @property
    def image_epochs(self) -> dict[str, list[int]]:
        """The epochs, counting from 1, of which there are images, by tag."""
        return {tag: sorted({epoch for epoch, _ in images.values()}) for tag, images in self._images.items()}

    def by_epoch(self, tag: str) -> dict[int, float]:
        """The mean of a scalar over the steps of each epoch that were logged, by epoch."""
        values: dict[int, list[float]] = {}
        for _, (epoch, value) in sorted(self.scalars[tag].items()):
            values.setdefault(epoch, []).append(value)
        return {epoch: float(np.mean(of_epoch)) for epoch, of_epoch in sorted(values.items())}

    def curves(self, kind: str, terms: Sequence[str]) -> dict[str, dict[int, float]]:
        """Those of the terms of a loss that were logged in ``"train"`` or ``"val"``, `by_epoch`."""
        return {term: self.by_epoch(tag) for term in terms if (tag := f"{kind}_terms/{term}") in self.scalars}

    def steps_per_epoch(self, tag: str) -> float:
        """How many steps of an epoch were logged, on average."""
        return len(self.scalars[tag]) / len({epoch for epoch, _ in self.scalars[tag].values()})

    def read_image(self, tag: str, epoch: int) -> np.ndarray:
        """The image (rows, cols) of a tag and an epoch, float32 in 0 .. 1, of 8 bits; the first of its channels."""
        *_, encoded = (encoded for of, encoded in self._images[tag].values() if of == epoch)
        image = matplotlib.image.imread(io.BytesIO(encoded), format="png")
        return np.asarray(image if image.ndim == 2 else image[..., 0], dtype=np.float32)


def _open(path: Path) -> EventAccumulator:
    file = EventAccumulator(str(path), {"scalars": 0, "images": 0}, purge_orphaned_data=False).Reload()
    try:
        file.FirstEventTimestamp()
    except ValueError as error:
        raise ValueError(f"{path} is not a file of TensorBoard events, or it is damaged") from error
    return file


def _replace_from(start: float, known: dict[str, dict[int, Any]], later: Mapping[str, dict[int, Any]]) -> None:
    """The values of steps from a start on, by tag and step, are the later ones."""
    for tag in dict.fromkeys([*known, *later]):
        values = {step: value for step, value in known.pop(tag, {}).items() if step < start} | later.get(tag, {})
        if values:
            known[tag] = values


class LossCurves(NamedTuple):
    """What is to be shown of a training: curves by the name of the term, images with a note by epoch, their target
    (rows, cols), and whether the training's points are means of too few steps.
    """

    name: str
    training: Mapping[str, Curve]
    validation: Mapping[str, Curve]
    target: np.ndarray | None
    snapshots: Mapping[int, tuple[np.ndarray, str]]
    is_rough: bool = False


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
    """Whether one curve is flat while the other still falls, as the pixel loss and UFLoss in figure 10 of the paper.

    A curve is flat from the epoch by which 95% of its fall are done; what does not fall has None.
    """
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
    return next(epoch for epoch in sorted(curve) if curve[epoch] <= first - _PART_OF_FALL * (first - lowest))


def choose_images(
    logs: Mapping[str, RunLog], epochs: Sequence[int] | None = None, image: int | None = None
) -> tuple[list[int], int]:
    """Epochs, or else first, middle and last, and the number of a validation image that all runs have logged in them.

    The image is the most textured one if not given. Without such an image there is a ValueError.
    """
    by_run = [
        {int(match[1]): set(known) for tag, known in log.image_epochs.items() if (match := _IMAGE.fullmatch(tag))}
        for log in logs.values()
    ]
    common = {i: set.intersection(*(run.get(i, set()) for run in by_run)) for i in by_run[0]}
    common = {i: of_image for i, of_image in common.items() if of_image}
    if not common:
        raise ValueError(
            "the runs have logged no validation image in common: recipes log num_log_images of them, with a "
            "validation (limit_val_batches not 0) and the same seed; the curves alone need no images"
        )
    if image is not None and image not in common:
        raise ValueError(f"image must be one of those logged, {', '.join(map(str, sorted(common)))}, got {image}")
    common = {image: common[image]} if image is not None else common
    known = sorted(set().union(*common.values()))
    wanted = list(epochs or sorted({known[0], known[(len(known) - 1) // 2], known[-1]}))
    fitting = [i for i, of_image in common.items() if set(wanted) <= of_image]
    if not fitting:
        there = "; ".join(f"{sorted(of_image)} of image {i}" for i, of_image in sorted(common.items()))
        raise ValueError(f"epochs must be some of an image that all runs have, got {wanted}; there are {there}")
    log = next(iter(logs.values()))
    return wanted, max(fitting, key=lambda i: texture(log.read_image(f"val_images_idx_{i}/target", wanted[0])))


def draw_loss_curves(
    path: str | Path,
    logs: Mapping[str, RunLog],
    labels: Mapping[str, str],
    *,
    epochs: Sequence[int] = (),
    image: int = 0,
    net: PatchFeatureNet | None = None,
    stride: int = 5,
) -> dict[str, Any]:
    """The figure of some runs, by name, is written; its numbers are returned by run.

    For the scores an image of 8 bits is multiplied by the factor that brings it nearest to its target.

    Args:
        labels: of the two terms to show, by name; a run need not have both.
        epochs, image: see `choose_images`; no images without epochs.
        net: of magnitudes, for UFLoss of the images; without it the mean of the validation is shown.
        stride: of the patches of UFLoss.
    """
    shown: list[LossCurves] = []
    numbers: dict[str, dict[str, Any]] = {}
    for name, log in logs.items():
        training, validation = (log.curves(kind, list(labels)) for kind in ("train", "val"))
        steps = {term: log.steps_per_epoch(f"train_terms/{term}") for term in training}
        is_rough = min(steps.values(), default=FEW_STEPS) < FEW_STEPS
        target, snapshots, scores = _read_snapshots(log, epochs, image, net, stride)
        shown.append(LossCurves(name, training, validation, target, snapshots, is_rough))
        numbers[name] = {}
        for kind, curves in (("training", training), ("validation", validation)):
            described = {term: {**describe_fall(curve), "by epoch": curve} for term, curve in curves.items()}
            if len(described) == 2 and not (kind == "training" and is_rough):
                described["comparison"] = compare_falls(*curves.values())
            if described:
                numbers[name][kind] = described
        numbers[name] |= {"logged steps per epoch": steps, "images": scores}
    save_loss_curves(path, shown, labels=labels)
    return numbers


def _read_snapshots(
    log: RunLog, epochs: Sequence[int], image: int, net: PatchFeatureNet | None, stride: int
) -> tuple[np.ndarray | None, dict[int, tuple[np.ndarray, str]], dict[int, dict[str, float]]]:
    """Target, images with their notes, and their scores, by epoch."""
    target: np.ndarray | None = None
    snapshots, scores = {}, {}
    validation = log.curves("val", ["ufloss"]).get("ufloss", {})
    for epoch in epochs:
        target = log.read_image(f"val_images_idx_{image}/target", epoch)
        output = log.read_image(f"val_images_idx_{image}/reconstruction", epoch)
        energy = float(np.square(output, dtype=np.float64).sum())
        output = output * (float(np.sum(output * target, dtype=np.float64)) / energy if energy else 1.0)
        scores[epoch] = {"NRMSE": float(np.sqrt(nmse(target, output)))}
        if net is not None:
            scores[epoch]["UFLoss"] = magnitude_ufloss(net, output, target, stride=stride)
        elif epoch in validation:
            scores[epoch]["UFLoss (val.)"] = validation[epoch]
        snapshots[epoch] = (output, "\n".join(f"{name} {value:.3f}" for name, value in scores[epoch].items()))
    return target, snapshots, scores


def save_loss_curves(path: str | Path, runs: Sequence[LossCurves], *, labels: Mapping[str, str]) -> None:
    """A PNG, JPG or PDF has for each run its curves, and below them the images of some epochs with a zoom.

    Lines are of the training, dashed ones of the validation; a mark is where a curve has done 95% of its fall. A
    rough training has faint lines and no marks. No run, not one or two terms, or other shapes raise ValueError.
    """
    if not runs or not 1 <= len(labels) <= 2:
        raise ValueError(f"runs and labels must hold a run and one or two terms, got {len(runs)} and {list(labels)}")
    for run in runs:
        shape = None if run.target is None else run.target.shape
        for epoch, (image, _) in run.snapshots.items():
            if image.shape != shape:
                raise ValueError(f"image of epoch {epoch} must have the shape of target, got {image.shape}, {shape}")
    aspect = max((run.target.shape[0] / run.target.shape[1] for run in runs if run.target is not None), default=0.0)
    columns = [1 + len(run.snapshots) for run in runs]
    widths = [max(_COLUMN_WIDTH * count, _LEAST_WIDTH) for count in columns]
    image_height = max(w / c for w, c in zip(widths, columns, strict=True)) * (aspect + 1) + 0.4 if aspect else 0.0
    figure = Figure(figsize=(sum(widths), _CURVES_HEIGHT + image_height + 0.3), layout="constrained")
    heights = [_CURVES_HEIGHT, image_height] if aspect else [_CURVES_HEIGHT]
    cells = figure.subfigures(len(heights), len(runs), squeeze=False, width_ratios=widths, height_ratios=heights)
    limits = {}  # of the axis of a term, the same for all runs
    for term in labels:
        curves = [curves.get(term, {}) for run in runs for curves in (run.training, run.validation)]
        values = [value for curve in curves for value in curve.values()] or [0.0, 1.0]
        margin = 0.06 * (max(values) - min(values)) or 1.0
        limits[term] = (min(values) - margin, max(values) + margin)
    lines = max((note.count("\n") for run in runs for _, note in run.snapshots.values()), default=0)
    for run, column in zip(runs, cells.T, strict=True):
        _draw_curves(column[0].subplots(), run, labels, limits)
        if run.target is not None and len(column) > 1:
            _draw_snapshots(column[1], run, run.target, lines)
    drawing.write_figure(path, figure, dpi=200)


def _draw_curves(
    axis: Axes, run: LossCurves, labels: Mapping[str, str], limits: Mapping[str, tuple[float, float]]
) -> None:
    entries: dict[str, str] = {}  # of the legend: line style by what it is
    for term, color, place in zip(labels, _COLORS, (axis, axis.twinx()), strict=False):
        if term in run.training:
            _draw_curve(place, run.training[term], "-", color, is_rough=run.is_rough)
            entries["training, few steps" if run.is_rough else "training"] = "-"
        if term in run.validation:
            _draw_curve(place, run.validation[term], "--", color)
            entries["validation"] = "--"
        is_there = term in run.training or term in run.validation
        place.set_ylim(limits[term])
        place.set_ylabel(labels[term] if is_there else f"{labels[term]}: not logged", color=color, fontsize=9)
        place.tick_params(axis="y", labelcolor=color, labelsize=8)
        if not is_there:
            place.set_yticks([])
    for label, style in entries.items():
        axis.plot([], [], style, color="0.3", label=label)
    axis.plot([], [], "o", color="0.3", markersize=5, label="95% of the fall")
    axis.set_xlabel("epoch", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(axis="x", labelsize=8)
    axis.legend(fontsize=7, frameon=False, loc="upper right")
    axis.set_title(run.name, fontsize=10)


def _draw_curve(axis: Axes, curve: Curve, style: str, color: str, *, is_rough: bool = False) -> None:
    epochs = sorted(curve)
    values = [curve[epoch] for epoch in epochs]
    axis.plot(epochs, values, style, color=color, linewidth=0.8 if is_rough else 1.4, alpha=0.4 if is_rough else 1)
    flat = _epoch_of_fall(curve)
    if flat is not None and not is_rough:
        fill: Literal["full", "none"] = "full" if style == "-" else "none"
        axis.plot(flat, curve[flat], "o", color=color, markersize=5, fillstyle=fill)


def _draw_snapshots(cell: SubFigure, run: LossCurves, target: np.ndarray, lines: int) -> None:
    """A column for each epoch and, last, for the target; rows for image and zoom; all notes have one height."""
    ratios = [target.shape[0] / target.shape[1], 1]
    axes = cell.subplots(2, 1 + len(run.snapshots), squeeze=False, height_ratios=ratios)
    white, square = drawing.white_of(target), drawing.most_textured(target, organ=True)
    shown = {f"epoch {epoch}": snapshot for epoch, snapshot in sorted(run.snapshots.items())}
    shown["reference"] = (target, "")
    for (name, (image, note)), (whole, zoom) in zip(shown.items(), axes.T, strict=True):
        drawing.show_with_zoom(whole, zoom, image, white, square, linewidth=0.8)
        whole.set_title(name, fontsize=8)
        zoom.set_xlabel(note + "\n" * (lines - note.count("\n")), fontsize=7)
        drawing.hide_frame(whole)
        drawing.hide_frame(zoom)
