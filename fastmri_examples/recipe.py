"""What the recipes share: flags and config files, data, losses, trainer, and the end of a run.

The defaults of most flags stand in a constructor's signature, those of the recipes stand here. A value is a flag's
default, a recipe's setting for its demo, one of ``--config``, or typed: the later wins.
"""

import inspect
import os
import re
import shutil
import sys
import threading
import typing
import warnings
from argparse import BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import docstring_parser
import fastmri.pl_modules
import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from fastmri.data.subsample import MaskFunc
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from fastmri_ufloss.baselines import CLASSICAL_METHODS, search_weights, volume_slices
from fastmri_ufloss.convert.jobs import SPLITS, Job, missing_jobs, run_jobs
from fastmri_ufloss.data import MASK_TYPES, MoDLDataTransform, UnetDataTransform, create_mask_for_mask_type
from fastmri_ufloss.data.masks import POINT_MASKS
from fastmri_ufloss.data.segmentation import find_reconstruction
from fastmri_ufloss.data.sens_maps import SensMapCache, SensMapFiles, SensMapSource, UnitSensMaps
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import atomic_path, lock_folder, remove_leftovers, write_json
from fastmri_ufloss.losses import LOSS_NAMES, MSSSIMLoss, UFLoss, WeightedLoss, make_loss, parse_weights
from fastmri_ufloss.losses.weighted import GRAMMAR
from fastmri_ufloss.metrics import METRIC_NAMES, make_metrics, mean_scores, score_run
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures, load_vgg_features, pretrained_feature_net
from fastmri_ufloss.pl_modules import FeatureModule, MriDataModule, MriModule, PatchDataModule, UnetModule
from fastmri_ufloss.pl_modules.base_module import (
    AtomicCheckpointIO,
    BaseModule,
    LastCheckpoint,
    SeededSteps,
    read_checkpoint,
)
from fastmri_ufloss.report import format_table, save_picture
from fastmri_ufloss.simulation.demo import make_demo_dataset

DIRS_FILE = "fastmri_dirs.yaml"
PLACEHOLDERS = ("/path/to/knee", "/path/to/brain")  # what fastMRI writes into a new DIRS_FILE
CONFIG = "config.yaml"  # in the folder of a run
AGAIN = "type the same flags again, or start anew with --resume never or another --default_root_dir"

# ---------------------------------------------------------------------------------------------------- command line


class Parser(ArgumentParser):
    """A parser whose errors are one line, behind its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(" ".join(message.split()), ex)


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Types and defaults after the words of each flag; the description as it is written."""


def make_parser(description: str | None) -> ArgumentParser:
    """A parser with ``--config FILE`` and ``--print_config``."""
    parser = Parser(description=description, formatter_class=HelpFormatter, allow_abbrev=True)
    text = f"YAML file of flags, such as the {CONFIG} of a run"
    parser.add_argument("--config", action="config", metavar="FILE", help=text)
    return parser


def add_arguments(
    group: Any, function: Callable[..., Any], names: Iterable[str], *, more_words: Sequence[type] = ()
) -> None:
    """Flags for some arguments of a class or a function, with types, defaults and the words of its docstring.

    A bool becomes ``--name`` and ``--no-name``; an argument without a type gets that of its default. Where a
    docstring says no more than "see ...", the words are those of its base classes and of ``more_words``.
    """
    classes = inspect.getmro(function) if inspect.isclass(function) else ()
    words: dict[str, str] = {}
    for source in (function, *(source for cls in (*classes, *more_words) for source in (cls, cls.__init__))):
        for entry in docstring_parser.parse(source.__doc__ or "").params:
            for name in entry.arg_name.split(", "):
                if words.get(name, "see").startswith("see"):
                    words[name] = entry.description or ""
    # a class may hand arguments on to the classes above
    constructors = [cls.__init__ for cls in reversed(classes)] or [function]
    hints = {name: hint for source in constructors for name, hint in typing.get_type_hints(source).items()}
    for name in names:
        default = default_of(function, name)
        kind = hints.get(name, type(default))
        options = {"action": BooleanOptionalAction} if kind is bool else {"type": kind}
        text = words.get(name, "").replace("%", "%%").replace("``", "").removesuffix(".")
        group.add_argument(f"--{name}", default=default, help=text, **options)


def arguments_of(*functions: Callable[..., Any], skip: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the arguments of classes that flags can set."""
    names = [name for function in functions for name in inspect.signature(function).parameters]
    return tuple(name for name in dict.fromkeys(names) if name not in ("kwargs", *skip))


def default_of(function: Callable[..., Any], name: str) -> Any:
    """The default of an argument of a function, or of a class, which may hand the argument on to a class above."""
    sources = inspect.getmro(function) if inspect.isclass(function) else (function,)
    signatures = (inspect.signature(source).parameters for source in sources)
    return next(signature[name].default for signature in signatures if name in signature)


def parse(
    parser: ArgumentParser, demo: Mapping[str, Any], *rules: Callable[[Namespace], Mapping[str, Any]]
) -> Namespace:
    """What was typed and what ``--config`` holds, over the parser's defaults.

    Where there are no data, ``demo`` replaces some defaults, then each of ``rules`` what follows from the flags.
    """
    quiet = [text for text in sys.argv[1:] if not text.startswith("--print_config")]
    try:
        args = parser.parse_args(quiet)
    except RecursionError as error:
        raise ValueError("--config must hold plain settings, got some that contain themselves") from error
    if uses_demo(args):
        parser.set_defaults(**demo)
        args = parser.parse_args(quiet)
    for rule in rules:
        parser.set_defaults(**rule(args))
        args = parser.parse_args(quiet)
    if args.get("center_size") is not None:  # which takes the place of the fraction that is the default
        parser.set_defaults(center_fractions=None)
    args = parser.parse_args()  # ends here with --print_config
    check_ranges(args)
    if args.get("mode") == "train" and args.checkpoint is not None:
        begins = "--init_checkpoint begins a training, " if "init_checkpoint" in args else ""
        raise ValueError(f"--checkpoint is for --mode test; {begins}--resume goes on with a training")
    if demo and uses_demo(args):
        say(f"Settings: {', '.join(f'{name} {args[name]}' for name in demo)}")
    return args


LARGE, INF = 2**31, sys.float_info.max
# the least and the largest number of a flag; of other flags integers are at least 1, and numbers are positive
RANGES = {
    **dict.fromkeys(("in_chans", "out_chans"), (1, 1)),  # of fastMRI's U-Net, whose images are magnitudes
    **dict.fromkeys(("max_steps", "max_epochs"), (-1, LARGE)),
    **dict.fromkeys(("seed", "seeds"), (0, 2**32 - 1)),
    **dict.fromkeys(("num_workers", "convert_workers"), (0, 1024)),
    **dict.fromkeys(("warmup_steps", "num_log_images", "num_res_units", "replay_size", "slice", "split"), (0, LARGE)),
    **dict.fromkeys(("gradient_clip_val", "limit_train_batches", "limit_val_batches"), (0, INF)),
    **dict.fromkeys(("weight_decay", "error_gain", "dssim_weight"), (0, INF)),
    **dict.fromkeys(("beta1", "dropout", "drop_prob", "label_smoothing", "lr_gamma", "replay_probability"), (0, 1)),
    **{f"{split}{of}sample_rate": (0, 1) for split in ("", "val_", "test_") for of in ("", "volume_")},
}


def check_ranges(args: Namespace) -> None:
    """Raise ValueError if a number is out of the range of its flag, or no mask is to be had from the flags."""
    for name, value in vars(args).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                low, high = RANGES.get(name, (1, LARGE) if isinstance(number, int) else (sys.float_info.min, INF))
                if not low <= number <= high:
                    least = "above 0" if low == sys.float_info.min else f"at least {low:g}"
                    bound = f"at most {high:g}" if number > high else least
                    raise ValueError(f"--{name} must be {bound}, got {number}")
    if not re.fullmatch(r"auto|-1|\d+(,\d+)*", str(args.get("devices", "auto"))):
        raise ValueError(f"--devices must be 'auto', a number, or numbers such as 0,1, got {args.devices!r}")
    cores = max(2, os.cpu_count() or 1)
    if isinstance(args.get("devices"), int) and not uses_gpu(args) and args.devices > cores:
        raise ValueError(f"--devices must be at most {cores}, the cores of this machine, got {args.devices}")
    if args.get("mask_type") is not None:
        make_mask_func(args)


def changed(parser: ArgumentParser, args: Namespace, names: Iterable[str]) -> list[str]:
    """The flags whose values are not their defaults."""
    return [name for name in names if args[name] != parser.get_default(name)]


def pick(args: Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: args[name] for name in names}


def say(text: str) -> None:
    """Print at once, from the first process only."""
    if pl.utilities.rank_zero_only.rank == 0:
        print(text, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a script, which an error about input ends with a message, not with a traceback."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings(
        "ignore", message=".*You have overridden `(transfer_batch_to_device|on_before_batch_transfer)`.*"
    )
    warnings.filterwarnings("ignore", message=".*Attribute 'loss' is an instance of `nn.Module`.*")
    torch.set_float32_matmul_precision("high")
    # the writer of TensorBoard's files is a thread, whose errors are raised again here
    threading.excepthook = lambda args: None if args.exc_type is OSError else threading.__excepthook__(args)
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


# ------------------------------------------------------------------------------------------------------------ data

Samples = Literal["modl", "varnet", "unet"]

DATA_ARGS = (
    *("combine_train_val", "val_split", "test_split", "test_path"),
    *("sample_rate", "val_sample_rate", "test_sample_rate", "volume_sample_rate", "val_volume_sample_rate"),
    *("test_volume_sample_rate", "batch_size", "num_workers"),
)
MASK_OPTIONS = ("center_size", "elliptical")
ROWS = ("crop_rows", "train_rows")
MAPS = ("sens_maps_path", "num_maps", "num_virtual_coils")
# of MoDL and RecNet; a clip far below the usual norm gives the gradient of every slice the same length
TRAINING = {"train_rows": 64, "gradient_clip_val": 1e-3}
MODL_SAMPLE_ARGS = (*ROWS, "num_virtual_coils")
CLASSICAL = [name for name, method in CLASSICAL_METHODS.items() if method.bounds is not None and name != "cg_sense"]
MASK = {"mask_type": "random", "center_fractions": [0.08], "accelerations": [5]}  # of the UFLoss paper


def make_training_parser(description: str | None, *, run_name: str, max_epochs: int) -> ArgumentParser:
    """A parser with fastMRI's data flags and the trainer's."""
    parser = make_parser(description)
    group = parser.add_argument_group("data")
    add_folder_args(group, "{challenge}_train, _val and _test")
    group.add_argument("--cache_dir", type=Path | None, help="for index, maps and patches (default: beside the run)")
    add_map_args(group)
    add_mask_args(group)
    add_arguments(group, MoDLDataTransform, ("mask_per_volume",))
    add_coil_args(group)
    add_arguments(group, MriDataModule, DATA_ARGS)
    parser.set_defaults(**MASK)
    add_trainer_args(parser, run_name=run_name, max_epochs=max_epochs)
    return parser


def add_coil_args(group: Any, words: str = "") -> None:
    text = "coil compression, for MoDL and RecNet: from 15 to 8 maps and CG were 2 times as fast, from 16 to 8 the "
    text += f"NRMSE of CG-SENSE to that of all coils was 0.004 to 0.016 on scans, see docs/data.md{words}"
    group.add_argument("--num_virtual_coils", type=int | None, help=text)


def add_sense_args(parser: ArgumentParser) -> None:
    """Flags of networks with coil maps, for `train_and_test`."""
    add_arguments(parser.add_argument_group("rows of the image, for masks of columns"), MoDLDataTransform, ROWS)
    parser.set_defaults(crop_rows=True)
    text = "methods to test beside the network, with weights searched on some slices of the training split: seconds "
    text += "to minutes for each slice (default: none)"
    parser.add_argument("--classical", nargs="+", choices=CLASSICAL, default=[], help=text)


def without_bands(args: Namespace) -> dict[str, Any]:
    """Bands of rows are for masks of columns."""
    return {"train_rows": None} if args.mask_type in POINT_MASKS else {}


def check_schedule(parser: ArgumentParser, args: Namespace) -> None:
    """Raise ValueError if a flag was typed that the schedule of the learning rate has no use for."""
    is_step = args.lr_step_size is not None
    for name in changed(parser, args, ["warmup_steps"] if is_step else ["lr_gamma"]):
        raise ValueError(f"--{name} is for a learning rate {'without' if is_step else 'with'} --lr_step_size")


def add_folder_args(group: Any, content: str) -> None:
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    text = f"folder with {content}; otherwise that of {DIRS_FILE} in the working folder; otherwise a generated demo"
    group.add_argument("--data_path", type=Path | None, help=text)
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {DIRS_FILE}")


def add_map_args(group: Any) -> None:
    group.add_argument("--sens_maps_path", type=Path | None, help="folder of coil maps, see docs/data.md")
    text = "sets of coil maps, computed on the CPU and kept: 2 where the object is larger than the field of view"
    group.add_argument("--num_maps", type=int, default=1, help=text)


def make_map_source(args: Namespace, cache_dir: Path, *, on_device: bool) -> SensMapSource | None:
    """Where coil maps come from; None: the device computes them."""
    if args.sens_maps_path is not None:
        if args.num_maps != 1:
            raise ValueError("--num_maps is for maps that are computed, not for those of --sens_maps_path")
        return SensMapFiles(args.sens_maps_path)
    if args.challenge == "singlecoil" and args.num_maps != 1:
        raise ValueError("--num_maps is for several coils, got --challenge singlecoil")
    if on_device and args.num_maps == 1:
        return None
    return SensMapCache(cache_dir / "sens_maps", num_maps=args.num_maps)


def add_mask_args(group: Any) -> None:
    group.add_argument("--mask_type", help=f"one of {', '.join(MASK_TYPES)}")
    group.add_argument("--center_fractions", nargs="+", type=float)
    group.add_argument("--accelerations", nargs="+", type=int | float)
    add_arguments(group, create_mask_for_mask_type, MASK_OPTIONS)


def make_mask_func(args: Namespace) -> MaskFunc:
    if args.center_size is not None and args.center_fractions is not None:
        raise ValueError("--center_size takes the place of --center_fractions: type one of the two")
    fractions = args.center_fractions or []
    return create_mask_for_mask_type(args.mask_type, fractions, args.accelerations, **pick(args, MASK_OPTIONS))


def read_dirs() -> Mapping[str, str]:
    """What fastMRI's ``fastmri_dirs.yaml`` of the working folder says, if there is one."""
    file = Path(DIRS_FILE)
    dirs = {name: path for name, path in read_yaml(file).items() if path is not None} if file.exists() else {}
    for name, path in dirs.items():
        if not isinstance(path, str):
            text = "must hold names and paths, such as 'knee_path: /data/knee'"
            raise ValueError(f"{DIRS_FILE} {text}, got {name}: {path}")
    return {name: path for name, path in dirs.items() if path not in PLACEHOLDERS}


def log_path() -> Path:
    """``log_path`` of ``fastmri_dirs.yaml``, or ``runs``."""
    return Path(read_dirs().get("log_path", "runs"))


def uses_demo(args: Namespace) -> bool:
    has_source = any(args.get(name) is not None for name in ("data_path", "raw_path", "nifti"))
    return not has_source and f"{args.anatomy}_path" not in read_dirs()


def find_data(args: Namespace) -> Path:
    """The data folder; the demo's is generated if need be."""
    if uses_demo(args):
        root = log_path() / "demo_data"
        say(f"No --data_path: using the generated demo data set in {root}")
        make_demo_dataset(root, challenge=args.challenge)
        return root
    path = Path(args.data_path or read_dirs()[f"{args.anatomy}_path"])
    if not path.is_dir():
        raise FileNotFoundError(f"no data folder {path}: check --data_path or {args.anatomy}_path in {DIRS_FILE}")
    return path


def run_folder(args: Namespace, name: str) -> Path:
    """The folder of the run; the demo has one of its own, lest own data go on from it."""
    return args.default_root_dir or log_path() / (f"{name}_demo" if uses_demo(args) else name)


def make_data_module(args: Namespace, data_path: Path, run_dir: Path, *, samples: Samples) -> MriDataModule:
    """The data module whose batches are made for a kind of network; those of MoDL have coil maps."""
    if samples != "modl" and (args.sens_maps_path is not None or args.num_maps != 1):
        name = "num_maps" if args.sens_maps_path is None else "sens_maps_path"
        raise ValueError(f"--{name} is for MoDL: VarNet estimates its maps itself, and the U-Net has none")
    if args.get("num_virtual_coils") is not None:
        if samples != "modl":
            raise ValueError("--num_virtual_coils is for MoDL and RecNet: VarNet and the U-Net take all coils")
        if args.challenge == "singlecoil":
            raise ValueError("--num_virtual_coils is for --challenge multicoil: there is one coil to compress")
    known = {name for name in ("seed", "mask_per_volume", *DATA_ARGS) if name in args}
    mask_func = make_mask_func(args)
    cache_dir = args.cache_dir or run_dir.parent / "cache"
    source: SensMapSource | None = None
    if samples == "modl":
        source = make_map_source(args, cache_dir, on_device=uses_gpu(args))
        if args.challenge == "singlecoil" and args.sens_maps_path is None:
            source = UnitSensMaps()
    coil_matrix_cache = cache_dir / "coil_matrices" if samples == "modl" and source is None else None

    def transform(use_seed: bool) -> MoDLDataTransform | UnetDataTransform:
        masks = {"use_seed": use_seed, **pick(args, known & {"seed", "mask_per_volume"})}
        if samples == "unet":
            return UnetDataTransform(args.challenge, mask_func, **masks)
        maps = {"sens_maps": source, "coil_matrix_cache": coil_matrix_cache, "keep_reference": samples == "modl"}
        more = pick(args, (name for name in MODL_SAMPLE_ARGS if name in args))
        return MoDLDataTransform(mask_func, **maps, **masks, **more)

    return MriDataModule(
        data_path,
        args.challenge,
        *(transform(use_seed) for use_seed in (False, True, True)),
        cache_dir=cache_dir,
        mask_func=mask_func,
        **pick(args, known - {"mask_per_volume"}),
    )


def convert(jobs: Sequence[Job], folder: Path, *, flag: str, num_workers: int) -> None:
    """Make the volumes that are missing in the data folder, which may hold no others; ``flag`` names the sources."""
    outputs = {job.output for job in jobs}
    remove_leftovers(outputs)
    folders = {path.parent for path in outputs}
    splits = {path.with_name(f"{path.name.rpartition('_')[0]}_{part}") for path in folders for part in SPLITS}
    for path in sorted(path for split in splits for path in split.glob("*.h*5")):
        if path not in outputs:
            raise ValueError(
                f"{path} is none of the volumes that {folder} is to give: type --split as before, choose another "
                f"--data_path, or call without {flag} to train on what is there"
            )
    try:
        missing = missing_jobs(jobs)
    except ValueError as error:
        raise ValueError(f"{error}; here that is --data_path, and deleting overwrites") from error
    summary = run_jobs(missing, num_workers=num_workers)
    for reason in (*summary.warnings, *summary.failed.values()):
        print(reason, file=sys.stderr)
    if summary.full is not None:
        raise OSError(f"no space is left in {summary.full}: make room, then the same command goes on")
    if summary.failed:
        raise ValueError(
            f"{len(summary.failed)} of {len(jobs)} files of {folder} were not converted: repair them, or move them "
            "out of it, then the same command goes on"
        )


def uses_gpu(args: Namespace) -> bool:
    """Whether the trainer will run on something else than the CPU."""
    if args.accelerator == "auto":
        return torch.cuda.is_available() or torch.backends.mps.is_available()
    return args.accelerator != "cpu"


def split_to_score(data: MriDataModule) -> Path:
    """Take the test split where its first volume has a reference, as in the demo, otherwise the validation split."""
    for path in sorted(data.folder("test").glob("*.h5"))[:1]:
        with open_hdf5(path) as volume:
            if find_reconstruction(volume) is not None:
                return data.folder("test")
    data.test_path = data.folder("val")
    return data.folder("val")


# ------------------------------------------------------------------------------------------------------------ loss

UFLOSS_ARGS = ("stride", "patches_per_step", "chunk_size", "inner_layers")
NET_ARGS = ("feature_net", "patch_size")  # of `load_feature_net`
# flags that only one loss has a use for
LOSS_OF_FLAG = {
    **dict.fromkeys(UFLOSS_ARGS, "ufloss"),
    **{"ms_ssim_scales": "ms_ssim", "vgg": "perceptual", "vgg_weights": "perceptual"},
}
LOSS_ARGS = ("loss", "normalize_losses", *LOSS_OF_FLAG)  # what a loss depends on
# the validation of complex images compares magnitudes, for which their network of UFLoss is not made
MAGNITUDE_METRICS = [name for name in METRIC_NAMES if name != "ufloss"]


def add_loss_args(
    parser: ArgumentParser, *, default: Sequence[str] | None, words: str = "", metrics: Sequence[str] = METRIC_NAMES
) -> None:
    """Flags of the loss and of the metrics; ``default`` is the loss where none is typed, or ``words`` say it."""
    group = parser.add_argument_group("loss")
    text = f"terms out of {', '.join(LOSS_NAMES)}: {GRAMMAR}{words and f' (default: {words})'}"
    group.add_argument("--loss", nargs="+", default=default, metavar="NAME=WEIGHT", help=text)
    text = "divide each term by its value in the first training batch, before it is weighted"
    group.add_argument("--normalize_losses", action="store_true", help=text)
    text = "log the norm of each term's gradient every so many steps"
    group.add_argument("--grad_norms_every", type=int | None, help=text)
    add_feature_net_args(group)
    add_arguments(group, UFLoss, UFLOSS_ARGS)
    text = "num_scales of ms_ssim, fewer for small images"
    group.add_argument("--ms_ssim_scales", type=int, default=default_of(MSSSIMLoss, "num_scales"), help=text)
    add_vgg_args(group, "of perceptual", default=default_of(VGGFeatures, "arch"))
    group.add_argument("--metrics", nargs="+", default=[], choices=metrics, help="further metrics of the validation")


def add_vgg_args(group: Any, loss: str, *, default: str) -> None:
    group.add_argument("--vgg", choices=("vgg16", "vgg19"), default=default, help=loss)
    text = f"{loss}: a file with torchvision's ImageNet weights, 'download', or 'random' to try things "
    text += "(default: the file that torchvision has downloaded before)"
    group.add_argument("--vgg_weights", metavar="FILE", help=text)


def read_loss(parser: ArgumentParser, args: Namespace) -> dict[str, Any] | None:
    """The weights of the losses, None where none is typed; ValueError if a flag is for a loss that is not named."""
    weights = None if args.loss is None else read_weights("--loss", args.loss, names=LOSS_NAMES)
    used = {*(weights or ()), *args.metrics}
    for flag in changed(parser, args, LOSS_OF_FLAG):
        if LOSS_OF_FLAG[flag] not in used:
            raise ValueError(f"--{flag} is for the loss {LOSS_OF_FLAG[flag]}, which --loss does not name")
    if weights is None and (args.normalize_losses or args.grad_norms_every is not None):
        raise ValueError("--normalize_losses and --grad_norms_every are for terms that --loss names")
    scores_nothing = args.get("mode") == "train" and "score" not in args
    for flag in changed(parser, args, NET_ARGS):
        if scores_nothing and "ufloss" not in used:
            raise ValueError(f"--{flag} is for ufloss, which neither --loss nor --metrics names")
    check_patch_size(parser, args)
    return weights


def check_patch_size(parser: ArgumentParser, args: Namespace) -> None:
    """Raise ValueError if a patch size was typed for a feature network that has its own."""
    if args.feature_net != GENERAL and changed(parser, args, ("patch_size",)):
        raise ValueError(f"--patch_size is for --feature_net {GENERAL}: {args.feature_net} has its own")


def read_weights(flag: str, items: Iterable[str], *, names: Collection[str]) -> dict[str, Any]:
    try:
        return parse_weights(items, names=names)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error


def make_weighted_loss(
    args: Namespace, weights: dict[str, Any] | None, feature_net: nn.Module | None, vgg: VGGFeatures | None
) -> WeightedLoss | None:
    """The loss of the flags, None where none is typed."""
    if weights is None:
        return None
    settings = {"ufloss": pick(args, UFLOSS_ARGS), "ms_ssim": {"num_scales": args.ms_ssim_scales}}
    return make_loss(
        weights,
        feature_net=feature_net,
        vgg=vgg,
        settings={name: value for name, value in settings.items() if name in weights},
        normalize=args.normalize_losses,
        grad_norms_every=args.grad_norms_every,
    )


def load_vgg(args: Namespace, *, hint: str = "") -> VGGFeatures:
    """The network of a perceptual loss; errors name the flag."""
    if args.vgg_weights == "random":
        say("--vgg_weights random: the perceptual loss compares features of an untrained VGG")
        return VGGFeatures(args.vgg)
    weights = args.vgg_weights
    try:
        return load_vgg_features(args.vgg, weights=weights if weights in (None, "download") else Path(weights))
    except (OSError, ValueError) as error:
        raise type(error)(f"--vgg_weights: {error}{hint}") from error


# --------------------------------------------------------------------------------------------------------- trainer

DEVICE_ARGS = ("accelerator", "devices", "num_nodes", "strategy", "precision")
TRAINER_ARGS = (
    *("gradient_clip_val", "limit_train_batches", "limit_val_batches", "check_val_every_n_epoch"),
    "log_every_n_steps",
)


def add_trainer_args(parser: ArgumentParser, *, run_name: str, max_epochs: int) -> None:
    group = parser.add_argument_group("trainer")
    group.add_argument("--max_epochs", type=int, default=max_epochs)
    group.add_argument("--max_steps", type=int, default=-1)
    add_device_args(group)
    group.add_argument("--gradient_clip_val", type=float | None)
    group.add_argument("--accumulate_grad_batches", type=int, default=1)
    group.add_argument("--limit_train_batches", type=int | float | None)
    group.add_argument("--limit_val_batches", type=int | float | None)
    group.add_argument("--check_val_every_n_epoch", type=int, default=1)
    group.add_argument("--log_every_n_steps", type=int | None)
    text = f"folder of the run (default: LOG_PATH/{run_name})"
    group.add_argument("--default_root_dir", type=Path | None, help=text)
    group.add_argument("--checkpoint_every_n_steps", type=int, default=500, help="beside each epoch's")
    group.add_argument("--seed", type=int, default=42, help="fixes everything")
    text = "'auto': the run's last checkpoint, if any; 'never'; or a checkpoint file"
    group.add_argument("--resume", default="auto", help=text)


def add_device_args(group: Any) -> None:
    group.add_argument("--accelerator", default="auto")
    group.add_argument("--devices", type=int | str, default="auto")
    group.add_argument("--num_nodes", type=int, default=1)
    group.add_argument("--strategy", default="auto")
    group.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed"))


def make_trainer(
    args: Namespace, run_dir: Path, *, monitor: str = "validation_loss", mode: str = "min", num_optimizers: int = 1
) -> pl.Trainer:
    """A trainer with the best and the last checkpoint, TensorBoard, and randomness that a resume repeats.

    Lightning counts the steps of all optimizers; where there are several, the module accumulates the gradients.
    """
    args = args.clone()
    if args.max_epochs > 0:  # a short run is validated at its end: without that it has no best checkpoint
        args.check_val_every_n_epoch = min(args.check_val_every_n_epoch, args.max_epochs)
    checkpoints = run_dir / "checkpoints"
    best = ModelCheckpoint(checkpoints, "best", monitor=monitor, mode=mode, enable_version_counter=False)
    every = args.checkpoint_every_n_steps * num_optimizers
    last = LastCheckpoint(checkpoints / "last.ckpt", every_n_train_steps=every)
    return pl.Trainer(
        max_epochs=args.max_epochs,
        max_steps=args.max_steps * (num_optimizers if args.max_steps > 0 else 1),
        accumulate_grad_batches=args.accumulate_grad_batches if num_optimizers == 1 else 1,
        default_root_dir=run_dir,
        callbacks=[best, last, SeededSteps(args.seed), EpochLine()],
        plugins=[AtomicCheckpointIO()],
        logger=TensorBoardLogger(run_dir, name="tensorboard"),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        sync_batchnorm=uses_gpu(args),  # several CPU processes normalize over their own batches
        **pick(args, (*DEVICE_ARGS, *TRAINER_ARGS)),
    )


class EpochLine(pl.Callback):
    """Prints a line with the scores of each epoch."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        names = (  # "loss" is of fastMRI's U-Net
            *("train_loss_epoch", "train_loss", "loss", "validation_loss", "val_loss", "val_dice"),
            *("val_metrics/nmse", "val_metrics/ssim", "retrieval@1"),
        )
        logged = trainer.callback_metrics
        terms = [name for name in logged if name.startswith("val_terms/")]
        more = [name for name in logged if name.startswith("val_metrics/") and name not in names]
        shown = [name for name in names if name in logged] + (terms if len(terms) > 1 else []) + more
        if values := [f"{name} {float(logged[name]):.4g}" for name in shown]:
            say(f"\nepoch {trainer.current_epoch + 1}: {', '.join(values)}")


RESUMED = {  # parts of the checkpoints of Lightning that a training goes on from
    **dict.fromkeys(("epoch", "global_step"), int),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
    **dict.fromkeys(("loops", "callbacks"), dict),
}


def begin(
    parser: ArgumentParser,
    args: Namespace,
    run_dir: Path,
    compared: Collection[str],
    *,
    kind: type[BaseModule],
    facts: Mapping[str, Any] | None = None,
) -> Path | None:
    """Write the run's ``config.yaml``, and give the checkpoint that ``--resume`` asks for; lock the run's folder.

    A run that goes on must have kept the flags ``compared``, and ``facts``, arguments of the module ``kind`` that
    follow from the data; otherwise ValueError says which it has not.
    """
    config, last = run_dir / CONFIG, run_dir / "checkpoints" / "last.ckpt"
    best = last.with_name("best.ckpt")
    settings = yaml.safe_load(parser.dump(args, skip_unset=False))
    resume = {"auto": last if last.is_file() else None, "never": None}.get(args.resume, Path(args.resume))
    if resume is not None:
        content = read_checkpoint(resume, prefix=kind.prefix)
        where, stored = resume, content["hyper_parameters"]
        before = stored  # a checkpoint by itself knows nothing of the loss
        if args.resume == "auto":
            where, before = run_dir, read_config(config)
        kept = {name: value for name, value in settings.items() if name in compared}
        for now, then in ((facts or {}, stored), (kept, before)):
            for name, value in now.items():
                if then.get(name, value) != value:
                    raise ValueError(f"{where} was trained with {name}={then[name]}, not {value}: {AGAIN}")
        if missing := [name for name in RESUMED if not isinstance(content.get(name), RESUMED[name])]:
            text = "a training goes on from its own checkpoints; --init_checkpoint begins with weights of others"
            raise ValueError(f"{resume} has no {', '.join(missing)}: {text}")
        say(f"Resuming from {resume}")
    if pl.utilities.rank_zero_only.rank == 0:
        lock_folder(run_dir)
        remove_leftovers((config, last, best), stale_seconds=0)  # of a killed run
        if args.resume == "auto" and best.is_file():
            try:
                read_checkpoint(best)
            except ValueError as error:
                damaged = best.replace(best.with_suffix(".damaged"))
                say(f"{error}: it is now {damaged.name}, and last.ckpt is what counts until an epoch is better")
        named = [Path(value).resolve() for value in settings.values() if isinstance(value, str)]
        for path in last.parent.glob("*.ckpt") if args.resume == "never" else ():
            if path.resolve() not in named:  # such as --init_checkpoint
                path.unlink()  # nothing is to go on from it
        with atomic_path(config) as temporary:
            temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return resume


def read_config(config: Path) -> dict[str, Any]:
    if not config.is_file():
        raise ValueError(
            f"{config.parent} has a checkpoint and no {CONFIG}, as of an earlier version of this package; start anew "
            "with --resume never or another --default_root_dir"
        )
    return read_yaml(config)


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of names and plain values; ValueError for another one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a YAML file of plain values ({str(error).partition(chr(10))[0]})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold names and values, got a {type(content).__name__}")
    return content


def fit(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, resume: Path | None) -> None:
    """Train; the process ends if the training is interrupted."""
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        sys.exit(f"interrupted: the same command goes on from {last}")


def score(
    trainer: pl.Trainer,
    data: MriDataModule,
    folders: Mapping[str, str],
    *,
    reference: str = "stages/reference",
    has_maps: bool = True,
    ufloss: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """`write_scores` of the files of a test, in folders by the method's title.

    The references are coil-combined if the network ``has_maps``; ``ufloss`` is by stage and file name.
    """
    trainer.strategy.barrier("test")  # the files of all processes
    run_dir = Path(trainer.default_root_dir)
    outputs = {title: run_dir / folder for title, folder in folders.items()}
    needed = (*outputs.values(), run_dir / reference)
    slices = volume_slices(data.dataset("test"))
    slices = {name: of for name, of in slices.items() if all((folder / name).is_file() for folder in needed)}
    if not slices or not trainer.is_global_zero:
        return
    references = {"RSS": data.folder("test"), **({"coil-combined": run_dir / reference} if has_maps else {})}
    more = {title: (ufloss or {}).get(folder.name.removesuffix("s"), {}) for title, folder in outputs.items()}
    write_scores(run_dir, outputs, references, run_dir / reference, slices=slices, more=more)


def write_scores(
    run_dir: Path,
    outputs: Mapping[str, Path],
    references: Mapping[str, Path],
    reference: Path,
    *,
    slices: Mapping[str, Sequence[int]],
    more: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write and print the scores of folders, see `score_run`, and draw a slice beside that of ``reference``."""
    rows = score_run(outputs, references, slices=slices, more=more)
    means = mean_scores(rows)
    write_json(run_dir / "scores.json", {"means": means, "volumes": rows})
    images = middle_slices({"reference": reference, **outputs}, next(iter(slices)))
    save_picture(run_dir / "reconstruction.png", images.pop("reference"), images)
    print("\nMeans over the volumes, against the RSS and, where there are coil maps, the coil-combined image:")
    print(f"{format_table(means)}\nScores: {run_dir / 'scores.json'}\nPicture: {run_dir / 'reconstruction.png'}")


def middle_slices(folders: Mapping[str, Path], fname: str) -> dict[str, np.ndarray]:
    images = {}
    for title, folder in folders.items():
        with open_hdf5(folder / fname, "reconstruction") as file:
            images[title] = np.asarray(file["reconstruction"][len(file["reconstruction"]) // 2])
    return images


def best_checkpoint(run_dir: Path) -> Path:
    """The best checkpoint of a run, or its last one if nothing was validated."""
    best, last = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    return last if last.is_file() and not best.is_file() else best


# ---------------------------------------------------------------------------------------- network, training or test

UNET_ARGS = arguments_of(fastmri.pl_modules.UnetModule, UnetModule, skip=("loss",))


def add_unet_args(group: Any) -> None:
    """Flags of fastMRI's U-Net and of this package's additions."""
    host = arguments_of(fastmri.pl_modules.UnetModule)
    add_arguments(group, fastmri.pl_modules.UnetModule, host)
    add_arguments(group, UnetModule, (name for name in UNET_ARGS if name not in host))


def add_mode_args(
    parser: ArgumentParser, *, default: str, has_score: bool = False, has_init_checkpoint: bool = False
) -> None:
    """Whether to train or to test, and with which checkpoint; ``default`` says which it is by default."""
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    parser.add_argument("--checkpoint", type=Path | None, help=f"for --mode test (default: {default})")
    if has_score:
        parser.add_argument("--score", action=BooleanOptionalAction, default=True, help="test after training")
    if has_init_checkpoint:
        text = "begin with the network of a checkpoint of an earlier run, or of weights as fastMRI publishes them"
        parser.add_argument("--init_checkpoint", type=Path | None, help=text)


def settings_of_init_checkpoint(args: Namespace, *, kind: type[MriModule]) -> dict[str, Any]:
    """The settings of the network that a training begins with, as defaults."""
    if args.init_checkpoint is None:
        return {}
    content = read_checkpoint(args.init_checkpoint, prefix=kind.prefix)
    settings = content["hyper_parameters"] | content.get(MriDataModule.__name__, {})
    return {name: value for name, value in settings.items() if name in args}


def coils_of_checkpoint(path: Path | None) -> dict[str, Any]:
    """``num_virtual_coils`` of the data that a checkpoint's network was trained on, as a default."""
    content = {} if path is None else read_checkpoint(path)
    return dict(content.get(MriDataModule.__name__, {}))


def load_network(module: MriModule, path: Path | None) -> None:
    """The weights of the network alone, of a checkpoint or of a bare state dict."""
    if path is None:
        return
    weights = read_checkpoint(path, prefix=module.prefix)["state_dict"].items()
    network = {name.removeprefix(module.prefix): value for name, value in weights if name.startswith(module.prefix)}
    try:
        getattr(module, module.prefix.rstrip(".")).load_state_dict(network)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model's settings {dict(module.hparams)} ({error})") from error


def compile_denoisers(module: MriModule) -> None:
    """``torch.compile`` of MoDL's denoisers, in place: the names of the weights stay, so checkpoints do."""
    if not any(map(shutil.which, [os.environ.get("CXX", "g++"), "clang++"])):
        raise ValueError("--compile needs a C++ compiler on this machine: g++, clang++, or what CXX names")
    for denoiser in module.network.denoisers:
        denoiser.compile()


def train_and_test(
    parser: ArgumentParser,
    args: Namespace,
    run_dir: Path,
    *,
    kind: type[MriModule],
    names: Collection[str],
    data_path: Path | None = None,
) -> MriDataModule:
    """Train a reconstruction network and test its best checkpoint, or test a checkpoint; returns the data.

    ``names`` are the flags that are arguments of the module ``kind``; the data are those of `find_data`, or here.
    """
    weights = read_loss(parser, args)
    kind.check_settings(pick(args, names))
    for name in args.get("classical", ()):
        if CLASSICAL_METHODS[name].missing:
            raise ImportError(CLASSICAL_METHODS[name].missing)
    pl.seed_everything(args.seed, workers=True)
    data = make_data_module(args, data_path or find_data(args), run_dir, samples=kind.samples)
    trainer = make_trainer(args, run_dir)
    net, in_chans = None, 2 if kind.is_complex else 1
    if "ufloss" in (*(weights or ()), *args.metrics) or changed(parser, args, NET_ARGS):
        net = load_feature_net(args.feature_net, in_chans=in_chans, patch_size=args.patch_size)
    if args.mode == "train":
        vgg = load_vgg(args) if "perceptual" in (weights or ()) else None
        compared = {*names, *LOSS_ARGS, *MODL_SAMPLE_ARGS, "init_checkpoint"} - {"score_stride", "num_log_images"}
        if "ufloss" in (weights or ()):
            compared |= set(NET_ARGS)
        rows = args.get("train_rows")
        if "ufloss" in (weights or ()) and net is not None and rows is not None and rows < net.patch_size:
            problem = f"--train_rows {rows} is less than the {net.patch_size} rows of a patch of ufloss"
            raise ValueError(f"{problem}; --train_rows null trains on all rows, a --patch_size from 39 on is smaller")
        loss = make_weighted_loss(args, weights, net, vgg)
        resume = begin(parser, args, run_dir, compared, kind=kind)
        pl.seed_everything(args.seed, workers=True)  # the same weights, whatever networks a loss has
        module = kind(**pick(args, names), loss=loss)
        load_network(module, args.get("init_checkpoint"))
        if args.get("compile"):
            compile_denoisers(module)
        module.add_metrics(make_metrics(args.metrics, feature_net=net, ufloss=pick(args, ("stride", "chunk_size"))))
        fit(trainer, module, data, resume)
        if not args.get("score"):
            return data
        say(f"\nThe best checkpoint on {split_to_score(data)}:")
    scoring = {"score_feature_net": net, "score_stride": args.score_stride} if kind.is_complex else {}
    module = kind.load_from_checkpoint(args.checkpoint or best_checkpoint(run_dir), **scoring)
    if kind.is_complex:
        module.add_methods(tune_classical(args, data, run_dir))
    trainer.test(module, datamodule=data, verbose=False)
    if kind.is_complex:
        shown = ["zero_filled", "cg_sense", *args.classical]
        folders = {CLASSICAL_METHODS[name].title: f"stages/{name}" for name in shown}
        score(trainer, data, {**folders, kind.title: "reconstructions"}, ufloss=module.ufloss_of_volumes())
    return data


def tune_classical(args: Namespace, data: MriDataModule, run_dir: Path) -> dict[str, Callable[..., torch.Tensor]]:
    """The methods of --classical with the weights that are best on some slices of the training split."""
    if not args.classical:
        return {}
    args = args.clone()
    args.accelerator = "cpu"  # coil maps come from the cache
    data = make_data_module(args, data.data_path, run_dir, samples="modl")
    data.build_index("train")
    say(f"\nSearching the weights of {', '.join(args.classical)} on slices of {data.folder('train')}")
    searched = search_weights(
        data.dataset("train", whole=True),
        args.classical,
        run_dir / "weights.json",
        settings=pick(args, (*MASK, *MASK_OPTIONS, *MAPS, "challenge", "seed")),
        num_workers=data.num_workers,
    )
    say(", ".join(f"{name} {row['weight']:g} (NRMSE {row['NRMSE']:.3f})" for name, row in searched.items()))
    return {name: partial(CLASSICAL_METHODS[name], lam=row["weight"]) for name, row in searched.items()}


# ------------------------------------------------------------------------------------------------- feature network

FEATURE_NET = "feature_net.safetensors"
GENERAL = "general"
PATCH_ARGS = ("patch_size", "patches_per_slice", "images")
FEATURE_ARGS = (
    *("architecture", "width", "num_features", "temperature"),
    *("lr", "phase_augmentation", "magnitude_augmentation"),
)
DEMO = {"num_workers": 2, "patch_size": 48}  # of UFLoss, for the demo's small images
DEMO_SCORE = {"classical": ["pics_wavelet", "pics_tv"]}


def add_feature_net_args(group: Any) -> None:
    """Which feature network, for `load_feature_net`."""
    text = f"of ufloss: {GENERAL!r} for the one that ships, or a file of pretrain.py"
    group.add_argument("--feature_net", default=GENERAL, metavar="FILE", help=text)
    text = f"rows and columns of the patches of {GENERAL!r}, at least 39 (default: 60)"
    group.add_argument("--patch_size", type=int | None, help=text)


def make_pretraining_parser(description: str | None = None) -> ArgumentParser:
    parser = make_training_parser(description, run_name="feature_net", max_epochs=100)
    add_arguments(parser.add_argument_group("patches"), PatchDataModule, PATCH_ARGS)
    add_arguments(parser.add_argument_group("feature network"), FeatureModule, FEATURE_ARGS)
    # a checkpoint has the features of all patches, 1.4 GB for fastMRI's knees
    parser.set_defaults(batch_size=default_of(PatchDataModule, "batch_size"), checkpoint_every_n_steps=5000)
    return parser


def load_feature_net(name: str | Path, *, in_chans: int, patch_size: int | None = None) -> PatchFeatureNet:
    """The feature network that --feature_net names, for images of so many channels; ValueError if it is another.

    ``patch_size`` is that of the general network; a file has its own.
    """
    kind, images = ("complex", "combined") if in_chans == 2 else ("magnitude", "rss")
    if str(name) == GENERAL:
        return pretrained_feature_net(f"{GENERAL}-{kind}", patch_size=patch_size)
    net = PatchFeatureNet.load(name)
    if net.in_chans != in_chans:
        raise ValueError(
            f"{name} is a feature network of in_chans {net.in_chans}, this recipe's {kind} images need one of "
            f"{in_chans}: {GENERAL!r}, or train one with pretrain.py --images {images}"
        )
    return net


def pretrain(parser: ArgumentParser, args: Namespace, source: MriDataModule, run_dir: Path) -> Path:
    """Train a feature network on a data module's training split; returns the file of the network."""
    options = pick(args, (*PATCH_ARGS, "batch_size", "num_workers", "seed"))
    patches = PatchDataModule(source, patch_dir=source.cache_dir / "patches", **options)
    facts = {"num_patches": patches.num_patches(), "in_chans": patches.in_chans}
    options = {"patch_size": patches.patch_size, **pick(args, FEATURE_ARGS)}
    training_data = f"{source.challenge} {source.data_path.name}, {patches.images} images"
    module = FeatureModule(**facts, **options, training_data=training_data)
    trainer = make_trainer(args, run_dir, monitor="retrieval@1", mode="max")
    resume = begin(parser, args, run_dir, ("patch_size", *FEATURE_ARGS), kind=FeatureModule, facts=facts)
    fit(trainer, module, patches, resume)
    module.load_state_dict(read_checkpoint(best_checkpoint(run_dir))["state_dict"])
    file = run_dir / FEATURE_NET
    if trainer.is_global_zero:
        module.export(file)
    trainer.strategy.barrier("export")
    say(f"Feature network: {file}")
    return file
