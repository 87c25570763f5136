"""Generated data sets of knees, to try everything without a download: fastMRI volumes, and raw 3D scans."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fastmri_ufloss.checks import check
from fastmri_ufloss.files import remove_leftovers, write_json
from fastmri_ufloss.simulation.anatomy import CONTRASTS, DEPTH, check_volume, draw_knee, draw_knee_volume
from fastmri_ufloss.simulation.mrd_file import import_ismrmrd, write_mrd
from fastmri_ufloss.simulation.simulate import simulate_kspace, simulate_kspace_3d, write_volume

__all__ = ["elliptical_mask", "make_demo_dataset", "make_demo_scans_3d"]

VERSION, VERSION_3D = 3, 1  # another one means other volumes from the same parameters
SPLITS = {"train": 1000001, "val": 1001001, "test": 1002001}  # with the first number of the file names
MAX_SUBJECTS, MAX_SUBJECTS_3D = 1000, 999
NOISE = {"CORPD_FBK": 1.0, "CORPDFS_FBK": 1.5}  # relative to what snr asks for
FADING = 0.05  # of the rows, at either end: maps of ESPIRiT are smooth around the field of view, unlike cut anatomy
GAINS = (1e-4, 4e-4)  # brightness of a subject: raw fastMRI intensities are of this order
HEIGHT_MM = 160.0  # of the field of view of a 3D scan
STALE_SECONDS = 600.0  # a volume is written in much less


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

    Volumes are fully sampled, every other one with fat suppression, fade at the first and the last rows as at the
    ends of a coil, and have a segmentation as `draw_knee` makes.
    A subject depends on the seed and its number only. An interrupted data set is completed. ValueError if the folder
    has a data set of other parameters or of others, or an argument is out of its range.

    Args:
        root: folder for the data set, which is returned.
        num_subjects: of training, validation and test, at most 1000 each.
        shape: (rows, cols), at least 32 each.
        snr: see `simulate_kspace`; that of the fat-suppressed volumes is lower by a third.
    """
    check(challenge in ("singlecoil", "multicoil"), "challenge", "'singlecoil' or 'multicoil'", repr(challenge))
    fits = len(num_subjects) == len(SPLITS) and all(0 <= count <= MAX_SUBJECTS for count in num_subjects)
    check(fits, "num_subjects", f"three numbers from 0 to {MAX_SUBJECTS}", num_subjects)
    check(len(shape) == 2 and min(shape) >= 32, "shape", "(rows, cols), at least 32 each", shape)
    check(slices_per_subject >= 1, "slices_per_subject", "at least 1", slices_per_subject)
    coils = num_coils if challenge == "multicoil" else None
    parameters = {
        "version": VERSION,
        "num_subjects": list(num_subjects),
        "slices_per_subject": slices_per_subject,
        "shape": [int(size) for size in shape],
        "num_coils": coils,
        "snr": snr,
        "seed": seed,
    }
    root = Path(root)
    folders = [root / f"{challenge}_{split}" for split in SPLITS]
    volumes = {
        folder / f"file{first + number}.h5": (split, number)
        for split, (folder, first, count) in enumerate(zip(folders, SPLITS.values(), num_subjects, strict=True))
        for number in range(count)
    }
    rows = np.arange(shape[0])
    from_end = (np.minimum(rows, rows[::-1]) + 0.5) / (FADING * shape[0])
    fading = np.sin(np.pi / 2 * np.minimum(from_end, 1))[:, None].astype(np.float32) ** 2
    missing = _missing_subjects(root, f"{challenge}_demo", parameters, folders, volumes)
    for path, number, subject_seed, scan_seed, gain in missing:
        contrast = list(CONTRASTS)[number % len(CONTRASTS)]
        images, classes = draw_knee(shape, num_slices=slices_per_subject, contrast=contrast, seed=subject_seed)
        kspace = simulate_kspace(images * gain * fading, num_coils=coils, snr=snr / NOISE[contrast], seed=scan_seed)
        segmentation, patient = {"segmentation": classes}, f"demo-{path.stem}"
        write_volume(path, kspace, acquisition=contrast, patient_id=patient, datasets=segmentation)
    return root


def make_demo_scans_3d(
    root: str | Path,
    *,
    num_subjects: int = 6,
    shape: tuple[int, int, int] = (96, 80, 64),
    num_coils: int = 8,
    snr: float = 30.0,
    contrast: str = "CORPDFS_FBK",
    seed: int = 0,
) -> list[Path]:
    """Write generated knees as raw ISMRMRD files, as those of mridata.org: ``knee3d-001.h5`` and so on.

    Errors, and what a subject depends on, are as for `make_demo_dataset`; ImportError if ismrmrd is missing.

    Args:
        root: folder for the files, whose paths are returned.
        num_subjects: at most 999.
        shape: (readout, rows, cols), at least (32, 32, 8); the corners of (ky, kz) are left out.
        snr, contrast: see `simulate_kspace` and `draw_knee`.
    """
    check(1 <= num_subjects <= MAX_SUBJECTS_3D, "num_subjects", f"from 1 to {MAX_SUBJECTS_3D}", num_subjects)
    check_volume(shape, contrast)
    import_ismrmrd()  # would otherwise be missed only after the drawing
    parameters = {
        "version": VERSION_3D,
        "num_subjects": num_subjects,
        "shape": [int(size) for size in shape],
        "num_coils": num_coils,
        "snr": snr,
        "contrast": contrast,
        "elliptical": True,
        "seed": seed,
    }
    root = Path(root)
    scans = {root / f"knee3d-{number + 1:03d}.h5": (3, number) for number in range(num_subjects)}
    readout, rows, cols = shape
    pixel = HEIGHT_MM / readout
    for path, _, subject_seed, scan_seed, gain in _missing_subjects(root, "knee3d_demo", parameters, [root], scans):
        volume = draw_knee_volume(shape, contrast=contrast, seed=subject_seed) * gain
        write_mrd(
            path,
            simulate_kspace_3d(volume, num_coils=num_coils, snr=snr, seed=scan_seed),
            mask=elliptical_mask((rows, cols)),
            order_seed=scan_seed,
            field_of_view=(HEIGHT_MM, pixel * rows, pixel * DEPTH * min(readout, rows)),
            patient_id=f"demo-{path.stem}",
            protocol=contrast,
        )
    return list(scans)


def elliptical_mask(shape: tuple[int, int]) -> np.ndarray:
    """The lines (rows, cols) of a 3D scan that leaves out the corners as the scans of mridata.org do, boolean.

    (ky / (rows / 2))^2 + (kz / (cols / 2))^2 <= 1,    ky = row - rows // 2,  kz = col - cols // 2
    """
    ky, kz = (2 * (np.arange(size) - size // 2) / size for size in shape)
    return ky[:, None] ** 2 + kz**2 <= 1


def _missing_subjects(
    root: Path,
    name: str,
    parameters: Mapping[str, Any],
    folders: Sequence[Path],
    files: Mapping[Path, tuple[int, int]],
) -> Iterator[tuple[Path, int, int, int, np.float32]]:
    """The files (by path, the numbers of split and subject) that are not there; ValueError if others made some.

    A file has the number of the subject, the seeds of the anatomy and the scan, and the gain.
    """
    num_coils, snr, seed = (parameters[key] for key in ("num_coils", "snr", "seed"))
    check(num_coils is None or num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(snr > 0, "snr", "above 0", snr)
    check(seed >= 0, "seed", "at least 0", seed)
    record = root / f"{name}.json"
    strangers = sorted(path for folder in folders for path in folder.glob("*.h5"))
    if record.is_file():
        try:
            before = json.loads(record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{record} is damaged ({error}): choose another root or delete it") from error
        if before != parameters:
            raise ValueError(
                f"{root} has a demo data set of other parameters: choose another root or delete it; "
                f"expected {parameters}, got {before}"
            )
    elif strangers:
        raise ValueError(f"root must have no volumes (*.h5) but a demo data set's, got {strangers[0]}")
    else:
        write_json(record, parameters)
    remove_leftovers(files, stale_seconds=STALE_SECONDS)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    missing = [path for path in files if not path.is_file()]
    for path in tqdm(missing, desc=f"Demo data set in {root}", unit="volume", disable=not missing):
        state = np.random.SeedSequence([seed, *files[path]]).generate_state(2)
        subject_seed, scan_seed = (int(word) for word in state)
        gain = np.float32(np.random.default_rng([subject_seed, 1]).uniform(*GAINS))
        yield path, files[path][1], subject_seed, scan_seed, gain
