"""Old place of `dice_of_classes`, until `fastmri_ufloss.pl_modules` imports the new place."""

from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes

__all__ = ["dice_of_classes"]
