"""Refine the images of a trained reconstruction network, adversarially and perceptually, as Seitzer et al. do.

    python fastmri_examples/adversarial_refinement/train_refinement.py --recon CHECKPOINT --data_path DATA

CHECKPOINT is one of train_recnet.py, modl_ufloss/train.py, varnet/train.py or unet/train.py; type its data and mask
flags again. Its network stays as it is; a second one learns to add what is missing, against a discriminator and with
a perceptual loss. --joint trains one network for everything from the start instead, the baseline of the paper; of
--recon it then takes the architecture only. After training, and with --mode test, the test writes
reconstructions/*.h5, and beside them the images of the stages before. The same command again goes on from the last
checkpoint.
"""

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import feature_network
import objective
import training
from sense_recipe import split_to_score

from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.models import PatchDiscriminator, PatchFeatureNet, RefinementNet
from fastmri_ufloss.pl_modules import (
    JOINT_PRESETS,
    AdversarialModule,
    AdversarialSettings,
    JointModule,
    MriDataModule,
    RefinementModule,
    load_joint_module,
    load_refinement_module,
    network_of,
    refine_checkpoint,
)

NAME = "refinement"
MAX_EPOCHS = 200
BATCH_SIZE = 5
SETTINGS_ARGS = (
    *("normalize", "label_smoothing", "replay_size", "replay_probability", "lr", "beta1"),
    "accumulate_grad_batches",  # of the trainer's flags
)
DISCRIMINATOR_ARGS = ("num_strided", "dropout")
REFINEMENT_ARGS = ("data_consistency",)
# what trains in minutes on two cores
DEMO = {
    "max_epochs": 4,
    "batch_size": 4,
    "refinement_chans": 8,
    "discriminator_chans": 8,
    "num_workers": 2,
    "stride": 10,
    "patch_size": 40,
    "patches_per_slice": 40,
    "pretrain_batch_size": 32,
    "pretrain_max_epochs": 5,
}


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    cli.add_data_args(parser)
    training.add_trainer_args(parser, run_name=NAME, max_epochs=MAX_EPOCHS)
    feature_network.add_feature_network_args(parser)
    group = parser.add_argument_group("stages")
    group.add_argument("--recon", type=Path, default=None, help="checkpoint of the network to refine")
    group.add_argument("--joint", action="store_true", default=False, help="train one network for all terms together")
    group.add_argument(
        "--images", choices=("complex", "magnitude"), help="to refine (default: what the network gives)"
    )
    group.add_argument("--checkpoint", type=Path, default=None, help="for --mode test (default: the run's last)")
    group.add_argument("--score", action=argparse.BooleanOptionalAction, default=True, help="test after training")
    objective.add_objective_args(parser.add_argument_group("objective"))
    group = parser.add_argument_group("model")
    chans = {
        kind: inspect.signature(kind).parameters["chans"].default for kind in (RefinementNet, PatchDiscriminator)
    }
    group.add_argument("--refinement_chans", type=int, help=f"(default: {chans[RefinementNet]})")
    cli.add_arguments_of(group, RefinementNet, REFINEMENT_ARGS)
    group.add_argument("--discriminator_chans", type=int, help=f"(default: {chans[PatchDiscriminator]})")
    cli.add_arguments_of(group, PatchDiscriminator, DISCRIMINATOR_ARGS)
    cli.add_arguments_of(group, AdversarialSettings, SETTINGS_ARGS[:-1])
    cli.add_arguments_of(group, RefinementModule, ("num_log_images",))
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    check_arguments(args)
    pl.seed_everything(args.seed, workers=True)
    if args.mode == "train":  # before the data, which may have to be generated
        recon = find_recon(args)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "joint" if args.joint else NAME, is_demo=is_demo)
    checkpoint = args.checkpoint or run_dir / "checkpoints" / "last.ckpt"
    if args.mode == "test":
        recon = load(args, checkpoint).hparams["recon"]
    if is_demo:
        for name, value in DEMO.items():
            vars(args).setdefault(name, value)
        cli.say(f"Settings: {', '.join(f'{k} {getattr(args, k)}' for k in DEMO)}")
    vars(args).setdefault("batch_size", BATCH_SIZE)
    samples: Any = "modl" if recon["network"] == "recnet" else recon["network"]
    data = cli.make_data_module(args, data_path, run_dir, samples=samples, train_seed=args.seed)
    if args.mode == "test":
        test(args, data, make_trainer(args, run_dir), checkpoint)
    else:
        train(args, recon, data, run_dir)


def check_arguments(args: argparse.Namespace) -> None:
    """What would be ignored is refused."""
    if args.mode == "train" and args.checkpoint is not None:
        raise ValueError("--checkpoint is for --mode test; --resume goes on with a training")
    for name in ("recon", "images"):
        if args.mode == "test" and getattr(args, name, None) is not None:
            raise ValueError(f"--{name} is for --mode train: the checkpoint of a test has its own network")
    if hasattr(args, "gradient_clip_val"):
        raise ValueError("--gradient_clip_val is not for two optimisers: lower --lr")
    for name in ("refinement_chans", *REFINEMENT_ARGS):
        if args.joint and hasattr(args, name):
            raise ValueError(f"--{name} is of the refinement network, which --joint has not")
    objective.check_arguments(args)


def find_recon(args: argparse.Namespace) -> dict[str, Any]:
    """The reconstruction network: its name, the settings of its module and the kind of its images."""
    images = getattr(args, "images", None)
    network: str = "recnet"
    settings: dict[str, Any] = {}
    if args.recon is not None:
        network, settings = network_of(args.recon)
    elif args.joint:
        cli.say("--joint without --recon: training the RecNet of train_recnet.py")
        if args.challenge == "multicoil":
            settings = {"model": {"data_consistency": "cg"}}
    else:
        raise ValueError(
            "--recon must name a checkpoint of the network to refine: one of train_recnet.py, modl_ufloss/train.py, "
            "varnet/train.py or unet/train.py"
        )
    return {"network": network, "settings": settings, "images": images}


def make_trainer(args: argparse.Namespace, run_dir: Path) -> pl.Trainer:
    """The trainer of all recipes; Lightning counts the steps of both optimisers."""
    own = argparse.Namespace(**vars(args))
    own.checkpoint_every_n_steps *= 2
    if hasattr(own, "max_steps") and own.max_steps > 0:
        own.max_steps *= 2
    vars(own).pop("accumulate_grad_batches", None)  # the module does that
    return training.make_trainer(own, run_dir, max_epochs=MAX_EPOCHS)


def load(args: argparse.Namespace, checkpoint: Path) -> AdversarialModule:
    return load_joint_module(checkpoint) if args.joint else load_refinement_module(checkpoint)


def test(args: argparse.Namespace, data: MriDataModule, trainer: pl.Trainer, checkpoint: Path) -> None:
    """Leaderboard files, images of the stages, and scores."""
    trainer.test(load(args, checkpoint), datamodule=data, verbose=False)


def train(args: argparse.Namespace, recon: dict[str, Any], data: MriDataModule, run_dir: Path) -> None:
    """Train, the feature network first if it is needed and there is none, and test the last checkpoint."""
    vgg = objective.load_vgg(args) if args.perceptual == "vgg19" else None
    settings = {**cli.typed(args, SETTINGS_ARGS), "seed": args.seed}
    discriminator = {**typed_chans(args, "discriminator"), **cli.typed(args, DISCRIMINATOR_ARGS)}
    refinement = {**typed_chans(args, "refinement"), **cli.typed(args, REFINEMENT_ARGS)}
    resume = training.checkpoint_to_resume(args, run_dir, prefix="discriminator.", settings={})
    stages = {"recon": args.recon, "joint": args.joint, "perceptual": args.perceptual, "refinement": refinement}
    typed = cli.typed(args, ("images", *objective.ARGS))
    training.note_settings(args, run_dir, {**settings, **stages, "discriminator": discriminator, **typed})
    net = find_feature_net(args, recon, data, run_dir)
    pl.seed_everything(args.seed, workers=True)  # the same first weights, whether a network was trained before or not
    losses = objective.perceptual_loss(args, vgg, net)
    options = {"discriminator": discriminator, **cli.typed(args, ("num_log_images",))}
    if args.joint:
        module: AdversarialModule = make_joint_module(args, recon, losses, settings, options)
    else:
        options |= {"settings": settings, "refinement": refinement, "weights": objective.weights_of(args, losses)}
        module = refine_checkpoint(args.recon, images=recon["images"], image_losses=losses, **options)
    trainer = make_trainer(args, run_dir)
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    last = run_dir / "checkpoints" / "last.ckpt"
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {last}")
    if args.score:
        data.test_path = split_to_score(data)
        cli.say(f"\nThe last checkpoint on {data.test_path}:")
        test(args, data, trainer, last)


def find_feature_net(
    args: argparse.Namespace, recon: dict[str, Any], data: MriDataModule, run_dir: Path
) -> PatchFeatureNet | None:
    """The network of UFLoss: of complex images where those are refined, unless the file is of magnitudes."""
    if args.perceptual != "ufloss":
        return None
    takes_complex = recon["network"] in ("recnet", "modl") and recon["images"] != "magnitude"
    if takes_complex and args.feature_net is not None:
        return PatchFeatureNet.load(args.feature_net)
    return feature_network.find_or_train(args, data, run_dir, in_chans=2 if takes_complex else 1, needed=True)


def make_joint_module(
    args: argparse.Namespace,
    recon: dict[str, Any],
    losses: dict[str, nn.Module],
    settings: dict[str, Any],
    options: dict[str, Any],
) -> JointModule:
    """The module with the terms of its preset, as the user has changed them."""
    preset = JOINT_PRESETS[getattr(args, "preset", "equal")]
    weights = {name: weight for name, weight in preset["weights"].items() if name != "perceptual" or losses}
    weights |= objective.parse_weights(getattr(args, "weights", []))
    pixel_losses = make_loss({name: 1.0 for name in weights if name in objective.PIXEL_LOSSES}).terms
    settings = {**preset["settings"], **settings}
    return JointModule(
        recon=recon, image_losses={**pixel_losses, **losses}, weights=weights, settings=settings, **options
    )


def typed_chans(args: argparse.Namespace, network: str) -> dict[str, Any]:
    """``--NETWORK_chans`` as the network's own setting."""
    name = f"{network}_chans"
    return {"chans": getattr(args, name)} if hasattr(args, name) else {}


if __name__ == "__main__":
    cli.run(main)
