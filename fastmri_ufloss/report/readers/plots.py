"""The figure of a reader study: opinion scores of the methods by subject."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmri_ufloss.report.figures.score_plots import save_box_plots
from fastmri_ufloss.report.readers.answers import opinion_of_slices

__all__ = ["save_opinion"]


def save_opinion(
    path: str | Path, document: Mapping[str, Any], key: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """A PNG, JPG or PDF has a plot for each criterion, a box for each method, a dot for each subject."""
    subjects = {row["volume"]: row["subject"] for row in rows}
    volumes: dict[tuple[str, str], dict[str, Any]] = {}
    opinion = opinion_of_slices(key, rows)
    for name, of in opinion.items():
        values = defaultdict(list)
        for (method, volume, _), score in of.items():
            values[method, volume].append(score)
        for (method, volume), scores in values.items():
            row = {"volume": volume, "subject": subjects[volume], "contrast": "", "method": method}
            volumes.setdefault((method, volume), row)[name] = float(np.mean(scores))
    metric = {"reference": None, "larger_is_better": True, "unit": "", "tested": True}
    shown = {
        "methods": document["methods"],
        "references": [""],
        "contrasts": ["all"],
        "metrics": [{"name": name, "label": name, **metric} for name in opinion],
        "volumes": list(volumes.values()),
    }
    save_box_plots(path, shown)
