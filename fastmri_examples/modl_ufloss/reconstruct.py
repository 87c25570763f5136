"""Reconstruct a folder of fastMRI files: classical methods, and a trained MoDL where there is a checkpoint.

    python fastmri_examples/modl_ufloss/reconstruct.py --data_path FOLDER --output_path OUT --checkpoint CKPT

writes OUT/reconstructions/METHOD/*.h5, a picture of each volume, and each method's residual on the acquired samples.
Files need no reference. The mask of a file, or the zeros of its k-space, say how it was sampled; fully sampled files
are undersampled if --mask_type and its companions ask for it, and then scored as well.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from jsonargparse import Namespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.baselines import CLASSICAL_METHODS, read_weights
from fastmri_ufloss.data import MoDLDataTransform
from fastmri_ufloss.files import write_json
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule, ReconstructionModule
from fastmri_ufloss.report import format_table, save_comparison

WITHOUT_BART = {name: method for name, method in CLASSICAL_METHODS.items() if method.needs != "bart"}
TITLES = {**{name: method.title for name, method in WITHOUT_BART.items()}, "modl": "MoDL"}
LOADER_ARGS = ("batch_size", "num_workers")
COMPANIONS = ("center_fractions", "accelerations", *recipe.MASK_OPTIONS)


def main() -> None:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--data_path", type=Path, required=True, help="folder of HDF5 volumes")
    parser.add_argument("--output_path", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path | None, help="of train.py, for the method modl")
    text = "(default: modl with a checkpoint, otherwise zero_filled and cg_sense); pics_, dlmri: seconds a slice"
    parser.add_argument("--methods", nargs="+", choices=("all", *TITLES), help=text)
    text = "regularization weights by hand, such as pics_wavelet=0.002 (default: the methods' own)"
    parser.add_argument("--weights", nargs="+", metavar="METHOD=VALUE", help=text)
    parser.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    recipe.add_map_args(parser)
    recipe.add_device_args(parser)
    recipe.add_mask_args(parser.add_argument_group("retrospective undersampling, only with --mask_type"))
    group = parser.add_argument_group("loader")
    recipe.add_arguments(group, MriDataModule, LOADER_ARGS)
    recipe.add_arguments(group, MoDLDataTransform, ("crop_rows",))
    recipe.add_coil_args(group, "; default: those that the checkpoint was trained on")
    parser.set_defaults(crop_rows=True)
    args = recipe.parse(
        parser,
        {},
        lambda args: {} if args.mask_type is None else recipe.MASK,
        lambda args: recipe.coils_of_checkpoint(args.checkpoint),
    )
    for name in recipe.changed(parser, args, COMPANIONS if args.mask_type is None else ()):
        raise ValueError(f"--{name} is for retrospective undersampling, which --mask_type asks for")
    methods = make_methods(args)
    mask_func = None if args.mask_type is None else recipe.make_mask_func(args)
    source = recipe.make_map_source(args, args.output_path / "cache", on_device=True)
    options = recipe.pick(args, ("crop_rows", "num_virtual_coils"))
    transform = MoDLDataTransform(mask_func, sens_maps=source, keep_reference=mask_func is not None, **options)
    data = MriDataModule(
        args.data_path,
        args.challenge,
        *(transform,) * 3,
        cache_dir=args.output_path / "cache",
        mask_func=mask_func,
        test_path=args.data_path,
        **recipe.pick(args, LOADER_ARGS),
    )
    devices = recipe.pick(args, recipe.DEVICE_ARGS)
    trainer = pl.Trainer(**devices, default_root_dir=args.output_path, use_distributed_sampler=False, logger=False)
    module = ReconstructionModule(methods)
    trainer.test(module, datamodule=data, verbose=False)
    residuals = module.residuals()
    folders = {TITLES[name]: f"reconstructions/{name}" for name in methods}
    recipe.score(trainer, data, folders, reference="reference")
    if trainer.is_global_zero:
        report(args.output_path, residuals)


def make_methods(args: Namespace) -> dict[str, Callable[..., Any]]:
    modl = None if args.checkpoint is None else MoDLModule.load_from_checkpoint(args.checkpoint)
    names = args.methods or (["zero_filled", "cg_sense"] if modl is None else ["modl"])
    if "all" in names:
        names = [name for name, method in WITHOUT_BART.items() if not method.missing] + (["modl"] if modl else [])
    if "modl" in names and modl is None:
        raise ValueError("--methods: modl needs a network, whose file --checkpoint names")
    weights = read_weights(args.weights or [], names)
    for name in names:
        if name != "modl" and WITHOUT_BART[name].missing:
            raise ImportError(WITHOUT_BART[name].missing)
    return {name: modl if name == "modl" else partial(WITHOUT_BART[name], lam=weights.get(name)) for name in names}


def report(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_json(folder / "residuals.json", {"residuals": rows})
    for fname in dict.fromkeys(row["volume"] for row in rows):
        residuals = {row["method"]: row["residual"] for row in rows if row["volume"] == fname}
        folders = {TITLES[method]: folder / "reconstructions" / method for method in residuals}
        images = recipe.middle_slices(folders, fname)
        notes = {TITLES[method]: f"residual {residual:.3g}" for method, residual in residuals.items()}
        compared = TITLES["cg_sense"] if TITLES["cg_sense"] in images else None
        picture = folder / "pictures" / f"{Path(fname).stem}.png"
        save_comparison(picture, images, compare_with=compared, notes=notes, title=fname)
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        residual = np.mean([row["residual"] for row in rows if row["method"] == method])
        table.append({"method": TITLES[method], "residual": float(residual)})
    print(f"\nResidual on the acquired samples, mean over the volumes:\n{format_table(table)}")
    print(f"Images: {folder / 'reconstructions'}\nPictures: {folder / 'pictures'}", flush=True)


if __name__ == "__main__":
    recipe.run(main)
