"""The network that tells reconstructions from fully sampled images, patch by patch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["DiscriminatorOutput", "PatchDiscriminator"]

_KERNEL_SIZE = 4
_MAX_WIDTH = 16  # times chans
_NUM_DROPOUTS = 3


class DiscriminatorOutput(NamedTuple):
    """What `PatchDiscriminator` returns."""

    logits: Tensor
    """One for each patch, (batch, 1, rows', cols'); positive for a fully sampled image."""
    features: list[Tensor]
    """The maps after the activation of each layer, (batch, width, rows', cols')."""


class PatchDiscriminator(nn.Module):
    """PatchGAN: 4x4 convolutions, of which each logit sees a patch; 13x13 logits for 512x512 pixels.

    ``num_strided`` layers of stride 2 with chans (1, 2, 4, 8, 16, 16, ...) channels, then one of stride 1 that
    keeps the width and, padded by 1 before and 2 after, the size; all with reflection padding, as in the authors'
    code. Each has batch norm, but for the first, and leaky ReLU 0.2. The last convolution, without padding, makes
    one channel. Of n pixels come floor(n / 2^num_strided) - 3 logits. Initial weights: N(0, 0.02) of convolutions,
    N(1, 0.02) of batch norm, no bias.

    Dropout of whole channels after the last three layers acts only with masks that the caller draws and hands in,
    so that the features can be had without it, and the random state is the caller's.

    Args:
        chans: channels of the first layer.
        num_strided: layers of stride 2, fewer for small images; at least 2.
        dropout: probability of a channel to be left out in the discriminator's steps.

    Raises:
        ValueError: if an argument is out of range.

    Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017; the defaults are
    those of Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction",
    MICCAI 2018.
    """

    def __init__(self, *, chans: int = 64, num_strided: int = 5, dropout: float = 0.5) -> None:
        super().__init__()
        if chans < 1 or num_strided < 2:
            raise ValueError(f"chans must be at least 1 and num_strided at least 2, got {chans} and {num_strided}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.num_strided = num_strided
        self.dropout = dropout
        strided = [chans * min(2**layer, _MAX_WIDTH) for layer in range(num_strided)]
        self.widths = (*strided, strided[-1])
        self.layers = nn.ModuleList([_layer(1, chans, stride=2, norm=False)])
        self.layers.extend(_layer(before, after, stride=2) for before, after in pairwise(strided))
        self.layers.append(_layer(strided[-1], strided[-1], stride=1))
        self.last = nn.Conv2d(strided[-1], 1, _KERNEL_SIZE)
        self.apply(_initialize)

    @property
    def min_size(self) -> int:
        """The fewest rows and columns of an image, which give one logit."""
        return _KERNEL_SIZE * 2**self.num_strided

    def forward(self, images: Tensor, *, dropout: Sequence[Tensor] | None = None) -> DiscriminatorOutput:
        """Logits, and the features of all layers before their dropout; that of earlier layers is in them.

        Args:
            images: (batch, 1, rows, cols), real, within about -1 .. 1.
            dropout: factors of the channels after each of the last three layers, see `draw_dropout`; none if None,
                in training as well.

        Raises:
            ValueError: if an image or a mask has another shape, or an image less than ``min_size`` pixels a side.
        """
        if images.ndim != 4 or images.shape[1] != 1 or not images.is_floating_point():
            raise ValueError(
                f"images must be real with shape (batch, 1, rows, cols), got {images.dtype} {tuple(images.shape)}"
            )
        rows, cols = images.shape[2:]
        if min(rows, cols) < self.min_size:
            raise ValueError(
                f"images must have at least {self.min_size}x{self.min_size} pixels for a discriminator of "
                f"num_strided={self.num_strided}, got {rows}x{cols}: lower num_strided"
            )
        masks = self._masks(len(images), dropout)
        features: list[Tensor] = []
        x = images
        for layer, mask in zip(self.layers, masks, strict=True):
            x = layer(x)
            features.append(x)
            x = x if mask is None else x * mask
        return DiscriminatorOutput(self.last(x), features)

    def draw_dropout(self, batch: int, generator: torch.Generator) -> list[Tensor]:
        """Masks for `forward`: 0 with probability p = ``dropout``, otherwise 1 / (1 - p), for each channel.

        Args:
            batch: number of images.
            generator: on the CPU, so that the masks are the same on every device; ValueError otherwise.

        Returns:
            (batch, width, 1, 1) for each of the last three layers, on the device of the weights.
        """
        if generator.device.type != "cpu":
            raise ValueError(f"generator must be on the CPU, got {generator.device}")
        weight = self.last.weight
        draws = (torch.rand(batch, n, 1, 1, generator=generator) for n in self.widths[-_NUM_DROPOUTS:])
        return [(draw >= self.dropout).to(weight) / (1 - self.dropout) for draw in draws]

    def _masks(self, batch: int, dropout: Sequence[Tensor] | None) -> list[Tensor | None]:
        none: list[Tensor | None] = [None] * len(self.widths)
        if dropout is None:
            return none
        expected = [(batch, width, 1, 1) for width in self.widths[-_NUM_DROPOUTS:]]
        shapes = [tuple(mask.shape) for mask in dropout]
        if shapes != expected:
            raise ValueError(f"dropout must have masks of shapes {expected}, got {shapes}")
        return [*none[:-_NUM_DROPOUTS], *dropout]


def _layer(before: int, after: int, *, stride: int, norm: bool = True) -> nn.Sequential:
    padding = 1 if stride == 2 else "same"
    # batch norm takes any bias away again
    convolution = nn.Conv2d(
        before, after, _KERNEL_SIZE, stride=stride, padding=padding, padding_mode="reflect", bias=not norm
    )
    return nn.Sequential(convolution, *([nn.BatchNorm2d(after)] if norm else []), nn.LeakyReLU(0.2))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)  # that of batch norm is zero anyway
