"""A generated data set of knees in fastMRI's layout, to try everything without a download."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.simulation.anatomy import CONTRASTS
from fastmri_ufloss.simulation.anatomy_classes import draw_segmented_knee
from fastmri_ufloss.simulation.simulate import simulate_volume

__all__ = ["make_demo_dataset"]

VERSION = 2  # of the volumes; another one means other volumes from the same parameters
SPLITS = ("train", "val", "test")
FIRST_NUMBERS = (1000001, 1001001, 1002001)  # of the file names of the splits
MAX_SUBJECTS = FIRST_NUMBERS[1] - FIRST_NUMBERS[0]
NOISE = {"CORPD_FBK": 1.0, "CORPDFS_FBK": 1.5}  # relative to what snr asks for
GAINS = (1e-4, 4e-4)  # raw fastMRI intensities are of this order
STALE_SECONDS = 60.0  # a volume is written in much less


def make_demo_dataset(
    root: str | Path,
    *,
    challenge: str = "multicoil",
    num_subjects: tuple[int, int, int] = (8, 2, 2),
    slices_per_subject: int = 6,
    shape: tuple[int, int] = (160, 160),
    num_coils: int = 8,
    snr: float = 30.0,
    seed: int = 0,
) -> Path:
    """Write generated knees as fastMRI volumes into ``{challenge}_train``, ``_val`` and ``_test``.

    Each subject is a volume, every other one with fat suppression. All volumes, those for the test too, are
    fully sampled and have the reconstruction, and a segmentation as `SegmentationSlices` reads it: 1 for bone and 2
    for cartilage. A subject depends on the seed and its number only, not on how
    many there are; the single-coil volumes show the same images as the multi-coil ones. A data set that is
    already there is kept, and one that was interrupted is completed.

    Args:
        root: folder for the data set.
        challenge: ``"singlecoil"`` or ``"multicoil"``.
        num_subjects: of training, validation and test, at most 1000 each.
        slices_per_subject: slices of a volume.
        shape: (rows, cols), at least 32 each.
        num_coils: of the multi-coil volumes.
        snr: see `simulate_kspace`; that of the fat-suppressed volumes is lower by a third.
        seed: of everything.

    Returns:
        The root, as a path.

    Raises:
        ValueError: if an argument is out of its range, if the folder has a data set of other parameters, or
            volumes that are none of this function's.
    """
    root = Path(root)
    _check_arguments(challenge, num_subjects, slices_per_subject, shape, num_coils, snr, seed)
    parameters: dict[str, Any] = {
        "version": VERSION,
        "num_subjects": list(num_subjects),
        "slices_per_subject": slices_per_subject,
        "shape": [int(size) for size in shape],
        "num_coils": num_coils if challenge == "multicoil" else None,
        "snr": snr,
        "seed": seed,
    }
    folders = [root / f"{challenge}_{split}" for split in SPLITS]
    complete, partial = root / f"{challenge}_demo.json", root / f"{challenge}_demo.partial.json"
    _check_parameters(parameters, complete, partial, folders)
    _remove_leftovers(folders)
    missing = _missing_volumes(folders, num_subjects)
    if complete.is_file() and not missing:
        return root
    _write_json(partial, parameters)
    for split, number, path in tqdm(missing, desc=f"Demo data set in {root}", unit="volume"):
        _write_subject(path, split, number, parameters)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    _write_json(complete, parameters)
    partial.unlink(missing_ok=True)
    return root


def _check_arguments(
    challenge: str,
    num_subjects: tuple[int, int, int],
    slices_per_subject: int,
    shape: tuple[int, int],
    num_coils: int,
    snr: float,
    seed: int,
) -> None:
    """All at once, before anything is written."""
    if challenge not in ("singlecoil", "multicoil"):
        raise ValueError(f"challenge must be 'singlecoil' or 'multicoil', got {challenge!r}")
    if len(num_subjects) != len(SPLITS) or not all(0 <= number <= MAX_SUBJECTS for number in num_subjects):
        raise ValueError(f"num_subjects must be three numbers from 0 to {MAX_SUBJECTS}, got {num_subjects}")
    if len(shape) != 2 or min(shape) < 32:
        raise ValueError(f"shape must be (rows, cols), at least 32 each, got {shape}")
    for name, number in (("slices_per_subject", slices_per_subject), ("num_coils", num_coils)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if not snr > 0:
        raise ValueError(f"snr must be above 0, got {snr}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def _write_subject(path: Path, split: int, number: int, parameters: dict[str, Any]) -> None:
    subject_seed, scan_seed = (
        int(word) for word in np.random.SeedSequence([parameters["seed"], split, number]).generate_state(2)
    )
    contrast = list(CONTRASTS)[number % len(CONTRASTS)]
    images, segmentation = draw_segmented_knee(
        tuple(parameters["shape"]),
        num_slices=parameters["slices_per_subject"],
        contrast=contrast,
        seed=subject_seed,
    )
    low, high = GAINS
    gain = np.random.default_rng([subject_seed, 1]).uniform(low, high)
    simulate_volume(
        path,
        images * np.float32(gain),
        num_coils=parameters["num_coils"],
        snr=parameters["snr"] / NOISE[contrast],
        seed=scan_seed,
        acquisition=contrast,
        patient_id=f"demo-{path.stem}",
        datasets={"segmentation": segmentation},
    )


def _check_parameters(parameters: dict[str, Any], complete: Path, partial: Path, folders: list[Path]) -> None:
    """Nothing is kept, or written over, that other parameters or somebody else made."""
    known = False
    for file in (complete, partial):
        if not file.is_file():
            continue
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}): choose another root or delete it") from error
        if found != parameters:
            raise ValueError(
                f"{file.parent} has a demo data set of other parameters: choose another root or delete it; "
                f"expected {parameters}, got {found}"
            )
        known = True
    strangers = [path for folder in folders for path in folder.glob("*.h5")]
    if strangers and not known:
        raise ValueError(f"root must have no volumes but a demo data set's, got {strangers[0]}")


def _missing_volumes(folders: list[Path], num_subjects: tuple[int, int, int]) -> list[tuple[int, int, Path]]:
    """Split, number and path of each volume that is still to be written."""
    volumes = [
        (split, number, folder / f"file{first + number}.h5")
        for split, (folder, first, count) in enumerate(zip(folders, FIRST_NUMBERS, num_subjects, strict=True))
        for number in range(count)
    ]
    return [(split, number, path) for split, number, path in volumes if not path.is_file()]


def _remove_leftovers(folders: list[Path]) -> None:
    """Remove temporary files of a process that was killed: fastMRI would take them for volumes.

    Young ones may be another process's, which is writing the same data set.
    """
    for folder in folders:
        for path in folder.glob(".file*.h5.*.tmp"):
            try:
                stale = time.time() - path.stat().st_mtime > STALE_SECONDS
            except FileNotFoundError:  # it has got its name meanwhile
                continue
            if stale:
                path.unlink(missing_ok=True)


def _write_json(path: Path, parameters: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(parameters, indent=1), encoding="utf-8")
