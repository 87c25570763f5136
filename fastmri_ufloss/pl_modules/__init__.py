"""Lightning: fastMRI's modules on Lightning 2, and the plugin's own."""

from fastmri_ufloss.pl_modules.callbacks import SeededSteps
from fastmri_ufloss.pl_modules.checkpoints import load_modl_module, read_checkpoint, read_network
from fastmri_ufloss.pl_modules.data_module import MriDataModule
from fastmri_ufloss.pl_modules.feature_module import FeatureModule
from fastmri_ufloss.pl_modules.host_modules import UnetModule, VarNetModule
from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.mri_module import MriModule
from fastmri_ufloss.pl_modules.pretraining import PatchDataModule
from fastmri_ufloss.pl_modules.reconstruction_module import METHODS, ReconstructionModule

__all__ = [
    "METHODS",
    "FeatureModule",
    "MoDLModule",
    "MriDataModule",
    "MriModule",
    "PatchDataModule",
    "ReconstructionModule",
    "SeededSteps",
    "UnetModule",
    "VarNetModule",
    "load_modl_module",
    "read_checkpoint",
    "read_network",
]
