"""Lightning: fastMRI's modules on Lightning 2, and the plugin's own."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.pl_modules.adversarial_module import *
    from fastmri_ufloss.pl_modules.base_module import *
    from fastmri_ufloss.pl_modules.data_module import *
    from fastmri_ufloss.pl_modules.feature_module import *
    from fastmri_ufloss.pl_modules.host_modules import *
    from fastmri_ufloss.pl_modules.mri_module import *
    from fastmri_ufloss.pl_modules.reconstruction_module import *
    from fastmri_ufloss.pl_modules.refinement_module import *
    from fastmri_ufloss.pl_modules.segmentation_module import *
    from fastmri_ufloss.pl_modules.sense_module import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "adversarial_module": "load_reconstruction",
        "base_module": "SeededSteps read_checkpoint",
        "data_module": "MriDataModule",
        "feature_module": "FeatureModule PatchDataModule",
        "host_modules": "UnetModule VarNetModule",
        "mri_module": "MriModule",
        "reconstruction_module": "ReconstructionModule",
        "refinement_module": "JointModule RefinementModule",
        "segmentation_module": "SegmentationDataModule SegmentationModule",
        "sense_module": "MoDLModule RecNetModule",
    },
)
