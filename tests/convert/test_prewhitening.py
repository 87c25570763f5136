"""Whitened noise has the unit matrix as its covariance."""

import numpy as np
import pytest

from fastmri_ufloss.convert.volumes import whitening_matrix


def correlated_noise(coils: int = 4, samples: int = 20000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise (coils, samples) and its true covariance."""
    generator = np.random.default_rng(seed)
    white = generator.standard_normal((2, coils, samples)) / np.sqrt(2)
    mixing = generator.standard_normal((2, coils, coils))
    mixing = mixing[0] + 1j * mixing[1]
    return mixing @ (white[0] + 1j * white[1]), mixing @ mixing.conj().T


def covariance(noise: np.ndarray) -> np.ndarray:
    return noise @ noise.conj().T / noise.shape[1]


def test_covariance_is_that_of_the_complex_samples() -> None:
    noise, truth = correlated_noise()
    factor = np.linalg.inv(whitening_matrix(noise))
    np.testing.assert_allclose(factor @ factor.conj().T, truth, atol=0.05 * np.abs(truth).max())
    np.testing.assert_allclose(factor @ factor.conj().T, covariance(noise))
    np.testing.assert_allclose(whitening_matrix(noise.reshape(4, 100, -1)), whitening_matrix(noise))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_whitened_noise_is_white(scale: float) -> None:
    noise = scale * correlated_noise()[0]
    matrix = whitening_matrix(noise)
    np.testing.assert_allclose(covariance(matrix @ noise), np.eye(4), atol=1e-10)
    assert np.allclose(matrix, np.tril(matrix))  # the first coil stays by itself
    assert (matrix.diagonal().real > 0).all() and np.allclose(matrix.diagonal().imag, 0)


def test_weak_coil_is_no_singular_one() -> None:
    noise = correlated_noise()[0] * np.array([1, 1e-9, 1, 1e9])[:, None]
    np.testing.assert_allclose(covariance(whitening_matrix(noise) @ noise), np.eye(4), atol=1e-6)


def test_bandwidth_ratio_scales_to_the_noise_of_the_scan() -> None:
    noise, _ = correlated_noise()
    ratio = 0.8 * 2.5 / 5.0  # a filter that passes 80 %, half of the dwell time: the scan has 2.5 times the variance
    scan = correlated_noise(seed=0)[0] / np.sqrt(ratio)
    matrix = whitening_matrix(noise, bandwidth_ratio=ratio)
    np.testing.assert_allclose(covariance(matrix @ scan), np.eye(4), atol=1e-10)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.ones((2, 9)), r"noise must be complex \(coils, samples\), got float64 \(2, 9\)"),
        (np.ones(9, dtype=complex), "noise must be complex"),
        (np.ones((4, 4), dtype=complex), "noise must be of more samples than its 4 coils, got 4"),
        (np.full((2, 9), np.nan, dtype=complex), "noise must be finite"),
        (correlated_noise(3)[0] * np.array([[1], [0], [1]]), r"got coils without noise: \[1\]"),
        (correlated_noise(2)[0][[0, 1, 1]], "a coil's noise is made of that of the others"),
    ],
)
def test_bad_noise_is_refused(noise: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whitening_matrix(noise)


@pytest.mark.parametrize("ratio", [0.0, np.nan])
def test_bad_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"bandwidth_ratio must be above 0, got {ratio}"):
        whitening_matrix(correlated_noise()[0], bandwidth_ratio=ratio)
