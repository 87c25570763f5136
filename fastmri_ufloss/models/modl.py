"""MoDL, model-based reconstruction with a deep learned prior: the unrolled network, and its denoisers."""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from fastmri.models import NormUnet, Unet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastmri_ufloss.mri.conjugate_gradient import Backward
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.mri.sense import SenseNormalOperator, combine_sets, sense_adjoint

__all__ = ["CnnDenoiser", "Denoiser", "MoDL", "ResNetDenoiser", "UnetDenoiser", "UnrolledNetwork"]

Denoiser = Literal["cnn", "unet", "resnet"]

_MIN_VARIANCE = 1e-20  # below it an image counts as zero; the gradient of a square root at 0 is not finite


class UnrolledNetwork(nn.Module):
    """A network that goes on from x = E^H y, called like ``fastmri.models.VarNet``; a subclass writes `unroll`."""

    def forward(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        *,
        sens_maps: Tensor | None = None,
        scale: Tensor | None = None,
        return_complex: bool = False,
    ) -> Tensor:
        """The magnitude image (batch, rows, cols) or, with ``return_complex``, the complex one.

        Of several sets of maps the complex image is (batch, sets, rows, cols), see `combine_sets`. Learned layers see
        each set as an image of its own: their weights do not depend on the number of sets.

        Args:
            masked_kspace: (batch, coils, rows, cols, 2), zero where not acquired.
            mask: (batch, 1, 1 or rows, cols, 1).
            num_low_frequencies: fully sampled center lines, or side of a square, for the maps; counted in the
                mask if 0 or None.
            sens_maps: like ``masked_kspace``, or (batch, sets, coils, rows, cols, 2); see `estimate_maps` if not
                given.
            scale: (batch,), the intensities that learned layers see as 1; `image_scale` of the zero-filled image if
                not given. The result scales with the input and the scale.

        Raises:
            ValueError: if the shapes do not belong together.
        """
        # transforms and solves are float32 under autocast; the learned layers follow it
        with torch.autocast(masked_kspace.device.type, enabled=False):
            if sens_maps is None:
                sens_maps = self.estimate_maps(masked_kspace, mask, num_low_frequencies)
            normal = SenseNormalOperator(mask, sens_maps)
            zero_filled = sense_adjoint(masked_kspace, sens_maps)
            support = torch.view_as_complex(sens_maps.contiguous()).any(dim=-3)
            scale = image_scale(combine_sets(zero_filled)) if scale is None else scale.to(masked_kspace)
            scale = scale.view(-1, *(1,) * (zero_filled.ndim - 1))
        image = self.unroll(zero_filled / scale, normal, support) * scale
        return image if return_complex else combine_sets(image).abs()

    @abstractmethod
    def unroll(self, zero_filled: Tensor, normal: SenseNormalOperator, support: Tensor) -> Tensor:
        """The complex image from E^H y, E^H E and where any coil map is not zero, of the same shape."""

    @staticmethod
    def estimate_maps(masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None = None) -> Tensor:
        """Ones for one coil, ESPIRiT maps from the center of k-space for several, see `estimate_sens_maps`."""
        return estimate_sens_maps(masked_kspace, num_low_frequencies, mask=mask)


class MoDL(UnrolledNetwork):
    """Unrolled network of a denoiser D and data consistency by conjugate gradients.

    From x = E^H y, for each unroll: z = D(x), x = argmin |E x - y|^2 + lambda |x - z|^2, that is
    (E^H E + lambda I) x = E^H y + lambda z, by conjugate gradients from z. The image is zero where all coil maps
    are: nothing is known of it there. Called like ``fastmri.models.VarNet``. The result scales with the input.

    Args:
        num_unrolls: number of denoising and data consistency steps.
        num_cg_iterations: conjugate gradient steps of each data consistency step.
        denoiser: ``"cnn"``, plain convolutions, which learn fastest; ``"unet"`` (Wang et al., MRM 2022); or
            ``"resnet"``, with batch norm (Aggarwal et al., IEEE TMI 2019).
        chans: channels of the denoiser's hidden layers, or of the U-Net's first level.
        num_layers: convolutions of ``"cnn"`` and ``"resnet"``.
        num_pools: poolings of the U-Net.
        residual: the U-Net's output is added to its input; the other denoisers always do that.
        share_weights: one denoiser and one lambda for all unrolls, as in the original MoDL, or one for each.
        lam: initial lambda; it is learned and stays positive.
        learn_lambda: whether it is learned.
        cg_backward: see `conjugate_gradient`.
        checkpoint_denoiser: recompute the denoiser in the backward pass instead of storing its activations.

    Raises:
        ValueError: if an argument is not as above.
    """

    def __init__(
        self,
        *,
        num_unrolls: int = 8,
        num_cg_iterations: int = 6,
        denoiser: Denoiser = "cnn",
        chans: int = 32,
        num_layers: int = 5,
        num_pools: int = 3,
        residual: bool = True,
        share_weights: bool = False,
        lam: float = 0.05,
        learn_lambda: bool = True,
        cg_backward: Backward = "unrolled",
        checkpoint_denoiser: bool = False,
    ) -> None:
        super().__init__()
        if num_unrolls < 1 or num_cg_iterations < 1:
            raise ValueError(
                f"num_unrolls and num_cg_iterations must be at least 1, got {num_unrolls}, {num_cg_iterations}"
            )
        if not lam > 0:
            raise ValueError(f"lam must be positive, got {lam}")
        if cg_backward not in ("unrolled", "checkpoint", "implicit"):
            raise ValueError(f"cg_backward must be 'unrolled', 'checkpoint' or 'implicit', got {cg_backward!r}")
        self.num_unrolls = num_unrolls
        self.num_cg_iterations = num_cg_iterations
        self.cg_backward: Backward = cg_backward
        self.checkpoint_denoiser = checkpoint_denoiser
        num_denoisers = 1 if share_weights else num_unrolls
        if denoiser not in get_args(Denoiser):
            raise ValueError(f"denoiser must be one of {', '.join(get_args(Denoiser))}, got {denoiser!r}")
        makers: dict[str, Callable[[], nn.Module]] = {
            "cnn": partial(CnnDenoiser, chans=chans, num_layers=num_layers),
            "unet": partial(UnetDenoiser, chans=chans, num_pools=num_pools, residual=residual),
            "resnet": partial(ResNetDenoiser, chans=chans, num_layers=num_layers),
        }
        self.denoisers = nn.ModuleList(makers[denoiser]() for _ in range(num_denoisers))
        # lambda = softplus(raw) cannot leave the positive numbers
        raw = torch.full((num_denoisers,), math.log(math.expm1(lam)))
        self.raw_lambda = nn.Parameter(raw, requires_grad=learn_lambda)

    @property
    def lam(self) -> Tensor:
        """The weights of the prior, one for each denoiser."""
        return nn.functional.softplus(self.raw_lambda)

    def unroll(self, zero_filled: Tensor, normal: SenseNormalOperator, support: Tensor) -> Tensor:
        lams = self.lam.to(zero_filled.dtype)  # products with real numbers are slower
        image = zero_filled
        for unroll in range(self.num_unrolls):
            which = unroll % len(self.denoisers)
            denoised = torch.where(support, self._denoise(self.denoisers[which], image), 0)
            # started at z, few steps reach what many from zero would: what was not acquired stays as it is in z
            image = normal.solve(
                torch.addcmul(zero_filled, lams[which], denoised),
                lams[which],
                x0=denoised,
                num_iterations=self.num_cg_iterations,
                backward=self.cg_backward,
            )
        return image

    def _denoise(self, denoiser: nn.Module, image: Tensor) -> Tensor:
        images = image.flatten(end_dim=-3)  # each set of maps has an image of its own
        if self.checkpoint_denoiser and torch.is_grad_enabled():
            return checkpoint(denoiser, images, use_reentrant=False).view_as(image)
        return denoiser(images).view_as(image)


class _PlainUnet(Unet):
    """fastMRI's Unet for sizes that its poolings divide, without the branch that breaks a compiled graph."""

    def forward(self, image: Tensor) -> Tensor:
        skipped = []
        for layer in self.down_sample_layers:
            skipped.append(layer(image))
            image = nn.functional.avg_pool2d(skipped[-1], 2)
        image = self.conv(image)
        for upsample, layer in zip(self.up_transpose_conv, self.up_conv, strict=True):
            image = layer(torch.cat([upsample(image), skipped.pop()], dim=1))
        return image


class _SafeNormUnet(NormUnet):
    """fastMRI's NormUnet, without its division by zero for an image that is zero, and, for a residual that is
    added to its input, without the input's mean in its output."""

    def __init__(self, chans: int, num_pools: int, *, residual: bool) -> None:
        nn.Module.__init__(self)  # fastMRI's would make its own Unet
        self.unet = _PlainUnet(2, 2, chans, num_pools)
        self.residual = residual
        self.multiple = 2 ** max(4, num_pools)  # fastMRI's is 16

    def pad(self, x: Tensor) -> tuple[Tensor, tuple[list[int], list[int], int, int]]:
        rows, cols = (-(-size // self.multiple) * self.multiple for size in x.shape[-2:])
        more = [(cols - x.shape[-1]) / 2, (rows - x.shape[-2]) / 2]
        (left, right), (top, bottom) = ([math.floor(part), math.ceil(part)] for part in more)
        return nn.functional.pad(x, [left, right, top, bottom]), ([top, bottom], [left, right], rows, cols)

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
    """U-Net denoiser D(x) = x + U(x), or U(x) without ``residual`` (fastMRI's ``NormUnet``), of (batch, rows, cols).

    The input is normalized, so D(a x) = a D(x) for a > 0, and padded, so any size above 16 pixels will do. The
    channels of the first level, doubled at each further level, and the poolings are at least 1, ValueError otherwise.
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


class CnnDenoiser(nn.Module):
    """Plain residual denoiser D(x) = x + N(x), of (batch, rows, cols), for images of intensities about 1.

    N has 3x3 convolutions with leaky ReLU between them and no normalization. The last convolution starts at zero: an
    untrained D changes nothing. Raises ValueError if chans, of the hidden layers, is below 1 or num_layers, of
    convolutions, below 2.
    """

    def __init__(self, *, chans: int = 32, num_layers: int = 5) -> None:
        super().__init__()
        _check_layers(chans, num_layers)
        layers: list[nn.Module] = []
        for before, after in pairwise([2, *[chans] * (num_layers - 1), 2]):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        channels = torch.view_as_real(image).permute(0, 3, 1, 2)
        change = self.layers(channels).to(channels.dtype)
        return image + torch.view_as_complex(change.permute(0, 2, 3, 1).contiguous())


class ResNetDenoiser(nn.Module):
    """The residual network of the original MoDL, D(x) = x + N(x), of (batch, rows, cols).

    N has 3x3 convolutions with batch norm and, but for the last, ReLU. Its input is divided by its root mean
    square and its output multiplied by it, so D(a x) = a D(x) for a > 0. Raises ValueError if chans, of the hidden
    layers, is below 1 or num_layers, of convolutions, below 2. Aggarwal et al., IEEE TMI 2019.
    """

    def __init__(self, *, chans: int = 64, num_layers: int = 5) -> None:
        super().__init__()
        _check_layers(chans, num_layers)
        layers: list[nn.Module] = []
        for before, after in pairwise([2, *[chans] * (num_layers - 1), 2]):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor) -> Tensor:
        channels = torch.view_as_real(image).permute(0, 3, 1, 2)
        scale = channels.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(_MIN_VARIANCE).sqrt()
        noise = self.layers(channels / scale).to(channels.dtype) * scale
        return image + torch.view_as_complex(noise.permute(0, 2, 3, 1).contiguous())


def _check_layers(chans: int, num_layers: int) -> None:
    if chans < 1 or num_layers < 2:
        raise ValueError(f"chans must be >= 1 and num_layers >= 2, got {chans} and {num_layers}")
