"""The report as one HTML page that needs nothing else: no network, no other file; and its figures."""

import base64
import html
import io
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from tqdm import tqdm

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.metrics.volumes import SPECTRUM
from fastmri_ufloss.report.document import Comparison, SliceImages
from fastmri_ufloss.report.figures.drawing import method_color, white_of
from fastmri_ufloss.report.figures.panels import panel_scores, save_panels
from fastmri_ufloss.report.figures.score_plots import (
    perception_distortion_metrics,
    save_box_plots,
    save_perception_distortion,
    save_spectra,
)
from fastmri_ufloss.report.page.cases import Case, choose_cases
from fastmri_ufloss.report.subject_tables import plain

__all__ = [
    *("BITS", "encode_classes", "encode_image", "json_block", "page_frame", "write_page", "write_report"),
]

BITS = 14  # a step is 1/16383 of the range: an error map enlarged 60 times has no steps on a screen of 256 levels
_COMPRESSION = 6
_THUMBNAIL = 72  # pixels, the longer side
_NUM_PANELS = 4
_NUM_SCORES = 4
_SUFFIXES = (".png", ".pdf")
_SCRIPTS = ("data.js", "tables.js", "plots.js", "canvas.js", "viewer.js", "main.js")
Stored = dict[str, Any]
Images = Mapping[str, np.ndarray]


def write_report(output_path: str | Path, comparison: Comparison, *, focus: str, num_cases: int) -> None:
    """Write report.html, and as PNG and PDF in the folder figures: box plots, perception-distortion, spectra, panels.

    Figures of an earlier report that had more references or cases are removed.
    """
    document, figures = comparison.document, Path(output_path) / "figures"
    cases = choose_cases(document, focus=focus, count=num_cases)
    write_page(Path(output_path) / "report.html", document, cases, comparison.read_slice)
    names: list[str] = []

    def save(name: str, save_figure: Callable[..., Any], *args: Any, **options: Any) -> None:
        names.append(f"{name}_{len(names)}" if name in names else name)
        for suffix in _SUFFIXES:
            save_figure(figures / f"{names[-1]}{suffix}", *args, **options)

    for index, reference in enumerate(document["references"]):
        name = "box_plots" if index == 0 else f"box_plots_{re.sub(r'[^A-Za-z0-9-]+', '_', reference)}"
        save(name, save_box_plots, document, reference=reference)
    if axes := perception_distortion_metrics(document):
        name = "perception_distortion"
        save(name, save_perception_distortion, document, distortion=axes[0], perception=axes[1])
    if any(metric["name"] in SPECTRUM for metric in document["metrics"]):
        save("spectra", save_spectra, document)
    shown = cases[:_NUM_PANELS]
    for place, case in enumerate(tqdm(shown, desc="panels", disable=not shown), start=1):
        images = comparison.read_slice(case.volume, case.slice_num)
        reference = next(iter(images.reference))
        tested = [m["name"] for m in document["metrics"] if m["tested"] and m["reference"] in (None, reference)]
        metrics = list(dict.fromkeys([focus, *tested]))[:_NUM_SCORES]
        scores = panel_scores(document, case.volume, case.slice_num, metrics=metrics)
        title = f"{case.volume}, slice {case.slice_num}: {case.why}"
        target = (reference, images.reference[reference])
        save(f"panels_{place}", save_panels, target, images.outputs, scores=scores, title=title)
    for pattern in ("box_plots*", "perception_distortion*", "spectra*", "panels_*"):
        for path in figures.glob(pattern):  # of an earlier report
            if path.suffix in _SUFFIXES and path.stem not in names:
                path.unlink()


def write_page(
    path: str | Path,
    document: Mapping[str, Any],
    cases: Sequence[Case],
    read_slice: Callable[[str, int], SliceImages],
) -> None:
    """Write the page: tables, box plots, and the images of the cases, which are read and encoded one by one.

    The page forbids itself every connection and every script but its own (Content-Security-Policy). ``read_slice``
    gives a reference and images of one shape.
    """
    start, end = page_frame("page.html", _SCRIPTS, document["title"])
    summaries = []
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(start)
        for place, case in enumerate(tqdm(cases, desc="images of the page", disable=not cases)):
            images = read_slice(case.volume, case.slice_num)
            summaries.append(_case_summary(document, case, images))
            file.write(json_block(f"images-{place}", _case_images(document, images)))
        file.write(json_block("page-data", {**_page_data(document), "cases": summaries}))
        file.write(end)


def page_frame(template: str, scripts: Sequence[str], title: str) -> tuple[str, str]:
    """What stands before and after the data of a page, which has the scripts of the given names and no others."""
    values = {"style": _template("page.css"), "script": "\n".join(map(_template, ("elements.js", *scripts)))}
    # a script that is named by its hash runs, and nothing else does
    values |= {f"{name}_hash": f"sha256-{_base64(sha256(text.encode()).digest())}" for name, text in values.items()}
    values["title"] = html.escape(title)
    # in one pass: what looks like a marker in a value stays
    start, end = (
        re.sub(r"\{\{ (\w+) \}\}", lambda marker: values[marker[1]], part)
        for part in _template(template).split("{{ data }}")
    )
    return start, end


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def json_block(name: str, value: Any) -> str:
    """Data that the browser does not run. Without a <, nothing in it ends the block."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _template(name: str) -> str:
    return (resources.files("fastmri_ufloss.report.page") / "templates" / name).read_text(encoding="utf-8")


def _page_data(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document for the page: all but the slices, with the colors of the methods and of errors."""
    inferno = np.round(255 * matplotlib.colormaps["inferno"](np.arange(256))).astype(np.uint8)  # RGBA
    return {
        **{key: value for key, value in document.items() if key != "slices"},
        **{key: [_short(row) for row in document[key]] for key in ("volumes", "means", "comparisons")},
        "colors": [method_color(index) for index in range(len(document["methods"]))],
        "color_map": _base64(inferno.tobytes()),
    }


def _case_summary(document: Mapping[str, Any], case: Case, images: SliceImages) -> dict[str, Any]:
    """What the list of cases shows: place, reason, a small picture, and a row of scores for each method."""
    place = {"volume": case.volume, "slice": case.slice_num, "contrast": case.contrast, "why": case.why}
    rows = [row for row in document["slices"] if (row["volume"], row["slice"]) == (case.volume, case.slice_num)]
    scores = {row["method"]: _short(row) for row in rows}
    thumbnail = _thumbnail(next(iter(images.reference.values())))
    return {**place, "thumbnail": thumbnail, "scores": [scores.get(method, {}) for method in document["methods"]]}


def _case_images(document: Mapping[str, Any], images: SliceImages) -> dict[str, Any]:
    """The images of a case in the order of the document's references and methods, None if missing or not finite.

    ``white`` is the 99.5th percentile of the first reference, ``top`` its maximum: the units of windows and errors.
    """
    first = next(iter(images.reference.values()))
    top = float(first.max())
    references, methods = document["references"], document["methods"]

    def encoded(encode: Callable[[np.ndarray], Stored], of: Images, names: Sequence[str]) -> list[Stored | None]:
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
    2 d or, below 0, -2 d - 1; the high bytes of all pixels before the low bytes; zlib; base64. An image that is not
    real and finite, or empty, raises ValueError.
    """
    if image.ndim != 2 or image.size == 0 or np.iscomplexobj(image) or not np.isfinite(image).all():
        raise ValueError(f"image must be real and finite (rows, cols), got {image.dtype} {image.shape}")
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
    """Class numbers (rows, cols) from 0 to 255, ValueError otherwise: one byte a pixel; zlib; base64."""
    if classes.ndim != 2 or classes.size == 0 or classes.min() < 0 or classes.max() > 255:
        raise ValueError(f"classes must be numbers from 0 to 255 (rows, cols), got shape {classes.shape}")
    return {"rows": classes.shape[0], "cols": classes.shape[1], "data": _text(classes.astype(np.uint8))}


def _text(array: np.ndarray) -> str:
    return _base64(zlib.compress(array.tobytes(), _COMPRESSION))


def _thumbnail(image: np.ndarray) -> str:
    gray = np.clip(255 * np.nan_to_num(image) / white_of(image), 0, 255).astype(np.uint8)
    small = Image.fromarray(gray)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    with io.BytesIO() as file:
        small.save(file, format="PNG")
        return f"data:image/png;base64,{_base64(file.getvalue())}"


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON; six digits are enough to read."""
    short = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}
    return dict(plain(short))
