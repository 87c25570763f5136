"""What the recipes of this folder share: flags, paths and data. Put on the path by each script.

A flag that the user does not type is not passed on, so every default stands in a constructor's signature;
the few that belong to the recipes stand here.
"""

import argparse
import inspect
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from fastmri.data.subsample import MaskFunc
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fastmri_ufloss.data import (
    MASK_TYPES,
    MoDLDataTransform,
    SensMapCache,
    SensMapFiles,
    SensMapSource,
    UnetDataTransform,
    UnitSensMaps,
    create_mask_for_mask_type,
)
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.simulation.demo import make_demo_dataset

DIRS_FILE = "fastmri_dirs.yaml"
PLACEHOLDERS = ("/path/to/knee", "/path/to/brain")  # what fastMRI writes into a new DIRS_FILE

Samples = Literal["modl", "varnet", "unet"]

DATA_ARGS = (
    "combine_train_val",
    "test_split",
    "test_path",
    "sample_rate",
    "val_sample_rate",
    "test_sample_rate",
    "volume_sample_rate",
    "val_volume_sample_rate",
    "test_volume_sample_rate",
    "batch_size",
    "num_workers",
)


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose result holds only what the user typed, and defaults that are named in a flag's help."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )


def add_arguments_of(parser: Any, function: Callable[..., Any], names: Iterable[str]) -> None:
    """Flags for some arguments of a class, with their types, defaults and the words of its docstring."""
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    defaults = inspect.signature(function).parameters
    for name in names:
        hint = hints.get(name, type(defaults[name].default))  # fastMRI's U-Net has no type hints
        kind: dict[str, Any] = {"type": _simple_type(hint)}
        if kind["type"] is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif typing.get_origin(hint) is typing.Literal:
            kind["choices"] = typing.get_args(hint)
        text = _doc_of(function, name).replace("%", "%%")
        parser.add_argument(f"--{name}", help=f"{text} (default: {defaults[name].default})", **kind)


def _simple_type(hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        return str
    options = [option for option in typing.get_args(hint) if option is not type(None)] or [hint]
    return next(kind for kind in (bool, int, float, Path, str) if kind in options)


def _doc_of(function: Callable[..., Any], name: str) -> str:
    # a docstring's entry is "name: words", "a, name, b: words" or, in fastMRI's constructors, "name (kind): words"
    entry = rf"^ +(?:[\w, ]+, )?{name}(?:, [\w, ]+)?(?: \([\w, ]+\))?: (.+?)"
    end = r"(?=\n +\**[\w, ]+(?: \([\w, ]+\))?: |\n\n|\s*\Z)"
    for text in (function.__doc__, function.__init__.__doc__):  # type: ignore[misc]
        found = re.search(entry + end, text or "", re.S | re.M)
        if found:
            return re.sub(r" Defaults? .*\Z", "", " ".join(found[1].split()).replace("``", ""))
    return name.replace("_", " ")


def typed(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named arguments that the user typed."""
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def add_data_args(parser: argparse.ArgumentParser) -> None:
    """fastMRI's data flags."""
    group = parser.add_argument_group("data")
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    group.add_argument(
        "--data_path",
        type=Path,
        default=None,
        help=f"folder with {{challenge}}_train, _val and _test; otherwise that of {DIRS_FILE} in the working folder; "
        "otherwise a generated demo data set",
    )
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {DIRS_FILE}")
    group.add_argument(
        "--cache_dir", type=Path, default=None, help="for index, maps and patches (default: beside the run)"
    )
    group.add_argument("--sens_maps_path", type=Path, default=None, help="folder of coil maps, see docs/data.md")
    add_mask_args(group)
    add_arguments_of(group, MoDLDataTransform, ("mask_per_volume",))
    add_arguments_of(group, MriDataModule, DATA_ARGS)


def add_mask_args(group: Any) -> None:
    """fastMRI's mask flags; the defaults are those of the UFLoss paper."""
    group.add_argument("--mask_type", help=f"one of {', '.join(MASK_TYPES)} (default: random)")
    group.add_argument("--center_fractions", nargs="+", type=float, help="(default: 0.08)")
    group.add_argument("--accelerations", nargs="+", type=int_or_float, help="(default: 5)")
    add_arguments_of(group, create_mask_for_mask_type, MASK_OPTIONS)


MASK_OPTIONS = ("center_size", "elliptical")
DEFAULT_MASK = {"mask_type": "random", "center_fractions": [0.08], "accelerations": [5]}


def make_mask_func(args: argparse.Namespace) -> MaskFunc:
    """The mask function that the flags ask for; `DEFAULT_MASK` where they do not."""
    settings = {**DEFAULT_MASK, **typed(args, (*DEFAULT_MASK, *MASK_OPTIONS))}
    if "center_size" in settings:
        if hasattr(args, "center_fractions"):
            raise ValueError("--center_size takes the place of --center_fractions: type one of the two")
        settings["center_fractions"] = []
    return create_mask_for_mask_type(**settings)


def int_or_float(text: str) -> int | float:
    """A number as it is typed: with a point a fraction, without one a count."""
    return float(text) if "." in text else int(text)


def read_dirs() -> Mapping[str, str]:
    """What fastMRI's ``fastmri_dirs.yaml`` of the working folder says, if there is one."""
    file = Path(DIRS_FILE)
    if not file.is_file():
        return {}
    dirs = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if not isinstance(dirs, Mapping):
        raise ValueError(f"{DIRS_FILE} must hold names and paths, such as 'knee_path: /data/knee'")
    return {key: value for key, value in dirs.items() if value not in PLACEHOLDERS}


def log_path() -> Path:
    """``log_path`` of ``fastmri_dirs.yaml``, or ``runs``."""
    return Path(read_dirs().get("log_path", "runs"))


def find_data(args: argparse.Namespace) -> tuple[Path, bool]:
    """The data folder, and whether it is the demo's, which is generated if need be."""
    path = args.data_path or read_dirs().get(f"{args.anatomy}_path")
    if path is not None:
        if not Path(path).is_dir():
            raise FileNotFoundError(f"no data folder {path}: check --data_path or {args.anatomy}_path in {DIRS_FILE}")
        return Path(path), False
    root = log_path() / "demo_data"
    say(f"No --data_path: using the generated demo data set in {root}")
    make_demo_dataset(root, challenge=args.challenge)
    return root, True


def run_folder(args: argparse.Namespace, name: str, *, is_demo: bool) -> Path:
    """The folder of the run; the demo has one of its own, lest own data go on from it."""
    return args.default_root_dir or log_path() / (f"{name}_demo" if is_demo else name)


def make_data_module(
    args: argparse.Namespace, data_path: Path, run_dir: Path, *, samples: Samples, train_seed: int
) -> MriDataModule:
    """The data module of a recipe.

    ``samples`` says what its batches are made for: ``"modl"``, with coil maps from files or the CPU's cache as
    needed, ``"varnet"`` or ``"unet"``.
    """
    if samples != "modl" and args.sens_maps_path is not None:
        raise ValueError("--sens_maps_path is for MoDL: VarNet estimates its maps itself, and the U-Net has none")
    mask_func = make_mask_func(args)
    cache_dir = args.cache_dir or run_dir.parent / "cache"
    source: SensMapSource | None = None
    if samples == "modl" and args.sens_maps_path is not None:
        source = SensMapFiles(args.sens_maps_path)
    elif samples == "modl" and args.challenge == "singlecoil":
        source = UnitSensMaps()
    elif samples == "modl" and not uses_gpu(args):
        source = SensMapCache(cache_dir / "sens_maps")

    def transform(use_seed: bool) -> MoDLDataTransform | UnetDataTransform:
        masks = {"use_seed": use_seed, "seed": train_seed, **typed(args, ("mask_per_volume",))}
        if samples == "unet":
            return UnetDataTransform(args.challenge, mask_func, **masks)
        return MoDLDataTransform(mask_func, sens_maps=source, keep_reference=samples == "modl", **masks)

    transforms = [transform(use_seed) for use_seed in (False, True, True)]
    return MriDataModule(
        data_path,
        args.challenge,
        *transforms,
        cache_dir=cache_dir,
        mask_func=mask_func,
        seed=train_seed,
        **typed(args, DATA_ARGS),
    )


def uses_gpu(args: argparse.Namespace) -> bool:
    """Whether the trainer will run on something else than the CPU."""
    if args.accelerator == "auto":
        return torch.cuda.is_available() or torch.backends.mps.is_available()
    return args.accelerator != "cpu"


def say(text: str) -> None:
    """Print at once, from the first process only."""
    if pl.utilities.rank_zero_only.rank == 0:
        print(text, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a script; errors about input end it with their message, not with a traceback."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*You have overridden `transfer_batch_to_device`.*")
    warnings.filterwarnings("ignore", message=".*Attribute 'loss' is an instance of `nn.Module`.*")
    # the checkpoints of the recipes are written after the step, which Lightning cannot know
    warnings.filterwarnings("ignore", message=".*ModelCheckpoint with manual optimization.*", category=UserWarning)
    torch.set_float32_matmul_precision("high")
    try:
        main()
    except (ValueError, OSError, ImportError, MisconfigurationException) as error:
        if os.environ.get("FASTMRI_UFLOSS_TRACEBACK"):
            raise
        # from a worker of a data loader, the message holds that process's traceback
        message = str(error).strip()
        if "Original Traceback" in message:
            message = message.splitlines()[-1].partition(": ")[2]
        sys.exit(f"error: {message}\n(FASTMRI_UFLOSS_TRACEBACK=1 shows where)")
