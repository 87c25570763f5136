"""The network that refines what the eye sees in a finished reconstruction."""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmri_ufloss.mri.sense import data_consistency_step, sens_reduce, sense_normal_operator

__all__ = ["Refined", "RefinementNet", "RefinementUnet"]

_KERNEL_SIZE = 4
_DIVISOR = 4  # by the two poolings


class Refined(NamedTuple):
    """What `RefinementNet` returns."""

    image: Tensor
    """The refined image, of the shape and kind of the input, (batch, 1, rows, cols)."""
    change: Tensor
    """V's output before the gate, at the scale of V's input, real (batch, in_chans, rows, cols)."""


class RefinementUnet(nn.Module):
    """The U-Net V: ``chans``, twice and four times as many channels down, and back up, 32-64-128-64-32 in the paper.

    As in the authors' code: two 4x4 convolutions at each level, max-pooling between, on the way up nearest neighbors
    and one convolution, to which the features of the way down are concatenated; all with reflection padding (1
    before, 2 after, which keeps the size), batch norm and leaky ReLU 0.1. The last convolution is 1x1, with nothing
    after it. Orthogonal initial weights, no bias at first. Images are reflected to a multiple of 4 rows and columns,
    and cut back.

    Args:
        in_chans, chans: channels of image and output, and of the first level; at least 1, ValueError otherwise.

    Attributes:
        min_size: the fewest rows and columns of an image: 3 at the lowest level, to be reflected by 2.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    min_size = 2 * _DIVISOR + 1

    def __init__(self, *, in_chans: int, chans: int = 32) -> None:
        super().__init__()
        if in_chans < 1 or chans < 1:
            raise ValueError(f"in_chans and chans must be at least 1, got {in_chans} and {chans}")
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
        """V(u), of the shape of u, real (batch, in_chans, rows, cols), within about -1 .. 1.

        Raises:
            ValueError: if u has another shape, is complex, or is smaller than ``min_size``.
        """
        if images.ndim != 4 or images.shape[1] != self.in_chans or not images.is_floating_point():
            raise ValueError(
                f"images must be real with shape (batch, {self.in_chans}, rows, cols), got {images.dtype} "
                f"{tuple(images.shape)}"
            )
        rows, cols = images.shape[2:]
        if min(rows, cols) < self.min_size:
            raise ValueError(f"images must have at least {self.min_size}x{self.min_size} pixels, got {rows}x{cols}")
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
    has its own s, which gets no gradient, so x_hat scales with x; a zero image stays zero. With g = 0 the result
    is x, and V gets no gradient from it, but g does.

    With ``data_consistency``, x_hat - E^H (E x_hat - y) takes the place of x_hat, see
    `fastmri_ufloss.mri.sense.data_consistency_step`: no sample that was measured is refined away. The
    paper does not have that.

    Args:
        in_chans: 2 for complex images, 1 for magnitudes.
        chans: channels of V's first level.
        data_consistency: bring the measured samples back after the refinement, for complex images only.

    Attributes:
        gate, unet: g and V.

    Raises:
        ValueError: if in_chans is neither 1 nor 2, or is 1 with data_consistency.

    Seitzer et al., MICCAI 2018, whose code refines the real part only, since its data were magnitudes.
    """

    def __init__(self, *, in_chans: Literal[1, 2] = 2, chans: int = 32, data_consistency: bool = False) -> None:
        super().__init__()
        if in_chans not in (1, 2):
            raise ValueError(f"in_chans must be 1 (magnitude) or 2 (real, imaginary), got {in_chans}")
        if data_consistency and in_chans == 1:
            raise ValueError("in_chans must be 2 with data_consistency, got 1: a magnitude has lost the phase")
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
    ) -> Refined:
        """The refined image and V's output, in the precision of x.

        Args:
            image: x, (batch, 1, rows, cols), complex for two channels, a real magnitude for one.
            masked_kspace, mask, sens_maps: y and what belongs to it as in fastMRI, in the unit of the image; needed
                with ``data_consistency``, and not used without.

        Raises:
            ValueError: if image has another shape or kind, is smaller than ``unet.min_size``, or k-space, mask or
                maps are missing.
        """
        if image.ndim != 4 or image.shape[1] != 1 or image.is_complex() != (self.in_chans == 2):
            kind = "complex" if self.in_chans == 2 else "real"
            raise ValueError(
                f"image must be {kind} with shape (batch, 1, rows, cols) for in_chans={self.in_chans}, "
                f"got {image.dtype} {tuple(image.shape)}"
            )
        peak = image.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
        unit = image / torch.where(peak > 0, peak, 1.0)
        u = torch.cat([unit.real, unit.imag], dim=1) if self.in_chans == 2 else 2 * unit - 1
        change = self.unet(u.to(self.gate.dtype)).to(u.dtype)
        # the gate first: what it closes must be 0, however large
        gated = self.gate.to(u.dtype) * change
        if self.in_chans == 2:
            refined = image + peak * torch.complex(gated[:, :1], gated[:, 1:])
        else:
            refined = image + peak / 2 * gated
        if self.data_consistency:
            refined = _make_consistent(refined, masked_kspace, mask, sens_maps)
        return Refined(refined, change)


def _convolutions(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        # batch norm takes any bias away again
        convolution = nn.Conv2d(before, after, _KERNEL_SIZE, padding="same", padding_mode="reflect", bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def _make_consistent(
    image: Tensor, masked_kspace: Tensor | None, mask: Tensor | None, sens_maps: Tensor | None
) -> Tensor:
    if masked_kspace is None or mask is None or sens_maps is None:
        given = {"masked_kspace": masked_kspace, "mask": mask, "sens_maps": sens_maps}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise ValueError(f"data_consistency needs masked_kspace, mask and sens_maps, got no {missing}")
    with torch.autocast(image.device.type, enabled=False):
        zero_filled = torch.view_as_complex(sens_reduce(masked_kspace, sens_maps))
        normal = sense_normal_operator(mask, sens_maps)
        return data_consistency_step(image[:, 0], zero_filled[:, 0], normal).unsqueeze(1)
