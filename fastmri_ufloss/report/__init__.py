"""Tables and pictures made from results."""

from fastmri_ufloss.report.figures.panels import (
    orthogonal_views,
    save_comparison,
    save_contours,
    save_orthogonal_views,
    save_picture,
)
from fastmri_ufloss.report.table import format_table

__all__ = [
    "format_table",
    "orthogonal_views",
    "save_comparison",
    "save_contours",
    "save_orthogonal_views",
    "save_picture",
]
