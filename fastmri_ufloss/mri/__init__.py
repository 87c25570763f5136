"""Physics: pure functions on tensors."""

from fastmri_ufloss.mri.center import count_center_lines
from fastmri_ufloss.mri.conjugate_gradient import conjugate_gradient
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.mri.sense import cg_sense, sens_expand, sens_reduce, sense_normal_operator

__all__ = [
    "cg_sense",
    "conjugate_gradient",
    "count_center_lines",
    "estimate_sens_maps",
    "image_scale",
    "sens_expand",
    "sens_reduce",
    "sense_normal_operator",
]
