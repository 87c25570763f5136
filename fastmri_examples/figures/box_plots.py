"""NRMSE, SSIM and UFLoss of several methods by contrast: figure 9 of the UFLoss paper, from the numbers of a report.

    python -m fastmri_ufloss.report RESULTS... --reference DATA/multicoil_test --feature_net NET --output_path OUT
    python fastmri_examples/figures/box_plots.py --report OUT/report.json --output figure_9.png

A dot is a subject, the mean over its volumes of a contrast; with --unit slice it is a slice, as in the paper, though
slices of one subject are not independent. The JSON file beside the picture has medians and quartiles.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli

from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.box_plots import save_box_plots
from fastmri_ufloss.report.subject_tables import scores_by_subject

METRICS = ("NRMSE", "SSIM", "UFLoss")
UNITS = ("subject", "slice")


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--report", type=Path, required=True, help="report.json of python -m fastmri_ufloss.report")
    parser.add_argument(
        "--output", type=Path, required=True, help="a PNG or PDF; the numbers go to a JSON file beside it"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=list(METRICS),
        help=f"names or labels of the report's; UFLoss is that of each network (default: {' '.join(METRICS)})",
    )
    parser.add_argument("--reference", default=None, help="of the report's (default: its first)")
    parser.add_argument("--contrasts", nargs="+", default=None, help="of the report's (default: all)")
    parser.add_argument("--unit", choices=UNITS, default=UNITS[0], help="what a dot is (default: subject)")
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    document = read_report(args.report)
    reference = document["references"][0] if args.reference is None else args.reference
    document = chosen(document, args.metrics, reference, args.contrasts, by_slice=args.unit == "slice")
    save_box_plots(args.output, document, reference=reference)
    rows = quartiles(document, args.unit)
    file = args.output.with_suffix(".json")
    write_json(file, {"report": str(args.report), "reference": reference, "unit": args.unit, "boxes": rows})
    cli.say(format_table(rows))
    cli.say(f"Picture: {args.output}\nNumbers: {file}")


def read_report(file: Path) -> dict[str, Any]:
    """The document of a report.

    Raises:
        ValueError: if the file holds something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--report must be the report.json of a report, {file} is not JSON ({error})") from error
    needed = ("methods", "references", "metrics", "contrasts", "volumes", "slices")
    if not isinstance(document, dict) or any(name not in document for name in needed):
        raise ValueError(f"--report must be the report.json of a report, {file} lacks some of {', '.join(needed)}")
    return document


def chosen(
    document: Mapping[str, Any],
    names: Sequence[str],
    reference: str,
    contrasts: Sequence[str] | None,
    *,
    by_slice: bool,
) -> dict[str, Any]:
    """A document of some metrics and contrasts, whose volumes are the units.

    Raises:
        ValueError: if one is not in the document.
    """
    if reference not in document["references"]:
        raise ValueError(f"--reference must be one of {', '.join(document['references'])}, got {reference!r}")
    metrics = []
    for name in names:
        found = [metric for metric in document["metrics"] if is_meant(metric, name, reference)]
        if not found:
            known = ", ".join(metric["name"] for metric in document["metrics"])
            hint = ", which a report has with its --feature_net" if name == "UFLoss" else ""
            raise ValueError(f"the report has no metric {name!r} against {reference}{hint}, only {known}")
        # UFLoss of a complex network may be against another reference: it is shown all the same
        metrics += [{**metric, "reference": None} for metric in found]
    every, *others = document["contrasts"]
    if contrasts is not None:
        for contrast in contrasts:
            if contrast not in others:
                raise ValueError(f"--contrasts must be some of {', '.join(others) or 'none'}, got {contrast!r}")
        others = list(contrasts)
    rows = document["volumes"]
    if by_slice:
        rows = [{**row, "subject": f"{row['volume']}, slice {row['slice']}"} for row in document["slices"]]
    return {**document, "metrics": metrics, "contrasts": [every, *others], "volumes": rows}


def is_meant(metric: Mapping[str, Any], name: str, reference: str) -> bool:
    """Whether a metric of the document is what was typed."""
    if name == "UFLoss":
        return bool(metric["label"].startswith("UFLoss"))
    return name == metric["name"] or (name == metric["label"] and metric["reference"] in (None, reference))


def quartiles(document: Mapping[str, Any], unit: str) -> list[dict[str, Any]]:
    """A row for each contrast, metric and method."""
    names = [metric["name"] for metric in document["metrics"]]
    every, *others = document["contrasts"]
    rows = []
    for contrast in others or [every]:
        of_contrast = [row for row in document["volumes"] if contrast in (every, row["contrast"])]
        for metric, methods in scores_by_subject(of_contrast, names).items():
            for method, by_unit in methods.items():
                values = [value for value in by_unit.values() if math.isfinite(value)]
                low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
                counts = {f"{unit}s": len(values)}
                numbers = {"median": middle, "1st quartile": low, "3rd quartile": high}
                rows.append({"contrast": contrast, "metric": metric, "method": method, **counts, **numbers})
    return rows


if __name__ == "__main__":
    cli.run(main)
