"""Reconstruct a folder of undersampled fastMRI files with a trained MoDL.

    python fastmri_examples/modl_ufloss/reconstruct.py --checkpoint CKPT --data_path FOLDER --output_path OUT

writes OUT/reconstructions/*.h5. Files need no reference; those without a mask of their own count as fully
sampled unless --mask_type and its companions undersample them.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli

from fastmri_ufloss.data import MoDLDataTransform, SensMapFiles, create_mask_for_mask_type
from fastmri_ufloss.pl_modules import MriDataModule, load_modl_module


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train.py")
    parser.add_argument("--data_path", type=Path, required=True, help="folder of HDF5 volumes")
    parser.add_argument("--output_path", type=Path, required=True)
    parser.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    parser.add_argument("--sens_maps_path", type=Path, default=None, help="folder of your own coil maps")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", default="auto")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed"))
    parser.add_argument("--mask_type", help="undersample files that have no mask")
    parser.add_argument("--center_fractions", nargs="+", type=float)
    parser.add_argument("--accelerations", nargs="+", type=int)
    cli.add_arguments_of(parser, MriDataModule, ("batch_size", "num_workers"))
    args = parser.parse_args()

    module = load_modl_module(args.checkpoint)
    mask_func = None
    if hasattr(args, "mask_type"):
        mask_func = create_mask_for_mask_type(
            args.mask_type, getattr(args, "center_fractions", []), getattr(args, "accelerations", [])
        )
    source = None if args.sens_maps_path is None else SensMapFiles(args.sens_maps_path)
    transform = MoDLDataTransform(mask_func, sens_maps=source, keep_reference=False)
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
        precision=args.precision,
        default_root_dir=args.output_path,
        use_distributed_sampler=False,
        logger=False,
    )
    trainer.test(module, datamodule=data, verbose=False)


if __name__ == "__main__":
    cli.run(main)
