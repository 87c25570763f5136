"""Lightning: fastMRI's modules on Lightning 2, and the plugin's own."""

from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule
from fastmri_ufloss.pl_modules.adversarial_settings import AdversarialSettings
from fastmri_ufloss.pl_modules.callbacks import SeededSteps
from fastmri_ufloss.pl_modules.checkpoints import load_modl_module, load_recnet_module, read_checkpoint, read_network
from fastmri_ufloss.pl_modules.classical_data import ClassicalTransform, FinishedVolumes
from fastmri_ufloss.pl_modules.classical_module import ClassicalModule, method_folders
from fastmri_ufloss.pl_modules.classical_search import WeightSearch, check_split, note_by_hand
from fastmri_ufloss.pl_modules.data_module import MriDataModule
from fastmri_ufloss.pl_modules.feature_module import FeatureModule
from fastmri_ufloss.pl_modules.host_modules import UnetModule, VarNetModule
from fastmri_ufloss.pl_modules.joint_module import PRESETS as JOINT_PRESETS
from fastmri_ufloss.pl_modules.joint_module import JointModule, load_joint_module
from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.mri_module import MriModule
from fastmri_ufloss.pl_modules.pretraining import PatchDataModule
from fastmri_ufloss.pl_modules.recnet_module import RecNetModule
from fastmri_ufloss.pl_modules.reconstruction_module import METHODS, ReconstructionModule
from fastmri_ufloss.pl_modules.reconstructor import Reconstructor, load_reconstructor, network_of
from fastmri_ufloss.pl_modules.refinement_module import RefinementModule, load_refinement_module, refine_checkpoint
from fastmri_ufloss.pl_modules.replay_buffer import ReplayBuffer
from fastmri_ufloss.pl_modules.segmentation_data import SegmentationDataModule
from fastmri_ufloss.pl_modules.segmentation_module import SegmentationModule, Segmenter, load_segmenter

__all__ = [
    "JOINT_PRESETS",
    "METHODS",
    "AdversarialModule",
    "AdversarialSettings",
    "ClassicalModule",
    "ClassicalTransform",
    "FeatureModule",
    "FinishedVolumes",
    "JointModule",
    "MoDLModule",
    "MriDataModule",
    "MriModule",
    "PatchDataModule",
    "RecNetModule",
    "ReconstructionModule",
    "Reconstructor",
    "RefinementModule",
    "ReplayBuffer",
    "SeededSteps",
    "SegmentationDataModule",
    "SegmentationModule",
    "Segmenter",
    "UnetModule",
    "VarNetModule",
    "WeightSearch",
    "check_split",
    "load_joint_module",
    "load_modl_module",
    "load_recnet_module",
    "load_reconstructor",
    "load_refinement_module",
    "load_segmenter",
    "method_folders",
    "network_of",
    "note_by_hand",
    "read_checkpoint",
    "read_network",
    "refine_checkpoint",
]
