"""Parallel imaging and compressed sensing (PICS): SENSE with a sparsity term, solved by sigpy."""

from collections.abc import Sequence
from typing import Literal

import torch
from sigpy.app import LinearLeastSquares
from sigpy.linop import FiniteDifference, Wavelet
from sigpy.prox import L1Reg, UnitaryTransform
from torch import Tensor

from fastmri_ufloss.baselines.sigpy_operators import CycleSpinning, SenseEncoding
from fastmri_ufloss.mri import cg_sense, image_scale

__all__ = ["Regularizer", "check_options", "pics"]

Regularizer = Literal["wavelet", "total_variation"]

_WAVELET = "db2"  # BART's dau2; longer ones (db4, db6) had errors 3 and 7% larger
_MAX_SHIFT = 32  # so that the seam stays near the border of the image; more did not change the error
# Dual step size of the total variation solver. Both parts of its dual variable are small beside an image of scale 1:
# with sigpy's default of 1 the image is still 5 to 9% away from the minimum after 100 iterations. With 0.03 its
# aliases of columns are where lam is small, and with 0.01 large weights converge slowly.
_DUAL_STEP = 0.015
_GRADIENT_NORM = 8.0  # upper bound of |G^H G| for the differences along two axes


@torch.no_grad()
def pics(
    masked_kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor,
    *,
    regularizer: Regularizer = "wavelet",
    lam: float = 0.0015,
    num_iterations: int = 100,
) -> Tensor:
    r"""Compressed sensing with coil maps: the image that fits the samples and is sparse.

    .. math:: \hat x = c \arg\min_x \tfrac{1}{2} \| U F S x - y / c \|_2^2 + \lambda \| \Psi x \|_1

    Psi is a db2 wavelet transform, all its levels and the coarsest included (accelerated proximal gradients), or the
    complex differences to the next pixel along rows and along columns, circular, each with its own magnitude
    (primal-dual hybrid gradients). c is the `image_scale` of the sample's CG-SENSE image, the start of the
    iteration, so that ``lam`` means the same in every unit. The step sizes follow from bounds of the operators.

    The grid of the wavelets is shifted in each iteration, as BART's ``pics`` does, so that the sparsity term is
    about its mean over all grids: a fixed grid leaves its blocks in the image, with errors a fifth larger. The
    shifts are the same in every call; the global random state is not touched.

    Sample by sample on the CPU, in complex64, whatever the device of the input, and without gradients. Where all
    maps are zero nothing was measured, and the image is zero, as CG-SENSE's is.

    Args:
        masked_kspace: (batch, coils, rows, cols, 2), of any unit and size.
        mask: (batch, 1, 1 or rows, cols, 1), not zero where a sample was acquired. A sample whose value is
            zero counts as acquired.
        sens_maps: (batch, coils, rows, cols, 2), with a norm of 1 or 0 over the coils.
        regularizer: the sparsity term.
        lam: its weight, relative to the 95th percentile of the image, at least 0. The best value depends on noise
            and sampling, from about 0.001 to 0.005; to compare fairly, search it (`search_weight`). On eight slices
            of four hearts (8 coils, 256 x 256, columns undersampled 5 times) it is 0.002 for wavelets and 0.003 for
            total variation, where the default has an error within 4% of the lowest.
        num_iterations: of the solver, at least 1.

    Returns:
        Complex image (batch, rows, cols), complex64, on the device and in the unit of masked_kspace. Zero for
        empty k-space.

    Raises:
        ValueError: if the shapes do not belong together or an option is out of range.

    References:
        M. Lustig, D. Donoho and J. Pauly, Sparse MRI, Magn Reson Med 58:1182-1195, 2007;
        R. R. Coifman and D. L. Donoho, Translation-invariant de-noising, 1995 (the shifts);
        K. T. Block, M. Uecker and J. Frahm, Undersampled radial MRI with multiple coils, Magn Reson Med
        57:1086-1098, 2007; A. Chambolle and T. Pock, J Math Imaging Vis 40:120-145, 2011.
    """
    check_options(regularizer, lam, num_iterations)
    start = cg_sense(masked_kspace, mask, sens_maps)
    scales = image_scale(start).cpu()
    sampled = (mask[:, 0, ..., 0] != 0).float().expand(len(start), -1, -1)
    images = torch.empty(start.shape, dtype=torch.complex64)
    for i, scale in enumerate(scales):
        images[i] = scale * _solve(
            _to_cpu(masked_kspace[i]) / scale,
            sampled[i].cpu(),
            _to_cpu(sens_maps[i]),
            start[i].cpu().to(torch.complex64) / scale,
            regularizer,
            lam,
            num_iterations,
        )
    return images.to(start.device)


def check_options(regularizer: str, lam: float, num_iterations: int) -> None:
    """Raises ValueError unless the options are those of `pics`."""
    if regularizer not in ("wavelet", "total_variation"):
        raise ValueError(f"regularizer must be 'wavelet' or 'total_variation', got {regularizer!r}")
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be finite and at least 0, got {lam}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")


def _to_cpu(data: Tensor) -> Tensor:
    return torch.view_as_complex(data.float().contiguous()).cpu()


def _solve(
    kspace: Tensor,
    sampled: Tensor,
    maps: Tensor,
    start: Tensor,
    regularizer: str,
    lam: float,
    num_iterations: int,
) -> Tensor:
    """One sample by sigpy, with the origin of all data in the first element."""
    bound = float((maps.abs() ** 2).sum(dim=0).max())  # of |E^H E|, because |F^H U F| <= 1
    if bound == 0:
        return torch.zeros_like(start)
    kspace, sampled, maps, start = (
        torch.fft.ifftshift(data, dim=[dim for dim in (-2, -1) if data.shape[dim] > 1])
        for data in (kspace * sampled, sampled, maps, start)
    )
    dims: tuple[int, ...] = (-2, -1)
    if len(sampled) == 1:  # whole columns: no transform along them in each iteration
        dims = (-1,)
        kspace = torch.fft.ifft(kspace, dim=-2, norm="ortho")
    if regularizer == "wavelet":
        options = {"proxg": _wavelet_prox(start.shape, lam), "alpha": 1 / bound}
    else:
        differences = FiniteDifference(start.shape)
        steps = {"sigma": _DUAL_STEP, "tau": 1 / (_DUAL_STEP * (bound + _GRADIENT_NORM))}
        options = {"proxg": L1Reg(differences.oshape, lam), "G": differences, **steps}
    encoding = SenseEncoding(maps, sampled, dims)
    app = LinearLeastSquares(
        encoding, kspace.numpy(), x=start.numpy().copy(), max_iter=num_iterations, show_pbar=False, **options
    )  # with the step sizes given, sigpy does not estimate them from random numbers
    # where nothing was measured Psi alone shapes the image
    return torch.fft.fftshift(torch.from_numpy(app.run()) * (maps != 0).any(dim=0))


def _wavelet_prox(shape: Sequence[int], lam: float) -> CycleSpinning:
    wavelet = Wavelet(shape, wave_name=_WAVELET)
    prox = UnitaryTransform(L1Reg(wavelet.oshape, lam), wavelet)
    return CycleSpinning(prox, max_shift=_MAX_SHIFT, offset=(shape[0] // 2, shape[1] // 2))
