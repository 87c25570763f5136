"""Tables of a report: for the terminal, and as JSON and CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmri_ufloss.files import atomic_path, write_json

__all__ = ["format_comparisons", "format_means", "format_table", "write_document"]

TABLES = ("slices", "volumes", "means", "comparisons")
# of scores that each reference has, and of those that are not tested
IMAGE_LABELS = ("NMSE", "NRMSE", "PSNR", "SSIM", "HFEN", "HaarPSI", "VSI", "GMSD", "spectrum")


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a table of aligned columns: text to the left, numbers to the right."""
    columns = []
    for name, first in rows[0].items() if rows else ():
        values = [row.get(name, "") for row in rows]
        cells = [name, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)]
        width = max(map(len, cells))
        cells.insert(1, "-" * width)
        columns.append([text.ljust(width) if isinstance(first, str) else text.rjust(width) for text in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True)) or "(no rows)"


def format_means(document: Mapping[str, Any], contrast: str) -> str:
    """A row for each method: mean ± standard deviation over subjects, of the main scores."""
    shown = {
        metric["name"]: metric["label"]
        for metric in document["metrics"]
        if metric["tested"] or not metric["label"].startswith(IMAGE_LABELS)
    }
    table = {method: {"method": method, **dict.fromkeys(shown.values(), "-")} for method in document["methods"]}
    for row in document["means"]:
        if row["contrast"] == contrast and row["metric"] in shown and row["mean"] is not None:
            spread = "" if row["std"] is None else f" ± {row['std']:.2g}"
            table[row["method"]][shown[row["metric"]]] = f"{row['mean']:.4g}{spread}"
    return format_table(list(table.values()))


def format_comparisons(document: Mapping[str, Any], contrast: str) -> str:
    """A row for each tested score and method, against the baseline."""
    labels = {metric["name"]: metric["label"] for metric in document["metrics"]}

    def text(value: float | None, digits: str = ".3g") -> str:
        return "-" if value is None else f"{value:{digits}}"

    rows = []
    for row in document["comparisons"]:
        if row["contrast"] == contrast:
            difference, *ends = (text(row[name], "+.3g") for name in ("difference", "95% from", "95% to"))
            shown = {"metric": labels[row["metric"]], "method": row["second"]}
            shown["difference (95%)"] = f"{difference} ({' to '.join(ends)})"
            shown |= {name: text(row[name]) for name in ("p", "p (Holm)", "effect size")}
            rows.append({**shown, "better in": row["better in"]})
    return format_table(rows)


def write_document(folder: str | Path, document: Mapping[str, Any]) -> None:
    """Write ``report.json`` and a CSV file of each table, each in one step."""
    write_json(Path(folder) / "report.json", document)
    for table in TABLES:
        rows = document[table]
        with (
            atomic_path(Path(folder) / f"{table}.csv") as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
