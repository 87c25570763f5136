"""Reconstructions side by side: slices with errors, differences or segmentations, and volumes from three sides."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from fastmri.evaluate import nmse
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tqdm import tqdm

from fastmri_ufloss.metrics.volumes import ReferenceVolume
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.drawing import Square
from fastmri_ufloss.report.figures.images import magnitude_ufloss, texture
from fastmri_ufloss.report.reconstructions import VolumeFiles

__all__ = [
    *("choose_slice", "draw_panels", "orthogonal_views", "panel_scores"),
    *("save_comparison", "save_contours", "save_orthogonal_views", "save_panels", "save_picture"),
]

ERROR_GAIN = 5
TRUE, PREDICTED = "red", "yellow"
_WIDTH = 1.35  # inches, of a column: five fit on a printed page
_GAP = 0.04
_MAX_HEIGHT = 2.6
_FONT = 7
_LINE = _FONT * 1.35 / 72  # inches
_LETTERS = 22  # in a column
_TEXT: dict[str, Any] = {"fontsize": _FONT, "parse_math": False}
_MARGIN = 0.25  # of the zoom, around the truth on each side, in parts of its longer side
_ORTHOGONAL_WIDTH = 15.0  # inches
# the axes of the volume that a view shows, top to bottom and left to right: 0 slices, 1 rows, 2 cols
_PLANES = {"rows x cols": (1, 2), "slices x cols": (0, 2), "slices x rows": (0, 1)}
_PROJECTIONS = {"maximum over slices": (1, 2), "maximum over rows": (0, 2)}
_VIEWS = {**_PLANES, **_PROJECTIONS}

Images = Mapping[str, np.ndarray]
Notes = Mapping[str, str]
Volume: TypeAlias = np.ndarray | h5py.Dataset


def save_picture(path: str | Path, reference: np.ndarray, outputs: Images) -> None:
    """`save_panels` of the outputs beside their reference, with NRMSE, the root of fastMRI's NMSE."""
    _magnitudes({"reference": reference, **outputs})
    scores = {name: {"NRMSE": f"{np.sqrt(nmse(reference, image)):.3f}"} for name, image in outputs.items()}
    save_panels(path, ("reference", reference), outputs, scores=scores)


def save_panels(
    path: str | Path,
    reference: tuple[str, np.ndarray],
    images: Images,
    *,
    scores: Mapping[str, Mapping[str, str]] | None = None,
    zoom: Square | None = None,
    error_gain: float = ERROR_GAIN,
    title: str = "",
) -> None:
    """A PNG, JPG or PDF has a column for the reference and for each image, with a zoom, the error and the scores.

    All have the gray scale of the reference, which is given by name and magnitude (rows, cols). Scores are texts by
    method and metric. The zoom, if not given, has the largest gradients of the reference without its brightest parts.
    Other shapes or names, or a zoom out of the image raise ValueError. (As figures 6 to 8 of Wang et al., MRM 2022.)

    Args:
        error_gain: by which errors are multiplied.
    """
    name, first = reference
    columns = _magnitudes({name: first, **images}, scores=scores)
    row, col, side = zoom = zoom or drawing.most_textured(first, organ=True)
    if not (side > 0 and 0 <= row <= first.shape[0] - side and 0 <= col <= first.shape[1] - side):
        raise ValueError(f"zoom must be row, column and side of a square in an image of {first.shape}, got {zoom}")
    if not 0 < error_gain < np.inf:
        raise ValueError(f"error_gain must be a number above 0, got {error_gain}")
    texts = {label: "\n".join(map(" ".join, of_image.items())) for label, of_image in (scores or {}).items()}
    _save_columns(path, columns, name, zoom, error_gain, f"error x{error_gain:g}", texts, title)


def save_comparison(
    path: str | Path, images: Images, *, compare_with: str | None = None, notes: Notes | None = None, title: str = ""
) -> None:
    """A PNG, JPG or PDF has a column for each image, with a zoom, and the difference from one of them, x5.

    The difference shows where two reconstructions disagree, and without a reference not which of them is wrong. The
    magnitudes of images (rows, cols), in one unit, are compared with that of the name ``compare_with``, or else the
    first, and have its gray scale. Notes are texts by name. Other shapes or names raise ValueError.
    """
    columns = _magnitudes(images, notes=notes)
    first = next(iter(columns)) if compare_with is None else compare_with
    if first not in columns:
        raise ValueError(f"compare_with must be one of the images {sorted(columns)}, got {compare_with!r}")
    zoom = drawing.most_textured(np.mean(list(columns.values()), axis=0), organ=True)
    label = f"difference from {first} x{ERROR_GAIN}: where the images disagree, not which one is wrong"
    _save_columns(path, columns, first, zoom, ERROR_GAIN, label, notes or {}, title)


def _save_columns(
    path: str | Path, images: Images, first: str, zoom: Square, gain: float, label: str, texts: Notes, title: str
) -> None:
    """Image, zoom and, where there are several images, the error of all but the first one; texts stand below."""
    white = drawing.white_of(images[first])
    are_squares = [False, True, False] if len(images) > 1 else [False, True]
    captions, below = [_wrap(name) for name in images], [_wrap(texts.get(name, "")) for name in images]
    figure, axes = _make_columns(images[first].shape, captions, title, are_squares=are_squares, below=_height(below))
    for (name, image), column, text in zip(images.items(), axes.T, below, strict=True):
        drawing.show_with_zoom(column[0], column[1], image, white, zoom, linewidth=0.7)
        _write(column[-1], -0.02, text, va="top")
        if name != first:
            drawing.show(column[2], gain * np.abs(image - images[first]), white, heat=True)
        elif len(images) > 1:
            _write(column[2], 0.5, _wrap(label), va="center")
    drawing.write_figure(path, figure, dpi=300)


def save_contours(
    path: str | Path,
    images: Images,
    *,
    truth: np.ndarray,
    predictions: Images,
    notes: Notes | None = None,
    title: str = "",
) -> None:
    """A PNG, JPG or PDF has a column for each image, with the outlines of its segmentations, and a zoom.

    The outlines are of each class but the background 0: of the truth (rows, cols) in red, of the prediction, by the
    name of its image, in yellow. The zoom is around the truth, or else around the predictions, or in the middle.
    Images and notes are those of `save_comparison`, the reference first. Other shapes or names, and classes that are
    no integers, raise ValueError. (As figure 2 of Seitzer et al., MICCAI 2018.)
    """
    magnitudes = _magnitudes(images, notes=notes, predictions=predictions)
    first = next(iter(magnitudes.values()))
    for name, classes in {"truth": truth, **{f"predictions[{name!r}]": p for name, p in predictions.items()}}.items():
        if classes.shape != first.shape:
            raise ValueError(f"{name} must have the shape of images, got {classes.shape} and {first.shape}")
        if classes.dtype.kind not in "iu":
            raise ValueError(f"{name} must hold class numbers of an integer dtype, got {classes.dtype}")
    row, col, side = square = _zoom(truth, predictions)
    white = drawing.white_of(first)
    # a dark organ beside bright fat is seen in the zoom
    white_of_zoom = float(np.percentile(first[max(row, 0) : row + side, max(col, 0) : col + side], 99.5)) or white
    captions = ["\n".join(filter(None, map(_wrap, (name, (notes or {}).get(name, ""))))) for name in magnitudes]
    figure, axes = _make_columns(first.shape, captions, title, are_squares=[False, True], below=3 * _LINE)
    for (name, image), (whole, zoom) in zip(magnitudes.items(), axes.T, strict=True):
        for axis, linewidth, brightest in ((whole, 0.5, white), (zoom, 0.8, white_of_zoom)):
            drawing.show(axis, image, brightest)
            # the truth is the wider of the two, so that where they agree it has a yellow core
            _outline(axis, truth, TRUE, linewidth=2 * linewidth)
            if name in predictions:
                _outline(axis, predictions[name], PREDICTED, linewidth=linewidth)
        drawing.outline(whole, square, color="white", linewidth=0.5)
        whole.set(xlim=(-0.5, first.shape[1] - 0.5), ylim=(first.shape[0] - 0.5, -0.5))
        zoom.set(xlim=(col - 0.5, col + side - 0.5), ylim=(row + side - 0.5, row - 0.5))
    colors = {"true": TRUE, "predicted": PREDICTED} if predictions else {"true": TRUE}
    lines = [Line2D([], [], color=color, label=label) for label, color in colors.items()]
    # black behind the legend, as of the images: yellow on white is hard to see
    black = {"facecolor": "black", "labelcolor": "white"}
    figure.legend(handles=lines, loc="lower center", ncols=2, fontsize=_FONT, borderaxespad=0.1, **black)
    drawing.write_figure(path, figure, dpi=300)


def _magnitudes(images: Images, **texts: Mapping[str, object] | None) -> dict[str, np.ndarray]:
    """The magnitudes of images that all are (rows, cols) of one shape and have the names in each other argument."""
    if not images:
        raise ValueError("images must hold at least one image, got none")
    shape = next(iter(images.values())).shape
    for name, image in images.items():
        if image.ndim != 2 or image.shape != shape:
            raise ValueError(f"images must all have one shape (rows, cols), got {image.shape} for {name!r}")
    for argument, by_name in texts.items():
        if unknown := sorted(set(by_name or ()) - set(images)):
            raise ValueError(f"{argument} must have the names of images {sorted(images)}, got {unknown[0]!r}")
    return {name: np.abs(image) for name, image in images.items()}


def _make_columns(
    shape: tuple[int, ...], captions: Sequence[str], title: str, *, are_squares: Sequence[bool], below: float
) -> tuple[Figure, np.ndarray]:
    """A figure with a title and, below captions, axes (rows, columns) for images of a shape or for squares.

    Places are computed here: a layout engine takes many seconds for so many axes.
    """
    height = min(_WIDTH * shape[0] / shape[1], _MAX_HEIGHT)
    heights = [_WIDTH if is_square else height for is_square in are_squares]
    title = textwrap.fill(title, _LETTERS * len(captions))
    above = _height(captions) + _GAP + (_height([title]) + 2 * _GAP if title else 0)
    wide, high = (_WIDTH + _GAP) * len(captions), above + sum(heights) + _GAP * len(heights) + below
    figure = Figure(figsize=(wide, high))
    figure.subplots_adjust(left=0, right=1, bottom=below / high, top=1 - above / high, wspace=0.03, hspace=0.03)
    axes = figure.subplots(len(heights), len(captions), squeeze=False, height_ratios=heights)
    for axis, caption in zip(axes[0], captions, strict=True):
        axis.set_title(caption, pad=2, **_TEXT)
    for axis in axes.flat:
        axis.set_axis_off()
    if title:
        figure.suptitle(title, y=1 - _GAP / high, va="top", **_TEXT)
    return figure, axes


def _wrap(text: str) -> str:
    return "\n".join(textwrap.fill(line, _LETTERS) for line in text.splitlines())


def _height(texts: Sequence[str]) -> float:
    """Of the longest text, in inches."""
    return _LINE * (1 + max(text.count("\n") for text in texts))


def _write(axis: Axes, height: float, text: str, *, va: str) -> None:
    axis.text(0.5, height, text, ha="center", va=va, transform=axis.transAxes, **_TEXT)


def _zoom(truth: np.ndarray, predictions: Images) -> Square:
    """The square to enlarge, at least a quarter of the image, and inside the image unless it is wider than that."""
    inside = np.argwhere(truth > 0)
    if not inside.size:
        inside = np.argwhere(np.any([truth > 0, *(classes > 0 for classes in predictions.values())], axis=0))
    shape, side = np.array(truth.shape), -(-min(truth.shape) // 4)
    low, high = np.zeros(2, dtype=int), shape - 1
    if inside.size:
        low, high = inside.min(axis=0), inside.max(axis=0)
        side = max(round((1 + 2 * _MARGIN) * int((high - low).max() + 1)), side)
    # the middle one of three places is inside if there is room, and around the image otherwise
    row, col = np.median([(low + high + 1 - side) // 2, np.zeros(2), shape - side], axis=0)
    return int(row), int(col), side


def _outline(axis: Axes, classes: np.ndarray, color: str, *, linewidth: float) -> None:
    rows, cols = (np.arange(-1, size + 1) for size in classes.shape)
    for number in np.unique(classes[classes > 0]):
        # with a frame of background, so that the outline is closed where a class reaches the border
        axis.contour(cols, rows, np.pad(classes == number, 1), levels=[0.5], colors=color, linewidths=linewidth)


def panel_scores(
    document: Mapping[str, Any], volume: str, slice_num: int, *, metrics: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The scores of a slice in a report as text, by method and metric, for `save_panels`.

    Metrics are names of scores, and go by their labels, or by their names where two have one label.
    """
    known = {metric["name"]: metric for metric in document["metrics"] if metric["name"] in metrics}
    labels = Counter(metric["label"] for metric in known.values())
    scores: dict[str, dict[str, str]] = {}
    for row in document["slices"]:
        if (row["volume"], row["slice"]) == (volume, slice_num):
            texts = scores[row["method"]] = {}
            for name in [name for name in metrics if row.get(name) is not None]:
                label, value = known[name]["label"], f"{row[name]:#.3g}".rstrip(".")
                texts[label if labels[label] == 1 else name] = f"{value} {known[name]['unit']}".rstrip()
    return scores


def choose_slice(
    volumes: Sequence[VolumeFiles], name: str | None, number: int | None, *, contrast: str | None = None
) -> tuple[VolumeFiles, int]:
    """The volume of a file name and a slice of it; what is None is that with the most textured reference.

    A contrast, volume or slice that is not there raises ValueError.
    """
    known = ", ".join(sorted({volume.contrast for volume in volumes if volume.contrast})) or "none"
    volumes = [volume for volume in volumes if contrast in (None, volume.contrast)]
    if not volumes:
        raise ValueError(f"contrast must be one of the volumes', {known}, got {contrast!r}")
    volumes = [volume for volume in volumes if name in (None, volume.name, Path(volume.name).stem)]
    if not volumes:
        raise ValueError(f"volume must be a file that all folders have, got {name!r}")
    chosen = volumes[0]
    if name is None or number is None:
        textures = [_textures(volume) for volume in tqdm(volumes, desc="Slices", unit="volume")]
        best = int(np.argmax([max(of_slices) for of_slices in textures]))
        chosen, number = volumes[best], int(np.argmax(textures[best])) if number is None else number
    if not 0 <= number < chosen.num_slices:
        raise ValueError(f"slice must be in 0 .. {chosen.num_slices - 1}, the slices of {chosen.name}, got {number}")
    return chosen, number


def _textures(volume: VolumeFiles) -> list[float]:
    """Of each slice, the mean gradient of its most textured square, in parts of the maximum of the volume."""
    (images, *_) = volume.read().references.values()
    images = np.where(np.isfinite(images).all(axis=(1, 2), keepdims=True), images, 0)
    # without the brightest parts, or else it is the slice with the brightest fat
    return [texture(np.minimum(image, np.percentile(image, 95))) / (images.max() or 1.0) for image in images]


def draw_panels(
    paths: Sequence[str | Path],
    volume: VolumeFiles,
    number: int,
    *,
    title: str,
    net: PatchFeatureNet | None = None,
    stride: int | None = None,
    zoom: Square | None = None,
    error_gain: float = ERROR_GAIN,
) -> dict[str, dict[str, float]]:
    """Files of the panels of a slice, see `save_panels`, are written with the scores by method, which are returned.

    NRMSE and SSIM are those of `ReferenceVolume`, with the maximum over the slices of which all images are finite;
    UFLoss needs a network of magnitudes. The first reference counts. An image that is not finite raises ValueError.
    """
    images = volume.read()
    ((name, references), *_) = images.references.items()
    is_finite = np.all([np.isfinite(x).all(axis=(1, 2)) for x in (references, *images.outputs.values())], axis=0)
    if not is_finite[number]:
        raise ValueError(f"{volume.name}: an image of slice {number} has NaN or infinite values, take another slice")
    reference = ReferenceVolume(references[number : number + 1], max_value=references[is_finite].max())
    scores, texts = {}, {}
    for method, output in images.outputs.items():
        of_slice = reference.score(output[number : number + 1], names=("NRMSE", "SSIM")).slices
        scores[method] = {score: float(values[0]) for score, values in of_slice.items()}
        if net is not None:
            scores[method]["UFLoss"] = magnitude_ufloss(net, output[number], references[number], stride=stride)
        texts[method] = {score: f"{value:#.3g}" for score, value in scores[method].items()}
    shown = ((name, references[number]), {method: output[number] for method, output in images.outputs.items()})
    for path in paths:
        save_panels(path, *shown, scores=texts, zoom=zoom, error_gain=error_gain, title=title)
    return scores


def orthogonal_views(volume: Volume) -> dict[str, np.ndarray]:
    """The central planes n // 2 of a volume (slices, rows, cols) and its maximum intensity projections, by name.

    Values are magnitudes, and slices are read one by one. A volume that is empty or not 3D raises ValueError.
    """
    shape = tuple(volume.shape)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"volume must have shape (slices, rows, cols), all at least 1, got {shape}")
    center = projection = np.zeros(shape[1:])
    lines = []
    for i in range(shape[0]):
        image = np.abs(np.asarray(volume[i]))
        # copies, or else the whole slice would stay
        lines.append((image[shape[1] // 2].copy(), image[:, shape[2] // 2].copy(), image.max(axis=0)))
        projection = np.maximum(projection, image)
        if i == shape[0] // 2:
            center = image
    row_lines, col_lines, row_maxima = map(np.stack, zip(*lines, strict=True))
    return dict(zip(_VIEWS, (center, row_lines, col_lines, projection, row_maxima), strict=True))


def save_orthogonal_views(
    path: str | Path, volumes: Mapping[str, Volume], *, voxel_size: Sequence[float] = (1.0, 1.0, 1.0)
) -> None:
    """A PNG, JPG or PDF has a row for each volume, with its `orthogonal_views` in one scale of mm.

    Volumes have one shape, and the gray scales of the first. ``voxel_size`` is in mm from slice to slice, row to row
    and column to column. Other volumes or sizes raise ValueError.
    """
    sizes = tuple(map(float, voxel_size))
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"voxel_size must be three positive numbers (slice, row, col), got {sizes}")
    if not volumes:
        raise ValueError("volumes must hold at least one volume, got none")
    shapes = {name: tuple(volume.shape) for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"volumes must all have one shape (slices, rows, cols), got {shapes}")
    rows = {name: orthogonal_views(volume) for name, volume in volumes.items()}
    first = next(iter(rows.values()))
    whites: dict[str, float] = {}
    for kind in (_PLANES, _PROJECTIONS):  # projections are brighter than planes
        whites |= dict.fromkeys(kind, drawing.white_of(np.concatenate([first[view].ravel() for view in kind])))
    extents = [n * size for n, size in zip(next(iter(shapes.values())), sizes, strict=True)]
    widths = [extents[horizontal] for _, horizontal in _VIEWS.values()]
    height = max(extents[:2]) * _ORTHOGONAL_WIDTH / sum(widths)
    figure = Figure(figsize=(_ORTHOGONAL_WIDTH, len(rows) * (height + 0.1) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(_VIEWS), squeeze=False, width_ratios=widths)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for axis, (view, (vertical, horizontal)) in zip(line, _VIEWS.items(), strict=True):
            drawing.show(axis, images[view], whites[view], aspect=sizes[vertical] / sizes[horizontal])
            drawing.hide_frame(axis)
            axis.set_anchor("N")  # flat views are at the top, below their titles
        line[0].set_ylabel(name, fontsize=12)
    for axis, view in zip(axes[0], _VIEWS, strict=True):
        axis.set_title(view, fontsize=12)
    drawing.write_figure(path, figure, dpi=130)
