"""Coil compression: a few virtual coils, combinations of the coils of a scan, that keep nearly all of its signal."""

import torch
from torch import Tensor

__all__ = ["coil_compression_matrix", "compress_coils"]


@torch.no_grad()
def coil_compression_matrix(calibration: Tensor) -> tuple[Tensor, Tensor]:
    r"""The virtual coils of calibration data, in the order of their energy.

    .. math:: \sum_k y(k) \, y(k)^H = U \Lambda U^H, \qquad A = U^H

    y(k) are the samples of all coils at a point of k-space. The first n rows of A are n virtual coils: no n other
    combinations keep more energy. The rows are orthonormal, so white noise stays white; the largest weight of each is
    real and positive. Float64 inside, and without gradients. (Buehrer et al., Magn Reson Med 57:1131-1139, 2007;
    Huang et al., Magn Reson Imaging 26:133-141, 2008.)

    Args:
        calibration: (batch, coils, rows, cols, 2), of any scale, such as the fully sampled center of all slices.

    Returns:
        A (coils, coils), complex, and the energies (coils,), as fractions of their sum; all 0 without a signal.

    Raises:
        ValueError: if the calibration data have another shape, or are not finite.
    """
    if calibration.ndim != 5 or calibration.shape[-1] != 2:
        raise ValueError(f"calibration must have shape (batch, coils, rows, cols, 2), got {tuple(calibration.shape)}")
    if not torch.isfinite(calibration).all():
        raise ValueError("calibration must be finite, got inf or nan")
    samples = torch.view_as_complex(calibration.double().contiguous()).transpose(0, 1).flatten(1)
    values, vectors = torch.linalg.eigh(samples @ samples.mH)
    matrix, energies = vectors.mH.flip(0), values.flip(0).clamp(min=0)
    largest = matrix.gather(1, matrix.abs().argmax(dim=1, keepdim=True))
    matrix = matrix * (largest.conj() / largest.abs())
    total = energies.sum()
    fractions = energies / torch.where(total > 0, total, 1)
    return matrix.to(calibration.dtype.to_complex()), fractions.to(calibration.dtype)


def compress_coils(kspace: Tensor, matrix: Tensor) -> Tensor:
    """A y: k-space or coil maps (..., coils, rows, cols, 2) of the virtual coils (..., n, rows, cols, 2).

    The matrix is (n, coils), rows of `coil_compression_matrix`; other shapes raise ValueError.
    """
    coils = kspace.shape[-4] if kspace.ndim >= 4 and kspace.shape[-1] == 2 else None
    if matrix.ndim != 2 or matrix.shape[1] != coils:
        raise ValueError(
            "matrix must have shape (n, coils) to go with kspace (..., coils, rows, cols, 2), "
            f"got {tuple(matrix.shape)} and {tuple(kspace.shape)}"
        )
    samples = torch.view_as_complex(kspace.contiguous())
    compressed = matrix.to(samples.dtype) @ samples.flatten(-2)
    return torch.view_as_real(compressed.unflatten(-1, samples.shape[-2:]))
