"""From magnitude volumes in NIfTI to fastMRI volumes; docs/data.md describes their axes and attributes.

Axes are swapped and flipped, never resampled. Texts in the header may be personal and are not copied.
"""

import contextlib
import gzip
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmri_ufloss.convert.volumes import AFFINE_CONVENTION, check_magnitude, naming, scan_images
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.volume_file import write_volume

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
    """Write a magnitude volume as a fastMRI volume, by simulation of coils, phase and noise.

    Args:
        source: a NIfTI file, ``.nii`` or ``.nii.gz``, of real values, at least 0, in two or three dimensions.
        output: the HDF5 file.
        slice_axis: of the slices that are cut.
        num_coils, snr, phase_strength, seed: of the simulation, see `simulate_kspace`.
        acquisition: fastMRI's name of the contrast, such as AXT2; "UNKNOWN" by default, since the file has none.
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
        got = f"{len(images)} slices of {images.shape[1:]}"
        raise ValueError(f"{source}: slices must be at least (2, 2), got {got}; choose another slice_axis")
    row, col, between = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2, 0))
    facts = {
        "source_format": "NIfTI",
        "slice_axis": slice_axis,
        "orientation": directions,
        "affine": affine,
        "affine_convention": AFFINE_CONVENTION,
        "affine_source": affine_source,
    }
    with naming(source):
        slices, shape, simulated = scan_images(check_magnitude(images), num_coils, snr, phase_strength, seed)
        write_volume(
            output,
            slices,
            shape=shape,
            acquisition=acquisition or "UNKNOWN",
            voxel_size=(row, col, between),
            attributes={**simulated, **facts, **(attributes or {})},
        )


def read_nifti(source: Path) -> tuple[np.ndarray, np.ndarray, Literal["sform", "qform", "none"]]:
    """The voxels in three dimensions, the affine to RAS in mm, and where that comes from.

    Raises:
        ImportError: without nibabel.
        ValueError: if the file cannot be read, or is no volume of real numbers with an affine.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ImportError("NIfTI files need nibabel: pip install 'fastmri-ufloss[convert]'") from error
    with _reading(source):
        image = nibabel.load(source)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(f"{type(image).__name__}, not NIfTI")
        header, shape, dtype = image.header, image.shape, image.get_data_dtype()
        affine = np.array(image.affine, dtype=float)
        affine[:3] *= MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "color" if dtype.names else str(dtype)
        raise ValueError(f"{source}: voxels must be real magnitudes, got {kind} ones; save the magnitude as float32")
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"{source}: an image must have two or three dimensions, got the shape {shape}")
    if any(size > 1 for size in shape[3:]):
        got = f"several, of shape {shape}; save one of them, image.slicer[..., number] of nibabel, and convert that"
        raise ValueError(f"{source}: one volume is needed, got {got}")
    shape = (*shape, 1)[:3]
    if shape[2] == 1 and not affine[:3, 2].any():  # two-dimensional, without a thickness
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), np.finfo(float).tiny)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not volume > 1e-6 * sizes.prod():
        raise ValueError(f"{source}: the affine must have three independent axes, got {affine.tolist()}; repair it")
    with _reading(source):
        values = np.asarray(image.dataobj).reshape(shape)
        if source.suffix.lower() == ".gz":
            with gzip.open(source) as file:  # to the end: nibabel stops before the sum that tells a damaged file
                while file.read(1 << 20):
                    pass
    if header["sform_code"] > 0:
        return values, affine, "sform"
    if header["qform_code"] > 0:
        return values, affine, "qform"
    warnings.warn(
        f"{source}: no orientation (sform and qform codes are 0), the first axis is taken to run to the left, "
        "the second to the front, the third to the head",
        stacklevel=3,
    )
    return values, affine, "none"


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Errors of nibabel that name the file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{source}: there is no such file") from error
    except (ImageFileError, HeaderDataError, OSError, EOFError, OverflowError, ValueError, zlib.error) as error:
        text = f"is no NIfTI file (.nii, .nii.gz), or it is damaged or truncated ({error}); copy it again"
        raise ValueError(f"{source} {text}") from error
