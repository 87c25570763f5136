"""Denoisers of complex images for unrolled networks: (batch, rows, cols) complex in and out."""

from itertools import pairwise

import torch
from fastmri.models import NormUnet
from torch import Tensor, nn

__all__ = ["ResNetDenoiser", "UnetDenoiser"]

_MIN_VARIANCE = 1e-20  # below it an image counts as zero; the gradient of a square root at 0 is not finite


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each sample of (batch, channels, rows, cols), never 0."""
    return x.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(_MIN_VARIANCE).sqrt()


class _SafeNormUnet(NormUnet):
    """fastMRI's NormUnet, without its division by zero for an image that is zero, and, for a residual that is
    added to its input, without the input's mean in its output."""

    def __init__(self, chans: int, num_pools: int, *, residual: bool) -> None:
        super().__init__(chans, num_pools)
        self.residual = residual

    def unnorm(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return x * std if self.residual else x * std + mean

    def norm(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, chans, rows, cols = x.shape
        flat = x.reshape(batch, 2, chans // 2 * rows * cols)
        mean = flat.mean(dim=2).view(batch, 2, 1, 1)
        variance = flat.var(dim=2).view(batch, 2, 1, 1)
        # an image without a real or imaginary part takes the scale of the other one
        variance = torch.maximum(variance, 1e-6 * variance.amax(dim=1, keepdim=True))
        std = variance.clamp_min(_MIN_VARIANCE).sqrt()
        return (x - mean) / std, mean, std


class UnetDenoiser(nn.Module):
    """U-Net denoiser D(x) = x + U(x), or U(x) without ``residual`` (fastMRI's ``NormUnet``).

    It normalizes its input, so D(a x) = a D(x) for a > 0, and pads it, so any size above 16 pixels will do.

    Args:
        chans: channels of the first level, doubled at each further level; at least 1, ValueError otherwise.
        num_pools: number of poolings, at least 1 as well.
        residual: add the input to the U-Net's output.
    """

    def __init__(self, *, chans: int = 64, num_pools: int = 3, residual: bool = True) -> None:
        super().__init__()
        if chans < 1 or num_pools < 1:
            raise ValueError(f"chans and num_pools must be at least 1, got {chans} and {num_pools}")
        self.residual = residual
        self.unet = _SafeNormUnet(chans, num_pools, residual=residual)

    def forward(self, image: Tensor) -> Tensor:
        channels_last = torch.view_as_real(image).unsqueeze(1)  # (batch, 1, rows, cols, 2)
        denoised = torch.view_as_complex(self.unet(channels_last).to(channels_last.dtype).contiguous())[:, 0]
        return image + denoised if self.residual else denoised


class ResNetDenoiser(nn.Module):
    """The residual network of the original MoDL, D(x) = x + N(x) (Aggarwal et al., IEEE TMI 2019).

    N has 3x3 convolutions with batch norm and, but for the last, ReLU. Its input is divided by its root mean
    square and its output multiplied by it, so D(a x) = a D(x) for a > 0.

    Args:
        chans: channels of the hidden layers, at least 1, ValueError otherwise.
        num_layers: number of convolutions, at least 2 as well.
    """

    def __init__(self, *, chans: int = 64, num_layers: int = 5) -> None:
        super().__init__()
        if chans < 1 or num_layers < 2:
            raise ValueError(f"chans must be >= 1 and num_layers >= 2, got {chans} and {num_layers}")
        widths = [2, *[chans] * (num_layers - 1), 2]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        channels = torch.view_as_real(image).permute(0, 3, 1, 2)
        scale = _rms(channels)
        noise = self.layers(channels / scale).to(channels.dtype) * scale
        return image + torch.view_as_complex(noise.permute(0, 2, 3, 1).contiguous())
