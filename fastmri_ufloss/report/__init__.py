"""Tables and pictures made from results."""

from fastmri_ufloss.report.picture import save_picture
from fastmri_ufloss.report.table import format_table

__all__ = ["format_table", "save_picture"]
