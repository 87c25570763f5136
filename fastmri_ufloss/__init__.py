"""MoDL and UFLoss for fastMRI.

The rooms are imported by name: ``fastmri_ufloss.models``, ``.losses``, ``.mri``, ``.data``, ``.metrics``,
``.pl_modules``, ``.report``. The names here are those that most users need.
"""

from fastmri_ufloss.losses import UFLoss, make_loss
from fastmri_ufloss.models import MoDL, PatchFeatureNet, load_ufloss_checkpoint
from fastmri_ufloss.mri import cg_sense, conjugate_gradient, estimate_sens_maps, sens_expand, sens_reduce

__all__ = [
    "MoDL",
    "PatchFeatureNet",
    "UFLoss",
    "cg_sense",
    "conjugate_gradient",
    "estimate_sens_maps",
    "load_ufloss_checkpoint",
    "make_loss",
    "sens_expand",
    "sens_reduce",
]
