"""From images to fastMRI volumes: k-space of simulated coils with noise, and the HDF5 file."""

import xml.etree.ElementTree as etree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from fastmri_ufloss.data.coils import check, simulate_phase, simulate_sens_maps
from fastmri_ufloss.files import atomic_path

__all__ = ["simulate_kspace", "simulate_volume", "write_volume"]

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
OBJECT_THRESHOLD = 0.1  # of the maximum: what is below is background


def simulate_kspace(
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """K-space of images, in fastMRI's centred orthonormal convention, with complex white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the pixels above a tenth of the maximum.

    Args:
        images: (slices, rows, cols), real or complex. Real ones get a smooth phase, see `simulate_phase`;
            complex ones keep their own.
        num_coils: number of coils, see `simulate_sens_maps`; None for single-coil data without a coil axis.
        snr: mean magnitude of the object divided by the standard deviation of the complex noise of a coil's
            image; infinite for none.
        phase_strength: of the phase of real images, in radians.
        seed: of coils, phase and noise.

    Returns:
        K-space, complex64 (slices, num_coils, rows, cols), or (slices, rows, cols) without coils.

    Raises:
        ValueError: if an argument is out of its range, or the images are not finite.
    """
    images = np.asarray(images)
    check(images.ndim == 3 and images.size > 0, "images", "of shape (slices, rows, cols)", images.shape)
    check(bool(np.isfinite(images).all()), "images", "finite", "NaN or infinite values")
    check(num_coils is None or num_coils >= 1, "num_coils", "at least 1, or None", num_coils)
    check(snr > 0, "snr", "above 0", snr)
    shape = (images.shape[1], images.shape[2])
    if not np.iscomplexobj(images):
        images = images * simulate_phase(shape, strength=phase_strength, seed=seed)
    magnitude = np.abs(images)
    brightest = magnitude.max()
    deviation = 0.0
    if brightest > 0:
        deviation = float(magnitude[magnitude > OBJECT_THRESHOLD * brightest].mean()) / snr
    if num_coils is not None:
        images = images[:, None] * simulate_sens_maps(num_coils, shape, seed=seed)
    kspace = _fft2c(images.astype(np.complex64))
    generator = np.random.default_rng([seed, 2])
    noise = generator.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return kspace + np.float32(deviation / np.sqrt(2)) * noise


def write_volume(
    path: str | Path,
    kspace: np.ndarray,
    *,
    recon_size: tuple[int, int] | None = None,
    acquisition: str = "CORPD_FBK",
    patient_id: str = "",
    mask: np.ndarray | None = None,
    pixel_size: float = 1.0,
    attributes: Mapping[str, Any] | None = None,
    datasets: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write k-space as an HDF5 volume as fastMRI has them; the file is complete, or not there.

    Without a mask it gets the reconstruction: magnitude images of the k-space, root-sum-of-squares over coils
    and centre-cropped (``reconstruction_rss``, or ``reconstruction_esc`` of a single coil), and its ``max``
    and ``norm``. With one the k-space is masked, and there is none, as in fastMRI's test files.

    Args:
        path: of the file; its folder is made if it is missing.
        kspace: fully sampled, centred, (slices, coils, rows, cols), or (slices, rows, cols) of a single coil.
        recon_size: (rows, cols) of the reconstruction; that of the k-space by default.
        acquisition: fastMRI's name of the contrast.
        patient_id: of the subject.
        mask: sampled columns, (cols,).
        pixel_size: in mm, for the header.
        attributes: further attributes of the file.
        datasets: further data sets of the file.

    Raises:
        ValueError: if an argument is out of its range, does not fit the k-space, or is not finite.
    """
    kspace = np.asarray(kspace)
    layout = "complex, (slices, coils, rows, cols) or (slices, rows, cols)"
    fits = np.iscomplexobj(kspace) and kspace.ndim in (3, 4) and kspace.size > 0
    check(fits, "kspace", layout, f"{kspace.dtype} {kspace.shape}")
    check(bool(np.isfinite(kspace).all()), "kspace", "finite", "NaN or infinite values")
    rows, cols = kspace.shape[-2:]
    recon_size = (rows, cols) if recon_size is None else recon_size
    fits = len(recon_size) == 2 and 1 <= recon_size[0] <= rows and 1 <= recon_size[1] <= cols
    check(fits, "recon_size", f"two sizes from 1 to {(rows, cols)}", recon_size)
    check(pixel_size > 0, "pixel_size", "above 0", pixel_size)
    contents: dict[str, Any] = {"kspace": kspace.astype(np.complex64)}
    facts: dict[str, Any] = {"acquisition": acquisition, "patient_id": patient_id}
    if mask is None:
        images = _reconstruct(contents["kspace"], recon_size)
        contents["reconstruction_rss" if kspace.ndim == 4 else "reconstruction_esc"] = images
        facts |= {"max": images.max(), "norm": np.linalg.norm(images)}
    else:
        mask = np.asarray(mask).astype(bool)
        check(mask.shape == (cols,), "mask", f"of shape {(cols,)}", mask.shape)
        contents |= {"kspace": contents["kspace"] * mask, "mask": mask}
    contents["ismrmrd_header"] = _header((rows, cols), recon_size, kspace.shape[0], pixel_size)
    taken = sorted((contents.keys() & (datasets or {}).keys()) | (facts.keys() & (attributes or {}).keys()))
    check(not taken, "datasets and attributes", "other names than the volume's own", taken)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as volume:
        for name, values in {**contents, **(datasets or {})}.items():
            volume.create_dataset(name, data=values)
        volume.attrs.update({**facts, **(attributes or {})})


def simulate_volume(
    path: str | Path,
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
    recon_size: tuple[int, int] | None = None,
    acquisition: str = "CORPD_FBK",
    patient_id: str = "",
    mask: np.ndarray | None = None,
    pixel_size: float = 1.0,
    attributes: Mapping[str, Any] | None = None,
    datasets: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write images as an HDF5 volume as if they had been scanned: `simulate_kspace`, then `write_volume`.

    Args:
        path: of the file.
        images: (slices, rows, cols), real or complex.
        num_coils, snr, phase_strength, seed: see `simulate_kspace`.
        recon_size, acquisition, patient_id, mask, pixel_size, attributes, datasets: see `write_volume`.

    Raises:
        ValueError: if an argument is out of its range.
    """
    kspace = simulate_kspace(images, num_coils=num_coils, snr=snr, phase_strength=phase_strength, seed=seed)
    write_volume(
        path,
        kspace,
        recon_size=recon_size,
        acquisition=acquisition,
        patient_id=patient_id,
        mask=mask,
        pixel_size=pixel_size,
        attributes=attributes,
        datasets=datasets,
    )


def _fft2c(images: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return fft.fftshift(fft.fft2(fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes)


def _reconstruct(kspace: np.ndarray, recon_size: tuple[int, int]) -> np.ndarray:
    """Magnitude images (slices, rows, cols), cropped as fastMRI crops."""
    axes = (-2, -1)
    images = np.abs(fft.fftshift(fft.ifft2(fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes))
    if images.ndim == 4:
        images = np.sqrt((images**2).sum(axis=1))
    top, left = ((size - crop) // 2 for size, crop in zip(images.shape[-2:], recon_size, strict=True))
    return images[:, top : top + recon_size[0], left : left + recon_size[1]].astype(np.float32)


def _header(shape: tuple[int, int], recon_size: tuple[int, int], slices: int, pixel_size: float) -> bytes:
    """An ISMRMRD header: x is the readout (rows), y the phase encoding (cols)."""
    root = etree.Element("ismrmrdHeader", {"xmlns": NAMESPACE})
    conditions = etree.SubElement(root, "experimentalConditions")
    etree.SubElement(conditions, "H1resonanceFrequency_Hz").text = "127729000"  # 3 T
    encoding = etree.SubElement(root, "encoding")
    for name, (rows, cols) in (("encodedSpace", shape), ("reconSpace", recon_size)):
        space = etree.SubElement(encoding, name)
        fields = (rows * pixel_size, cols * pixel_size, 4.5)  # mm, the last a slice's thickness
        for part, sizes in (("matrixSize", (rows, cols, 1)), ("fieldOfView_mm", fields)):
            element = etree.SubElement(space, part)
            for axis, size in zip("xyz", sizes, strict=True):
                etree.SubElement(element, axis).text = str(size)
    limits = etree.SubElement(encoding, "encodingLimits")
    for name, size in (("kspace_encoding_step_1", shape[1]), ("slice", slices)):
        limit = etree.SubElement(limits, name)
        for part, value in (("minimum", 0), ("maximum", size - 1), ("center", size // 2)):
            etree.SubElement(limit, part).text = str(value)
    etree.SubElement(encoding, "trajectory").text = "cartesian"
    return etree.tostring(root, encoding="utf-8", xml_declaration=True)
