"""From magnitude images in NIfTI or DICOM to fastMRI volumes; docs/data.md describes their axes and attributes.

Axes of NIfTI are swapped and flipped, never resampled. Nothing personal is copied: no text of a NIfTI header, no
name, date, description, institution or identifier of DICOM. ``patient_id`` is the start of a SHA-256 of the issuer
and the PatientID, a pseudonym: who knows a PatientID, or tries all of them, can recognize it.
"""

import gzip
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastmri_ufloss.checks import check
from fastmri_ufloss.convert.volumes import AFFINE_CONVENTION, check_magnitude, naming_source, scan_images
from fastmri_ufloss.data.volume_files import check_declared
from fastmri_ufloss.simulation.volume_file import write_volume

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["SUFFIXES", "convert_dicom", "convert_nifti", "is_dicom", "read_nifti"]

DIRECTIONS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
MILLIMETERS = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
SUFFIXES = (".dcm", ".ima")  # of DICOM
UNIFORM = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6}  # and their numbers
# what may tell images at the same position from each other
VARIANTS = (
    *("EchoTime", "EchoNumbers", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber"),
    *("DiffusionBValue", "ImageType"),
)
ORIGIN = ("PatientID", "IssuerOfPatientID", "Modality")
HEADER = (
    *("SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "SamplesPerPixel", "PhotometricInterpretation"),
    *("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "SpacingBetweenSlices"),
    *("SliceThickness", *ORIGIN, *UNIFORM, *VARIANTS),
)
NO_MAGNITUDE = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}  # in ImageType
TO_NIFTI = "make a NIfTI volume of it, with dcm2niix for example, and convert that"
SAME_POSITION = 1e-3  # mm
SAME_SPACING = 0.05  # of the smallest distance


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
    except ImportError as error:
        raise ImportError("NIfTI files need nibabel: pip install 'fastmri-ufloss[convert]'") from error
    try:
        image = nibabel.load(source)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(f"{type(image).__name__}, not NIfTI")
        header, shape, dtype = image.header, image.shape, image.get_data_dtype()
        affine = np.array(image.affine, dtype=float)
        affine[:3] *= MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
        check_declared(math.prod(shape) * dtype.itemsize, source.stat().st_size, where="the header")
        values = np.asarray(image.dataobj)
        if source.suffix.lower() == ".gz":
            with gzip.open(source) as file:  # to the end: nibabel stops before the sum that tells a damaged file
                while file.read(1 << 20):
                    pass
    except Exception as error:  # of a damaged file, nibabel raises of many kinds
        reason = " ".join(str(error).split())
        text = f"is no NIfTI file (.nii, .nii.gz), or it is damaged or truncated ({reason}); copy it again"
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


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix or its content; a DICOMDIR lists files and has no image."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper().startswith("DICOMDIR"):
        return False
    return path.suffix.lower() in SUFFIXES or _has_data_set(path)


def _has_data_set(path: Path) -> bool:
    """Whether a file has DICOM's mark behind the preamble, or can be read without one, which needs pydicom."""
    with open(path, "rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    if start[:2] not in (b"\x02\x00", b"\x08\x00"):  # the group that a data set begins with
        return False
    try:
        return "SOPClassUID" in _read(path, header_only=True)
    except ValueError:
        return False


@naming_source
def convert_dicom(
    source: Path,
    output: Path,
    *,
    series: str | None = None,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
    acquisition: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a series of magnitude images as a fastMRI volume, by simulation of coils, phase and noise.

    Args:
        source: a folder with one file for each slice, in any order, beside others that are not DICOM, or a file.
        series: SeriesInstanceUID of the one to take, for a folder with several.
        num_coils, snr, phase_strength, seed: of the simulation, see `simulate_kspace`.

    Raises:
        ImportError: without pydicom.
        ValueError: if the images cannot be converted, or an argument is out of its range.
    """
    images = _find_images(source, series)
    _check_images(images)
    images, between, geometry = _place_images(images)
    patient, issuer, modality = (str(images[0].get(name) or "") for name in ORIGIN)
    if modality != "MR":
        warnings.warn(f"{source}: images of modality {modality or 'unknown'}, not MR", stacklevel=2)
    spacing = _read_numbers(images[0], "PixelSpacing", 2)
    facts = {"source_format": "DICOM", "modality": modality or "unknown", "pixel_spacing": spacing, **geometry}
    patient_id = hashlib.sha256(f"{issuer}|{patient}".encode()).hexdigest()[:12] if patient else ""
    values = check_magnitude(np.stack([_read_pixels(image) for image in images]))
    slices, shape, simulated = scan_images(values, num_coils, snr, phase_strength, seed)
    write_volume(
        output,
        slices,
        shape=shape,
        acquisition=acquisition,
        patient_id=patient_id,
        voxel_size=(*spacing.tolist(), between),
        attributes={**simulated, **facts, **(attributes or {})},
    )


def _read(path: str | Path, *, header_only: bool) -> "Dataset":
    try:
        import pydicom
    except ImportError as error:
        raise ImportError("DICOM files need pydicom: pip install 'fastmri-ufloss[convert]'") from error
    tags = list(HEADER) if header_only else None
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=header_only, specific_tags=tags)
        list(dataset.file_meta)  # elements are parsed when they are looked at
        if header_only:
            list(dataset)
        return dataset
    except Exception as error:  # of a damaged file, pydicom raises of many kinds
        raise ValueError(f"{path} is damaged or truncated ({error}); copy it again") from error


def _find_images(source: Path, series: str | None) -> list["Dataset"]:
    """The headers of the DICOM images of a series in a folder, or of the file."""
    if not source.exists():
        raise ValueError("there is no such file or folder")
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    by_uid: dict[str, list[Dataset]] = {}
    for path in filter(is_dicom, files):
        if not _has_data_set(path):
            raise ValueError(f"{path} is no DICOM file, or it is damaged; copy it again or remove it")
        header = _read(path, header_only=True)
        kind = _kind(header)
        if "Rows" in header and "Columns" in header:
            by_uid.setdefault(str(header.get("SeriesInstanceUID") or ""), []).append(header)
        elif not kind or "Image Storage" in kind:  # else a report, a presentation or the like
            raise ValueError(f"{path} has no size of an image, it is damaged; copy it again or remove it")
    if not by_uid:
        names = ", ".join(path.name for path in files[:5]) or "nothing"
        raise ValueError(f"no DICOM image, only {names}; give the folder of one series")
    if series is None and len(by_uid) == 1:
        return next(iter(by_uid.values()))
    if series in by_uid:
        return by_uid[series]
    listed = "; ".join(
        f"{uid or 'no UID'} ({images[0].get('SeriesDescription') or 'no description'}, {len(images)} images)"
        for uid, images in sorted(by_uid.items())
    )
    wanted = "one series is needed" if series is None else f"no series {series}"
    raise ValueError(f"{wanted}, got {listed}; choose one by series=")


def _kind(header: "Dataset") -> str:
    """The name of the SOP class, empty if there is none."""
    from pydicom.uid import UID

    return UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")).name


def _check_images(images: list["Dataset"]) -> None:
    """Refuse what is no plain gray image of one slice, or of another size, spacing or orientation than the first."""
    for image in images:
        kind, frames = _kind(image), int(_read_numbers(image, "NumberOfFrames", 1, default=[1])[0])
        parts = {str(part) for part in np.atleast_1d(image.get("ImageType") or "")}
        samples, color = image.get("SamplesPerPixel"), image.get("PhotometricInterpretation")
        spacing = _read_numbers(image, "PixelSpacing", 2)
        several = "Enhanced" in kind or frames > 1
        for reason, is_so in {
            f"one image a file is needed, got {frames} frames of {kind!r}; {TO_NIFTI}": several,
            f"one slice an image is needed, got a mosaic of several; {TO_NIFTI}": "MOSAIC" in parts,
            f"magnitude images are needed, got {sorted(parts & NO_MAGNITUDE)} in its ImageType": parts & NO_MAGNITUDE,
            f"gray values, MONOCHROME2, are needed, got {color} of {samples} samples": color != "MONOCHROME2",
            f"one sample a pixel is needed, got {color} of {samples}": samples not in (1, None),
            f"PixelSpacing must be above 0, got {spacing.tolist()}": not spacing.min() > 0,
        }.items():
            if is_so:
                raise ValueError(f"{image.filename}: {reason}")
    for keyword, count in UNIFORM.items():
        values = np.stack([_read_numbers(image, keyword, count, default=[0.0] * count) for image in images])
        for other in np.flatnonzero(np.abs(values - values[0]).max(axis=1) > 1e-4):
            got = " and ".join(f"{image.get(keyword)} in {image.filename}" for image in (images[0], images[other]))
            raise ValueError(f"images must have one {keyword}, got {got}; sort them into folders")


def _read_pixels(image: "Dataset") -> np.ndarray:
    """The values of an image after slope and intercept, float32 (rows, cols)."""
    from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    path = image.filename
    dataset = _read(path, header_only=False)
    if "ModalityLUTSequence" in dataset:
        raise ValueError(f"{path}: values by a ModalityLUTSequence are not supported; {TO_NIFTI}")
    if "TransferSyntaxUID" not in dataset.file_meta:  # a file without the preamble
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    try:
        size = int(dataset.Rows) * int(dataset.Columns) * 4  # bytes of a pixel, or fewer
        check_declared(size, Path(path).stat().st_size, where="the header")
        values = dataset.pixel_array
    except Exception as error:  # by pydicom or one of its decoders
        syntax, reason = UID(str(dataset.file_meta.TransferSyntaxUID)), " ".join(str(error).split())
        text = f"its pixels, of transfer syntax {syntax.name} ({syntax}), cannot be decoded ({reason})"
        advice = "if compressed, pip install 'pylibjpeg[all]' or gdcmconv --raw; else copy it again"
        raise ValueError(f"{path}: {text}; {advice}") from error
    slope = _read_numbers(image, "RescaleSlope", 1, default=[1])
    intercept = _read_numbers(image, "RescaleIntercept", 1, default=[0])
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused later
        return (values * slope + intercept).astype(np.float32)


def _read_numbers(image: "Dataset", keyword: str, count: int, *, default: Sequence[float] = ()) -> np.ndarray:
    """The numbers of an element, (count,), or a default if it is missing."""
    value = image.get(keyword)
    if value in (None, "") and default:
        return np.array(default, dtype=float)
    try:
        numbers = np.array(value, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if numbers.size != count or not np.isfinite(numbers).all():  # None is a NaN
        raise ValueError(f"{image.filename}: {keyword} must be {count} numbers, got {value}; {TO_NIFTI}")
    return numbers


def _place_images(images: list["Dataset"]) -> tuple[list["Dataset"], float, dict[str, Any]]:
    """The images in order, the distance of slices in mm, and the attributes of their place, if they have one."""
    first = images[0]
    thickness = _read_numbers(first, "SliceThickness", 1, default=[1.0]).tolist()
    between = abs(float(_read_numbers(first, "SpacingBetweenSlices", 1, default=thickness)[0])) or 1.0
    if len(images) == 1 and not all(first.get(name) for name in ("ImageOrientationPatient", "ImagePositionPatient")):
        return images, between, {}
    orientation = _read_numbers(first, "ImageOrientationPatient", 6)
    along_row, along_column = axes = orientation.reshape(2, 3)
    is_turned = np.allclose(axes @ axes.T, np.eye(2), atol=0.02)
    got = f"{orientation.tolist()}; {TO_NIFTI}"
    check(is_turned, "ImageOrientationPatient", "two orthogonal unit vectors", got)
    normal = np.cross(along_row, along_column)
    normal /= np.linalg.norm(normal) * np.sign(normal[np.argmax(np.abs(normal))])
    positions = np.stack([_read_numbers(image, "ImagePositionPatient", 3) for image in images])
    order = np.argsort(positions @ normal, kind="stable")
    images, positions = [images[index] for index in order], positions[order]
    step = between * normal
    if len(images) > 1:
        between = _check_spacing(images, positions @ normal)
        step = (positions[-1] - positions[0]) / (len(images) - 1)
    spacing = _read_numbers(first, "PixelSpacing", 2)
    off = np.abs(positions - positions[0] - np.arange(len(images))[:, None] * step).max(axis=1)
    got = f"{off.max():.2f} mm off it for {images[int(off.argmax())].filename}; {TO_NIFTI}"
    check(off.max() <= spacing.min() / 2, "slices", "on a line", got)
    affine = np.eye(4)
    affine[:3] = np.stack([step, along_column * spacing[0], along_row * spacing[1], positions[0]], axis=1)
    patient = {"image_orientation_patient": orientation, "image_position_patient": positions}
    return images, between, {**patient, "affine": affine, "affine_convention": AFFINE_CONVENTION}


def _check_spacing(images: list["Dataset"], heights: np.ndarray) -> float:
    """The distance of slices, if it is the same everywhere."""
    gaps = np.diff(heights)
    closest, widest = int(gaps.argmin()), int(gaps.argmax())
    near, far = (" and ".join(image.filename for image in images[gap : gap + 2]) for gap in (closest, widest))
    if gaps[closest] < SAME_POSITION:
        kinds = {name: {str(image.get(name)) for image in images} for name in VARIANTS}
        differing = [f"{name} ({len(values)} values)" for name, values in kinds.items() if len(values) > 1]
        reason = ", ".join(differing) or "nothing that is known: are they copies?"
        got = f"{int((gaps < SAME_POSITION).sum())} more, such as {near}; they differ in {reason}"
        raise ValueError(f"one image at each position is needed, got {got}; sort them into folders")
    got = f"{gaps[widest]:.3f} mm between {far} and {gaps[closest]:.3f} mm elsewhere"
    is_even = gaps[widest] <= (1 + SAME_SPACING) * gaps[closest]
    check(is_even, "slices", "at even distances", f"{got}; find the missing slices")
    return float(gaps.mean())
