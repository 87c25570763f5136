"""Physics: SENSE, ESPIRiT, conjugate gradients, coil compression, intensity scale."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names
from fastmri_ufloss.mri.conjugate_gradient import conjugate_gradient as conjugate_gradient  # not its module

if TYPE_CHECKING:
    from fastmri_ufloss.mri.center import *
    from fastmri_ufloss.mri.coil_compression import *
    from fastmri_ufloss.mri.espirit import *
    from fastmri_ufloss.mri.intensity import *
    from fastmri_ufloss.mri.sense import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "center": "count_center_lines",
        "coil_compression": "coil_compression_matrix compress_coils",
        "conjugate_gradient": "conjugate_gradient",
        "espirit": "estimate_sens_maps",
        "intensity": "image_scale",
        "sense": "cg_sense combine_sets cut_rows data_residual sens_expand sens_reduce sense_adjoint "
        "SenseNormalOperator",
    },
)
