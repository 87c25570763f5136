"""Noise of receive coils: its covariance, and the matrix that makes it white."""

import numpy as np

__all__ = ["noise_covariance", "whitening_matrix"]


def noise_covariance(noise: np.ndarray) -> np.ndarray:
    """Covariance of the noise of coils.

        Psi = 1 / N sum_n eta_n eta_n^H

    Noise has no mean, so none is subtracted.

    Args:
        noise: a scan without signal, complex (coils, ...), of N samples per coil.

    Returns:
        Psi, complex128 (coils, coils), in the squared unit of the noise: ``Psi[c, c]`` is E|eta_c|^2, the sum of
        the variances of real and imaginary part.

    Raises:
        ValueError: if the noise is not complex, not finite, or has no more samples than coils.
    """
    noise = np.asarray(noise)
    if not np.iscomplexobj(noise) or noise.ndim < 2 or noise.size == 0:
        raise ValueError(f"noise must be complex (coils, samples), got {noise.dtype} {noise.shape}")
    noise = noise.reshape(len(noise), -1).astype(np.complex128)
    coils, samples = noise.shape
    if samples <= coils:
        raise ValueError(f"noise must have more samples than its {coils} coils, got {samples}")
    if not np.isfinite(noise).all():
        raise ValueError("noise must be finite, got NaN or infinite values")
    return noise @ noise.conj().T / samples


def whitening_matrix(covariance: np.ndarray, *, bandwidth_ratio: float = 1.0) -> np.ndarray:
    """The matrix that gives the coils of a scan uncorrelated noise of unit variance.

        W = sqrt(r) L^-1,    Psi = L L^H,    E[(W n) (W n)^H] = I

    The noise n of the scan has the covariance Psi / r. In a receiver of flat noise density the variance of a sample
    goes with the bandwidth, one over the dwell time T, and the filter of the noise scan passes a share b of its
    bandwidth only: r = b T_scan / T_noise. L is lower triangular, so that the first coil stays by itself.

    Unit variance is that of the complex sample, E|n|^2 = 1. The ISMRMRD and Gadgetron tools scale by sqrt(2 r) for
    unit variance of the real and of the imaginary part.

    Reference: Pruessmann et al., Magn Reson Med 46:638 (2001); Kellman and McVeigh, Magn Reson Med 54:1439 (2005).

    Args:
        covariance: Psi, complex (coils, coils), Hermitian, see `noise_covariance`.
        bandwidth_ratio: r, above 0.

    Returns:
        W, complex128 (coils, coils), to be multiplied to k-space (coils, ...) from the left.

    Raises:
        ValueError: if the covariance is no positive definite Hermitian matrix, as of a coil without noise or one
            that is a copy of another, or the ratio is not above 0.
    """
    covariance = np.asarray(covariance)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or covariance.size == 0:
        raise ValueError(f"covariance must be of shape (coils, coils), got {covariance.shape}")
    if not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.conj().T, atol=0, rtol=1e-5):
        raise ValueError("covariance must be finite and Hermitian")
    if not 0 < bandwidth_ratio < np.inf:
        raise ValueError(f"bandwidth_ratio must be above 0, got {bandwidth_ratio}")
    covariance = covariance.astype(np.complex128)
    variances = covariance.diagonal().real
    silent = np.flatnonzero(variances <= 0)
    if silent.size:
        raise ValueError(f"covariance must be positive definite, got coils without noise: {silent.tolist()}")
    # of coils that are scaled alike, so that a weak one is no singular one
    scales = np.sqrt(variances)
    correlation = covariance / np.outer(scales, scales)
    smallest = np.linalg.eigvalsh(correlation)[0]
    if smallest <= len(correlation) * np.finfo(np.float64).eps:
        raise ValueError(
            f"covariance must be positive definite, got {smallest:.1e} as the smallest eigenvalue of the "
            "correlation: a coil's noise is made of that of the others"
        )
    return np.sqrt(bandwidth_ratio) * np.linalg.inv(np.linalg.cholesky(covariance))
