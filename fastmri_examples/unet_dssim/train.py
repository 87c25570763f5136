"""Train two U-Nets alike but for their loss, l2 and l2 + 0.1 dssim, and compare them subject by subject.

    python fastmri_examples/unet_dssim/train.py --nifti FOLDER --data_path DATA

is the experiment of Pawar et al., "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM
2019, with its settings. Magnitude volumes such as IXI's T1 images become single-coil fastMRI volumes in DATA, split
by subject; Net-mse and Net-mse-dssim are trained on them with the same initial weights, batches and masks (2D
variable density, 10x), and the best of each by its own validation loss is compared with the zero-filled image.
Without --nifti DATA is a fastMRI folder; without both it is a generated demo data set. The same command again goes on
where it was. The two can be trained side by side, --nets net_mse and --nets net_mse_dssim in the same folder; a last
call without --nets makes the table.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastmri.pl_modules
import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import host_recipe
import net_scores
import nifti_subjects
import training

from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.pl_modules import MriDataModule, UnetModule
from fastmri_ufloss.pl_modules.scoring import write_json

NETS = {"net_mse": "Net-mse", "net_mse_dssim": "Net-mse-dssim"}  # folders and names
METHODS = {"zero_filled": net_scores.ZERO_FILLED, **NETS}
MAX_EPOCHS = 100
DSSIM_WEIGHT = 0.1
PAPER = {
    "mask_type": "variable_density_2d",
    "accelerations": [10],
    "center_fractions": [0.04],  # the abstract names none: 10x10 of 256x256, 1.5% of the samples
    "chans": 64,
    "convs_per_stage": 3,
    "optimizer": "adam",
    "lr": 1e-4,
    "lr_step_size": 1_000_000,  # epochs: the rate stays
}
# what trains in minutes on two cores
DEMO = {"chans": 16, "max_epochs": 6, "lr": 1e-3, "num_workers": 2}

HOSTS = (fastmri.pl_modules.UnetModule, UnetModule)
RECIPE = host_recipe.Recipe(
    name="unet_dssim",
    module=UnetModule,
    model_args=host_recipe.model_args(*HOSTS),
    network="unet",
    samples="unet",
    default_loss="l2=1, and l2=1 dssim=0.1",
    demo=DEMO,
)
# what else a training depends on, beside its model, loss and data
TRAINING_ARGS = (
    *("challenge", "seed", "batch_size", "precision", "gradient_clip_val", "accumulate_grad_batches"),
    *("mask_type", "center_fractions", "accelerations", "center_size", "elliptical", "mask_per_volume"),
    *("combine_train_val", "sample_rate", "val_sample_rate", "volume_sample_rate", "val_volume_sample_rate"),
    *("limit_train_batches", "limit_val_batches"),
)


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument(
        "--nets",
        nargs="+",
        choices=tuple(NETS),
        default=list(NETS),
        help="to train (default: both, and compare them)",
    )
    parser.add_argument(
        "--dssim_weight", type=float, default=DSSIM_WEIGHT, help=f"of Net-mse-dssim's loss (default: {DSSIM_WEIGHT})"
    )
    nifti_subjects.add_nifti_args(parser)
    cli.add_data_args(parser)
    parser.set_defaults(challenge="singlecoil")
    training.add_trainer_args(parser, run_name=RECIPE.name, max_epochs=MAX_EPOCHS)
    group = parser.add_argument_group("model; this recipe's own defaults, and those of its mask, are the abstract's")
    for host in HOSTS:
        cli.add_arguments_of(group, host, host_recipe.model_args(host))
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    nets = list(dict.fromkeys(args.nets))
    check_arguments(args, nets)
    data_path, is_demo = nifti_subjects.find_volumes(args, RECIPE.name)
    run_dir = cli.run_folder(args, RECIPE.name, is_demo=is_demo)
    settings = {**PAPER, **(DEMO if is_demo else {})}
    if hasattr(args, "center_size"):
        del settings["center_fractions"]
    for name, value in settings.items():
        vars(args).setdefault(name, value)
    cli.say(f"Settings: {', '.join(f'{name} {getattr(args, name)}' for name in settings)}")
    data = make_data(args, data_path, run_dir)
    # before the training: it may have no references
    data.test_path = net_scores.split_to_score(data, is_chosen=bool(cli.typed(args, ("test_path", "test_split"))))
    for net in nets:
        train(args, net, data_path, run_dir)
    if len(nets) == len(NETS):
        test(args, data, run_dir)


def make_data(args: argparse.Namespace, data_path: Path, run_dir: Path) -> MriDataModule:
    """The data module of one training, or of the test."""
    return cli.make_data_module(args, data_path, run_dir, samples=RECIPE.samples, train_seed=args.seed)


def check_arguments(args: argparse.Namespace, nets: list[str]) -> None:
    """What would be ignored, or would fail late, is refused at once."""
    if not 0 <= args.dssim_weight < float("inf"):
        raise ValueError(f"--dssim_weight must be a number >= 0, got {args.dssim_weight}")
    if hasattr(args, "lr_gamma") and not hasattr(args, "lr_step_size"):
        raise ValueError("--lr_gamma needs --lr_step_size: without it the learning rate stays as it is")
    if args.resume not in ("auto", "never") and len(nets) > 1:
        raise ValueError("--resume FILE is for one network: say with --nets for which")


def train(args: argparse.Namespace, net: str, data_path: Path, run_dir: Path) -> None:
    """Train a network in a folder of its own, unless that is done."""
    net_dir = run_dir / net
    weights = {"l2": 1.0} if net == "net_mse" else {"l2": 1.0, "dssim": args.dssim_weight}
    model = cli.typed(args, RECIPE.model_args)
    settings = {**model, **cli.typed(args, TRAINING_ARGS), "loss": weights, "data_path": str(data_path.resolve())}
    limits = {"max_epochs": getattr(args, "max_epochs", MAX_EPOCHS), "max_steps": getattr(args, "max_steps", -1)}
    if args.resume == "auto" and is_trained(net_dir, settings, limits):
        cli.say(f"{NETS[net]} is trained: {net_dir}")
        return
    # a checkpoint of one's own may have other settings than this folder's, which have been compared
    checked = {} if args.resume == "auto" else model
    resume = training.checkpoint_to_resume(
        args, net_dir, prefix=f"{RECIPE.network}.", settings=checked, defaults=RECIPE.model_args
    )
    if args.resume == "never":
        remove_checkpoints(net_dir)
    note_settings(net_dir, settings, trained=None)
    cli.say(f"\n{NETS[net]}, loss {' '.join(f'{name}={weight:g}' for name, weight in weights.items())}: {net_dir}")
    pl.seed_everything(args.seed, workers=True)  # the same first weights for both
    module = UnetModule(loss=make_loss(weights), **model)
    data = make_data(args, data_path, run_dir)
    trainer = training.make_trainer(args, net_dir, max_epochs=MAX_EPOCHS)
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {net_dir / 'checkpoints' / 'last.ckpt'}")
    if not (net_dir / "checkpoints" / "last.ckpt").is_file():  # --max_steps came before the first checkpoint
        trainer.save_checkpoint(net_dir / "checkpoints" / "last.ckpt")
    note_settings(net_dir, settings, trained=limits)


def is_trained(net_dir: Path, settings: Mapping[str, Any], limits: Mapping[str, int]) -> bool:
    """Whether an earlier call has trained this network to its end.

    Raises:
        ValueError: if it was trained otherwise: two networks that are compared must differ in their loss alone.
    """
    file = net_dir / "settings.json"
    if not file.is_file():
        return False
    stored = json.loads(file.read_text(encoding="utf-8"))
    before = stored["settings"]
    for name in dict.fromkeys((*settings, *before)):
        if before.get(name) != settings.get(name):
            raise ValueError(
                f"{net_dir} was trained with {name}={before.get(name)}, not {settings.get(name)}: type the same "
                "flags again, or start anew with --resume never or another --default_root_dir"
            )
    for name, reached in (stored["trained"] or {}).items():
        if limits[name] != -1 and not -1 < reached <= limits[name]:  # -1: none
            raise ValueError(
                f"{net_dir} was trained with --{name} {reached}, which cannot become {limits[name]} now: start anew "
                "with --resume never or another --default_root_dir"
            )
    return bool(stored["trained"] == limits)


@pl.utilities.rank_zero_only
def note_settings(net_dir: Path, settings: Mapping[str, Any], *, trained: Mapping[str, int] | None) -> None:
    """Keep what a network is trained with, and the limits that it has reached."""
    write_json(net_dir / "settings.json", {"settings": settings, "trained": trained})


@pl.utilities.rank_zero_only
def remove_checkpoints(net_dir: Path) -> None:
    """Those of the training that is begun anew: nothing is to go on from them."""
    for name in ("best", "last"):
        (net_dir / "checkpoints" / f"{name}.ckpt").unlink(missing_ok=True)


def test(args: argparse.Namespace, data: MriDataModule, run_dir: Path) -> None:
    """Leaderboard files, scores and the picture of both networks."""
    cli.say(f"\nThe best checkpoints on {data.test_path}:")
    for net in NETS:
        trainer = training.make_trainer(args, run_dir / net, max_epochs=MAX_EPOCHS)
        checkpoints = run_dir / net / "checkpoints"
        best = next(path for path in (checkpoints / "best.ckpt", checkpoints / "last.ckpt") if path.is_file())
        trainer.test(host_recipe.load_module(RECIPE, best), datamodule=data, verbose=False)
        trainer.strategy.barrier("test")  # the files of all processes
    if trainer.is_global_zero:
        net_scores.compare(data, run_dir, METHODS, pair=(NETS["net_mse"], NETS["net_mse_dssim"]))


if __name__ == "__main__":
    cli.run(main)
