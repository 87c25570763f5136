"""Train fastMRI's VarNet on a fastMRI folder, on today's Lightning.

    python fastmri_examples/varnet/train.py --challenge multicoil --data_path DATA

The flags of data and trainer are those of modl_ufloss/train.py, those of the model fastMRI's own. The same
command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5.
"""

import inspect
import sys
from pathlib import Path

import fastmri.pl_modules
import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli

from fastmri_ufloss.losses import LOSS_NAMES, make_loss
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import VarNetModule

MAX_EPOCHS = 50
# what trains in minutes on two cores
DEMO = {"num_cascades": 3, "chans": 8, "sens_chans": 4, "max_epochs": 3, "lr": 1e-3, "num_workers": 2}

MODEL_ARGS = tuple(name for name in inspect.signature(fastmri.pl_modules.VarNetModule).parameters if name != "kwargs")


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    cli.add_data_args(parser)
    cli.add_trainer_args(parser, run_name="varnet", max_epochs=MAX_EPOCHS)
    group = parser.add_argument_group("model")
    cli.add_arguments_of(group, fastmri.pl_modules.VarNetModule, MODEL_ARGS)
    group.add_argument("--checkpoint", type=Path, default=None, help="for --mode test (default: the run's best)")
    group.add_argument("--loss", nargs="+", help=f"NAME=WEIGHT of {', '.join(LOSS_NAMES)} (default: fastMRI's SSIM)")
    group.add_argument("--feature_net", type=Path, default=None, help="of 1 channel, for --loss ufloss")
    args = parser.parse_args()

    pl.seed_everything(args.seed, workers=True)
    weights = cli.parse_loss(args.loss) if hasattr(args, "loss") else None
    net = None if args.feature_net is None else PatchFeatureNet.load(args.feature_net)
    loss = None if weights is None else make_loss(weights, feature_net=net)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "varnet", is_demo=is_demo)
    if is_demo:
        for name, value in DEMO.items():
            vars(args).setdefault(name, value)
        cli.say(f"Demo settings: {', '.join(f'{k} {getattr(args, k)}' for k in DEMO)}")
    data = cli.make_data_module(args, data_path, run_dir, maps=False, train_seed=args.seed)
    trainer = cli.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS)
    if args.mode == "train":
        settings = cli.typed(args, MODEL_ARGS)
        resume = cli.checkpoint_to_resume(args, run_dir, prefix="varnet.", settings=settings)
        module = VarNetModule(loss=loss, **settings)
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    else:
        best = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        checkpoint = cli.read_checkpoint(best, prefix="varnet.")
        module = VarNetModule(**checkpoint["hyper_parameters"])
        weights = checkpoint["state_dict"].items()
        module.varnet.load_state_dict(
            {name.removeprefix("varnet."): weight for name, weight in weights if name.startswith("varnet.")}
        )
        trainer.test(module, datamodule=data, verbose=False)


if __name__ == "__main__":
    cli.run(main)
