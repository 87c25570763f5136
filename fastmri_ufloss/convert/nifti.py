"""From magnitude volumes in NIfTI to fastMRI volumes, by simulation of coils, phase and noise.

The slices are as a DICOM viewer shows them, and each patient axis always runs the same way:

    ============  ========================  =================  =======================
    `slice_axis`  slices                    rows               columns
    ============  ========================  =================  =======================
    axial         from the feet to the head to the back        to the patient's left
    coronal       from the front to the back to the feet       to the patient's left
    sagittal      from right to left        to the feet        to the back
    ============  ========================  =================  =======================

The orientation is that of the file's affine. Axes are swapped and flipped, never resampled: an oblique volume
gets the closest axes. Voxel values are those of the file after its slope and intercept, as float32.

Attributes of the volume, besides fastMRI's own:

- ``affine``: (4, 4), of (slice, row, column, 1) to the patient's (left, posterior, superior, 1) in mm, to go back:
  ``nibabel.Nifti1Image(images, numpy.diag([-1, -1, 1, 1]) @ affine)`` is the volume in its place;
  ``affine_convention`` says so. ``affine_source``: ``"sform"``, ``"qform"``, or ``"none"`` if the file had neither.
- ``orientation``: where slices, rows and columns run to, such as ``"SPL"``, and ``slice_axis``.
- ``simulated_snr``, ``simulated_phase_strength``, ``simulated_seed``: of the simulation.

Descriptions and names in the header may be personal and are not copied; ``patient_id`` is empty.
"""

import gzip
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastmri_ufloss.convert.volumes import AFFINE_CONVENTION, check_magnitude, write_images
from fastmri_ufloss.data.checks import check

if TYPE_CHECKING:
    import nibabel

__all__ = ["convert_nifti", "read_nifti"]

DIRECTIONS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
MILLIMETERS = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}


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
    """Write a magnitude volume as a fastMRI volume: orientation and attributes are those of the module.

    Args:
        source: a NIfTI file, ``.nii`` or ``.nii.gz``, of real values, at least 0, in two or three dimensions.
        output: the HDF5 file.
        slice_axis: of the slices.
        num_coils, snr, phase_strength, seed: of the simulation, see `simulate_kspace`.
        acquisition: fastMRI's name of the contrast; by default ``"UNKNOWN"``, since the file has none.
        attributes: further attributes of the volume; they replace the converter's of the same name.

    Raises:
        ImportError: without nibabel.
        ValueError: if the file cannot be converted, or an argument is out of its range.
    """
    source = Path(source)
    check(slice_axis in DIRECTIONS, "slice_axis", f"one of {list(DIRECTIONS)}", repr(slice_axis))
    values, affine, affine_source = read_nifti(source)
    from nibabel import orientations

    directions = DIRECTIONS[slice_axis]
    change = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(directions))
    )
    images = orientations.apply_orientation(values, change)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine @ orientations.inv_ornt_aff(change, values.shape)
    if min(images.shape[1:]) < 2 <= sorted(images.shape)[1]:
        raise ValueError(
            f"{source}: slice_axis={slice_axis!r} gives {len(images)} slices of {images.shape[1:]}, at least (2, 2) "
            "is needed; choose another slice_axis"
        )
    row, col, between = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2, 0))
    own = {
        "source_format": "NIfTI",
        "slice_axis": slice_axis,
        "orientation": directions,
        "affine": affine,
        "affine_convention": AFFINE_CONVENTION,
        "affine_source": affine_source,
    }
    write_images(
        source,
        output,
        check_magnitude(source, images),
        num_coils=num_coils,
        snr=snr,
        phase_strength=phase_strength,
        seed=seed,
        acquisition=acquisition,
        voxel_size=(row, col, between),
        attributes={**own, **(attributes or {})},
    )


def read_nifti(source: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """The voxels in three dimensions, the affine to RAS in mm, and where that comes from.

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
        shape = _check_layout(source, image)
        affine, affine_source = _affine(source, image, shape)
        values = np.asarray(image.dataobj).reshape(shape)
        if source.suffix.lower() == ".gz":
            with gzip.open(source) as file:  # to the end: nibabel stops before the sum that tells a damaged file
                while file.read(1 << 20):
                    pass
        return values, affine, affine_source
    except _Refused:
        raise
    except FileNotFoundError as error:
        raise ValueError(f"{source}: there is no such file") from error
    except (ImageFileError, HeaderDataError, OSError, EOFError, OverflowError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{source} is no NIfTI file (.nii, .nii.gz), or it is damaged or truncated ({error}); "
            "copy it again, or save it as NIfTI"
        ) from error


class _Refused(ValueError):
    """A file that can be read and not be converted."""


def _check_layout(source: Path, image: "nibabel.Nifti1Pair") -> tuple[int, int, int]:
    """The shape of the volume in three dimensions, if it is one of real numbers."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "color" if dtype.names else str(dtype)
        raise _Refused(f"{source}: voxels must be real magnitudes, got {kind} ones; save the magnitude as float32")
    shape = image.shape
    if len(shape) < 2 or min(shape) < 1:
        raise _Refused(f"{source}: an image must have two or three dimensions, got the shape {shape}")
    if any(size > 1 for size in shape[3:]):
        raise _Refused(
            f"{source}: one volume is needed, got several, of shape {shape}; "
            "save one of them, image.slicer[..., number] of nibabel, and convert that"
        )
    return shape[0], shape[1], shape[2] if len(shape) > 2 else 1


def _affine(
    source: Path, image: "nibabel.Nifti1Pair", shape: tuple[int, int, int]
) -> tuple[np.ndarray, Literal["sform", "qform", "none"]]:
    """The affine to RAS in mm, and where it comes from."""
    header = image.header
    affine = np.array(image.affine, dtype=float)
    affine[:3] *= MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
    if shape[2] == 1 and not affine[:3, 2].any():  # two-dimensional, without a thickness
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), np.finfo(float).tiny)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not volume > 1e-6 * sizes.prod():
        raise _Refused(f"{source}: the affine must have three independent axes, got {affine.tolist()}; repair it")
    if header["sform_code"] > 0:
        return affine, "sform"
    if header["qform_code"] > 0:
        return affine, "qform"
    warnings.warn(
        f"{source}: no orientation (sform and qform codes are 0), the first axis is taken to run to the left, "
        "the second to the front, the third to the head",
        stacklevel=4,
    )
    return affine, "none"
