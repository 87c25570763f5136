"""Generated raw 3D scans of knees, as those of mridata.org, to try everything without a download."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fastmri_ufloss.convert.mrd_file import import_ismrmrd, write_mrd
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.simulation.anatomy import CONTRASTS
from fastmri_ufloss.simulation.anatomy_3d import DEPTH, draw_knee_volume
from fastmri_ufloss.simulation.simulate_3d import simulate_kspace_3d

__all__ = ["elliptical_mask", "make_demo_scans_3d"]

VERSION = 1  # of the volumes; another one means other volumes from the same parameters
MAX_SUBJECTS = 999
GAINS = (1e-4, 4e-4)  # the brightness of a subject, of the order of raw fastMRI intensities
HEIGHT_MM = 160.0  # of the field of view
STALE_SECONDS = 600.0  # a scan is written in much less


def make_demo_scans_3d(
    root: str | Path,
    *,
    num_subjects: int = 6,
    shape: tuple[int, int, int] = (96, 80, 64),
    num_coils: int = 8,
    snr: float = 30.0,
    contrast: str = "CORPDFS_FBK",
    elliptical: bool = True,
    seed: int = 0,
) -> list[Path]:
    """Write generated knees as raw ISMRMRD files, ``knee3d-001.h5`` and so on.

    Scans are fully sampled, up to the corners of (ky, kz), in an order of their own. A subject depends on the
    seed and its number only, not on how many there are. Scans that are already there are kept, and a data set
    that was interrupted is completed.

    Args:
        root: folder for the files.
        num_subjects: number of files, at most 999.
        shape: (readout, rows, cols), at least (32, 32, 8); see `draw_knee_volume`.
        num_coils: number of coils.
        snr: see `simulate_kspace_3d`.
        contrast: see `draw_knee`; fat is suppressed by default.
        elliptical: leave out the corners of (ky, kz), as the scans of mridata.org do; see `elliptical_mask`.
        seed: of everything.

    Returns:
        The paths of the files, in the order of the subjects.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if an argument is out of its range, if the folder has a data set of other parameters, or
            HDF5 files that are none of this function's.
    """
    check(1 <= num_subjects <= MAX_SUBJECTS, "num_subjects", f"from 1 to {MAX_SUBJECTS}", num_subjects)
    fits = len(shape) == 3 and min(shape[:2]) >= 32 and shape[2] >= 8
    check(fits, "shape", "(readout, rows, cols), at least (32, 32, 8)", shape)
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(snr > 0, "snr", "above 0", snr)
    check(contrast in CONTRASTS, "contrast", f"one of {sorted(CONTRASTS)}", repr(contrast))
    check(seed >= 0, "seed", "at least 0", seed)
    import_ismrmrd()  # it would be missed only after the drawing
    root = Path(root)
    parameters: dict[str, Any] = {
        "version": VERSION,
        "num_subjects": num_subjects,
        "shape": [int(size) for size in shape],
        "num_coils": num_coils,
        "snr": snr,
        "contrast": contrast,
        "elliptical": elliptical,
        "seed": seed,
    }
    complete, partial = root / "knee3d_demo.json", root / "knee3d_demo.partial.json"
    _check_parameters(parameters, complete, partial)
    _remove_leftovers(root)
    paths = [root / f"knee3d-{number + 1:03d}.h5" for number in range(num_subjects)]
    missing = [(number, path) for number, path in enumerate(paths) if not path.is_file()]
    if complete.is_file() and not missing:
        return paths
    _write_json(partial, parameters)
    for number, path in tqdm(missing, desc=f"Demo scans in {root}", unit="scan"):
        _write_subject(path, number, parameters)
    _write_json(complete, parameters)
    partial.unlink(missing_ok=True)
    return paths


def elliptical_mask(shape: tuple[int, int]) -> np.ndarray:
    """The lines of a 3D scan that leaves out the corners.

        (ky / (rows / 2))^2 + (kz / (cols / 2))^2 <= 1,    ky = row - rows // 2,  kz = col - cols // 2

    Args:
        shape: (rows, cols).

    Returns:
        The mask, boolean (rows, cols), about pi / 4 of it true.
    """
    ky, kz = (2 * (np.arange(size) - size // 2) / size for size in shape)
    return ky[:, None] ** 2 + kz**2 <= 1


def _write_subject(path: Path, number: int, parameters: dict[str, Any]) -> None:
    subject_seed, scan_seed = (
        int(word) for word in np.random.SeedSequence([parameters["seed"], 3, number]).generate_state(2)
    )
    readout, rows, cols = parameters["shape"]
    volume = draw_knee_volume((readout, rows, cols), contrast=parameters["contrast"], seed=subject_seed)
    volume *= np.float32(np.random.default_rng([subject_seed, 1]).uniform(*GAINS))
    kspace = simulate_kspace_3d(volume, num_coils=parameters["num_coils"], snr=parameters["snr"], seed=scan_seed)
    pixel = HEIGHT_MM / readout
    write_mrd(
        path,
        kspace,
        mask=elliptical_mask((rows, cols)) if parameters["elliptical"] else None,
        order_seed=scan_seed,
        field_of_view=(HEIGHT_MM, pixel * rows, pixel * DEPTH * min(readout, rows)),
        patient_id=f"demo-{path.stem}",
        protocol=parameters["contrast"],
    )


def _check_parameters(parameters: dict[str, Any], complete: Path, partial: Path) -> None:
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
                f"{file.parent} has demo scans of other parameters: choose another root or delete it; "
                f"expected {parameters}, got {found}"
            )
        known = True
    strangers = sorted(complete.parent.glob("*.h5"))
    if strangers and not known:
        raise ValueError(f"root must have no HDF5 files but demo scans, got {strangers[0]}")


def _remove_leftovers(root: Path) -> None:
    """Remove temporary files of a process that was killed, except young ones: somebody may be writing them."""
    for path in root.glob(".knee3d-*.h5.*.tmp"):
        try:
            stale = time.time() - path.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:  # it has got its name meanwhile
            continue
        if stale:
            path.unlink(missing_ok=True)


def _write_json(path: Path, parameters: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(parameters, indent=1), encoding="utf-8")
