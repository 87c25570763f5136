"""Adversarial refinement: the network that refines a finished reconstruction, and the discriminator against it."""

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.mri.sense import SenseNormalOperator, data_consistency_step, sense_adjoint

__all__ = ["DiscriminatorOutput", "PatchDiscriminator", "RefinementNet", "RefinementUnet"]

_KERNEL_SIZE = 4
_DIVISOR = 4  # by the two poolings of the U-Net
_MAX_WIDTH = 16  # of the discriminator, times chans
_NUM_DROPOUTS = 3


class RefinementUnet(nn.Module):
    """The U-Net V: ``chans``, twice and four times as many channels down, and back up, 32-64-128-64-32 in the paper.

    As in the authors' code: two 4x4 convolutions at each level, max-pooling between, on the way up nearest neighbors
    and one convolution, to which the features of the way down are concatenated; all with reflection padding (1
    before, 2 after), batch norm and leaky ReLU 0.1. The last convolution is 1x1, with nothing after it. Orthogonal
    initial weights, no bias at first. Images, of at least ``min_size`` rows and columns, are reflected to a multiple
    of 4, and cut back.

    Raises ValueError if in_chans, of image and output, or chans, of the first level, is below 1.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    min_size = 2 * _DIVISOR + 1

    def __init__(self, *, in_chans: int, chans: int = 32) -> None:
        super().__init__()
        check(in_chans >= 1 and chans >= 1, "in_chans and chans", "at least 1", f"{in_chans} and {chans}")
        self.in_chans = in_chans
        widths = (chans, 2 * chans, 4 * chans)
        self.down = nn.ModuleList(_convolutions(n, m, m) for n, m in pairwise((in_chans, *widths)))
        self.enlarge = nn.ModuleList(_convolutions(n, m) for n, m in pairwise(widths[::-1]))
        self.up = nn.ModuleList(_convolutions(2 * m, m, m) for m in widths[-2::-1])
        self.last = nn.Conv2d(chans, in_chans, kernel_size=1)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight, gain=nn.init.calculate_gain("relu"))

    def forward(self, images: Tensor) -> Tensor:
        """V(u), of the shape of u, real (batch, in_chans, rows, cols), within about -1 .. 1; ValueError otherwise."""
        _check_images(images, self.in_chans, self.min_size)
        rows, cols = images.shape[2:]
        x = F.pad(images, (0, -cols % _DIVISOR, 0, -rows % _DIVISOR), mode="reflect")
        skips: list[Tensor] = []
        for down in self.down:
            x = down(F.max_pool2d(skips[-1], 2) if skips else x)
            skips.append(x)
        skips.pop()
        for enlarge, up in zip(self.enlarge, self.up, strict=True):
            x = up(torch.cat([skips.pop(), enlarge(F.interpolate(x, scale_factor=2, mode="nearest"))], dim=1))
        return self.last(x)[:, :, :rows, :cols]


class RefinementNet(nn.Module):
    """x_hat = x + g s V(u(x)), with the U-Net V, a trained scalar g that is 0 at first, and the scale s of x.

    Complex images: s = max |x| and u = (Re x, Im x) / s. Magnitudes: s = max x / 2 and u = x / s - 1. Each image
    has its own s, which gets no gradient; a zero image stays zero. The attributes ``gate`` and ``unet`` are g and V.
    With ``data_consistency``, which the paper lacks, x_hat - E^H (E x_hat - y) takes the place of x_hat, see
    `fastmri_ufloss.mri.sense.data_consistency_step`.

    Seitzer et al., MICCAI 2018, whose code refines the real part only.

    Args:
        in_chans: 2 for complex images, 1 for magnitudes.
        chans: channels of V's first level.
        data_consistency: bring the measured samples back after the refinement, for complex images only.

    Raises:
        ValueError: if in_chans is neither 1 nor 2, or is 1 with data_consistency.
    """

    def __init__(self, *, in_chans: Literal[1, 2] = 2, chans: int = 32, data_consistency: bool = False) -> None:
        super().__init__()
        check(in_chans in (1, 2), "in_chans", "1 (magnitude) or 2 (real, imaginary)", in_chans)
        check(in_chans == 2 or not data_consistency, "in_chans", "2 with data_consistency", "1, which has no phase")
        self.in_chans = in_chans
        self.data_consistency = data_consistency
        self.unet = RefinementUnet(in_chans=in_chans, chans=chans)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        image: Tensor,
        *,
        masked_kspace: Tensor | None = None,
        mask: Tensor | None = None,
        sens_maps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The refined image, like x, and the change V(u) before the gate, real (batch, in_chans, rows, cols).

        x is (batch, 1, rows, cols), complex for two channels, a real magnitude for one, of at least ``unet.min_size``
        rows and columns; k-space y, mask and maps are needed with ``data_consistency`` only; ValueError otherwise.
        """
        fits = image.ndim == 4 and image.shape[1] == 1 and image.is_complex() == (self.in_chans == 2)
        kind = "complex" if self.in_chans == 2 else "real"
        expected = f"{kind} with shape (batch, 1, rows, cols) for in_chans={self.in_chans}"
        check(fits, "image", expected, f"{image.dtype} {tuple(image.shape)}")
        peak = image.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
        unit = image / torch.where(peak > 0, peak, 1.0)
        u = torch.cat([unit.real, unit.imag], dim=1) if self.in_chans == 2 else 2 * unit - 1
        change = self.unet(u.to(self.gate.dtype)).to(u.dtype)
        # the gate first: what it closes must be 0, however large
        gated = self.gate.to(u.dtype) * change
        change_of_image = peak * torch.complex(gated[:, :1], gated[:, 1:]) if self.in_chans == 2 else peak / 2 * gated
        refined = image + change_of_image
        if self.data_consistency:
            refined = _make_consistent(refined, masked_kspace, mask, sens_maps)
        return refined, change


def _make_consistent(
    image: Tensor, masked_kspace: Tensor | None, mask: Tensor | None, sens_maps: Tensor | None
) -> Tensor:
    if masked_kspace is None or mask is None or sens_maps is None:
        given = {"masked_kspace": masked_kspace, "mask": mask, "sens_maps": sens_maps}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise ValueError(f"data_consistency needs masked_kspace, mask and sens_maps, got no {missing}")
    check(sens_maps.ndim == 5, "sens_maps", "of one set with data_consistency", tuple(sens_maps.shape))
    with torch.autocast(image.device.type, enabled=False):
        zero_filled = sense_adjoint(masked_kspace, sens_maps)
        normal = SenseNormalOperator(mask, sens_maps)
        return data_consistency_step(image[:, 0], zero_filled, normal).unsqueeze(1)


class DiscriminatorOutput(NamedTuple):
    """What `PatchDiscriminator` returns."""

    logits: Tensor  # of each patch, (batch, 1, rows', cols'); positive for a fully sampled image
    features: list[Tensor]  # after the activation of each layer, (batch, width, rows', cols')


class PatchDiscriminator(nn.Module):
    """PatchGAN: 4x4 convolutions, of which each logit sees a patch; 13x13 logits for 512x512 pixels.

    ``num_strided`` layers of stride 2 with chans (1, 2, 4, 8, 16, 16, ...) channels, then one of stride 1 that
    keeps the width and, padded by 1 before and 2 after, the size; all with reflection padding, as in the authors'
    code. Each has batch norm, but for the first, and leaky ReLU 0.2. The last convolution, without padding, makes
    one channel: from n pixels come floor(n / 2^num_strided) - 3 logits. Initial weights: N(0, 0.02) of convolutions,
    N(1, 0.02) of batch norm, no bias. Dropout of whole channels after the last three layers acts only with masks
    that the caller draws and hands in.

    Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017; the defaults are
    those of Seitzer et al., MICCAI 2018.

    Args:
        chans: channels of the first layer.
        num_strided: layers of stride 2, fewer for small images; at least 2.
        dropout: probability of a channel to be left out in the discriminator's steps.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, *, chans: int = 64, num_strided: int = 5, dropout: float = 0.5) -> None:
        super().__init__()
        check_at_least_one(chans=chans)
        check(num_strided >= 2, "num_strided", "at least 2", num_strided)
        check(0 <= dropout < 1, "dropout", "in [0, 1)", dropout)
        self.num_strided = num_strided
        self.dropout = dropout
        strided = [chans * min(2**layer, _MAX_WIDTH) for layer in range(num_strided)]
        self.widths = (*strided, strided[-1])
        self.layers = nn.ModuleList([nn.Sequential(*_layer(1, chans, stride=2, slope=0.2, norm=False))])
        self.layers.extend(nn.Sequential(*_layer(n, m, stride=2, slope=0.2)) for n, m in pairwise(strided))
        self.layers.append(nn.Sequential(*_layer(strided[-1], strided[-1], slope=0.2)))
        self.last = nn.Conv2d(strided[-1], 1, _KERNEL_SIZE)
        self.apply(_initialize)

    @property
    def min_size(self) -> int:
        """The fewest rows and columns of an image, which give one logit."""
        return _KERNEL_SIZE * 2**self.num_strided

    def forward(self, images: Tensor, *, dropout: Sequence[Tensor] | None = None) -> DiscriminatorOutput:
        """Logits, and the features of all layers before their dropout.

        Images are real (batch, 1, rows, cols), within about -1 .. 1, of at least ``min_size`` rows and columns;
        ``dropout`` are factors of the channels after each of the last three layers, see `draw_dropout`; none if None,
        in training as well. Images or masks of other shapes raise ValueError.
        """
        network = f" for a discriminator of num_strided={self.num_strided}"
        _check_images(images, 1, self.min_size, network=network, advice=": lower num_strided")
        masks: list[Tensor | None] = [None] * len(self.layers)
        if dropout is not None:
            expected = [(len(images), width, 1, 1) for width in self.widths[-_NUM_DROPOUTS:]]
            shapes = [tuple(mask.shape) for mask in dropout]
            require(shapes == expected, f"dropout must have masks of shapes {expected}", shapes)
            masks[-_NUM_DROPOUTS:] = dropout
        features: list[Tensor] = []
        x = images
        for layer, mask in zip(self.layers, masks, strict=True):
            x = layer(x)
            features.append(x)
            x = x if mask is None else x * mask
        return DiscriminatorOutput(self.last(x), features)

    def draw_dropout(self, batch: int, generator: torch.Generator) -> list[Tensor]:
        """Masks for `forward`, (batch, width, 1, 1) for each of the last three layers, on the device of the weights.

        Each channel has 0 with probability p = ``dropout``, otherwise 1 / (1 - p). The generator is on the CPU, so
        that the masks are the same on every device; ValueError otherwise.
        """
        check(generator.device.type == "cpu", "generator", "on the CPU", generator.device)
        weight = self.last.weight
        draws = (torch.rand(batch, n, 1, 1, generator=generator) for n in self.widths[-_NUM_DROPOUTS:])
        return [(draw >= self.dropout).to(weight, non_blocking=True) / (1 - self.dropout) for draw in draws]


def _check_images(images: Tensor, in_chans: int, min_size: int, *, network: str = "", advice: str = "") -> None:
    fits, got = images.ndim == 4 and images.shape[1] == in_chans, f"{images.dtype} {tuple(images.shape)}"
    fits = fits and images.is_floating_point()
    check(fits, "images", f"real with shape (batch, {in_chans}, rows, cols)", got)
    rows, cols = images.shape[2:]
    demand = f"images must have at least {min_size}x{min_size} pixels{network}"
    require(min(rows, cols) >= min_size, demand, f"{rows}x{cols}{advice}")


def _layer(before: int, after: int, *, stride: int = 1, slope: float, norm: bool = True) -> list[nn.Module]:
    padding: Any = "same" if stride == 1 else 1
    # batch norm takes any bias away again
    convolution = nn.Conv2d(before, after, _KERNEL_SIZE, stride, padding, padding_mode="reflect", bias=not norm)
    return [convolution, *([nn.BatchNorm2d(after)] if norm else []), nn.LeakyReLU(slope)]


def _convolutions(*widths: int) -> nn.Sequential:
    return nn.Sequential(*chain.from_iterable(_layer(n, m, slope=0.1) for n, m in pairwise(widths)))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
