"""Convert files of scanners and other tools to fastMRI volumes.

    python -m fastmri_ufloss.convert FORMAT INPUT... --output_path FOLDER

Each input becomes a volume of its name. A call that was interrupted goes on where it was when it is repeated.
The format ``segmentation`` makes no volumes, it adds class numbers to those that are there.
"""

import argparse
import inspect
import os
import re
import sys
import time
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
import h5py

from fastmri_ufloss.convert.jobs import FORMATS, missing_jobs, plan_jobs, run_jobs
from fastmri_ufloss.convert.segmentation import add_segmentation, plan_labels
from fastmri_ufloss.convert.volumes import write_kspace
from fastmri_ufloss.files import remove_leftovers
from fastmri_ufloss.simulation.simulate import simulate_kspace

RUNNER = ("format", "inputs", "output_path", "num_workers", "overwrite", "split")  # arguments for all formats
UNTYPED = ("attributes", "patient_id", "overwrite")  # of converters: one value would be that of all inputs
SHOWN = {"max_memory": 1074}  # MB, the default as a flag has it
EXAMPLES = {
    "ismrmrd": "ismrmrd raw/*.h5 --output_path data --split 16 2 2",
    "twix": "twix scans/*.dat --output_path data/multicoil_train",
    "bart": "bart scans --output_path data/multicoil_train --num_workers 4",
    "numpy": "numpy brains --output_path data/multicoil_val --axes coils,readout,rows,cols",
    "nifti": "nifti volumes --output_path data --slice_axis sagittal --snr 20 --split 16 2 2",
    "dicom": "dicom patients --output_path data/multicoil_train --num_coils 16",
    "segmentation": "segmentation masks --output_path data --key lv_masks",
}
INPUTS = "files, or folders of them; for DICOM of one series each, for labels also folders of a volume's images"
TYPES: dict[str, Callable[[str], Any]] = {  # of flags that are not typed as converters have them: 0 for None, MB
    "num_coils": lambda text: int(text) or None,
    "max_memory": lambda text: int(float(text) * 1e6),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 if all volumes are made, 1 if not, and 130 after an interruption."""
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
    folder, overwrite = args["output_path"], args["overwrite"]
    settings = {name: value for name, value in args.items() if name not in RUNNER}
    lost: dict[Path, str] = {}
    unlabeled = 0
    if args["format"] == "segmentation":
        jobs, lost, unlabeled = plan_labels(args["inputs"], folder, overwrite=overwrite, **settings)
    else:
        jobs = plan_jobs(args["format"], args["inputs"], folder, settings=settings, split=args["split"])
    young = remove_leftovers(job.output for job in jobs)
    missing = missing_jobs(jobs, overwrite=overwrite)
    start = time.monotonic()
    summary = run_jobs(missing, num_workers=args.get("num_workers", 1))
    seconds = time.monotonic() - start
    if done := len(jobs) - len(missing) + len(summary.kept):
        print(f"{done} of {len(jobs)} are done")
    if unlabeled:
        print(f"note: {unlabeled} volumes in {folder} have no labels among the inputs")
    notes = [f"{path} is of a process that runs or was killed; if so, delete it" for path in young]
    failed, count = lost | summary.failed, len(missing) + len(lost) - len(summary.kept)
    errors = [*failed.values()]
    if summary.full is not None:
        left = f"{count - len(summary.converted)} volumes that are missing"
        errors.append(f"no space is left in {summary.full}: make room, then the same command goes on with the {left}")
    if failed:
        errors.append(f"{len(failed)} of {count} failed")
    for text in (*(f"warning: {text}" for text in notes + summary.warnings), *(f"error: {text}" for text in errors)):
        print(text, file=sys.stderr)
    size = sum(job.size for job in missing if job.output in summary.converted) / 1e6
    speed = f", {size / seconds:.1f} MB/s" if summary.converted else ""
    print(f"{len(summary.converted)} volumes of {size:.1f} MB in {seconds:.1f} s{speed}")
    return 1 if errors else 0


def _make_parser() -> argparse.ArgumentParser:
    raw: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    prog = "python -m fastmri_ufloss.convert"
    lines = "".join(f"  {prog} {line}\n" for line in EXAMPLES.values())
    epilog = f"examples:\n{lines}\noptions of a format: FORMAT --help"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=epilog, **raw)
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, example in EXAMPLES.items():
        convert = FORMATS[name].convert if name in FORMATS else add_segmentation
        text = re.split("Args:|Raises:", inspect.getdoc(convert) or "")[0].replace("`", "")
        # what the user does not type, the converter decides
        options = {"help": text.splitlines()[0], "argument_default": argparse.SUPPRESS, **raw}
        command = formats.add_parser(name, description=text, epilog=f"example:\n  {prog} {example}", **options)
        add = command.add_argument
        add("inputs", nargs="+", metavar="INPUT", help=INPUTS)
        add("--output_path", type=Path, required=True, metavar="FOLDER", help="of the volumes")
        add("--overwrite", action="store_true", default=False, help="make anew what was made otherwise")
        if name in FORMATS:
            text = "numbers of volumes, by name, for multicoil_train, _val and _test in FOLDER (or singlecoil_)"
            add("--split", type=int, nargs=3, default=None, metavar=("TRAIN", "VAL", "TEST"), help=text)
            add("--num_workers", type=int, default=1, metavar="N", help="files at once (default: 1)")
        _add_options(command.add_argument_group(f"options of {name}"), convert)
    return parser


def _add_options(group: Any, convert: Callable[..., Any]) -> None:
    """Flags for the options of a converter, with the types, defaults and words that it has for them."""
    hints = typing.get_type_hints(convert)
    words: dict[str, str] = {}
    for source in (write_kspace, convert, simulate_kspace):  # whose arguments of the same name are the same
        for entry in docstring_parser.parse(source.__doc__ or "").params:
            words |= dict.fromkeys(entry.arg_name.split(", "), entry.description or "")
    for name, parameter in inspect.signature(convert).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name in UNTYPED:
            continue
        kind = hints[name]
        if isinstance(kind, types.UnionType):
            kind = typing.get_args(kind)[0]  # an option or None
        text = words[name].replace("`", "").replace("None", "0").replace("bytes", "MB").removesuffix(".")
        if parameter.default is not None:
            text += f" (default: {SHOWN.get(name, parameter.default)})"
        options: dict[str, Any] = {"type": TYPES.get(name, kind)}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction if parameter.default else "store_true"}
        elif typing.get_origin(kind) is typing.Literal:
            options = {"choices": typing.get_args(kind)}
        group.add_argument(f"--{name.rstrip('_')}", dest=name, default=argparse.SUPPRESS, help=text, **options)


if __name__ == "__main__":
    status = main()
    if h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        # a file that HDF5 could not close on a full disk: it would try again at the exit, and crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
