"""What the page needs of a report: the document without its slices, and the images of the chosen ones, as text."""

import base64
import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from fastmri_ufloss.report.document import SliceImages
from fastmri_ufloss.report.figures.drawing import method_color, white_of
from fastmri_ufloss.report.page.cases import Case

__all__ = ["BITS", "case_images", "case_summary", "encode_classes", "encode_image", "page_data"]

BITS = 14
"""A step is 1/16383 of the image's range: an error map enlarged 60 times has no steps on a screen of 256 levels."""
Stored = dict[str, Any]
_COMPRESSION = 6
_THUMBNAIL = 72  # pixels, the longer side
_DIGITS = 6


def page_data(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document for the page: a row for each volume with the scores of all methods, slices left out."""
    methods = document["methods"]
    keys = ("title", "methods", "baseline", "references", "metrics", "contrasts", "notes", "excluded", "settings")
    volumes: dict[str, dict[str, Any]] = {}
    for row in document["volumes"]:
        if row["volume"] not in volumes:
            kept = {key: row[key] for key in ("volume", "subject", "contrast", "slices")}
            volumes[row["volume"]] = {**kept, "scores": [None] * len(methods)}
        volumes[row["volume"]]["scores"][methods.index(row["method"])] = _values(row, document)
    inferno = np.round(255 * matplotlib.colormaps["inferno"](np.arange(256))).astype(np.uint8)  # RGBA
    return {
        **{key: document[key] for key in keys},
        **{key: [_short(row) for row in document[key]] for key in ("means", "comparisons")},
        "volumes": list(volumes.values()),
        "colors": [method_color(index) for index in range(len(methods))],
        "color_map": base64.b64encode(inferno.tobytes()).decode("ascii"),
    }


def case_summary(document: Mapping[str, Any], case: Case, images: SliceImages) -> dict[str, Any]:
    """What the list of cases shows: place, reason, a small picture, and the scores of all methods by metric."""
    rows = [r for r in document["slices"] if (r["volume"], r["slice"]) == (case.volume, case.slice_num)]
    scores = {row["method"]: row for row in rows}
    return {
        "volume": case.volume,
        "slice": case.slice_num,
        "contrast": case.contrast,
        "subject": rows[0]["subject"] if rows else "",
        "why": case.why,
        "thumbnail": _thumbnail(next(iter(images.reference.values()))),
        "scores": [_values(scores.get(method, {}), document) for method in document["methods"]],
    }


def case_images(document: Mapping[str, Any], images: SliceImages) -> dict[str, Any]:
    """The images of a case for the page: references and methods in the document's order.

    An image that is missing or not finite is None. ``white`` is the 99.5th percentile of the first reference, and
    ``top`` its maximum: the units of windows and errors.
    """
    first = next(iter(images.reference.values()))
    top = float(first.max())
    references, methods = document["references"], document["methods"]

    def encoded(
        encode: Callable[[np.ndarray], Stored], of: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> list[Stored | None]:
        return [encode(of[name]) if name in of and np.isfinite(of[name]).all() else None for name in names]

    return {
        "top": top if top > 0 else 1.0,
        "white": white_of(first),
        "references": encoded(encode_image, images.reference, references),
        "methods": encoded(encode_image, images.outputs, methods),
        "truth": None if images.segmentation is None else encode_classes(images.segmentation),
        "reference_labels": encoded(encode_classes, images.labels, references),
        "method_labels": encoded(encode_classes, images.labels, methods),
    }


def encode_image(image: np.ndarray) -> Stored:
    """An image (rows, cols) of 2^14 levels between its ends; each pixel is at most half a step from its value.

    pixel = low + step * level, with low = min(0, minimum) and step = (maximum - low) / (2^14 - 1). The levels are
    stored as differences from the mean of the left and the upper level, 0 outside, rounded down; a difference d as
    2 d or, below 0, -2 d - 1; the high bytes of all pixels before the low bytes; zlib; base64.

    Args:
        image: finite real numbers.

    Returns:
        ``rows``, ``cols``, ``low``, ``step`` and ``data`` for JSON.

    Raises:
        ValueError: if image has not two axes, is empty, complex or not finite.
    """
    if image.ndim != 2 or image.size == 0 or np.iscomplexobj(image):
        raise ValueError(f"image must be real (rows, cols), got {image.dtype} {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError("image must be finite, got NaN or infinity")
    values = image.astype(np.float64)
    low = min(0.0, float(values.min()))
    step = (float(values.max()) - low) / (2**BITS - 1) or 1.0
    levels = np.rint((values - low) / step).astype(np.int64)
    framed = np.pad(levels, ((1, 0), (1, 0)))
    difference = levels - ((framed[1:, :-1] + framed[:-1, 1:]) >> 1)
    unsigned = np.where(difference < 0, -2 * difference - 1, 2 * difference)
    planes = np.stack([unsigned >> 8, unsigned & 255]).astype(np.uint8)
    return {"rows": image.shape[0], "cols": image.shape[1], "low": low, "step": step, "data": _text(planes)}


def encode_classes(classes: np.ndarray) -> Stored:
    """Class numbers (rows, cols) from 0 to 255: one byte a pixel; zlib; base64.

    Raises:
        ValueError: if classes has not two axes or holds another number.
    """
    if classes.ndim != 2 or classes.size == 0 or classes.min() < 0 or classes.max() > 255:
        raise ValueError(f"classes must be numbers from 0 to 255 (rows, cols), got shape {classes.shape}")
    return {"rows": classes.shape[0], "cols": classes.shape[1], "data": _text(classes.astype(np.uint8))}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), _COMPRESSION)).decode("ascii")


def _thumbnail(image: np.ndarray) -> str:
    gray = np.clip(255 * np.nan_to_num(image) / white_of(image), 0, 255).astype(np.uint8)
    small = Image.fromarray(gray)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    with io.BytesIO() as file:
        small.save(file, format="PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _values(row: Mapping[str, Any], document: Mapping[str, Any]) -> Sequence[float | None]:
    return [_rounded(row.get(metric["name"])) for metric in document["metrics"]]


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _rounded(value) if isinstance(value, float) else value for key, value in row.items()}


def _rounded(value: float | None) -> float | None:
    """Six digits are enough to read; what is no number is None, as JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
