"""Perceptual loss: the distance of two images in the feature maps of a network trained on photographs."""

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.images import FrozenNetworkLoss, Reduction, at_target_scale, channels, no_autocast, reduce

__all__ = ["PerceptualLoss", "perceptual_loss"]


def perceptual_loss(vgg: nn.Module, output: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """The mean squared difference of the feature maps of two images.

        loss = mean |f(u(x)) - f(u(t))|^2     over the images that are made of each, channels and pixels of the maps

    A complex image makes two images, u(x) = (Re x / s + 1) / 2 and (Im x / s + 1) / 2; a magnitude makes one,
    u(x) = x / s. Each is repeated to three channels. s is the largest magnitude of the target; u(x) is not clipped.

    The network f, such as `fastmri_ufloss.models.VGGFeatures`, takes images (n, 3, rows, cols) in 0 .. 1 to feature
    maps (n, channels, rows', cols'). For the rest see `fastmri_ufloss.losses.images`.

    Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016; with
    relu2_2 of VGG-16 the comparison in Wang et al., MRM 2022; with the last block of VGG-19 L_VGG in Seitzer
    et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """
    with no_autocast(output):
        output, target = at_target_scale(output, target)
        peak = target.abs().amax(dim=(1, 2, 3), keepdim=True)
        peak = torch.where(peak > 0, peak, 1.0)
        with torch.no_grad():
            wanted = vgg(_rgb(vgg, target / peak))
        maps = vgg(_rgb(vgg, output / peak))
        return reduce((maps - wanted).square().reshape(len(output), -1).mean(dim=1), reduction)


class PerceptualLoss(FrozenNetworkLoss):
    """`perceptual_loss` as a module with its network, such as `load_vgg_features` gives, see `FrozenNetworkLoss`."""

    vgg: nn.Module

    def __init__(self, vgg: nn.Module) -> None:
        super().__init__("vgg", vgg)

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return perceptual_loss(self.vgg, output, target)


def _rgb(vgg: nn.Module, images: Tensor) -> Tensor:
    """Images of magnitude 0 .. 1 as (batch or 2 batch, 3, rows, cols), those of one image next to each other."""
    values = (channels(images) + 1) / 2 if images.is_complex() else images
    parameter = next(vgg.parameters(), None)
    values = values if parameter is None else values.to(parameter.dtype)
    return values.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
