"""Train two U-Nets alike but for their loss, l2 and l2 + 0.1 dssim, and compare them subject by subject.

    python fastmri_examples/unet_dssim/train.py --nifti FOLDER --data_path DATA

is the experiment of Pawar et al., "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM
2019. Magnitude volumes such as IXI's T1 images become single-coil fastMRI volumes in DATA, split by subject. Net-mse
and Net-mse-dssim are trained with the same initial weights, batches and masks (2D variable density, 10x); the best of
each by its own validation loss is compared with the zero-filled image. Without --nifti DATA is a fastMRI folder;
without both a demo is generated. The same command again goes on where it was. Two calls may train side by side, with
--nets net_mse and --nets net_mse_dssim in the same folder; a last call without --nets makes the table.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fastmri
import numpy as np
import pytorch_lightning as pl
from fastmri.data.transforms import center_crop
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.baselines import volume_slices
from fastmri_ufloss.convert.jobs import FORMATS, SPLITS, Job, find_inputs, name_volumes, plan_jobs
from fastmri_ufloss.convert.magnitudes import convert_nifti
from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import write_json
from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.metrics import ReferenceVolume
from fastmri_ufloss.pl_modules import MriDataModule, UnetModule, read_checkpoint
from fastmri_ufloss.report import format_table, save_picture
from fastmri_ufloss.report.subject_tables import p_value_note, paired_rows

NAME = "unet_dssim"
NETS = {"net_mse": "Net-mse", "net_mse_dssim": "Net-mse-dssim"}  # folders and names
METHODS = {"zero_filled": "zero-filled", **NETS}
PAPER = {
    "challenge": "singlecoil",
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
# what a training depends on
KEPT = (
    *(*recipe.UNET_ARGS, *recipe.MASK, *recipe.MASK_OPTIONS, "mask_per_volume", "data_path", "combine_train_val"),
    *("challenge", "seed", "batch_size", "precision", "gradient_clip_val", "accumulate_grad_batches"),
    *("sample_rate", "val_sample_rate", "volume_sample_rate", "val_volume_sample_rate"),
    *("limit_train_batches", "limit_val_batches"),
)
SHARES = (254, 64)  # the abstract's subjects for training and validation
NIFTI_ARGS = ("split", "slice_axis", "subject_separator", "convert_workers")
SUBJECTS_FILE = "subjects.json"
SIMULATION = {"num_coils": None, "snr": float("inf"), "phase_strength": 0.0}  # k-space of the magnitudes, no more
REFERENCES = {"singlecoil": "reconstruction_esc", "multicoil": "reconstruction_rss"}
SCORES = ("SSIM", "SSIM Gaussian", "PSNR", "NRMSE")
LARGER_IS_BETTER = {"SSIM": True, "SSIM (Gaussian)": True, "PSNR": True, "relative error": False, "MSE": False}


def make_parser() -> ArgumentParser:
    parser = recipe.make_training_parser(__doc__, run_name=NAME, max_epochs=100)
    recipe.add_unet_args(parser.add_argument_group("model; its defaults, and those of the mask, are the abstract's"))
    group = parser.add_argument_group("networks")
    group.add_argument("--nets", nargs="+", choices=tuple(NETS), default=list(NETS), help="to train and compare")
    group.add_argument("--dssim_weight", type=float, default=0.1, help="of Net-mse-dssim's loss")
    group = parser.add_argument_group("NIfTI files")
    text = "of magnitude volumes (*.nii, *.nii.gz), to be converted into --data_path"
    group.add_argument("--nifti", type=Path | None, metavar="FOLDER", help=text)
    text = "numbers of subjects, in the order of their names, the rest is left out (default: all, 254 to 64 to 0)"
    group.add_argument("--split", type=int, nargs=3, metavar=SPLITS, help=text)
    recipe.add_arguments(group, convert_nifti, ("slice_axis",))
    text = "the subject is what stands before it in a file's name"  # IXI002-Guys-0828-T1.nii.gz is of IXI002
    group.add_argument("--subject_separator", metavar="TEXT", default="-", help=text)
    group.add_argument("--convert_workers", type=int, default=1, help="files converted at once")
    parser.set_defaults(**PAPER)
    return parser


def main() -> None:
    parser = make_parser()
    args = recipe.parse(parser, DEMO)
    nets = list(dict.fromkeys(args.nets))
    check_arguments(parser, args, nets)
    run_dir = recipe.run_folder(args, NAME)
    data_path = recipe.find_data(args) if args.nifti is None else convert(args)
    data = recipe.make_data_module(args, data_path, run_dir, samples="unet")
    asked = data.folder("test")
    if recipe.split_to_score(data) != asked and recipe.changed(parser, args, ("test_path", "test_split")):
        key = REFERENCES[args.challenge]
        raise ValueError(f"{asked} has no volumes with '{key}' to score: choose another --test_path")
    for net in nets:
        of_net = args.clone()
        of_net.nets, of_net.data_path, of_net.default_root_dir = [net], data_path.resolve(), run_dir
        train(parser, of_net, net, run_dir / net)
    if len(nets) < len(NETS):
        return
    recipe.say(f"\nThe best checkpoints on {data.folder('test')}:")
    for net in NETS:
        trainer = recipe.make_trainer(args, run_dir / net)
        module = UnetModule.load_from_checkpoint(recipe.best_checkpoint(run_dir / net))
        trainer.test(module, datamodule=data, verbose=False)
        trainer.strategy.barrier("test")  # the files of all processes
    if trainer.is_global_zero:
        write_zero_filled(data, run_dir / "zero_filled" / "reconstructions")
        compare(data, run_dir)


def check_arguments(parser: ArgumentParser, args: Namespace, nets: list[str]) -> None:
    if recipe.changed(parser, args, ("lr_gamma",)) and args.lr_step_size == PAPER["lr_step_size"]:
        raise ValueError("--lr_gamma needs --lr_step_size: without it the learning rate stays as it is")
    if args.resume not in ("auto", "never") and len(nets) > 1:
        raise ValueError("--resume FILE is for one network: say with --nets for which")
    for name in recipe.changed(parser, args, NIFTI_ARGS if args.nifti is None else ()):
        raise ValueError(f"--{name} is for NIfTI files, whose folder --nifti names")
    if args.nifti is not None and args.challenge != "singlecoil":
        raise ValueError("--nifti makes single-coil volumes: leave out --challenge multicoil")


def train(parser: ArgumentParser, args: Namespace, net: str, net_dir: Path) -> None:
    """Train a network in a folder of its own, unless that is done."""
    weights = {"l2": 1.0} if net == "net_mse" else {"l2": 1.0, "dssim": args.dssim_weight}
    kept = (*KEPT, "dssim_weight") if "dssim" in weights else KEPT
    resume = recipe.begin(parser, args, net_dir, kept, kind=UnetModule)
    steps = 0
    if resume is not None:
        checkpoint = read_checkpoint(resume)
        steps, epochs = checkpoint["global_step"], checkpoint["epoch"] + 1
        for limit, reached, now in (("epochs", epochs, args.max_epochs), ("steps", steps, args.max_steps)):
            if -1 < now < reached:
                raise ValueError(f"{net_dir} was trained for {reached} {limit}, --max_{limit} cannot become {now}")
    recipe.say(f"\n{NETS[net]}, loss {' '.join(f'{name}={weight:g}' for name, weight in weights.items())}: {net_dir}")
    pl.seed_everything(args.seed, workers=True)  # the same first weights for both
    module = UnetModule(loss=make_loss(weights), **recipe.pick(args, recipe.UNET_ARGS))
    data = recipe.make_data_module(args, args.data_path, net_dir.parent, samples="unet")
    trainer = recipe.make_trainer(args, net_dir)
    recipe.fit(trainer, module, data, resume)
    if trainer.global_step == steps:
        recipe.say(f"{NETS[net]} is trained: {net_dir}")
    if not (net_dir / "checkpoints" / "last.ckpt").is_file():  # --max_steps came before the first checkpoint
        trainer.save_checkpoint(net_dir / "checkpoints" / "last.ckpt", weights_only=False)


def convert(args: Namespace) -> Path:
    """The data folder, with the NIfTI files as volumes, and the file that names their subjects."""
    folder, data_path = args.nifti, args.data_path or recipe.log_path() / f"{NAME}_data"
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: check --nifti")
    subjects = group_by_subject(find_inputs("nifti", [folder]), args.subject_separator)
    count, split = len(subjects), args.split
    if split is None:
        held_out = max(1, round(count * SHARES[1] / sum(SHARES)))
        split = [count - held_out, held_out, 0]
        recipe.say(f"{count} subjects in {folder}: {split[0]} for training, {held_out} for validation")
    if min(split[:2]) < 1 or split[2] < 0 or sum(split) > count:
        raise ValueError(
            "--split must be numbers of subjects for training and validation, from 1, and for the test, from 0, "
            f"and no more than the {count} of {folder} in all, got {' '.join(map(str, split))}"
        )
    if count > sum(split):
        recipe.say(f"--split: {count - sum(split)} of {count} subjects of {folder} are left out")
    settings = {**SIMULATION, "slice_axis": args.slice_axis}
    parts = [part for part, subjects_of_part in zip(SPLITS, split, strict=True) for _ in range(subjects_of_part)]
    jobs: list[Job] = []
    subject_of: dict[str, str] = {}
    for part, subject in zip(parts, sorted(subjects), strict=False):  # the rest is left out
        of_subject = plan_jobs("nifti", subjects[subject], data_path / f"singlecoil_{part}", settings=settings)
        subject_of |= {job.output.name: subject for job in of_subject}
        jobs += of_subject
    recipe.convert(jobs, folder, flag="--nifti", num_workers=args.convert_workers)
    write_json(data_path / SUBJECTS_FILE, subject_of)
    return data_path


def group_by_subject(files: list[Path], separator: str) -> dict[str, list[Path]]:
    """Files by subject: what stands before the separator in their names."""
    if not separator:
        raise ValueError("--subject_separator must have at least one character")
    subjects: dict[str, list[Path]] = {}
    for name, file in name_volumes(files, FORMATS["nifti"].suffixes).items():
        subjects.setdefault(name.removesuffix(".h5").partition(separator)[0], []).append(file)
    if len(subjects) < 2:
        raise ValueError(
            f"{len(files)} NIfTI files of 1 subject, {next(iter(subjects))!r}, are too few: training and validation "
            f"need one each, at least. The subject is what stands before the first {separator!r} of a file's name: "
            "--subject_separator names another, such as _"
        )
    return subjects


def write_zero_filled(data: MriDataModule, folder: Path) -> None:
    """Zero-filled images of the test, as leaderboard files; those of a U-Net's samples are scaled and clamped."""
    data.test_transform = partial(zero_filled, data.test_transform.mask_slice)
    dataset, writer = data.dataset("test"), ReconstructionWriter(folder)
    for index in tqdm(range(len(dataset)), desc="Zero-filled images", unit="slice"):
        writer.add(*dataset[index])
    writer.close()


def zero_filled(
    mask_slice: Any, kspace: Any, mask: Any, target: Any, attrs: dict[str, Any], fname: str, slice_num: int
) -> tuple[str, int, Tensor]:
    """In the place of a U-Net's transform: the same mask, and the magnitude image."""
    full, mask_tensor, *_ = mask_slice(kspace, mask, attrs, fname, slice_num)
    image = fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(full * mask_tensor)))
    size = attrs["recon_size"][:2] if target is None else target.shape[-2:]
    return fname, slice_num, center_crop(image, tuple(map(min, size, image.shape)))


def compare(data: MriDataModule, run_dir: Path) -> None:
    """Write ``comparison.png``, and `report` the scores of the files.

    The reference is the file's own image: that of the training is clamped, as fastMRI does it for its U-Net.
    """
    file = data.data_path / SUBJECTS_FILE
    subjects = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    key = REFERENCES[data.challenge]
    rows: list[dict[str, Any]] = []
    for fname, slice_nums in tqdm(volume_slices(data.dataset("test")).items(), desc="Scores", unit="volume"):
        images = {}
        for folder, name in METHODS.items():
            with open_hdf5(run_dir / folder / "reconstructions" / fname, "reconstruction") as volume:
                images[name] = volume["reconstruction"][()]
        with open_hdf5(data.folder("test") / fname, key) as volume:
            whole = volume[key][()]
            subject = subjects.get(fname) or str(volume.attrs.get("patient_id", "")) or fname.removesuffix(".h5")
        target = center_crop(whole[slice_nums], images["Net-mse"].shape[1:])
        reference = ReferenceVolume(target, max_value=whole.max())
        scores = {name: reference.score(volume, names=SCORES) for name, volume in images.items()}
        if not rows:
            middle = len(slice_nums) // 2
            titles = {name: f"{name}, SSIM {of_name.slices['SSIM'][middle]:.3f}" for name, of_name in scores.items()}
            shown = {titles[name]: volume[middle] for name, volume in images.items()}
            save_picture(run_dir / "comparison.png", reference.images[middle], shown)
        for name, (of_slices, of_volume) in scores.items():
            row = {"volume": fname, "subject": subject, "method": name, "SSIM": of_volume["SSIM"]}
            row |= {"SSIM (Gaussian)": of_volume["SSIM Gaussian"], "PSNR": of_volume["PSNR"]}
            row |= {"relative error": np.nanmean(of_slices["NRMSE"]).item(), "MSE": 10 ** (-of_volume["PSNR"] / 10)}
            rows.append(row)
    report(rows, run_dir)


def report(rows: Sequence[Mapping[str, Any]], run_dir: Path) -> None:
    """Means over subjects and paired differences, on the terminal and in ``scores.json``."""
    by_subject, means = {}, []
    for method in METHODS.values():
        volumes: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["method"] == method:
                volumes.setdefault(row["subject"], []).append(row)
        by_subject[method] = {subject: mean(group) for subject, group in volumes.items()}
        means.append({"method": method, "subjects": len(volumes), **mean(list(by_subject[method].values()))})
    first, second = NETS.values()
    differences = paired_rows((first, by_subject[first]), (second, by_subject[second]), LARGER_IS_BETTER)
    note = p_value_note(len(by_subject[first]))
    document = {"means": means, "differences": differences, "note": note, "volumes": rows}
    write_json(run_dir / "scores.json", document)
    shown = [{name: "-" if value is None else value for name, value in row.items()} for row in differences]
    recipe.say("\nMeans over subjects, SSIM with fastMRI's windows and with those of the loss:")
    recipe.say(f"{format_table(means)}\n\n{second} minus {first}, paired by subject:\n{format_table(shown)}\n{note}")
    recipe.say(f"Scores: {run_dir / 'scores.json'}\nPicture: {run_dir / 'comparison.png'}")


def mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {metric: float(np.mean([row[metric] for row in rows])) for metric in LARGER_IS_BETTER}


if __name__ == "__main__":
    recipe.run(main)
