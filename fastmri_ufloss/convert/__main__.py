"""Convert files of scanners and other tools to fastMRI volumes.

    python -m fastmri_ufloss.convert FORMAT INPUT... --output_path FOLDER

Each input becomes a volume of its name. A call that was interrupted goes on where it was when it is repeated.
The format ``segmentation`` makes no volumes, it adds class numbers to those that are there.
"""

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from fastmri_ufloss.convert.jobs import FORMATS, missing_jobs, plan_jobs, remove_leftovers, run_jobs
from fastmri_ufloss.convert.segmentation import plan_labels

RUNNER = ("format", "inputs", "output_path", "num_workers", "overwrite", "split")  # arguments for all formats
UNTYPED = ("attributes", "patient_id")  # options of converters without a flag: one value would be that of all inputs
HELP = {
    "ismrmrd": "raw data of scanners in ISMRMRD files, such as siemens_to_ismrmrd makes",
    "bart": "k-space of BART, centered and unitary as that of 'bart fft -u': pairs of .cfl and .hdr",
    "numpy": "k-space or images in .npy and .npz files",
    "nifti": "magnitude images in NIfTI files, with simulated coils, phase and noise",
    "dicom": "magnitude images in DICOM series, with simulated coils, phase and noise",
    "segmentation": "class numbers for volumes that are there: NumPy or NIfTI files, or folders of label images",
}
EXAMPLES = {
    "ismrmrd": "ismrmrd raw/*.h5 --output_path data --split 16 2 2",
    "bart": "bart scans --output_path data/multicoil_train --num_workers 4",
    "numpy": "numpy brains --output_path data/multicoil_val --axes coils,readout,rows,cols",
    "nifti": "nifti volumes --output_path data --slice_axis sagittal --snr 20 --split 16 2 2",
    "dicom": "dicom patients --output_path data/multicoil_train --num_coils 16",
    "segmentation": "segmentation masks --output_path data --key lv_masks",
}
SEGMENTATION = """
Labels belong to the volume of their name, in FOLDER or in its folders {multicoil,singlecoil}_{train,val,test},
whatever made it; a folder of label images (.png, .tif; slices by their names) is named as the volume. They have
the shape (slices, rows, cols) of its reconstruction, or of its k-space, to be cropped alike. NIfTI is brought
into the order of a volume that was made of NIfTI or DICOM files.

The volume gets a data set 'segmentation', uint8, where 0 is the background; all else in it stays as it is. It is
copied for that and has a new time of modification: what the index and the cache of coil maps know of it is made
again when it is used."""
SIMULATED = (
    "k-space that is simulated of images makes optimistic results: coils are exact, noise is white, and the "
    "scanner has filtered and interpolated the magnitude. It is no substitute for raw data."
)
COUNTER: dict[str, Any] = {"type": int, "metavar": "NUMBER", "help": "which one, if a scan has several"}
FLAGS: dict[str, dict[str, Any]] = {  # options of the converters; their defaults are added to the help
    "acquisition": {"metavar": "NAME", "help": "fastMRI's name of the contrast, such as AXT2"},
    "dimensions": {"choices": ("auto", "2d", "3d"), "help": "of the encoding"},
    "contrast": COUNTER,
    "phase": COUNTER,
    "repetition": COUNTER,
    "set_": COUNTER,
    "average_repeats": {
        "action": "store_true",
        "help": "average lines that were acquired twice without being marked as averages",
    },
    "prewhiten": {
        "action": argparse.BooleanOptionalAction,
        "help": "whiten the coils by the scan of noise, if there is one",
    },
    "noise_file": {"type": Path, "metavar": "FILE", "help": "with the scan of noise, if it is another one"},
    "kind": {
        "choices": ("auto", "kspace", "image"),
        "help": "of the arrays; auto takes complex ones for k-space, real ones for images",
    },
    "axes": {
        "metavar": "NAMES",
        "help": "of the arrays, in order, such as rows,cols,coils; of rows, cols, coils, slices, and readout instead "
        "of slices for 3D k-space, to be transformed along it (default: slices,coils,rows,cols, or slices,rows,cols "
        "of images; the last ones of these if there are fewer)",
    },
    "key": {"metavar": "NAME", "help": "of the array in .npz files"},
    "mask": {
        "type": Path,
        "metavar": "FILE",
        "help": ".npy of what was sampled, (cols,) or (rows, cols), if zeros do not show it",
    },
    "noise": {
        "type": Path,
        "metavar": "FILE",
        "help": ".npy of a scan of noise, (coils, ...), to whiten coils",
    },
    "slice_axis": {"choices": ("axial", "coronal", "sagittal"), "help": "of the slices that are cut"},
    "series": {"metavar": "UID", "help": "which one, if a folder has several"},
    "num_coils": {
        "type": lambda text: int(text) or None,
        "metavar": "N",
        "help": "simulated coils; 0 for single-coil data",
    },
    "snr": {"type": float, "help": "of the object in a coil's image"},
    "phase_strength": {"type": float, "metavar": "RADIANS", "help": "of the phase"},
    "seed": {"type": int, "help": "of coils, phase and noise"},
    "max_memory": {
        "type": lambda text: int(float(text) * 1e6),
        "metavar": "MB",
        "help": "for 3D k-space of a file; less takes longer, the volume is the same (default: 1074)",
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        The exit status: 0 if all volumes are made, 1 if not, 130 if it was interrupted.
    """
    args = vars(_make_parser().parse_args(argv))
    try:
        return _convert(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the volumes that are missing", file=sys.stderr)
        return 130


def _convert(args: dict[str, Any]) -> int:
    if args["format"] == "segmentation":
        options = {name: args[name] for name in ("key", "overwrite") if name in args}
        jobs, lost, without_labels = plan_labels(args["inputs"], args["output_path"], **options)
        missing, failure = jobs, "segmentations were not added"
        remove_leftovers(jobs)
    else:
        settings = {name: value for name, value in args.items() if name not in RUNNER}
        jobs = plan_jobs(args["format"], args["inputs"], args["output_path"], settings=settings, split=args["split"])
        lost, without_labels, failure = {}, 0, "inputs were not converted"
        remove_leftovers(jobs)
        missing = missing_jobs(jobs, overwrite=args["overwrite"])
        if len(missing) < len(jobs):
            print(f"{len(jobs) - len(missing)} of {len(jobs)} are done", flush=True)
    if any(job.simulated for job in missing):
        print(f"warning: {SIMULATED}", file=sys.stderr)
    summary = run_jobs(missing, num_workers=args.get("num_workers", 1))
    for path in remove_leftovers(jobs):
        print(f"warning: {path} is of a process that runs or was killed; if so, delete it", file=sys.stderr)
    if summary.kept:
        print(f"{summary.kept} of {len(jobs)} are done", flush=True)
    if without_labels:
        print(f"note: {without_labels} volumes in {args['output_path']} have no labels among the inputs")
    for text in summary.warnings:
        print(f"warning: {text}", file=sys.stderr)
    failed, count = lost | summary.failed, len(missing) + len(lost) - summary.kept
    for reason in failed.values():
        print(f"error: {reason}", file=sys.stderr)
    if summary.full is not None:
        print(
            f"error: no space is left in {summary.full}: make room, then the same command goes on with the "
            f"{count - len(summary.converted)} volumes that are missing",
            file=sys.stderr,
        )
    if failed:
        print(f"error: {len(failed)} of {count} {failure}", file=sys.stderr)
    size, seconds = summary.size / 1e6, summary.seconds
    speed = f", {size / seconds:.1f} MB/s" if summary.converted else ""
    print(f"{len(summary.converted)} volumes of {size:.1f} MB in {seconds:.1f} s{speed}")
    return 1 if failed or summary.full is not None else 0


def _make_parser() -> argparse.ArgumentParser:
    lines = "".join(f"  python -m fastmri_ufloss.convert {line}\n" for line in EXAMPLES.values())
    parser = argparse.ArgumentParser(
        prog="python -m fastmri_ufloss.convert",
        description=__doc__,
        epilog=f"examples:\n{lines}\noptions of a format: FORMAT --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, text in HELP.items():
        command = formats.add_parser(
            name,
            help=text,
            description=text if name != "segmentation" else f"{text}\n{SEGMENTATION}",
            epilog=f"example:\n  python -m fastmri_ufloss.convert {EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # what the user does not type, the converter decides
        )
        add = command.add_argument
        if name == "segmentation":
            add("inputs", nargs="+", metavar="LABELS", help="files, folders of label images, or folders of them")
            add("--output_path", type=Path, required=True, metavar="FOLDER", help="of the volumes")
            default = "(default: the only one, or segmentation, masks or labels)"
            add("--key", metavar="NAME", help=f"of the array in .npz files {default}")
            add("--overwrite", action="store_true", help="replace other segmentations that are there")
            continue
        what = "files, or folders of them" if name != "dicom" else "folders of one series, folders of such, or files"
        add("inputs", nargs="+", metavar="INPUT", help=what)
        add("--output_path", type=Path, required=True, metavar="FOLDER", help="for the volumes")
        add(
            "--split",
            type=int,
            nargs=3,
            default=None,
            metavar=("TRAIN", "VAL", "TEST"),
            help="numbers of volumes, in the order of their names, for the folders multicoil_train, _val and _test "
            "in FOLDER (singlecoil_ without coils)",
        )
        add("--num_workers", type=int, default=1, metavar="N", help="files that are converted at once (default: 1)")
        add("--overwrite", action="store_true", default=False, help="make volumes anew that were made otherwise")
        group = command.add_argument_group(f"options of {FORMATS[name].title}")
        for option, parameter in inspect.signature(FORMATS[name].convert).parameters.items():
            if parameter.kind is not parameter.KEYWORD_ONLY or option in UNTYPED:
                continue
            flag = {"default": argparse.SUPPRESS, **FLAGS[option]}
            if parameter.default is not None and "(default: " not in flag["help"]:
                flag["help"] += f" (default: {parameter.default})"
            group.add_argument(f"--{option.rstrip('_')}", dest=option, **flag)
    return parser


if __name__ == "__main__":
    status = main()
    if h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        # a file that HDF5 could not close on a full disk: it would try again at the exit, and crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
