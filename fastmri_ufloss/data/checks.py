"""`fastmri_ufloss.checks.check` by the name that the leaves know."""

from fastmri_ufloss.checks import check

__all__ = ["check"]
