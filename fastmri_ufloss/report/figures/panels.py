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

__all__ = ["choose_slice", "draw_panels", "panel_scores", "save_panels"]

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
    """A PNG, JPG or PDF has a column for the reference and for each image, with a zoom, the error and the scores.

    All have the gray scale of the reference, also the errors, error_gain |image - reference|.

    Args:
        reference: its name, and its magnitude (rows, cols).
        images: magnitudes of the same shape by method.
        scores: numbers as text by method and metric, to stand below the images.
        zoom: a square, or else that with the largest gradients of the reference without its brightest parts.
        error_gain: by which errors are multiplied.

    Raises:
        ValueError: if an argument is not as above.
    """
    name, first = reference
    columns = drawing.check_magnitudes({name: first, **images})
    drawing.check_names(images, scores=scores)
    if zoom is None:
        zoom = drawing.most_textured(first, organ=True)
    row, col, side = zoom
    if not (side > 0 and 0 <= row <= first.shape[0] - side and 0 <= col <= first.shape[1] - side):
        raise ValueError(f"zoom must be row, column and side of a square in an image of {first.shape}, got {zoom}")
    if not 0 < error_gain < np.inf:
        raise ValueError(f"error_gain must be a number above 0, got {error_gain}")
    white = drawing.white_of(first)
    captions = [textwrap.fill(label, _LETTERS) for label in columns]
    values = [(scores or {}).get(label, {}) for label in columns]
    texts = ["\n".join(f"{metric} {value}" for metric, value in of_image.items()) for of_image in values]
    figure, axes = _figure(first.shape, captions, texts, textwrap.fill(title, _LETTERS * len(columns)))
    for index, ((label, image), (whole, enlarged, error)) in enumerate(zip(columns.items(), axes.T, strict=True)):
        drawing.show_with_zoom(whole, enlarged, image, white, zoom, linewidth=0.7)
        whole.set_title(captions[index], pad=2, **_TEXT)
        if label in images:
            drawing.show(error, error_gain * np.abs(image - first), white, heat=True)
            error.text(0.5, -0.02, texts[index], ha="center", va="top", transform=error.transAxes, **_TEXT)
        else:
            place: dict[str, Any] = {"ha": "center", "va": "center", "transform": error.transAxes}
            error.text(0.5, 0.5, f"error x{error_gain:g}", **place, **_TEXT)
    drawing.write_figure(path, figure, dpi=300)


def _figure(
    shape: tuple[int, ...], captions: Sequence[str], texts: Sequence[str], heading: str
) -> tuple[Figure, np.ndarray]:
    """A figure with axes (3, columns) for images, squares and images, and room for captions, texts and a heading.

    Places are computed here: a layout engine takes many seconds for so many axes.
    """
    height = min(_WIDTH * shape[0] / shape[1], _MAX_HEIGHT)
    line = _FONT * 1.35 / 72
    above, below = (line * (max(text.count("\n") for text in of) + 1) + _GAP for of in (captions, texts))
    top = line * (heading.count("\n") + 1) + 0.08 if heading else 0.02
    wide = len(captions) * (_WIDTH + _GAP) + _GAP
    high = top + above + 2 * height + _WIDTH + 4 * _GAP + below
    figure = Figure(figsize=(wide, high))
    axes = np.empty((3, len(captions)), dtype=object)
    bottom = below + _GAP
    for row, inches in ((2, height), (1, _WIDTH), (0, height)):
        for column in range(len(captions)):
            left = _GAP + column * (_WIDTH + _GAP)
            axes[row, column] = figure.add_axes((left / wide, bottom / high, _WIDTH / wide, inches / high))
            axes[row, column].set_axis_off()
        bottom += inches + _GAP
    if heading:
        figure.text(0.5, 1 - 0.04 / high, heading, ha="center", va="top", **_TEXT)
    return figure, axes


def panel_scores(
    document: Mapping[str, Any], volume: str, slice_num: int, *, metrics: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The scores of a slice in a report as text, by method and metric, for `save_panels`.

    Metrics are names of scores, and go by their labels, or by their names where two have one label.
    """
    known = {metric["name"]: metric for metric in document["metrics"] if metric["name"] in metrics}
    labels = Counter(metric["label"] for metric in known.values())
    names = {name: m["label"] if labels[m["label"]] == 1 else name for name, m in known.items()}
    scores = {}
    for row in document["slices"]:
        if (row["volume"], row["slice"]) == (volume, slice_num):
            values = {name: row[name] for name in metrics if row.get(name) is not None}
            texts = {name: f"{value:#.3g}".rstrip(".") for name, value in values.items()}
            scores[row["method"]] = {names[n]: f"{text} {known[n]['unit']}".rstrip() for n, text in texts.items()}
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
    top = float(np.nanmax(np.where(np.isfinite(images), images, np.nan), initial=0.0))
    # without the brightest parts, or else it is the slice with the brightest fat
    return [
        texture(np.minimum(image, np.percentile(image, 95))) / top if top > 0 and np.isfinite(image).all() else 0.0
        for image in images
    ]


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
    scores = {}
    for method, output in images.outputs.items():
        of_slice = reference.score(output[number : number + 1], names=("NRMSE", "SSIM")).slices
        scores[method] = {score: float(values[0]) for score, values in of_slice.items()}
        if net is not None:
            scores[method]["UFLoss"] = magnitude_ufloss(net, output[number], references[number], stride=stride)
    texts = {method: {score: f"{value:#.3g}" for score, value in of.items()} for method, of in scores.items()}
    outputs = {method: output[number] for method, output in images.outputs.items()}
    shown = ((name, references[number]), outputs)
    for path in paths:
        save_panels(path, *shown, scores=texts, zoom=zoom, error_gain=error_gain, title=title)
    return scores
