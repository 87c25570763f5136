"""From magnitude images of any format to a fastMRI volume, by simulation of coils, phase and noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastmri_ufloss.simulation.simulate import simulate_volume

__all__ = ["AFFINE_CONVENTION", "write_magnitude"]

AFFINE_CONVENTION = "(slice, row, column, 1) to (left, posterior, superior, 1) of the patient, in mm"


def write_magnitude(
    source: Path,
    output: Path,
    images: np.ndarray,
    *,
    voxel_size: tuple[float, float, float],
    attributes: Mapping[str, Any],
    num_coils: int | None,
    snr: float,
    phase_strength: float,
    seed: int,
    acquisition: str | None,
    patient_id: str = "",
) -> None:
    """Check magnitude images and write them with `simulate_volume`.

    Args:
        source: where they come from, for the messages.
        output: the HDF5 file.
        images: (slices, rows, cols), real.
        voxel_size: of rows, columns and slices, in mm.
        attributes: of the volume; those of the simulation are added.
        num_coils, snr, phase_strength, seed: see `simulate_kspace`.
        acquisition: fastMRI's name of the contrast; None for ``"UNKNOWN"``.
        patient_id: of the subject.

    Raises:
        ValueError: if the images are not finite, have values below 0 or nothing else than 0, or are too small.
    """
    images = _check_magnitude(source, images)
    simulation = {
        "simulated_snr": float(snr),
        "simulated_phase_strength": float(phase_strength),
        "simulated_seed": seed,
    }
    simulate_volume(
        output,
        images,
        num_coils=num_coils,
        snr=snr,
        phase_strength=phase_strength,
        seed=seed,
        acquisition="UNKNOWN" if acquisition is None else acquisition,
        patient_id=patient_id,
        voxel_size=voxel_size,
        attributes={**simulation, **attributes},
    )


def _check_magnitude(source: Path, images: np.ndarray) -> np.ndarray:
    """The images in float32, if they can be magnitudes."""
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused below
        images = np.ascontiguousarray(images, dtype=np.float32)
    if min(images.shape[1:]) < 2:
        raise ValueError(f"{source}: slices must have at least 2 rows and 2 columns, got {images.shape[1:]}")
    if num_bad := int((~np.isfinite(images)).sum()):
        raise ValueError(
            f"{source}: {num_bad} of {images.size} voxels are NaN or infinite in float32; "
            "set them to what they stand for, such as 0 for the background, and save the images anew"
        )
    if (lowest := float(images.min())) < 0:
        raise ValueError(
            f"{source}: magnitudes must be at least 0, got a minimum of {lowest:g} (CT numbers, phase, real or "
            "imaginary part, z-scores, or an interpolation?); clip or shift the values and save the images anew"
        )
    if not images.any():
        raise ValueError(f"{source}: all of its {images.size} voxels are 0; leave it out")
    return images
