"""Lightning: fastMRI's modules on Lightning 2, and the plugin's own."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.pl_modules.base_module import *
    from fastmri_ufloss.pl_modules.data_module import *
    from fastmri_ufloss.pl_modules.feature_module import *
    from fastmri_ufloss.pl_modules.host_modules import *
    from fastmri_ufloss.pl_modules.modl_module import *
    from fastmri_ufloss.pl_modules.mri_module import *
    from fastmri_ufloss.pl_modules.pretraining import *
    from fastmri_ufloss.pl_modules.recnet_module import *
    from fastmri_ufloss.pl_modules.reconstruction_module import *
    from fastmri_ufloss.pl_modules.refinement_module import *
    from fastmri_ufloss.pl_modules.segmentation_data import *
    from fastmri_ufloss.pl_modules.segmentation_module import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "base_module": "SeededSteps read_checkpoint",
        "data_module": "MriDataModule",
        "feature_module": "FeatureModule",
        "host_modules": "UnetModule VarNetModule",
        "modl_module": "MoDLModule",
        "mri_module": "MriModule",
        "pretraining": "PatchDataModule",
        "recnet_module": "RecNetModule",
        "reconstruction_module": "ReconstructionModule",
        "refinement_module": "JointModule RefinementModule load_reconstruction",
        "segmentation_data": "SegmentationDataModule",
        "segmentation_module": "SegmentationModule",
    },
)
