"""Segmentations for volumes that are there: labels become a data set of the volume of their name."""

import os
import shutil
import stat
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from fastmri.data.transforms import center_crop
from tqdm import tqdm

from fastmri_ufloss.convert.jobs import SPLITS, Job, Summary, _is_disk_full
from fastmri_ufloss.convert.labels import align, check_classes, find_labels, label_name, read_labels
from fastmri_ufloss.convert.magnitude import AFFINE_CONVENTION
from fastmri_ufloss.data.segmentation import NAME, find_reconstruction
from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.workers import interruptible

__all__ = ["LabelPlan", "LabelSummary", "add_segmentation", "plan_labels", "run_labels"]

CHALLENGES = ("multicoil", "singlecoil")
SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class LabelPlan:
    """What belongs together.

    Args:
        jobs: one for each volume that has labels; its size is that of the volume.
        without_volume: labels of no volume, with the reasons.
        without_labels: number of the volumes that have none.
    """

    jobs: list[Job]
    without_volume: dict[Path, str]
    without_labels: int


@dataclass
class LabelSummary(Summary):
    """What came of all labels.

    Args:
        kept: number of volumes that had the same segmentation already.
    """

    kept: int = 0


@dataclass(frozen=True)
class _Target:
    """What is known of a volume that gets a segmentation."""

    name: str  # of its reconstruction
    shape: tuple[int, int, int]
    kspace_shape: tuple[int, int, int]
    affine: np.ndarray | None
    present: np.ndarray | None  # its segmentation
    is_taken: bool


def plan_labels(inputs: Iterable[str | Path], output_path: Path) -> LabelPlan:
    """Which labels belong to which volumes: those of the same name.

    Args:
        inputs: see `find_labels`.
        output_path: folder of the volumes, or of folders ``{multicoil,singlecoil}_{train,val,test}`` of them; where
            several have a volume of a name, each of these gets its labels.

    Raises:
        ValueError: if an input is missing, two are of the same name, or there is no volume at all.
    """
    sources: dict[str, Path] = {}
    for source in find_labels(inputs):
        other = sources.setdefault(label_name(source), source)
        if other != source:
            raise ValueError(f"{other} and {source} would both belong to {label_name(source)}.h5: leave one out")
    volumes = _find_volumes(output_path)
    jobs, without = [], {}
    for name, source in sorted(sources.items()):
        for volume in volumes.get(name, ()):
            jobs.append(Job("segmentation", source, volume, {}, "", volume.stat().st_size, False))
        if name not in volumes:
            without[source] = f"{source}: there is no volume {name}.h5 in {output_path} or its folders of splits"
    unlabelled = sum(len(paths) for name, paths in volumes.items() if name not in sources)
    return LabelPlan(jobs, without, unlabelled)


def run_labels(plan: LabelPlan, *, key: str | None = None, overwrite: bool = False) -> LabelSummary:
    """Add segmentations, with a progress bar. A failure does not stop the others; a full disk does.

    Args:
        plan: see `plan_labels`.
        key, overwrite: see `add_segmentation`.
    """
    summary, start = LabelSummary(failed=dict(plan.without_volume)), time.monotonic()
    total = sum(job.size for job in plan.jobs)
    with interruptible(), tqdm(total=total, unit="B", unit_scale=True, disable=not plan.jobs) as bar:
        for job in plan.jobs:
            bar.set_postfix_str(job.output.name)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    if add_segmentation(job.source, job.output, key=key, overwrite=overwrite):
                        summary.converted.append(job.output)
                        summary.size += job.size
                    else:
                        summary.kept += 1
                except Exception as error:  # readers of foreign files raise whatever they like
                    if _is_disk_full(error):
                        summary.full = job.output.parent
                        break
                    known = isinstance(error, ValueError | OSError | ImportError) and str(error)
                    reason = str(error) if known else f"{type(error).__name__}: {error}"
                    summary.failed[job.output] = reason if str(job.source) in reason else f"{job.source}: {reason}"
            texts = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
            summary.warnings += [text for text in texts if text not in summary.warnings]
            bar.update(job.size)
    summary.seconds = time.monotonic() - start
    return summary


def add_segmentation(source: Path, volume: Path, *, key: str | None = None, overwrite: bool = False) -> bool:
    """Add labels to a volume as its data set ``segmentation``: uint8, (slices, rows, cols), as its reconstruction.

    All else in the volume stays as it is. A copy with the segmentation takes the volume's name when it is complete,
    so that the volume is never half-written; a symbolic link is replaced, and what it leads to is left alone.

    Args:
        source: labels, see `read_labels`: integers from 0 to 255, of the reconstruction's shape or of the k-space's,
            which are cropped as fastMRI crops images, with a warning. NIfTI needs a volume with an affine, as the
            converters of NIfTI and DICOM write it.
        volume: an HDF5 volume with a reconstruction.
        key: name of the array in a ``.npz`` file, see `read_labels`.
        overwrite: replace another segmentation.

    Returns:
        False if the volume had the same segmentation already.

    Raises:
        ValueError: if the labels or the volume cannot be used or do not fit, or the volume has another segmentation.
        ImportError: if a package is missing.
        OSError: if a file cannot be read or written.
    """
    target = _read_target(volume)
    classes = check_classes(source, align(source, read_labels(source, key=key), target.affine))
    classes = _fit(source, volume, classes, target)
    if target.present is not None and np.array_equal(target.present, classes):
        return False
    if target.is_taken and not overwrite:
        raise ValueError(f"{source}: {volume} has another {NAME} already: overwrite it, or leave the labels out")
    mode = stat.S_IMODE(volume.stat().st_mode)
    with atomic_path(volume) as temporary:
        shutil.copyfile(volume, temporary)
        with h5py.File(temporary, "r+") as file:
            if target.is_taken:
                del file[NAME]
            data = file.create_dataset(NAME, data=classes, chunks=(1, *classes.shape[1:]), compression="gzip")
            data.attrs["source"] = source.absolute().name
    os.chmod(volume, mode)  # whoever could not read it still cannot
    return True


def _find_volumes(folder: Path) -> dict[str, list[Path]]:
    """The volumes of each name."""
    if not folder.is_dir():
        raise ValueError(f"output_path must be a folder of volumes, got {folder}")
    volumes: dict[str, list[Path]] = {}
    for place in (folder, *(folder / f"{challenge}_{part}" for challenge in CHALLENGES for part in SPLITS)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_file() and path.suffix in SUFFIXES and not path.name.startswith("."):
                volumes.setdefault(path.stem, []).append(path)
    if not volumes:
        raise ValueError(f"output_path must have volumes (*.h5), in it or in its folders of splits, got {folder}")
    return volumes


def _read_target(path: Path) -> _Target:
    try:
        with h5py.File(path, "r") as volume:
            images = find_reconstruction(volume)
            if images is None:
                raise ValueError(
                    f"{path} has no reconstruction whose pixels could get labels, it is undersampled; take the fully "
                    "sampled volume"
                )
            kspace, present = volume.get("kspace"), volume.get(NAME)
            same_kind = isinstance(present, h5py.Dataset) and present.dtype == np.uint8
            affine = volume.attrs.get("affine")
            return _Target(
                images.name.lstrip("/"),
                images.shape,
                images.shape if kspace is None else (kspace.shape[0], *kspace.shape[-2:]),
                affine if volume.attrs.get("affine_convention") == AFFINE_CONVENTION else None,
                present[()] if same_kind else None,
                present is not None,
            )
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error


def _fit(source: Path, volume: Path, classes: np.ndarray, target: _Target) -> np.ndarray:
    """The classes in the shape of the reconstruction."""
    if classes.shape == target.shape:
        return classes
    if classes.shape == target.kspace_shape:
        size = target.shape[1:]
        warnings.warn(
            f"{source}: labels of the size of k-space, {classes.shape[1:]}, were cropped around their centre to that "
            f"of the reconstruction, {size}, as fastMRI crops images",
            stacklevel=3,
        )
        return np.ascontiguousarray(center_crop(torch.from_numpy(classes), size).numpy())
    turned = sorted(classes.shape) == sorted(target.shape)
    advice = "bring the axes into this order" if turned else "resample them to its reconstruction, slice by slice"
    raise ValueError(
        f"{source}: labels must have the shape (slices, rows, cols) of {target.name} in {volume}, {target.shape}, "
        f"got {classes.shape}; {advice}"
    )
