"""The report as one HTML page that needs nothing else: no network, no other file; and its figures."""

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
from fastmri_ufloss.report.figures.panels import panel_scores, save_panels
from fastmri_ufloss.report.figures.score_plots import (
    perception_distortion_metrics,
    save_box_plots,
    save_perception_distortion,
)
from fastmri_ufloss.report.page.cases import Case, choose_cases
from fastmri_ufloss.report.page.page_data import case_images, case_summary, page_data

__all__ = ["write_page", "write_report"]

_NUM_PANELS = 4
_NUM_SCORES = 4
_SUFFIXES = (".png", ".pdf")
_SCRIPTS = ("elements.js", "data.js", "tables.js", "plots.js", "canvas.js", "viewer.js", "main.js")


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
    shown = cases[:_NUM_PANELS]
    for place, case in enumerate(tqdm(shown, desc="panels", disable=not shown), start=1):
        images = comparison.read_slice(case.volume, case.slice_num)
        reference = next(iter(images.reference))
        tested = [m["name"] for m in document["metrics"] if m["tested"] and m["reference"] in (None, reference)]
        metrics = list(dict.fromkeys([focus, *tested]))[:_NUM_SCORES]
        scores = panel_scores(document, case.volume, case.slice_num, metrics=metrics)
        scores = {method: of_method for method, of_method in scores.items() if method in images.outputs}
        title = f"{case.volume}, slice {case.slice_num}: {case.why}"
        target = (reference, images.reference[reference])
        save(f"panels_{place}", save_panels, target, images.outputs, scores=scores, title=title)
    for pattern in ("box_plots*", "perception_distortion*", "panels_*"):
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

    The page forbids itself every connection and every script but its own (Content-Security-Policy).

    Args:
        path: of the page.
        document: of the report.
        cases: from `choose_cases`, or none.
        read_slice: gives the images of a volume and slice, all of one shape.

    Raises:
        ValueError: if an image of a case has another shape than its first reference, and as `encode_image`.
    """
    style, script = _template("page.css"), "\n".join(map(_template, _SCRIPTS))
    values = {"title": html.escape(document["title"]), "style": style, "script": script}
    # a script that is named by its hash runs, and nothing else does
    values |= {f"{name}_hash": _hash(values[name]) for name in ("script", "style")}
    # in one pass: what looks like a marker in a value stays
    start, end = (
        re.sub(r"\{\{ (\w+) \}\}", lambda marker: values[marker[1]], part)
        for part in _template("page.html").split("{{ data }}")
    )
    summaries = []
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(start)
        for place, case in enumerate(tqdm(cases, desc="images of the page", disable=not cases)):
            images = read_slice(case.volume, case.slice_num)
            _check_shapes(case, images)
            summaries.append(case_summary(document, case, images))
            file.write(_json_block(f"images-{place}", case_images(document, images)))
        file.write(_json_block("page-data", {**page_data(document), "cases": summaries}))
        file.write(end)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _json_block(name: str, value: Any) -> str:
    """Data that the browser does not run. Without a <, nothing in it ends the block."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _template(name: str) -> str:
    return (resources.files("fastmri_ufloss.report.page") / "templates" / name).read_text(encoding="utf-8")


def _check_shapes(case: Case, images: SliceImages) -> None:
    where = f"{case.volume} slice {case.slice_num}"
    if not images.reference:
        raise ValueError(f"read_slice must give a reference, got none for {where}")
    expected = next(iter(images.reference.values())).shape
    truth = {} if images.segmentation is None else {"segmentation": images.segmentation}
    for named in (images.reference, images.outputs, images.labels, truth):
        for name, image in named.items():
            if image.shape != expected:
                raise ValueError(
                    f"read_slice must give images of one shape {expected}, got {image.shape} for {name!r} of {where}"
                )
