"""fastMRI's U-Net and VarNet with every loss, each alone, on generated knees and on real cardiac images.

    python benchmarks/loss_runs.py --data FOLDER --work FOLDER [--json FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` (n, 256, 256), a file for each subject). The heart's
128x128 pixels of each become 4-coil volumes by simulation, 24 subjects for training and 6 for validation. Every run
is a recipe of `fastmri_examples` as a user types it; the feature networks are trained first. The table has the loss
in the first, the middle and the last twenty steps, and NMSE and SSIM of the validation by volume, beside the
zero-filled image's. A loss that is not finite would stop its run. VGG has random weights unless `--vgg_weights` names
a file. Finished runs are not repeated.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import fastmri
import h5py
import numpy as np
import torch
from fastmri.data.subsample import create_mask_for_mask_type
from fastmri.data.transforms import apply_mask, to_tensor
from fastmri.evaluate import nmse, ssim
from runs import HELD_OUT, recipe, run_together
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastmri_ufloss.losses import LOSS_NAMES
from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.demo import make_demo_dataset
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

SIZE, CROP = 256, 128
MASK = {"center_fractions": [0.08], "accelerations": [4]}
# a step of each costs a fraction of a second on one core
NETWORKS = {
    "unet": ["--chans", 16],
    "varnet": ["--num_cascades", 2, "--chans", 6, "--sens_chans", 4, "--lr", 1e-3],
}
LOSS_OPTIONS = {
    "ms_ssim": lambda args, net: ["--ms_ssim_scales", 4],  # five need 161 pixels
    "perceptual": lambda args, net: ["--vgg_weights", args.vgg_weights],
    "ufloss": lambda args, net: ["--feature_net", net, "--stride", 10],
}


def make_volumes(source: Path, root: Path) -> None:
    """npz files to fastMRI volumes, a volume for each subject."""
    files = sorted(source.glob("SC-*.npz"))
    if not files:
        raise SystemExit(f"error: no SC-*.npz in {source}")
    start = (SIZE - CROP) // 2
    for number, file in enumerate(files):
        path = root / f"multicoil_{'val' if file.stem in HELD_OUT else 'train'}" / f"{file.stem}.h5"
        if not path.is_file():
            images = np.load(file, allow_pickle=False)["images"].astype(np.float32) / 255
            images = images[:, start : start + CROP, start : start + CROP]
            write_volume(path, simulate_kspace(images, num_coils=4, snr=20.0, seed=number))


def zero_filled(root: Path) -> dict[str, float]:
    """Means over the validation's volumes, with the masks that the runs have."""
    masks = create_mask_for_mask_type("random", MASK["center_fractions"], MASK["accelerations"])
    scores = []
    for path in sorted((root / "multicoil_val").glob("*.h5")):
        with h5py.File(path) as volume:
            kspace, target = volume["kspace"][()], volume["reconstruction_rss"][()]
            max_value = float(volume.attrs["max"])
        masked = apply_mask(to_tensor(kspace), masks, seed=tuple(map(ord, path.name)))[0]
        output = fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(masked)), dim=1).numpy()
        scores.append((nmse(target, output), ssim(target, output, max_value).item()))
    means = np.mean(scores, axis=0)
    return {"NMSE": float(means[0]), "SSIM": float(means[1])}


def pretrain(args: argparse.Namespace, roots: dict[str, Path]) -> dict[str, Path]:
    """A feature network of one channel for each data set."""
    options = ["--images", "rss", "--patch_size", 40, "--patches_per_slice", 15, "--batch_size", 64]
    options += ["--max_epochs", args.pretrain_epochs, "--accelerator", args.accelerator]
    folders = {name: args.work / f"feature_net_{name}" for name in roots}
    commands = {
        f"pretrain_{name}": recipe("pretrain.py", roots[name], folder, *options)
        for name, folder in folders.items()
        if not (folder / "feature_net.safetensors").is_file()
    }
    run_together(commands, args.work / "logs", threads=args.threads)
    return {name: folder / "feature_net.safetensors" for name, folder in folders.items()}


Folders = dict[tuple[str, str, str], Path]


def train(args: argparse.Namespace, roots: dict[str, Path], nets: dict[str, Path]) -> Folders:
    """All runs, two side by side; returns their folders by network, data and loss."""
    folders = {
        (network, data, loss): args.work / f"{network}_{data}_{loss}"
        for data in roots
        for network in NETWORKS
        for loss in LOSS_NAMES
    }
    missing = {key: folder for key, folder in folders.items() if not (folder / "checkpoints" / "best.ckpt").is_file()}
    keys = list(missing)
    for i in range(0, len(keys), args.processes):
        commands = {}
        for network, data, loss in keys[i : i + args.processes]:
            slices = len(_slices(roots[data] / "multicoil_train"))
            epochs = math.ceil(args.steps / slices)
            commands[f"{network}_{data}_{loss}"] = recipe(
                f"../{network}/train.py", roots[data], folders[network, data, loss], *NETWORKS[network],
                "--loss", f"{loss}=1", *LOSS_OPTIONS.get(loss, lambda args, net: [])(args, nets[data]),
                "--log_every_n_steps", 1,
                "--max_epochs", epochs, "--limit_train_batches", math.ceil(args.steps / epochs),
                "--accelerator", args.accelerator, "--seed", args.seed, "--accelerations", *MASK["accelerations"],
                "--center_fractions", *MASK["center_fractions"],
            )  # fmt: skip
        run_together(commands, args.work / "logs", threads=args.threads)
        print(f"{min(i + args.processes, len(keys))} of {len(keys)} runs", flush=True)
    return folders


def _slices(folder: Path) -> list[int]:
    numbers = []
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as volume:
            numbers += range(len(volume["kspace"]))
    return numbers


def row(network: str, data: str, loss: str, folder: Path, unaided: dict[str, float]) -> dict[str, Any]:
    """What a run's log says."""
    events = EventAccumulator(str(folder / "tensorboard" / "version_0"), size_guidance={"scalars": 0}).Reload()
    curve = [event.value for event in events.Scalars(f"train_terms/{loss}")]
    middle = len(curve) // 2
    numbers = {
        "network": network,
        "data": data,
        "loss": loss,
        "steps": len(curve),
        "first 20": float(np.mean(curve[:20])),
        "middle 20": float(np.mean(curve[middle - 10 : middle + 10])),
        "last 20": float(np.mean(curve[-20:])),
        "NMSE": events.Scalars("val_metrics/nmse")[-1].value,
        "SSIM": events.Scalars("val_metrics/ssim")[-1].value,
        "NMSE, zero-filled": unaided["NMSE"],
        "SSIM, zero-filled": unaided["SSIM"],
    }
    if not np.isfinite(curve).all():
        raise SystemExit(f"error: the loss of {folder} is not finite in its log")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--pretrain_epochs", type=int, default=5)
    parser.add_argument("--vgg_weights", default="random", help="file of ImageNet weights of VGG-16")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    roots = {"demo": args.work / "demo", "cardiac": args.work / "cardiac"}
    make_demo_dataset(roots["demo"], challenge="multicoil")
    make_volumes(args.data, roots["cardiac"])
    folders = train(args, roots, pretrain(args, roots))
    unaided = {data: zero_filled(root) for data, root in roots.items()}
    rows = [row(*key, folder, unaided[key[1]]) for key, folder in folders.items()]
    print(format_table(rows))
    if args.json:
        settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
        settings |= {"torch": torch.__version__, "networks": {k: list(map(str, v)) for k, v in NETWORKS.items()}}
        args.json.write_text(json.dumps({"settings": settings, "runs": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
