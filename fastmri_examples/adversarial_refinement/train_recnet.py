"""Train RecNet, the first stage of adversarial refinement, on a fastMRI folder, and test it.

    python fastmri_examples/adversarial_refinement/train_recnet.py --challenge singlecoil --data_path DATA

Blocks of convolutions with data consistency between them, trained with the mean squared error of complex images; the
mask of the paper is --mask_type gaussian_1d --center_fractions 0.03 --accelerations 8. Without --data_path it uses a
generated demo data set. Several coils get --data_consistency cg, one coil the paper's replacement of samples. The
same command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
train_refinement.py takes the checkpoint.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.models import RecNet
from fastmri_ufloss.pl_modules import RecNetModule

NAME = "recnet"
# what trains in minutes on two cores
DEMO = {"lr": 1e-3, "max_epochs": 12, "num_workers": 2, "stride": 10, "score_stride": 10}
MODULE_ARGS = recipe.arguments_of(RecNetModule, skip=("loss", "score_feature_net"))
STAGES = {"zero-filled": "stages/zero_filled", "CG-SENSE": "stages/cg_sense", RecNetModule.title: "reconstructions"}
KEPT = {*MODULE_ARGS, *recipe.LOSS_ARGS} - {"score_stride", "num_log_images"}  # what a training depends on


def main() -> None:
    parser = recipe.make_parser(__doc__)
    recipe.add_data_args(parser)
    recipe.add_trainer_args(parser, run_name=NAME, max_epochs=1500)
    recipe.add_loss_args(parser, default=["l2"], metrics=recipe.MAGNITUDE_METRICS)
    recipe.add_feature_network_args(parser)
    recipe.add_arguments(parser.add_argument_group("model"), RecNetModule, MODULE_ARGS, more_words=(RecNet,))
    recipe.add_mode_args(parser, default="the run's best", has_score=True)
    args = recipe.parse(
        parser, DEMO, lambda args: {"data_consistency": "cg"} if args.challenge == "multicoil" else {}
    )

    losses = recipe.Losses(parser, args)
    recipe.check_mode(args)
    data_path, run_dir = recipe.find_data(args), recipe.run_folder(args, NAME)
    pl.seed_everything(args.seed, workers=True)
    data = recipe.make_data_module(args, data_path, run_dir, samples="modl")
    trainer = recipe.make_trainer(args, run_dir)
    checkpoint = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
    if args.mode == "train":
        losses.prepare()
        resume = recipe.begin(parser, args, run_dir, KEPT, kind=RecNetModule)
        net = recipe.find_feature_net(args, data, run_dir, in_chans=2, needed=losses.needs_feature_net)
        pl.seed_everything(args.seed, workers=True)  # the same weights, whether a network was trained before or not
        loss = losses.make_loss(net)
        module = RecNetModule(**recipe.pick(args, MODULE_ARGS), loss=loss, score_feature_net=net)
        module.add_metrics(losses.make_metrics(None))
        recipe.fit(trainer, module, data, resume)
        if not args.score:
            return
        checkpoint = recipe.best_checkpoint(trainer)
        data.test_path = recipe.split_to_score(data)
        recipe.say(f"\nThe best checkpoint on {data.test_path}:")
    else:
        net = recipe.find_feature_net(args, data, run_dir, in_chans=2, needed=False)
    module = RecNetModule.load_from_checkpoint(checkpoint, score_feature_net=net, score_stride=args.score_stride)
    trainer.test(module, datamodule=data, verbose=False)
    recipe.score(trainer, data, STAGES, ufloss=module.ufloss_of_volumes())


if __name__ == "__main__":
    recipe.run(main)
