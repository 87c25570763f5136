"""Train fastMRI's VarNet on a fastMRI folder, on today's Lightning, with any loss.

    python fastmri_examples/varnet/train.py --challenge multicoil --data_path DATA --loss ssim=1 ufloss=0.1

The flags of data, trainer and loss are those of modl_ufloss/train.py, those of the model fastMRI's own. Without
--loss it is fastMRI's own run. With ufloss and without --feature_net the feature network is trained first, on the
root-sum-of-squares images of the training split. The same command again goes on from the last checkpoint.
--mode test writes reconstructions/*.h5.
"""

import sys
from functools import partial
from pathlib import Path

import fastmri.pl_modules
import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.pl_modules import VarNetModule

NAME = "varnet"
# what trains in minutes on two cores
DEMO = {
    "num_cascades": 3,
    "chans": 8,
    "sens_chans": 4,
    "max_epochs": 3,
    "lr": 1e-3,
    "num_workers": 2,
    "stride": 10,
    **recipe.DEMO_FEATURE_NET,
}
MODULE_ARGS = recipe.arguments_of(fastmri.pl_modules.VarNetModule)


def main() -> None:
    parser = recipe.make_parser(__doc__)
    recipe.add_data_args(parser)
    recipe.add_trainer_args(parser, run_name=NAME, max_epochs=50)
    recipe.add_loss_args(parser, default=None, words="fastMRI's SSIM")
    recipe.add_feature_network_args(parser)
    recipe.add_arguments(parser.add_argument_group("model"), fastmri.pl_modules.VarNetModule, MODULE_ARGS)
    recipe.add_mode_args(parser, default="the run's best", has_init_checkpoint=True)
    args = recipe.parse(parser, DEMO, partial(recipe.settings_of_init_checkpoint, kind=VarNetModule))

    pl.seed_everything(args.seed, workers=True)
    if args.challenge != "multicoil":
        raise ValueError(f"VarNet is for --challenge multicoil, got {args.challenge}: unet/train.py takes both")
    losses = recipe.Losses(parser, args)
    recipe.check_mode(args)
    losses.check_feature_net()
    data_path, run_dir = recipe.find_data(args), recipe.run_folder(args, NAME)
    data = recipe.make_data_module(args, data_path, run_dir, samples="varnet")
    trainer = recipe.make_trainer(args, run_dir)
    if args.mode == "test":
        checkpoint = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        trainer.test(VarNetModule.load_from_checkpoint(checkpoint), datamodule=data, verbose=False)
        return
    losses.prepare()
    resume = recipe.begin(
        parser, args, run_dir, {*MODULE_ARGS, *recipe.LOSS_ARGS, "init_checkpoint"}, kind=VarNetModule
    )
    net = recipe.find_feature_net(args, data, run_dir, in_chans=1, needed=losses.needs_feature_net)
    pl.seed_everything(args.seed, workers=True)  # the same first weights, whether a network was trained before or not
    module = VarNetModule(**recipe.pick(args, MODULE_ARGS), loss=losses.make_loss(net))
    recipe.load_network(module, args.init_checkpoint)
    module.add_metrics(losses.make_metrics(net))
    recipe.fit(trainer, module, data, resume)


if __name__ == "__main__":
    recipe.run(main)
