"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["format_table"]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a table of aligned columns: text to the left, numbers to the right."""
    if not rows:
        return "(no rows)"
    header = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in header] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [not isinstance(rows[0][name], str) for name in header]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, cells)])
