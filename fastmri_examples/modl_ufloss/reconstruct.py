"""Reconstruct a folder of fastMRI files: classical methods, and a trained MoDL where there is a checkpoint.

    python fastmri_examples/modl_ufloss/reconstruct.py --data_path FOLDER --output_path OUT --checkpoint CKPT

writes OUT/reconstructions/METHOD/*.h5, a picture of each volume, and each method's residual on the acquired samples.
Files need no reference. How a file was sampled is in its mask, or shows in the zeros of its k-space; fully sampled
files are undersampled if --mask_type and its companions ask for it, and then scored as well.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import method_weights

from fastmri_ufloss.baselines import CLASSICAL_METHODS
from fastmri_ufloss.data import MoDLDataTransform, SensMapFiles
from fastmri_ufloss.pl_modules import METHODS, MriDataModule, ReconstructionModule, load_modl_module


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--data_path", type=Path, required=True, help="folder of HDF5 volumes")
    parser.add_argument("--output_path", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=None, help="of train.py, for the method modl")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=("all", *METHODS),
        help="(default: modl with a checkpoint, otherwise zero_filled and cg_sense); pics_, dlmri: seconds a slice",
    )
    method_weights.add_weights_arg(parser)
    parser.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    parser.add_argument("--sens_maps_path", type=Path, default=None, help="folder of your own coil maps")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", default="auto")
    parser.add_argument("--num_nodes", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed"))
    cli.add_mask_args(parser.add_argument_group("retrospective undersampling, only with --mask_type"))
    cli.add_arguments_of(parser, MriDataModule, ("batch_size", "num_workers"))
    args = parser.parse_args()

    companions = cli.typed(args, ("center_fractions", "accelerations", *cli.MASK_OPTIONS))
    if companions and not hasattr(args, "mask_type"):
        raise ValueError(f"--{next(iter(companions))} is for retrospective undersampling, which --mask_type asks for")
    modl = None if args.checkpoint is None else load_modl_module(args.checkpoint)
    methods = getattr(args, "methods", ["zero_filled", "cg_sense"] if modl is None else ["modl"])
    if "all" in methods:
        methods = [name for name, method in CLASSICAL_METHODS.items() if name in METHODS and not method.missing]
        methods += [] if modl is None else ["modl"]
    mask_func = cli.make_mask_func(args) if hasattr(args, "mask_type") else None
    source = None if args.sens_maps_path is None else SensMapFiles(args.sens_maps_path)
    transform = MoDLDataTransform(mask_func, sens_maps=source, keep_reference=mask_func is not None)
    data = MriDataModule(
        args.data_path,
        args.challenge,
        transform,
        transform,
        transform,
        cache_dir=args.output_path / "cache",
        mask_func=mask_func,
        test_path=args.data_path,
        **cli.typed(args, ("batch_size", "num_workers")),
    )
    trainer = pl.Trainer(
        accelerator=args.accelerator,
        devices=args.devices if not args.devices.isdigit() else int(args.devices),
        num_nodes=args.num_nodes,
        strategy=args.strategy,
        precision=args.precision,
        default_root_dir=args.output_path,
        use_distributed_sampler=False,
        logger=False,
    )
    trainer.test(
        ReconstructionModule(methods, modl=modl, weights=method_weights.read_weights(args)),
        datamodule=data,
        verbose=False,
    )


if __name__ == "__main__":
    cli.run(main)
