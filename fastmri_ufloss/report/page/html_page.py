"""The report as one HTML page that needs nothing else: no network, no other file."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.report.document import Comparison, SliceImages
from fastmri_ufloss.report.figures.box_plots import save_box_plots
from fastmri_ufloss.report.figures.panels import panel_scores, save_panels
from fastmri_ufloss.report.figures.perception_distortion import (
    perception_distortion_metrics,
    save_perception_distortion,
)
from fastmri_ufloss.report.page.cases import Case, choose_cases
from fastmri_ufloss.report.page.page_data import case_images, case_summary, page_data

__all__ = ["write_page", "write_report"]

_NUM_PANELS = 4
_NUM_SCORES = 4
_SUFFIXES = (".png", ".pdf")

_STYLES = ("base.css", "tables.css", "viewer.css")
_SCRIPTS = (
    "dom.js",
    "data.js",
    "table.js",
    "summary.js",
    "plots.js",
    "scatter.js",
    "comparisons.js",
    "volumes.js",
    "images.js",
    "panel.js",
    "view.js",
    "cases.js",
    "flicker.js",
    "viewer.js",
    "main.js",
)


def write_report(output_path: str | Path, comparison: Comparison, *, focus: str, num_cases: int = 12) -> None:
    """Write report.html, and as PNG and PDF in the folder figures: box plots, perception-distortion, panels.

    The box plots are in one file for each reference, the panels of the first four cases in a file each. Figures of an
    earlier report with more of them are removed.

    Args:
        output_path: folder, made if it is missing.
        comparison: what to report.
        focus: name of the metric that chooses the cases.
        num_cases: slices to show on the page.

    Raises:
        ValueError: as `choose_cases`.
    """
    folder, document = Path(output_path), comparison.document
    cases = choose_cases(document, focus=focus, count=num_cases)
    write_page(folder / "report.html", document, cases, comparison.read_slice)
    names = []
    for number, reference in enumerate(document["references"]):
        name = "box_plots" if number == 0 else f"box_plots_{re.sub(r'[^A-Za-z0-9-]+', '_', reference)}"
        names.append(f"{name}_{number}" if name in names else name)
        for suffix in _SUFFIXES:
            save_box_plots(folder / "figures" / f"{names[-1]}{suffix}", document, reference=reference)
    metrics = perception_distortion_metrics(document)
    if metrics is not None:
        names.append("perception_distortion")
        for suffix in _SUFFIXES:
            path = folder / "figures" / f"{names[-1]}{suffix}"
            save_perception_distortion(path, document, distortion=metrics[0], perception=metrics[1])
    shown = cases[:_NUM_PANELS]
    for number, case in enumerate(tqdm(shown, desc="panels", disable=not shown), start=1):
        names.append(f"panels_{number}")
        _save_case(folder / "figures", names[-1], document, case, comparison.read_slice, focus=focus)
    _remove_others(folder / "figures", names)


def _remove_others(folder: Path, names: Sequence[str]) -> None:
    """Figures that an earlier report has left and this one does not have."""
    for pattern in ("box_plots*", "perception_distortion*", "panels_*"):
        for path in folder.glob(pattern):
            if path.suffix in _SUFFIXES and path.stem not in names:
                path.unlink()


def _save_case(
    folder: Path,
    name: str,
    document: Mapping[str, Any],
    case: Case,
    read_slice: Callable[[str, int], SliceImages],
    *,
    focus: str,
) -> None:
    images = read_slice(case.volume, case.slice_num)
    reference = next(iter(images.reference))
    tested = [m["name"] for m in document["metrics"] if m["tested"] and m["reference"] in (None, reference)]
    metrics = list(dict.fromkeys([focus, *tested]))[:_NUM_SCORES]
    scores = panel_scores(document, case.volume, case.slice_num, metrics=metrics)
    for suffix in _SUFFIXES:
        save_panels(
            folder / f"{name}{suffix}",
            (reference, images.reference[reference]),
            images.outputs,
            scores={method: of for method, of in scores.items() if method in images.outputs},
            title=f"{case.volume}, slice {case.slice_num}: {case.why}",
        )


def write_page(
    path: str | Path,
    document: Mapping[str, Any],
    cases: Sequence[Case],
    read_slice: Callable[[str, int], SliceImages],
) -> None:
    """Write the page: tables, box plots, and the images of the cases, which are read and encoded one by one.

    The page forbids itself every connection and every script but its own (Content-Security-Policy).

    Args:
        path: of the page, such as report.html.
        document: of the report.
        cases: from `choose_cases`, or none.
        read_slice: gives the images of a volume and slice, all of one shape.

    Raises:
        ValueError: if an image of a case has another shape than its first reference, and as `encode_image`.
    """
    style = "\n".join(_template(name) for name in _STYLES)
    script = "\n".join(_template(name) for name in _SCRIPTS)
    start, end = _filled(_template("page.html"), document, style, script)
    summaries = []
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(start)
        for number, case in enumerate(tqdm(cases, desc="images of the page", disable=not cases)):
            images = read_slice(case.volume, case.slice_num)
            _check_shapes(case, images)
            summaries.append(case_summary(document, case, images))
            file.write(_json_block(f"images-{number}", case_images(document, images)))
        file.write(_json_block("page-data", {**page_data(document), "cases": summaries}))
        file.write(end)


def _filled(template: str, document: Mapping[str, Any], style: str, script: str) -> tuple[str, str]:
    """The page before and after its data. A script that is named by its hash runs, and nothing else does."""
    values = {
        "title": html.escape(document["title"]),
        "style": style,
        "script": script,
        "script_hash": _hash(script),
        "style_hash": _hash(style),
    }
    # in one pass: what looks like a marker in a value stays
    start, end = (
        re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], part) for part in template.split("{{ data }}")
    )
    return start, end


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _json_block(name: str, value: Any) -> str:
    """Data that the browser does not run. Without a <, nothing in it ends the block."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _template(name: str) -> str:
    return (resources.files("fastmri_ufloss.report.page") / "templates" / name).read_text(encoding="utf-8")


def _check_shapes(case: Case, images: SliceImages) -> None:
    if not images.reference:
        raise ValueError(f"read_slice must give a reference, got none for {case.volume} slice {case.slice_num}")
    expected = next(iter(images.reference.values())).shape
    found = [*images.reference.items(), *images.outputs.items(), *images.labels.items()]
    if images.segmentation is not None:
        found.append(("segmentation", images.segmentation))
    for name, image in found:
        if image.shape != expected:
            raise ValueError(
                f"read_slice must give images of one shape {expected}, got {image.shape} for {name!r} of "
                f"{case.volume} slice {case.slice_num}"
            )
