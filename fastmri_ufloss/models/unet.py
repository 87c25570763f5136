"""fastMRI's networks, and its U-Net with more convolutions in each stage."""

from fastmri.models import NormUnet, Unet, VarNet
from fastmri.models.unet import ConvBlock
from torch import nn

from fastmri_ufloss.checks import check

__all__ = ["HOST_CONVS_PER_STAGE", "DeepUnet", "NormUnet", "Unet", "VarNet"]

HOST_CONVS_PER_STAGE = 2


class DeepUnet(Unet):
    """``fastmri.models.Unet`` with ``convs_per_stage`` 3x3 convolutions in each stage, where fastMRI has two.

    Each further convolution is followed by instance normalization, leaky ReLU and dropout, as fastMRI's are. Fewer
    than two raise ValueError; with three, ``chans=64`` and ``num_pool_layers=4`` the network is that of Pawar et al.,
    "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM 2019.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        chans: int = 32,
        num_pool_layers: int = 4,
        drop_prob: float = 0.0,
        *,
        convs_per_stage: int,
    ) -> None:
        least = HOST_CONVS_PER_STAGE
        check(convs_per_stage >= least, "convs_per_stage", f"at least {least}", convs_per_stage)
        super().__init__(in_chans, out_chans, chans, num_pool_layers, drop_prob)
        for block in [module for module in self.modules() if isinstance(module, ConvBlock)]:
            for _ in range(convs_per_stage - HOST_CONVS_PER_STAGE):
                block.layers.append(nn.Conv2d(block.out_chans, block.out_chans, kernel_size=3, padding=1, bias=False))
                activation = nn.LeakyReLU(negative_slope=0.2, inplace=True)
                block.layers.extend([nn.InstanceNorm2d(block.out_chans), activation, nn.Dropout2d(drop_prob)])
