"""The geometry of DICOM images: which of them form a stack of slices, in what order, and where it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmri_ufloss.convert.magnitude import AFFINE_CONVENTION

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["TO_NIFTI", "UNIFORM", "VARIANTS", "Image", "check_uniform", "place_images", "read_numbers"]

UNIFORM = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6}  # and their numbers
# what may tell images at the same position from each other
VARIANTS = (
    *("EchoTime", "EchoNumbers", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber"),
    *("DiffusionBValue", "ImageType"),
)
TO_NIFTI = "make a NIfTI volume of it, with dcm2niix for example, and convert that"
SAME_POSITION = 1e-3  # mm
SAME_SPACING = 0.05  # of the smallest distance


class Image(NamedTuple):
    """A file of one image, and its header without the pixels."""

    path: Path
    header: "Dataset"


def read_numbers(image: Image, keyword: str, count: int, *, default: Sequence[float] | None = None) -> np.ndarray:
    """The numbers of an element, (count,).

    Raises:
        ValueError: if it has none or others, and there is no default for a missing one.
    """
    value = image.header.get(keyword)
    if value in (None, "") and default is not None:
        return np.array(default, dtype=float)
    try:
        numbers = np.array(value, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if numbers.size != count or not np.isfinite(numbers).all():  # None is a NaN
        raise ValueError(f"{image.path}: {keyword} must be {count} numbers, got {value}; {TO_NIFTI}")
    return numbers


def check_uniform(source: Path, images: list[Image]) -> None:
    """Refuse images that do not form a stack.

    Raises:
        ValueError: if they differ in their size, spacing or orientation.
    """
    first = images[0]
    for keyword, count in UNIFORM.items():
        expected = read_numbers(first, keyword, count, default=[0.0] * count)
        for image in images[1:]:
            found = read_numbers(image, keyword, count, default=[0.0] * count)
            if not np.allclose(found, expected, rtol=0, atol=1e-4):
                raise ValueError(
                    f"{source}: the images of a volume must have one {keyword}, "
                    f"got {first.header.get(keyword)} in {first.path.name} and {image.header.get(keyword)} in "
                    f"{image.path.name}; put those that belong together in a folder of their own"
                )


def place_images(source: Path, images: list[Image]) -> tuple[list[Image], float, dict[str, Any]]:
    """The images in order, the distance of slices in mm, and the attributes of their place.

    Attributes are those that `fastmri_ufloss.convert.dicom` names; a single image without a place has none.

    Raises:
        ValueError: if slices are not at even distances, and on a line.
    """
    first = images[0]
    thickness = read_numbers(first, "SliceThickness", 1, default=[1.0]).tolist()
    between = abs(float(read_numbers(first, "SpacingBetweenSlices", 1, default=thickness)[0])) or 1.0
    placed = all(first.header.get(name) for name in ("ImageOrientationPatient", "ImagePositionPatient"))
    if len(images) == 1 and not placed:
        return images, between, {}
    orientation, normal = _orientation(first)
    positions = np.stack([read_numbers(image, "ImagePositionPatient", 3) for image in images])
    order = np.argsort(positions @ normal, kind="stable")
    images, positions = [images[index] for index in order], positions[order]
    step = between * normal
    if len(images) > 1:
        between = _check_spacing(source, images, positions @ normal)
        step = (positions[-1] - positions[0]) / (len(images) - 1)
    spacing = read_numbers(first, "PixelSpacing", 2)
    off = np.abs(positions - positions[0] - np.arange(len(images))[:, None] * step).max(axis=1)
    if off.max() > spacing.min() / 2:
        worst = images[int(off.argmax())].path.name
        raise ValueError(f"{source}: slices must lie on a line, {worst} is {off.max():.2f} mm off it; {TO_NIFTI}")
    affine = np.eye(4)
    affine[:3] = np.stack([step, orientation[3:] * spacing[0], orientation[:3] * spacing[1], positions[0]], axis=1)
    attributes = {
        "image_orientation_patient": orientation,
        "image_position_patient": positions,
        "affine": affine,
        "affine_convention": AFFINE_CONVENTION,
    }
    return images, between, attributes


def _orientation(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """The directions of rows and columns, and the normal towards the head, the back or the left."""
    orientation = read_numbers(image, "ImageOrientationPatient", 6)
    products = orientation.reshape(2, 3) @ orientation.reshape(2, 3).T
    if not np.allclose(products, np.eye(2), atol=0.02):
        raise ValueError(
            f"{image.path}: ImageOrientationPatient must be two orthogonal unit vectors, "
            f"got {orientation.tolist()}; {TO_NIFTI}"
        )
    normal = np.cross(orientation[:3], orientation[3:])
    return orientation, normal / (np.linalg.norm(normal) * np.sign(normal[np.argmax(np.abs(normal))]))


def _check_spacing(source: Path, images: list[Image], heights: np.ndarray) -> float:
    """The distance of slices, if it is the same everywhere."""
    gaps = np.diff(heights)
    closest, widest = int(gaps.argmin()), int(gaps.argmax())
    if gaps[closest] < SAME_POSITION:
        names = f"{images[closest].path.name} and {images[closest + 1].path.name}"
        kinds = {name: {str(image.header.get(name)) for image in images} for name in VARIANTS}
        differing = [f"{name} ({len(values)} values)" for name, values in kinds.items() if len(values) > 1]
        raise ValueError(
            f"{source}: one image at each position is needed, got {int((gaps < SAME_POSITION).sum())} more, such as "
            f"{names}; they differ in {', '.join(differing) or 'nothing that is known: are they copies?'}; "
            "put the images of one volume (an echo, a time, the magnitude) in a folder of their own"
        )
    if gaps[widest] > (1 + SAME_SPACING) * gaps[closest]:
        names = f"{images[widest].path.name} and {images[widest + 1].path.name}"
        raise ValueError(
            f"{source}: slices must be at even distances, got {gaps[widest]:.3f} mm between {names} and "
            f"{gaps[closest]:.3f} mm elsewhere; find the missing slices, or leave out those beyond the gap"
        )
    return float(gaps.mean())
