"""The network that finds structures in magnitude images."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmri_ufloss.checks import check
from fastmri_ufloss.models.checkpoints import read_checkpoint
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["SegmentationNet", "Segmenter", "load_segmenter"]

PREFIX = "segmentation_net."  # of the network's weights in a checkpoint
SETTINGS = ("num_classes", "chans", "num_levels", "num_res_units")


class SegmentationNet(nn.Module):
    """MONAI's U-Net on magnitude images of any unit and size.

    An image is divided by its `image_scale` and padded with zeros, alike on both sides, to a multiple of
    2^(num_levels - 1), at least to twice that; the result is cropped. Instance norm makes an image's result
    independent of its batch.

    The background is one of the at least 2 classes. chans, at least 1, double at each of the at least 2 levels, which
    have a residual unit of ``num_res_units`` convolutions, or with 0 a single convolution; ValueError otherwise, and
    ImportError without MONAI.

    Kerfoot et al., "Left-ventricle quantification using residual U-Net", STACOM 2018.
    """

    def __init__(self, num_classes: int, *, chans: int, num_levels: int, num_res_units: int) -> None:
        super().__init__()
        check(num_classes >= 2, "num_classes", "at least 2", num_classes)
        check(chans >= 1, "chans", "at least 1", chans)
        check(num_levels >= 2, "num_levels", "at least 2", num_levels)
        check(num_res_units >= 0, "num_res_units", "at least 0", num_res_units)
        self.num_classes = num_classes
        self.multiple = 2 ** (num_levels - 1)
        try:
            from monai.networks.nets import UNet
        except ImportError as error:
            raise ImportError(f"segmentation needs MONAI ({error}): pip install 'fastmri-ufloss[segment]'") from error
        self.unet = UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=num_classes,
            channels=[chans * 2**level for level in range(num_levels)],
            strides=[2] * (num_levels - 1),
            num_res_units=num_res_units,
            norm=("INSTANCE", {"affine": True}),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, num_classes, rows, cols) of real magnitudes (batch, 1, rows, cols), ValueError otherwise."""
        fits = images.ndim == 4 and images.shape[1] == 1 and images.numel() > 0 and not images.is_complex()
        got = f"{images.dtype} {tuple(images.shape)}"
        check(fits, "images", "real magnitudes (batch, 1, rows, cols)", got)
        scale = image_scale(images)
        rows, cols = images.shape[-2:]
        # instance norm needs more than one pixel on the lowest level
        height, width = (max(-(-size // self.multiple), 2) * self.multiple for size in (rows, cols))
        top, left = (height - rows) // 2, (width - cols) // 2
        images = images.to(scale.dtype) / scale.reshape(-1, 1, 1, 1)
        padded = F.pad(images, (left, width - cols - left, top, height - rows - top))
        logits: Tensor = self.unet(padded)[..., top : top + rows, left : left + cols]
        return logits


class Segmenter(nn.Module):
    """A trained `SegmentationNet` that gives class numbers; it is frozen here, and always in eval mode."""

    def __init__(self, network: SegmentationNet) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    @property
    def num_classes(self) -> int:
        """With the background, which is 0."""
        return self.network.num_classes

    def train(self, mode: bool = True) -> "Segmenter":
        """Set the mode of this module; the network stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Class numbers, int64 (batch, rows, cols), of real magnitudes (batch, 1, rows, cols) of any unit."""
        # a score does not depend on the precision of a training
        with torch.autocast(images.device.type, enabled=False):
            labels: Tensor = self.network(images).argmax(dim=1)
        return labels


def load_segmenter(path: str | Path) -> Segmenter:
    """The network of a checkpoint that training a `fastmri_ufloss.pl_modules.SegmentationModule` wrote.

    Raises as `read_checkpoint`, ValueError also if the weights do not fit the settings, ImportError without MONAI.
    """
    checkpoint = read_checkpoint(path, prefix=PREFIX)
    settings, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    weights = {name.removeprefix(PREFIX): state[name] for name in state if name.startswith(PREFIX)}
    try:
        network = SegmentationNet(**{name: settings[name] for name in SETTINGS})
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not fit its own settings {settings} ({error})") from error
    return Segmenter(network)
