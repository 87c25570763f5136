"""The document of a comparison as JSON, CSV and tables for the terminal."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.report.table import format_table

__all__ = ["format_comparisons", "format_means", "write_document"]

TABLES = ("slices", "volumes", "means", "comparisons")
DOCUMENT = "report.json"
IMAGE_LABELS = ("NMSE", "NRMSE", "PSNR", "SSIM", "HFEN")  # of scores that each reference has


def write_document(folder: str | Path, document: Mapping[str, Any]) -> list[Path]:
    """Write ``report.json`` and a CSV file of each table, each in one step.

    Args:
        folder: for the files.
        document: of a `fastmri_ufloss.report.document.Comparison`.

    Returns:
        The files.
    """
    folder = Path(folder)
    paths = [folder / DOCUMENT]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(_to_json(document), encoding="utf-8")
    for table in TABLES:
        path = folder / f"{table}.csv"
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            rows = document[table]
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
        paths.append(path)
    return paths


def _to_json(document: Mapping[str, Any]) -> str:
    """JSON with a line for each row of a table."""
    entries = []
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines = ",\n  ".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in value)
            text = f"[\n  {lines}\n ]"
        else:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        entries.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def format_means(document: Mapping[str, Any], contrast: str) -> str:
    """A row for each method: mean ± standard deviation over subjects, of the main scores."""
    shown = {
        metric["name"]: metric["label"]
        for metric in document["metrics"]
        if metric["tested"] or not metric["label"].startswith(IMAGE_LABELS)
    }
    table: dict[str, dict[str, str]] = {method: {"method": method} for method in document["methods"]}
    for row in document["means"]:
        if row["contrast"] == contrast and row["metric"] in shown:
            spread = "" if row["std"] is None else f" ± {row['std']:.2g}"
            text = "-" if row["mean"] is None else f"{row['mean']:.4g}{spread}"
            table[row["method"]][shown[row["metric"]]] = text
    return format_table([{"method": "", **dict.fromkeys(shown.values(), "-"), **row} for row in table.values()])


def format_comparisons(document: Mapping[str, Any], contrast: str) -> str:
    """A row for each tested score and method, against the baseline."""
    labels = {metric["name"]: metric["label"] for metric in document["metrics"]}
    rows = [
        {
            "metric": labels[row["metric"]],
            "method": row["second"],
            "difference (95%)": f"{row['difference']:+.3g} ({_end(row['95% from'])} to {_end(row['95% to'])})",
            "p": _cell(row["p"]),
            "p (Holm)": _cell(row["p (Holm)"]),
            "effect size": _cell(row["effect size"]),
            "better in": row["better in"],
        }
        for row in document["comparisons"]
        if row["contrast"] == contrast
    ]
    return format_table(rows)


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
