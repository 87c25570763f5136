"""RecNet: a cascade of convolutions and data consistency."""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.models.modl import UnrolledNetwork
from fastmri_ufloss.mri.sense import SenseNormalOperator, data_consistency_step

__all__ = ["DataConsistency", "RecNet"]

DataConsistency = Literal["hard", "soft", "cg"]


class RecNet(UnrolledNetwork):
    """Cascade of convolutions N_b and data consistency, from x = E^H y, for each block b:

        z = x + N_b(x)
        "hard"   x = z - E^H (E z - y)
        "soft"   x = z - E^H (E z - y) / (1 + lambda_b)
        "cg"     x = argmin |E x - y|^2 + lambda_b |x - z|^2, by conjugate gradients from z

    N_b sees the real and the imaginary part; all its convolutions but the last are followed by leaky ReLU 0.01.
    Inside, images are divided by the largest magnitude of their E^H y. The result is zero where all coil maps are.
    Called like ``fastmri.models.VarNet``.

    Args:
        num_blocks: number of blocks.
        convs_per_block: 3x3 convolutions of each.
        chans: channels between them.
        data_consistency: as above.
        num_cg_iterations: conjugate gradient steps in each block, of "cg" only; None: 6.
        lam: initial lambda of "soft" and "cg" only; it is learned for each block and stays positive. None: 0.05.

    Raises:
        ValueError: if an argument is not as above, or is given where ``data_consistency`` does not use it.

    Schlemper et al., "A deep cascade of convolutional neural networks for dynamic MR image reconstruction", IEEE
    TMI 2018; with the defaults the first stage of Seitzer et al., MICCAI 2018.
    """

    def __init__(
        self,
        *,
        num_blocks: int = 3,
        convs_per_block: int = 3,
        chans: int = 32,
        data_consistency: DataConsistency = "hard",
        num_cg_iterations: int | None = None,
        lam: float | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(num_blocks=num_blocks, chans=chans)
        check(convs_per_block >= 2, "convs_per_block", "at least 2", convs_per_block)
        kind = repr(data_consistency)
        check(data_consistency in ("hard", "soft", "cg"), "data_consistency", "'hard', 'soft' or 'cg'", kind)
        fits = num_cg_iterations is None or data_consistency == "cg"
        require(fits, "num_cg_iterations is for data_consistency='cg' only", kind)
        fits = lam is None or data_consistency != "hard"
        require(fits, "lam is for data_consistency='soft' or 'cg' only", kind)
        lam = 0.05 if lam is None else lam
        check(0 < lam < math.inf, "lam", "positive and finite", lam)
        self.num_cg_iterations = 6 if num_cg_iterations is None else num_cg_iterations
        check_at_least_one(num_cg_iterations=num_cg_iterations)
        self.data_consistency: DataConsistency = data_consistency
        self.blocks = nn.ModuleList(_make_block(convs_per_block, chans) for _ in range(num_blocks))
        if data_consistency != "hard":  # a parameter without use would have no gradient
            # lambda = softplus(raw) cannot leave the positive numbers; its inverse, without an overflow
            self.raw_lambda = nn.Parameter(torch.full((num_blocks,), lam + math.log(-math.expm1(-lam))))

    @property
    def lam(self) -> Tensor:
        """lambda of each block; ValueError with hard data consistency, which has none."""
        if self.data_consistency == "hard":
            raise ValueError("lam must be read with data_consistency='soft' or 'cg', got 'hard'")
        return nn.functional.softplus(self.raw_lambda)

    def unroll(self, zero_filled: Tensor, normal: SenseNormalOperator, support: Tensor) -> Tensor:
        peak = zero_filled.abs().amax(dim=tuple(range(1, zero_filled.ndim)), keepdim=True)
        zero_filled = zero_filled / torch.where(peak > 0, peak, 1.0)
        image = zero_filled
        for index, block in enumerate(self.blocks):
            # each set of maps has an image of its own
            channels = torch.view_as_real(image.flatten(end_dim=-3)).permute(0, 3, 1, 2)
            change = block(channels).to(channels.dtype).permute(0, 2, 3, 1).contiguous()
            denoised = (image + torch.view_as_complex(change).view_as(image)) * support
            image = self._make_consistent(index, denoised, zero_filled, normal)
        return image * peak  # which is 0 where nothing was measured: the biases make no image of it

    def _make_consistent(
        self, index: int, denoised: Tensor, zero_filled: Tensor, normal: SenseNormalOperator
    ) -> Tensor:
        if self.data_consistency == "hard":
            return data_consistency_step(denoised, zero_filled, normal)
        lam = self.lam[index]
        if self.data_consistency == "soft":
            return data_consistency_step(denoised, zero_filled, normal, step=1 / (1 + lam))
        right = zero_filled + lam * denoised
        return normal.solve(right, lam, x0=denoised, num_iterations=self.num_cg_iterations)


def _make_block(num_convs: int, chans: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise([2, *[chans] * (num_convs - 1), 2]):
        layers += [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])
