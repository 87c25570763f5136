"""Networks: fastMRI's own, and the plugin's next to them."""

from fastmri.models import NormUnet, Unet, VarNet

from fastmri_ufloss.models.denoisers import ResNetDenoiser, UnetDenoiser
from fastmri_ufloss.models.feature_net import PatchFeatureNet, load_ufloss_checkpoint
from fastmri_ufloss.models.modl import MoDL

__all__ = [
    "MoDL",
    "NormUnet",
    "PatchFeatureNet",
    "ResNetDenoiser",
    "Unet",
    "UnetDenoiser",
    "VarNet",
    "load_ufloss_checkpoint",
]
