"""Scores of image volumes: of arrays against a reference, and of the files that a run has written."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fastmri.data.transforms import center_crop
from fastmri.evaluate import psnr
from scipy.signal import fftconvolve
from skimage.measure import blur_effect
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.data.segmentation import find_reconstruction
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import name_some
from fastmri_ufloss.losses import reader_scores
from fastmri_ufloss.losses.fine_structure import laplacian_kernel
from fastmri_ufloss.losses.ssim import WINDOW

__all__ = ["ReferenceVolume", "mean_scores", "radial_power", "score_run", "sharpness"]

IMAGE_SCORES = ("NMSE", "NRMSE", "PSNR", "SSIM", "SSIM Gaussian", "HFEN")
READER_SCORES: dict[str, reader_scores.ReaderScore] = {"HaarPSI": "haarpsi", "VSI": "vsi", "GMSD": "gmsd"}
BANDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of spatial frequency, in parts of the largest along an axis
SPECTRUM = tuple(f"spectrum {low:g}-{high:g}" for low, high in pairwise(BANDS))
RUN_SCORES = ("NRMSE", "PSNR", "SSIM")
MIN_SIZE = WINDOW  # rows and columns that an image must have

_Images = tuple[np.ndarray, float | None]  # of a file


class ImageScores(NamedTuple):
    """Numbers by score."""

    slices: dict[str, np.ndarray]  # of each slice, (slices,), float64; nan where the reference is constant
    volume: dict[str, float]  # of the volume; HFEN is nan if all slices of the reference are constant


class ReferenceVolume:
    """Scores volumes against a reference.

    With t the reference and x the output, LoG as `fastmri_ufloss.losses.fine_structure.laplacian_of_gaussian`::

        NMSE = |x - t|^2 / |t|^2,  NRMSE = |x - t| / |t|,  HFEN = |LoG(x - t)| / |LoG(t)|

    over the slice or over the volume. PSNR (dB) and SSIM are fastMRI's, with one data range for the volume and its
    slices; SSIM of the volume is the mean over its slices. ``SSIM Gaussian`` is `dssim_loss`'s, with the windows of
    Wang et al. (IEEE TIP 2004).

    Two groups of scores are computed if they are named: ``READER_SCORES``, HaarPSI, VSI and GMSD of
    `fastmri_ufloss.losses.reader_score`, which need piq, the mean over slices, nan for images below 16x16; and
    ``SPECTRUM``, the power of the output over that of the reference in bands of radial spatial frequency, see
    `radial_power`, over the slice or the volume. 1 is right; less is blur, more is noise or artefacts.

    Volumes are what fastMRI's evaluation computes, with sums in float64. The images are magnitudes (slices, rows,
    cols), at least 11x11, and the data range is positive, the maximum of the images if not given; ValueError
    otherwise.
    """

    def __init__(self, images: np.ndarray, *, max_value: float | None = None) -> None:
        fits = images.ndim == 3 and len(images) > 0 and min(images.shape[1:]) >= MIN_SIZE
        demand = f"images must have shape (slices, rows, cols), at least {MIN_SIZE}x{MIN_SIZE}"
        require(fits, demand, images.shape)
        check(max_value is None or max_value > 0, "max_value", "above 0", max_value)
        self.images = images
        self.max_value = images.max() if max_value is None else max_value  # with the dtype of the images, as fastMRI
        require(self.max_value > 0, "images must have a signal", f"a largest value of {self.max_value}")
        flat = images.reshape(len(images), -1)
        self.is_constant = flat.min(axis=1) == flat.max(axis=1)  # whether a slice has one value everywhere

    def score(
        self, output: np.ndarray, fine: np.ndarray | None = None, *, names: Sequence[str] = IMAGE_SCORES
    ) -> ImageScores:
        """Score a volume of the same shape, ValueError otherwise; ``fine`` are its `fine_structures`, where known."""
        fits, shapes = output.shape == self.images.shape, f"{output.shape} and {self.images.shape}"
        require(fits, "output must have the shape of images", shapes)
        with np.errstate(divide="ignore", invalid="ignore"):  # of equal images, and of constant references
            scores = {name: self._score(name, output, fine) for name in names if name not in SPECTRUM}
            if any(name in SPECTRUM for name in names):
                power = radial_power(output)
                columns = zip(SPECTRUM, power.T, self._power.T, strict=True)
                of_bands = {name: (x / t, x.sum() / t.sum()) for name, x, t in columns}
                scores |= {name: of_bands[name] for name in names if name in SPECTRUM}
        return ImageScores(
            {name: np.where(self.is_constant, np.nan, slices) for name, (slices, _) in scores.items()},
            {name: float(volume) for name, (_, volume) in scores.items()},
        )

    def _score(self, name: str, output: np.ndarray, fine: np.ndarray | None) -> tuple[np.ndarray, Any]:
        """A score of each slice, and of the volume."""
        if name in ("NMSE", "NRMSE", "HFEN"):
            error, energy = np.subtract(output, self.images, dtype=np.float64), _energies(self.images)
            if name == "HFEN":
                error = (fine_structures(output) if fine is None else fine) - self._fine
                # in a constant image rounding is left
                energy = np.where(self.is_constant, 0.0, _energies(self._fine))
            error = _energies(error)
            slices, volume = error / energy, error.sum() / (energy.sum() or np.nan)
            return (slices, volume) if name == "NMSE" else (np.sqrt(slices), np.sqrt(volume))
        if name in READER_SCORES and min(output.shape[1:]) < reader_scores.MIN_SIZE:
            return np.full(len(output), np.nan), np.nan
        score = _SCORES_OF_IMAGES.get(name) or partial(_reader_score, READER_SCORES[name])
        pairs = zip(self.images, output, strict=True)
        slices = np.array([score(t, x, data_range=self.max_value) for t, x in pairs])
        return slices, psnr(self.images, output, maxval=self.max_value) if name == "PSNR" else slices.mean()

    @cached_property
    def _power(self) -> np.ndarray:
        return radial_power(self.images)

    @cached_property
    def _fine(self) -> np.ndarray:
        return fine_structures(self.images)


def fine_structures(images: np.ndarray) -> np.ndarray:
    """LoG of each image (slices, rows, cols), float64: `laplacian_of_gaussian` by Fourier transforms, faster."""
    kernel = laplacian_kernel()[0, 0].numpy()
    border = len(kernel) // 2
    padded = np.pad(images.astype(np.float64), [(0, 0), (border, border), (border, border)], mode="edge")
    return np.stack([fftconvolve(image, kernel, mode="valid") for image in padded])


def radial_power(images: np.ndarray) -> np.ndarray:
    """The power of each image (slices, rows, cols) in ``BANDS`` of radial spatial frequency, (slices, bands)."""
    rows, cols = (2 * np.fft.fftfreq(size) for size in images.shape[1:])
    band = np.digitize(np.hypot(rows[:, None], cols), BANDS).ravel() - 1  # beyond the last: the corners
    powers = (np.abs(np.fft.fft2(image.astype(np.float64))).ravel() ** 2 for image in images)
    return np.stack([np.bincount(band, power, minlength=len(BANDS))[: len(BANDS) - 1] for power in powers])


def sharpness(image: np.ndarray) -> float:
    """1 - the blur metric of Crété-Roffet et al., scikit-image's ``blur_effect`` with windows of 11 pixels.

    An image (rows, cols), ValueError otherwise, is blurred once more along its rows and along its columns; the metric
    is the part of the differences of neighboring pixels that survives this, the larger one of the two directions. The
    value lies in 0 .. 1, and is nan for an image with one value everywhere. Noise and aliasing are sharp as well: an
    image should be about as sharp as its reference.

    Crété-Roffet et al., "The blur effect: perception and estimation with a new no-reference perceptual blur
    metric", SPIE 6492, 2007.
    """
    require(image.ndim == 2, "image must have shape (rows, cols)", image.shape)
    if image.min() == image.max():
        return math.nan
    # scikit-image has a floor for gradients, which images of another unit would fall below
    return 1 - float(blur_effect(image.astype(np.float64) / float(np.abs(image).max())))


def score_run(
    outputs: Mapping[str, str | Path],
    references: Mapping[str, str | Path],
    *,
    slices: Mapping[str, Sequence[int]] | None = None,
    more: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Score the reconstructions of a run, volume by volume, with NRMSE, PSNR and SSIM of `ReferenceVolume`.

    Images are cropped around their center to the smallest of their sizes, as fastMRI does. A volume without a
    reference, or without an image of one of the methods, is left out; a reference without a signal gives nan. The
    rows have ``volume``, ``method`` and ``"NRMSE (NAME)"``, ``"PSNR (NAME)"``, ``"SSIM (NAME)"`` of each reference.

    Args:
        outputs: by the method's title the folder of its leaderboard files.
        references: by name a folder of files with the same names, either leaderboard files or fastMRI volumes. The
            data range is the maximum of the volume, of fastMRI volumes their attribute ``max``.
        slices: by file name the numbers of the slices that the outputs hold of a fastMRI volume; volumes that are not
            named are left out. None for all slices of all volumes.
        more: the value of the column ``UFLoss`` by title and file name.

    Raises:
        ValueError: names a file that is damaged, lacks a slice, or whose images do not fit the others.
    """
    fnames = {path.name for folder in outputs.values() for path in Path(folder).glob("*.h5")}
    rows: list[dict[str, Any]] = []
    for fname in sorted(fnames if slices is None else fnames & slices.keys()):
        targets = _read_volumes(references, fname, None if slices is None else slices[fname])
        images = _read_volumes(outputs, fname) if targets else {}
        if len(images) < len(outputs):
            continue
        try:
            scores = _score_volume(images, targets)
        except ValueError as error:
            raise ValueError(f"{fname}: {error}") from error
        for title, values in scores.items():
            further = {} if more is None or fname not in more.get(title, {}) else {"UFLoss": more[title][fname]}
            rows.append({"volume": fname, "method": title, **values, **further})
    return rows


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean of the rows of `score_run` over volumes for each method, in the order of the methods' first rows.

    A volume without a score does not count in the mean of this score.
    """
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        names = dict.fromkeys(name for row in of_method for name in row if name not in ("volume", "method"))
        mean = {name: float(np.mean([row[name] for row in of_method if name in row])) for name in names}
        means.append({"method": method, "volumes": len(of_method), **mean})
    return means


def _score_volume(outputs: Mapping[str, _Images], references: Mapping[str, _Images]) -> dict[str, dict[str, float]]:
    """The scores of a row by method."""
    shapes = {name: images.shape for name, (images, _) in (*outputs.items(), *references.items())}
    fits = len({shape[0] for shape in shapes.values()}) == 1 and all(len(shape) == 3 for shape in shapes.values())
    check(fits, "outputs and references", "images (slices, rows, cols) of the same slices", shapes)
    size = (min(shape[1] for shape in shapes.values()), min(shape[2] for shape in shapes.values()))
    rows: dict[str, dict[str, float]] = {title: {} for title in outputs}
    for name, (images, max_value) in references.items():
        target = np.ascontiguousarray(center_crop(images, size))
        data_range = float(target.max()) if max_value is None else max_value
        reference = ReferenceVolume(target, max_value=data_range) if data_range > 0 else None
        for title, (output, _) in outputs.items():
            values = dict.fromkeys(RUN_SCORES, math.nan)
            if reference is not None:
                values = reference.score(center_crop(output, size), names=RUN_SCORES).volume
            rows[title] |= {f"{score} ({name})": value for score, value in values.items()}
    return rows


def _read_volumes(
    folders: Mapping[str, str | Path], fname: str, slices: Sequence[int] | None = None
) -> dict[str, _Images]:
    """The images of a file in each folder, with the data range that the file names; only files that have images."""
    volumes: dict[str, _Images] = {}
    for name, path in ((name, Path(folder) / fname) for name, folder in folders.items()):
        if not path.exists():
            continue
        with open_hdf5(path) as file:
            if "reconstruction" in file:
                volumes[name] = np.asarray(file["reconstruction"], dtype=np.float32), None
            elif (images := find_reconstruction(file)) is not None:
                chosen = range(len(images)) if slices is None else sorted(slices)
                fits = set(chosen) <= set(range(len(images)))
                require(fits, f"{path} must have the slices {name_some(chosen)}", f"{len(images)} slices")
                images = np.asarray(images, dtype=np.float32)[list(chosen)]
                volumes[name] = images, float(file.attrs["max"]) if "max" in file.attrs else None
    return volumes


def _energies(images: np.ndarray) -> np.ndarray:
    """sum x^2 of each image, float64."""
    return np.square(images, dtype=np.float64).sum(axis=(1, 2))


def _gaussian_ssim(target: np.ndarray, output: np.ndarray, *, data_range: float) -> float:
    # in float64, since the variances in a window are small differences
    windows = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    target, output = target.astype(np.float64), output.astype(np.float64)
    return float(structural_similarity(target, output, data_range=float(data_range), **windows))


def _reader_score(
    name: reader_scores.ReaderScore, target: np.ndarray, output: np.ndarray, *, data_range: float
) -> float:
    x, t = (torch.from_numpy(image.astype(np.float64))[None, None] for image in (output, target))
    return float(reader_scores.reader_score(name, x, t, float(data_range)))


_SCORES_OF_IMAGES: dict[str, Callable[..., float]] = {
    "PSNR": peak_signal_noise_ratio,
    "SSIM": structural_similarity,
    "SSIM Gaussian": _gaussian_ssim,
}
