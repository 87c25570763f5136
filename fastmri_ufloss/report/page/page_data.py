"""What the page needs of a report: the document without its slices, and the images of the chosen ones."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from fastmri_ufloss.report.document import SliceImages
from fastmri_ufloss.report.figures.drawing import method_color, white_of
from fastmri_ufloss.report.page.cases import Case
from fastmri_ufloss.report.page.image_codec import encode_classes, encode_image

__all__ = ["case_images", "case_summary", "page_data"]

_THUMBNAIL = 72  # pixels, the longer side
_DIGITS = 6


def page_data(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document for the page: a row for each volume with the scores of all methods, slices left out."""
    names = [metric["name"] for metric in document["metrics"]]
    keys = ("title", "methods", "baseline", "references", "metrics", "contrasts", "notes", "excluded", "settings")
    inferno = np.round(255 * matplotlib.colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)
    return {
        **{key: document[key] for key in keys},
        "means": [_short(row) for row in document["means"]],
        "comparisons": [_short(row) for row in document["comparisons"]],
        "volumes": _by_volume(document["volumes"], names, document["methods"]),
        "colors": [method_color(index) for index in range(len(document["methods"]))],
        "color_map": base64.b64encode(inferno.tobytes()).decode("ascii"),
    }


def case_summary(document: Mapping[str, Any], case: Case, images: SliceImages) -> dict[str, Any]:
    """What the list of cases shows: place, reason, a small picture, and the scores of all methods by metric."""
    rows = [r for r in document["slices"] if (r["volume"], r["slice"]) == (case.volume, case.slice_num)]
    scores = {row["method"]: row for row in rows}
    names = [metric["name"] for metric in document["metrics"]]
    return {
        "volume": case.volume,
        "slice": case.slice_num,
        "contrast": case.contrast,
        "subject": rows[0]["subject"] if rows else "",
        "why": case.why,
        "thumbnail": _thumbnail(next(iter(images.reference.values()))),
        "scores": [_values(scores.get(method, {}), names) for method in document["methods"]],
    }


def case_images(document: Mapping[str, Any], images: SliceImages) -> dict[str, Any]:
    """The images of a case for the page: references and methods in the document's order, each with its name.

    An image that is missing or not finite is None. ``white`` is the 99.5th percentile of the first reference, and
    ``top`` its maximum: the units of windows and errors.
    """
    first = next(iter(images.reference.values()))
    top = float(first.max())
    return {
        "top": top if top > 0 else 1.0,
        "white": white_of(first),
        "references": [_image(images.reference.get(name)) for name in document["references"]],
        "methods": [_image(images.outputs.get(name)) for name in document["methods"]],
        "truth": None if images.segmentation is None else encode_classes(images.segmentation),
        "reference_labels": [_classes(images.labels.get(name)) for name in document["references"]],
        "method_labels": [_classes(images.labels.get(name)) for name in document["methods"]],
    }


def _image(image: np.ndarray | None) -> dict[str, Any] | None:
    return None if image is None or not np.isfinite(image).all() else encode_image(image)


def _classes(classes: np.ndarray | None) -> dict[str, Any] | None:
    return None if classes is None else encode_classes(classes)


def _thumbnail(image: np.ndarray) -> str:
    grey = np.clip(255 * np.nan_to_num(image) / white_of(image), 0, 255).astype(np.uint8)
    small = Image.fromarray(grey)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    with io.BytesIO() as file:
        small.save(file, format="PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _by_volume(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], methods: Sequence[str]
) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["volume"] not in found:
            kept = {key: row[key] for key in ("volume", "subject", "contrast", "slices")}
            found[row["volume"]] = {**kept, "scores": [None] * len(methods)}
        found[row["volume"]]["scores"][methods.index(row["method"])] = _values(row, names)
    return list(found.values())


def _values(row: Mapping[str, Any], names: Sequence[str]) -> list[float | None]:
    return [_number(row.get(name)) for name in names]


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _number(value) if isinstance(value, float) else value for key, value in row.items()}


def _number(value: float | None) -> float | None:
    """Six digits are enough to read; what is no number is None, as JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")
