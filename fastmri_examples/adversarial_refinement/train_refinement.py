"""Refine the images of a trained reconstruction network, adversarially and perceptually, as Seitzer et al. do.

    python fastmri_examples/adversarial_refinement/train_refinement.py --recon CHECKPOINT --data_path DATA

CHECKPOINT is one of train_recnet.py, modl_ufloss/train.py, varnet/train.py or unet/train.py; type its data and mask
flags again. Its network stays as it is; a second one learns to add what is missing, against a discriminator and with
a perceptual loss. --joint trains one network for everything from the start instead, the baseline of the paper, and
takes the architecture of --recon alone. The test writes reconstructions/*.h5, and beside them the images of the
stages before. The same command again goes on from the last checkpoint.
"""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser, Namespace
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.losses import LOSS_NAMES, PerceptualLoss, UFLoss, make_loss
from fastmri_ufloss.models import PatchDiscriminator, PatchFeatureNet, RefinementNet
from fastmri_ufloss.pl_modules import JointModule, MriModule, RecNetModule, RefinementModule, load_reconstruction
from fastmri_ufloss.pl_modules.adversarial_module import ADVERSARIAL_TERMS, AdversarialModule
from fastmri_ufloss.pl_modules.refinement_module import JOINT_PRESETS

NETWORKS = (RefinementNet, PatchDiscriminator)
PIXEL_LOSSES = tuple(name for name in LOSS_NAMES if name not in ("perceptual", "ufloss"))
TERMS = (*ADVERSARIAL_TERMS, "perceptual", *PIXEL_LOSSES)
# of the modules' arguments some are networks, and two are of the trainer
OTHER_ARGS = ("reconstruction", "images", "image_losses", "weights", "accumulate_grad_batches", "seed")
JOINT_ARGS = recipe.arguments_of(JointModule, skip=OTHER_ARGS)
REFINEMENT_ARGS = recipe.arguments_of(RefinementModule, skip=(*OTHER_ARGS, *JOINT_ARGS))
VGG_ARGS = ("vgg", "vgg_weights")
# what a training depends on
KEPT = {*JOINT_ARGS, *REFINEMENT_ARGS, *VGG_ARGS, *recipe.UFLOSS_ARGS} - {"num_log_images"} | {
    *("recon", "joint", "perceptual", "weights", "preset", "images", "feature_net", "seed", "accumulate_grad_batches")
}
# what trains in minutes on two cores
DEMO = {**recipe.DEMO, "max_epochs": 4, "batch_size": 4, "refinement_chans": 8, "discriminator_chans": 8}


def make_parser() -> ArgumentParser:
    parser = recipe.make_training_parser(__doc__, run_name="refinement", max_epochs=200)
    recipe.add_mode_args(parser, default="the run's last", has_score=True)
    group = parser.add_argument_group("stages")
    group.add_argument("--recon", type=Path | None, help="checkpoint of the network to refine")
    group.add_argument("--joint", action="store_true", help="train one network for all terms together")
    text = "to refine (default: what the network gives)"
    group.add_argument("--images", choices=("complex", "magnitude"), help=text)
    group = parser.add_argument_group("objective")
    text = "what the perceptual term compares; the paper has vgg19"
    group.add_argument("--perceptual", choices=("vgg19", "ufloss", "none"), default="ufloss", help=text)
    text = "of the terms, if not the paper's: adversarial, feature_matching, penalty, perceptual; "
    text += f"with --joint also {', '.join(PIXEL_LOSSES)}"
    group.add_argument("--weights", nargs="+", metavar="NAME=WEIGHT", help=text)
    group.add_argument("--preset", choices=tuple(JOINT_PRESETS), default="equal", help="weights of --joint")
    recipe.add_vgg_args(group, "of the perceptual term", default="vgg19")
    recipe.add_feature_net_args(group)
    recipe.add_arguments(group, UFLoss, recipe.UFLOSS_ARGS)
    group = parser.add_argument_group("model")
    recipe.add_arguments(group, RefinementModule, (*REFINEMENT_ARGS, *JOINT_ARGS), more_words=NETWORKS)
    parser.set_defaults(batch_size=5)
    return parser


def main() -> None:
    parser = make_parser()
    presets = {name: {"normalize": preset["normalize"]} for name, preset in JOINT_PRESETS.items()}
    args = recipe.parse(
        parser,
        DEMO,
        lambda args: presets[args.preset] if args.joint else {},
        lambda args: recipe.coils_of_checkpoint(args.recon),
    )
    weights = recipe.read_weights("--weights", args.weights or [], names=TERMS)
    check_arguments(parser, args, weights)
    if args.joint and args.recon is None and args.mode == "train":
        recipe.say("--joint without --recon: training the RecNet of train_recnet.py")
    pl.seed_everything(args.seed, workers=True)
    kind: type[AdversarialModule] = JointModule if args.joint else RefinementModule
    run_dir = recipe.run_folder(args, "joint" if args.joint else "refinement")
    checkpoint = args.checkpoint or run_dir / "checkpoints" / "last.ckpt"
    # before the data, which may have to be generated
    first = find_reconstruction(args) if args.mode == "train" else kind.load_from_checkpoint(checkpoint)
    data_path = recipe.find_data(args)
    data = recipe.make_data_module(args, data_path, run_dir, samples=first.samples)
    trainer = recipe.make_trainer(args, run_dir, num_optimizers=2)
    if args.mode == "train":
        hint = "; or take --perceptual ufloss, which needs no download"
        vgg = recipe.load_vgg(args, hint=hint) if args.perceptual == "vgg19" else None
        resume = recipe.begin(parser, args, run_dir, KEPT, kind=kind)
        takes_complex = first.is_complex and args.images != "magnitude"
        net = None
        if args.perceptual == "ufloss" and takes_complex and args.feature_net != recipe.GENERAL:
            net = PatchFeatureNet.load(args.feature_net)  # which may be of magnitudes
        elif args.perceptual == "ufloss":
            chans = 2 if takes_complex else 1
            net = recipe.load_feature_net(args.feature_net, in_chans=chans, patch_size=args.patch_size)
        pl.seed_everything(args.seed, workers=True)  # the same weights, whether a network was trained before or not
        losses: dict[str, nn.Module] = {}
        if vgg is not None:
            losses["perceptual"] = PerceptualLoss(vgg)
        elif net is not None:
            losses["perceptual"] = UFLoss(net, **recipe.pick(args, recipe.UFLOSS_ARGS))
        module = make_module(args, weights, losses)
        recipe.fit(trainer, module, data, resume)
        if not args.score:
            return
        recipe.say(f"\nThe last checkpoint on {recipe.split_to_score(data)}:")
    module = kind.load_from_checkpoint(checkpoint)
    trainer.test(module, datamodule=data, verbose=False)
    # of joint training the second title is not there
    first_stage = {} if args.joint else {module.reconstruction.title: "stages/reconstruction"}
    folders = {"zero-filled": "stages/zero_filled", **first_stage, module.title: "reconstructions"}
    recipe.score(trainer, data, folders, has_maps=module.samples == "modl")


def check_arguments(parser: ArgumentParser, args: Namespace, weights: dict[str, Any]) -> None:
    for name in recipe.changed(parser, args, ("recon", "images") if args.mode == "test" else ()):
        raise ValueError(f"--{name} is for --mode train: the checkpoint of a test has its own network")
    if args.gradient_clip_val is not None:
        raise ValueError("--gradient_clip_val is not for two optimizers: lower --lr")
    for name in recipe.changed(parser, args, REFINEMENT_ARGS if args.joint else ("preset",)):
        needs = "of the refinement network, which --joint has not" if args.joint else "for --joint"
        raise ValueError(f"--{name} is {needs}")
    for objective, names in (("vgg19", VGG_ARGS), ("ufloss", (*recipe.UFLOSS_ARGS, "feature_net", "patch_size"))):
        for name in recipe.changed(parser, args, names if args.perceptual != objective else ()):
            raise ValueError(f"--{name} is for --perceptual {objective}, got {args.perceptual}")
    recipe.check_patch_size(parser, args)
    if args.joint and "penalty" in weights:
        raise ValueError("--weights: penalty is of the refinement network, which --joint has not")
    if args.perceptual == "none" and "perceptual" in weights:
        raise ValueError("--weights: perceptual is for a term that --perceptual none leaves out")
    for name in [name for name in weights if name in PIXEL_LOSSES and not args.joint]:
        raise ValueError(f"--weights: {name} is for --joint, a refinement has no pixel loss")


def find_reconstruction(args: Namespace) -> MriModule:
    """The module of the reconstruction network; for --joint with new weights."""
    if args.recon is not None:
        module = load_reconstruction(args.recon)
        return type(module)(**module.hparams) if args.joint else module
    if not args.joint:
        scripts = "train_recnet.py, modl_ufloss/train.py, varnet/train.py or unet/train.py"
        raise ValueError(f"--recon must name a checkpoint of the network to refine: one of {scripts}")
    return RecNetModule(data_consistency="cg" if args.challenge == "multicoil" else "hard")


def make_module(args: Namespace, weights: dict[str, Any], losses: dict[str, nn.Module]) -> AdversarialModule:
    """The module with the paper's terms, or those of a preset of --joint, as the user has changed them."""
    reconstruction = find_reconstruction(args)
    options = recipe.pick(args, (*JOINT_ARGS, "images", "accumulate_grad_batches", "seed"))
    if not args.joint:
        weights = {**RefinementModule.default_weights(losses), **weights}
        options |= recipe.pick(args, REFINEMENT_ARGS)
        return RefinementModule(reconstruction, image_losses=losses, weights=weights, **options)
    preset = JOINT_PRESETS[args.preset]["weights"].items()
    weights = {name: weight for name, weight in preset if name != "perceptual" or losses} | weights
    pixel_losses = make_loss({name: 1.0 for name in weights if name in PIXEL_LOSSES}).terms
    return JointModule(reconstruction, image_losses={**pixel_losses, **losses}, weights=weights, **options)


if __name__ == "__main__":
    recipe.run(main)
