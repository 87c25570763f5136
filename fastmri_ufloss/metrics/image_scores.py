"""Scores of the slices of a volume, and of the volume, against its reference."""

from typing import NamedTuple

import numpy as np
from fastmri.evaluate import psnr
from scipy.signal import fftconvolve
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastmri_ufloss.losses.fine_structure import laplacian_kernel
from fastmri_ufloss.losses.ssim import WINDOW

__all__ = ["IMAGE_SCORES", "MIN_SIZE", "ImageScores", "ReferenceVolume", "fine_structures"]

IMAGE_SCORES = ("NMSE", "NRMSE", "PSNR", "SSIM", "SSIM Gaussian", "HFEN")
MIN_SIZE = WINDOW
"""Rows and columns that an image must have."""


class ImageScores(NamedTuple):
    """Numbers by score, out of ``IMAGE_SCORES``.

    Args:
        slices: of each slice, (slices,) each, float64; nan where the slice of the reference is constant.
        volume: of the volume; HFEN is nan if all slices of the reference are constant.
    """

    slices: dict[str, np.ndarray]
    volume: dict[str, float]


class ReferenceVolume:
    """Scores volumes against a reference, of which everything is computed once.

    With t the reference and x the output, LoG as `fastmri_ufloss.losses.fine_structure.laplacian_of_gaussian`::

        NMSE = |x - t|^2 / |t|^2,  NRMSE = |x - t| / |t|,  HFEN = |LoG(x - t)| / |LoG(t)|

    over the slice or over the volume. PSNR (dB) and SSIM are fastMRI's: their data range is the maximum of the
    reference volume, for its slices too, and SSIM of the volume is the mean over its slices. ``SSIM Gaussian`` has
    the Gaussian windows of 11x11, sigma = 1.5, of Wang et al. (IEEE TIP 2004), and the mean over the windows that
    lie inside the image, like `fastmri_ufloss.losses.ssim.gaussian_ssim` and scikit-image's ``gaussian_weights``.

    Volumes are what fastMRI's evaluation computes; its NMSE is rounded to the precision of the images, the sums are
    in float64 here.

    Args:
        images: magnitudes (slices, rows, cols), with a signal.

    Raises:
        ValueError: if the shape is another, an image is smaller than 11x11, or nothing is above 0.
    """

    def __init__(self, images: np.ndarray) -> None:
        if images.ndim != 3 or not len(images) or min(images.shape[1:]) < MIN_SIZE:
            raise ValueError(
                f"images must have shape (slices, rows, cols), at least {MIN_SIZE}x{MIN_SIZE}, got {images.shape}"
            )
        self.images = images
        self.max_value = images.max()  # with the dtype of the images, as in fastMRI
        if not self.max_value > 0:
            raise ValueError(f"images must have a signal, got a largest value of {self.max_value}")
        self.is_constant = images.reshape(len(images), -1).min(axis=1) == images.reshape(len(images), -1).max(axis=1)
        """Whether a slice has one value everywhere, (slices,)."""
        self._energy = _energies(images)
        self._fine = fine_structures(images)
        # of a constant image only rounding is left of LoG
        self._fine_energy = np.where(self.is_constant, 0.0, _energies(self._fine))

    def score(self, output: np.ndarray, fine: np.ndarray | None = None) -> ImageScores:
        """Score a volume.

        Args:
            output: magnitudes of the same shape.
            fine: its `fine_structures`, where they are known already.

        Raises:
            ValueError: if the shape is another.
        """
        if output.shape != self.images.shape:
            raise ValueError(f"output must have the shape of images, got {output.shape} and {self.images.shape}")
        error = _energies(np.subtract(output, self.images, dtype=np.float64))
        fine_error = _energies((fine_structures(output) if fine is None else fine) - self._fine)
        pairs = list(zip(self.images, output, strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):  # of equal images, and of constant references
            slices = {
                "NMSE": error / self._energy,
                "NRMSE": np.sqrt(error / self._energy),
                "PSNR": np.array([peak_signal_noise_ratio(t, x, data_range=self.max_value) for t, x in pairs]),
                "SSIM": np.array([structural_similarity(t, x, data_range=self.max_value) for t, x in pairs]),
                "SSIM Gaussian": np.array([_gaussian_ssim(t, x, float(self.max_value)) for t, x in pairs]),
                "HFEN": np.sqrt(fine_error / self._fine_energy),
            }
            nmse = error.sum() / self._energy.sum()
            volume = {
                "NMSE": nmse,
                "NRMSE": np.sqrt(nmse),
                "PSNR": psnr(self.images, output, maxval=self.max_value),
                "SSIM": slices["SSIM"].mean(),
                "SSIM Gaussian": slices["SSIM Gaussian"].mean(),
                "HFEN": np.sqrt(fine_error.sum() / self._fine_energy.sum()) if self._fine_energy.any() else np.nan,
            }
        return ImageScores(
            {name: np.where(self.is_constant, np.nan, values) for name, values in slices.items()},
            {name: float(value) for name, value in volume.items()},
        )


def fine_structures(images: np.ndarray) -> np.ndarray:
    """LoG of each image (slices, rows, cols), float64: `laplacian_of_gaussian` by Fourier transforms, faster."""
    kernel = laplacian_kernel()[0, 0].numpy()
    border = len(kernel) // 2
    padded = np.pad(images.astype(np.float64), [(0, 0), (border, border), (border, border)], mode="edge")
    return np.stack([fftconvolve(image, kernel, mode="valid") for image in padded])


def _energies(images: np.ndarray) -> np.ndarray:
    """sum x^2 of each image, float64."""
    return np.square(images, dtype=np.float64).sum(axis=(1, 2))


def _gaussian_ssim(target: np.ndarray, output: np.ndarray, data_range: float) -> float:
    # in float64, since the variances in a window are small differences
    return float(
        structural_similarity(
            target.astype(np.float64),
            output.astype(np.float64),
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
