"""Networks: fastMRI's own, and the plugin's next to them."""

from fastmri.models import NormUnet, Unet, VarNet

from fastmri_ufloss.models.denoisers import ResNetDenoiser, UnetDenoiser
from fastmri_ufloss.models.discriminator import DiscriminatorOutput, PatchDiscriminator
from fastmri_ufloss.models.feature_net import PatchFeatureNet, load_ufloss_checkpoint
from fastmri_ufloss.models.modl import MoDL
from fastmri_ufloss.models.recnet import RecNet
from fastmri_ufloss.models.refinement import Refined, RefinementNet, RefinementUnet
from fastmri_ufloss.models.unet import DeepUnet
from fastmri_ufloss.models.vgg import VGGFeatures, load_vgg_features

__all__ = [
    "DeepUnet",
    "DiscriminatorOutput",
    "MoDL",
    "NormUnet",
    "PatchDiscriminator",
    "PatchFeatureNet",
    "RecNet",
    "Refined",
    "RefinementNet",
    "RefinementUnet",
    "ResNetDenoiser",
    "Unet",
    "UnetDenoiser",
    "VGGFeatures",
    "VarNet",
    "load_ufloss_checkpoint",
    "load_vgg_features",
]
