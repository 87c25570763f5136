"""Lightning: fastMRI's modules on Lightning 2, and the plugin's own."""

from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule
from fastmri_ufloss.pl_modules.base_module import read_checkpoint
from fastmri_ufloss.pl_modules.callbacks import SeededSteps
from fastmri_ufloss.pl_modules.data_module import MriDataModule
from fastmri_ufloss.pl_modules.feature_module import FeatureModule
from fastmri_ufloss.pl_modules.host_modules import UnetModule, VarNetModule
from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.mri_module import MriModule
from fastmri_ufloss.pl_modules.pretraining import PatchDataModule
from fastmri_ufloss.pl_modules.recnet_module import RecNetModule
from fastmri_ufloss.pl_modules.reconstruction_module import ReconstructionModule
from fastmri_ufloss.pl_modules.refinement_module import JointModule, RefinementModule, load_reconstruction
from fastmri_ufloss.pl_modules.segmentation_data import SegmentationDataModule
from fastmri_ufloss.pl_modules.segmentation_module import SegmentationModule

__all__ = [
    "AdversarialModule",
    "FeatureModule",
    "JointModule",
    "MoDLModule",
    "MriDataModule",
    "MriModule",
    "PatchDataModule",
    "RecNetModule",
    "ReconstructionModule",
    "RefinementModule",
    "SeededSteps",
    "SegmentationDataModule",
    "SegmentationModule",
    "UnetModule",
    "VarNetModule",
    "load_reconstruction",
    "read_checkpoint",
]
