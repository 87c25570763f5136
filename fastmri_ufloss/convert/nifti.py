"""From magnitude volumes in NIfTI to fastMRI volumes; docs/data.md describes their axes and attributes.

Axes are swapped and flipped, never resampled. Texts in the header may be personal and are not copied.
"""

import gzip
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmri_ufloss.convert.volumes import AFFINE_CONVENTION, check_magnitude, naming_source, scan_images
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.volume_file import write_volume

__all__ = ["convert_nifti", "read_nifti"]

DIRECTIONS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
MILLIMETERS = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}


@naming_source
def convert_nifti(
    source: Path,
    output: Path,
    *,
    slice_axis: Literal["axial", "coronal", "sagittal"] = "axial",
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
    acquisition: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a magnitude volume as a fastMRI volume, by simulation of coils, phase and noise.

    Args:
        source: a NIfTI file, ``.nii`` or ``.nii.gz``, of real values, at least 0, in two or three dimensions.
        slice_axis: of the slices that are cut.
        num_coils, snr, phase_strength, seed: of the simulation, see `simulate_kspace`.
        acquisition: fastMRI's name of the contrast, such as AXT2; "UNKNOWN" by default, since the file has none.

    Raises:
        ImportError: without nibabel.
        ValueError: if the file cannot be converted, or an argument is out of its range.
    """
    check(slice_axis in DIRECTIONS, "slice_axis", f"one of {list(DIRECTIONS)}", repr(slice_axis))
    values, affine, affine_source = read_nifti(source)
    from nibabel import orientations

    directions = DIRECTIONS[slice_axis]
    wanted = orientations.axcodes2ornt(tuple(directions))
    change = orientations.ornt_transform(orientations.io_orientation(affine), wanted)
    images = orientations.apply_orientation(values, change)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine @ orientations.inv_ornt_aff(change, values.shape)
    fits = min(images.shape[1:]) >= 2 or sorted(images.shape)[1] < 2
    check(fits, "slices", "at least (2, 2)", f"{images.shape[1:]}; choose another slice_axis")
    between, row, col = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    place = {"affine": affine, "affine_convention": AFFINE_CONVENTION, "affine_source": affine_source}
    facts = {"source_format": "NIfTI", "slice_axis": slice_axis, "orientation": directions, **place}
    slices, shape, simulated = scan_images(check_magnitude(images), num_coils, snr, phase_strength, seed)
    attributes, size = {**simulated, **facts, **(attributes or {})}, (row, col, between)
    write_volume(output, slices, shape=shape, acquisition=acquisition, voxel_size=size, attributes=attributes)


def read_nifti(source: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """The voxels in three dimensions, the affine to RAS in mm, and where that comes from: sform, qform or none.

    Raises:
        ImportError: without nibabel.
        ValueError: if the file cannot be read, or is no volume of real numbers with an affine.
    """
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError as error:
        raise ImportError("NIfTI files need nibabel: pip install 'fastmri-ufloss[convert]'") from error
    try:
        image = nibabel.load(source)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(f"{type(image).__name__}, not NIfTI")
        header, shape, dtype = image.header, image.shape, image.get_data_dtype()
        affine = np.array(image.affine, dtype=float)
        affine[:3] *= MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
        values = np.asarray(image.dataobj)
        if source.suffix.lower() == ".gz":
            with gzip.open(source) as file:  # to the end: nibabel stops before the sum that tells a damaged file
                while file.read(1 << 20):
                    pass
    except (ImageFileError, HeaderDataError, OSError, EOFError, OverflowError, ValueError, zlib.error) as error:
        text = f"is no NIfTI file (.nii, .nii.gz), or it is damaged or truncated ({error}); copy it again"
        raise ValueError(f"{source} {text}") from error
    advice = "save the magnitude as float32"
    check(dtype.kind in "iuf", "voxels", "real magnitudes", f"{'color' if dtype.names else dtype} ones; {advice}")
    check(len(shape) >= 2 and min(shape) >= 1, "an image", "of two or three dimensions", f"the shape {shape}")
    advice = "save one of them, image.slicer[..., number] of nibabel, and convert that"
    check(np.prod(shape[3:]) == 1, "an image", "one volume", f"several, of shape {shape}; {advice}")
    shape = (*shape, 1)[:3]
    if shape[2] == 1 and not affine[:3, 2].any():  # two-dimensional, without a thickness
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), np.finfo(float).tiny)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    check(volume > 1e-6 * sizes.prod(), "the affine", "of three independent axes", f"{affine.tolist()}; repair it")
    for kind in ("sform", "qform"):
        if header[f"{kind}_code"] > 0:
            return values.reshape(shape), affine, kind
    axes = "the first axis is taken to run to the left, the second to the front, the third to the head"
    warnings.warn(f"{source}: no orientation (sform and qform codes are 0), {axes}", stacklevel=3)
    return values.reshape(shape), affine, "none"
