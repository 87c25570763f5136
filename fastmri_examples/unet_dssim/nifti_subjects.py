"""Magnitude volumes in NIfTI files as single-coil fastMRI volumes, split by subject."""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import command_line as cli

from fastmri_ufloss.convert.jobs import (
    Job,
    find_inputs,
    missing_jobs,
    plan_jobs,
    remove_leftovers,
    run_jobs,
    volume_name,
)
from fastmri_ufloss.convert.nifti import convert_nifti
from fastmri_ufloss.pl_modules.scoring import write_json

SPLITS = ("train", "val", "test")
SHARES = (254, 64)  # the abstract's subjects for training and validation
SEPARATOR = "-"  # IXI002-Guys-0828-T1.nii.gz is of IXI002
SUBJECTS_FILE = "subjects.json"
NIFTI_ARGS = ("split", "slice_axis", "subject_separator", "convert_workers")
SIMULATION = {"num_coils": None, "snr": float("inf"), "phase_strength": 0.0}  # k-space of the magnitudes, no more


def add_nifti_args(parser: argparse.ArgumentParser) -> None:
    """Flags of the conversion."""
    group = parser.add_argument_group("NIfTI files")
    group.add_argument(
        "--nifti",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="of magnitude volumes (*.nii, *.nii.gz), to be converted into --data_path",
    )
    group.add_argument(
        "--split",
        type=int,
        nargs=3,
        metavar=SPLITS,
        help="numbers of subjects, in the order of their names; those beyond are left out (default: all, in the "
        f"proportion {SHARES[0]} to {SHARES[1]}, none for the test)",
    )
    cli.add_arguments_of(group, convert_nifti, ("slice_axis",))
    group.add_argument(
        "--subject_separator",
        metavar="TEXT",
        help=f"the subject is what stands before it in a file's name (default: {SEPARATOR})",
    )
    group.add_argument("--convert_workers", type=int, help="files converted at once (default: 1)")


def find_volumes(args: argparse.Namespace, name: str) -> tuple[Path, bool]:
    """The data folder, with NIfTI files converted into it, and whether it is the demo's.

    Args:
        args: of the recipe.
        name: of the recipe, for the folder where --data_path names none.
    """
    if args.nifti is None:
        unused = cli.typed(args, NIFTI_ARGS)
        if unused:
            raise ValueError(f"--{next(iter(unused))} is for NIfTI files, whose folder --nifti names")
        return cli.find_data(args)
    if args.challenge != "singlecoil":
        raise ValueError("--nifti makes single-coil volumes: leave out --challenge multicoil")
    data_path = args.data_path or cli.log_path() / f"{name}_data"
    convert(args, args.nifti, data_path)
    return data_path, False


def convert(args: argparse.Namespace, folder: Path, data_path: Path) -> None:
    """Make the volumes that are missing in ``data_path``, and the file that names their subjects."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: check --nifti")
    subjects = group_by_subject(find_inputs("nifti", [folder]), getattr(args, "subject_separator", SEPARATOR))
    split = getattr(args, "split", None) or share(folder, len(subjects))
    check_split(folder, split, len(subjects))
    if len(subjects) > sum(split):
        cli.say(f"--split: {len(subjects) - sum(split)} of {len(subjects)} subjects of {folder} are left out")
    settings = {**SIMULATION, **cli.typed(args, ("slice_axis",))}
    jobs: list[Job] = []
    names = iter(sorted(subjects))
    for part, count in zip(SPLITS, split, strict=True):
        files = [file for subject in itertools.islice(names, count) for file in subjects[subject]]
        if files:
            jobs += plan_jobs("nifti", files, data_path / f"singlecoil_{part}", settings=settings)
    remove_leftovers(jobs)
    check_strangers(jobs, folder, data_path)
    try:
        missing = missing_jobs(jobs)
    except ValueError as error:
        raise ValueError(f"{error}; here that is --data_path, and deleting overwrites") from error
    table = {volume_name("nifti", file): subject for subject, files in subjects.items() for file in files}
    write_json(data_path / SUBJECTS_FILE, {job.output.name: table[job.output.name] for job in jobs})
    run(missing, getattr(args, "convert_workers", 1), folder, len(jobs))


def group_by_subject(files: Iterable[Path], separator: str) -> dict[str, list[Path]]:
    """Files by subject: what stands before the separator in their names."""
    if not separator:
        raise ValueError("--subject_separator must have at least one character")
    subjects: dict[str, list[Path]] = {}
    for file in files:
        stem = volume_name("nifti", file).removesuffix(".h5")
        subjects.setdefault(stem.partition(separator)[0], []).append(file)
    if len(subjects) < 2:
        count = sum(map(len, subjects.values()))
        raise ValueError(
            f"{count} NIfTI files of 1 subject, {next(iter(subjects))!r}, are too few: training and validation need "
            f"one each, at least. The subject is what stands before the first {separator!r} of a file's name: "
            "--subject_separator names another, such as _"
        )
    return subjects


def share(folder: Path, count: int) -> tuple[int, int, int]:
    """Numbers of subjects for training, validation and test in the abstract's proportion."""
    held_out = max(1, round(count * SHARES[1] / sum(SHARES)))
    cli.say(f"{count} subjects in {folder}: {count - held_out} for training, {held_out} for validation")
    return count - held_out, held_out, 0


def check_split(folder: Path, split: Sequence[int], count: int) -> None:
    """Training and validation have a subject each, and no more are asked for than there are."""
    if min(split[:2]) < 1 or split[2] < 0 or sum(split) > count:
        raise ValueError(
            f"--split must be numbers of subjects for training and validation, from 1, and for the test, from 0, "
            f"and no more than the {count} of {folder} in all, got {' '.join(map(str, split))}"
        )


def check_strangers(jobs: Iterable[Job], folder: Path, data_path: Path) -> None:
    """The data folder has no other volumes, and none of a subject that is now in another split."""
    places = {job.output.name: job.output for job in jobs}
    found = (path for part in SPLITS for path in sorted((data_path / f"singlecoil_{part}").glob("*.h*5")))
    for path in found:
        place = places.get(path.name)
        if place is None:
            raise ValueError(
                f"{path} is none of the volumes that {folder} is to give: choose another --data_path, or call "
                "without --nifti to train on what is there"
            )
        if place != path:
            raise ValueError(
                f"{path} would now go into {place.parent.name}: type --split as before, or choose another --data_path"
            )


def run(jobs: Sequence[Job], num_workers: int, folder: Path, count: int) -> None:
    """Convert; what fails is named."""
    summary = run_jobs(jobs, num_workers=num_workers)
    for reason in (*summary.warnings, *summary.failed.values()):
        print(reason, file=sys.stderr)
    if summary.full is not None:
        raise OSError(f"no space is left in {summary.full}: make room, then the same command goes on")
    if summary.failed:
        raise ValueError(
            f"{len(summary.failed)} of {count} NIfTI files of {folder} were not converted: repair them, or move them "
            "out of it, then the same command goes on"
        )


def subject_of(volume: Path, patient_id: str, subjects: dict[str, str]) -> str:
    """Whose volume it is: by `SUBJECTS_FILE`, by the file itself, or each volume has its own."""
    return subjects.get(volume.name) or patient_id or volume.stem


def read_subjects(data_path: Path) -> dict[str, str]:
    """What `SUBJECTS_FILE` says, if there is one."""
    file = data_path / SUBJECTS_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
