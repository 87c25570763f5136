"""Panels of a slice for a paper: images, a zoom, errors and numbers, as figures 6 to 8 of the paper."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from fastmri_ufloss.metrics.volumes import ReferenceVolume
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import magnitude_ufloss, texture
from fastmri_ufloss.report.reconstructions import VolumeFiles

__all__ = ["choose_slice", "draw_panels", "panel_scores", "save_panels", "slice_scores"]

_WIDTH = 1.35  # inches, of a column: five fit on a printed page
_GAP = 0.04
_MAX_HEIGHT = 2.6
_FONT = 7
_LETTERS = 22  # in a column
_TEXT: dict[str, Any] = {"fontsize": _FONT, "parse_math": False}


def save_panels(
    path: str | Path,
    reference: tuple[str, np.ndarray],
    images: Mapping[str, np.ndarray],
    *,
    scores: Mapping[str, Mapping[str, str]] | None = None,
    zoom: drawing.Square | None = None,
    error_gain: float = drawing.ERROR_GAIN,
    title: str = "",
) -> None:
    """Write a PNG, JPG or PDF: a column for the reference and for each image; rows for image, zoom, error and scores.

    All images have one gray scale, up to the 99.5th percentile of the reference. The errors are
    error_gain |image - reference| on the same scale.

    Args:
        path: of the picture, its suffix says what it is.
        reference: its name, and its magnitude (rows, cols).
        images: magnitudes of the same shape by method.
        scores: numbers as text by method and metric, to stand below the images.
        zoom: row and column of the upper left corner of a square, and its side; if not given, the square with the
            largest gradients of the reference without its brightest parts.
        error_gain: by which errors are multiplied.
        title: above the picture.

    Raises:
        ValueError: if a shape differs, a score has no image, the zoom is not in the image, error_gain is not above
            0, or as `write_figure`.
    """
    name, first = reference
    columns = drawing.check_magnitudes({name: first, **images})
    scores = scores or {}
    if unknown := set(scores) - set(images):
        raise ValueError(f"scores must have the names of images {sorted(images)}, got {sorted(unknown)}")
    white = drawing.white_of(first)
    square = _square(first, zoom)
    if not 0 < error_gain < np.inf:
        raise ValueError(f"error_gain must be a number above 0, got {error_gain}")
    captions = {label: textwrap.fill(label, _LETTERS) for label in columns}
    texts = {
        label: "\n".join(f"{metric} {value}" for metric, value in scores.get(label, {}).items()) for label in columns
    }
    heading = textwrap.fill(title, _LETTERS * len(columns)) if title else ""
    figure, axes = _figure(first.shape, len(columns), [_lines(captions), _lines(texts)], heading)
    for (label, image), column in zip(columns.items(), axes.T, strict=True):
        drawing.show(column[0], image, white)
        drawing.outline(column[0], square, linewidth=0.7)
        column[0].set_title(captions[label], pad=2, **_TEXT)
        drawing.show(column[1], drawing.cut(image, square), white)
        if label in images:
            drawing.show(column[2], error_gain * np.abs(image - first), white, heat=True)
            column[2].text(0.5, -0.02, texts[label], ha="center", va="top", transform=column[2].transAxes, **_TEXT)
    note: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes[2, 0].transAxes}
    axes[2, 0].text(0.5, 0.5, f"error x{error_gain:g}", **note, **_TEXT)
    drawing.write_figure(path, figure, dpi=300)


def _square(image: np.ndarray, zoom: drawing.Square | None) -> drawing.Square:
    if zoom is None:
        return drawing.most_textured(image, organ=True)
    row, col, side = zoom
    if not (side > 0 and 0 <= row <= image.shape[0] - side and 0 <= col <= image.shape[1] - side):
        raise ValueError(f"zoom must be row, column and side of a square in an image of {image.shape}, got {zoom}")
    return row, col, side


def panel_scores(
    document: Mapping[str, Any], volume: str, slice_num: int, *, metrics: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The scores of a slice as text, by method and metric, for `save_panels`.

    Args:
        document: of the report.
        volume, slice_num: the slice.
        metrics: names of the scores, in their order; those without a value are left out. A metric goes by its
            label, or by its name where two have one label.
    """
    known = {metric["name"]: metric for metric in document["metrics"] if metric["name"] in metrics}
    labels = Counter(metric["label"] for metric in known.values())
    names = {name: m["label"] if labels[m["label"]] == 1 else name for name, m in known.items()}
    found = {}
    for row in document["slices"]:
        if (row["volume"], row["slice"]) == (volume, slice_num):
            values = [(known[name], row[name]) for name in metrics if row.get(name) is not None]
            texts = {names[m["name"]]: f"{value:#.3g}".rstrip(".") + f" {m['unit']}".rstrip() for m, value in values}
            found[row["method"]] = texts
    return found


def choose_slice(
    volumes: Sequence[VolumeFiles], name: str | None, number: int | None, *, contrast: str | None = None
) -> tuple[VolumeFiles, int]:
    """The volume of a file name and a slice of it; what is None is that with the most textured reference.

    Raises:
        ValueError: if there is no volume of that contrast, or no such volume or slice.
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
    top = float(np.nanmax(np.where(np.isfinite(images), images, np.nan), initial=0.0))
    # without the brightest parts, or else it is the slice with the brightest fat
    return [
        texture(np.minimum(image, np.percentile(image, 95))) / top if top > 0 and np.isfinite(image).all() else 0.0
        for image in images
    ]


def slice_scores(
    volume: VolumeFiles, number: int, *, net: PatchFeatureNet | None = None, stride: int = 5
) -> dict[str, dict[str, float]]:
    """NRMSE and SSIM of a slice by method, see `ReferenceVolume`, and, with a network of magnitudes, UFLoss.

    Slices with an image that is not finite do not count for the maximum of the volume.

    Args:
        volume: its first reference counts.
        number: of the slice.
        net: a network with ``in_chans`` 1.
        stride: of the patches of UFLoss.

    Raises:
        ValueError: if an image of the slice is not finite.
    """
    images = volume.read()
    (references, *_) = images.references.values()
    is_finite = np.all([np.isfinite(x).all(axis=(1, 2)) for x in (references, *images.outputs.values())], axis=0)
    if not is_finite[number]:
        raise ValueError(f"{volume.name}: an image of slice {number} has NaN or infinite values, take another slice")
    reference = ReferenceVolume(references[is_finite])
    place = int(np.count_nonzero(is_finite[:number]))
    scores = {}
    for method, output in images.outputs.items():
        of_slices = reference.score(output[is_finite], names=("NRMSE", "SSIM")).slices
        scores[method] = {name: float(of_slices[name][place]) for name in ("NRMSE", "SSIM")}
        if net is not None:
            scores[method]["UFLoss"] = magnitude_ufloss(net, output[number], references[number], stride=stride)
    return scores


def draw_panels(
    paths: Sequence[str | Path],
    volume: VolumeFiles,
    number: int,
    *,
    title: str,
    net: PatchFeatureNet | None = None,
    stride: int = 5,
    zoom: drawing.Square | None = None,
    error_gain: float = drawing.ERROR_GAIN,
) -> dict[str, dict[str, float]]:
    """Write the panels of a slice with its `slice_scores`, which are returned; see there and `save_panels`."""
    scores = slice_scores(volume, number, net=net, stride=stride)
    texts = {method: {name: f"{value:#.3g}" for name, value in of.items()} for method, of in scores.items()}
    images = volume.read(number)
    ((name, reference), *_) = images.references.items()
    outputs = {method: output[0] for method, output in images.outputs.items()}
    for path in paths:
        save_panels(path, (name, reference[0]), outputs, scores=texts, zoom=zoom, error_gain=error_gain, title=title)
    return scores


def _lines(texts: Mapping[str, str]) -> int:
    return max(text.count("\n") + 1 for text in texts.values())


def _figure(
    shape: tuple[int, ...], num_columns: int, lines: Sequence[int], heading: str
) -> tuple[Figure, np.ndarray]:
    """A figure with axes (3, columns) for images, squares and images, below and above so many lines of text.

    Places are computed here: a layout engine takes many seconds for so many axes.
    """
    height = min(_WIDTH * shape[0] / shape[1], _MAX_HEIGHT)
    line = _FONT * 1.35 / 72
    above, below = (line * count + 0.04 for count in lines)
    top = line * (heading.count("\n") + 1) + 0.08 if heading else 0.02
    size = np.array([num_columns * (_WIDTH + _GAP) + _GAP, top + above + 2 * height + _WIDTH + 4 * _GAP + below])
    figure = Figure(figsize=tuple(size))
    axes = np.empty((3, num_columns), dtype=object)
    bottom = below + _GAP
    for row, inches in ((2, height), (1, _WIDTH), (0, height)):
        for column in range(num_columns):
            left = _GAP + column * (_WIDTH + _GAP)
            axes[row, column] = figure.add_axes(
                (left / size[0], bottom / size[1], _WIDTH / size[0], inches / size[1])
            )
            axes[row, column].set_axis_off()
        bottom += inches + _GAP
    if heading:
        figure.text(0.5, 1 - 0.04 / size[1], heading, ha="center", va="top", **_TEXT)
    return figure, axes
