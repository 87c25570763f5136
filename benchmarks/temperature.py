"""Which temperature trains the feature network best? A short training for each, on the Sunnybrook cines.

    python benchmarks/temperature.py --data FOLDER --json FILE

FOLDER holds the subjects as ``SC-*.npz`` with magnitudes ``images`` (n, rows, cols), which get a smooth
random phase. For each temperature the table has retrieval@1 on held-out subjects, 1 - <f, f^> under noise and
blur, and what is left of the error of a blurred image after descent on UFLoss alone. An untrained network
(--steps 0) is the row to compare with: retrieval alone says little.
"""

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import DataLoader

from fastmri_ufloss.data.patches import PatchDataset, PatchSettings, patch_file_name, write_volume_patches
from fastmri_ufloss.losses.ufloss import UFLoss, ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.pl_modules.feature_module import FeatureModule
from fastmri_ufloss.report.figures.noise_and_blur import blurred, noisy

HELD_OUT = ("SC-HF-I-40", "SC-HF-NI-36", "SC-HYP-40", "SC-N-40", "SC-HF-I-08", "SC-N-07")
NOISE = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
BLUR = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)


def complex_images(path: Path) -> Tensor:
    """The images of a subject with a smooth phase that depends on its name only, (n, rows, cols)."""
    magnitude = np.load(path)["images"].astype(np.float32)
    generator = np.random.default_rng(zlib.crc32(path.stem.encode()))
    phase = gaussian_filter(generator.standard_normal(magnitude.shape), (0, 30, 30), mode="wrap")
    phase = phase / phase.std() + generator.uniform(0, 2 * np.pi, (len(magnitude), 1, 1))
    return torch.from_numpy((magnitude * np.exp(1j * phase)).astype(np.complex64))


def descent(loss: UFLoss, image: Tensor, steps: int) -> float:
    """Error after descent on UFLoss alone from the 4-fold blurred image, relative to that at the start."""
    target = image / image_scale(image)
    start = blurred(target, 4.0)
    x = torch.view_as_real(start).clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.view_as_complex(x), target).backward()
        optimizer.step()
    return float((torch.view_as_complex(x.detach()) - target).norm() / (start - target).norm())


def patches_of(subjects: Sequence[Path], folder: Path, patch_size: int, per_slice: int) -> PatchDataset:
    files = []
    for subject in subjects:
        settings = PatchSettings(patch_size, per_slice, seed=0)
        file = folder / patch_file_name(subject, settings, in_chans=2)
        files.append(write_volume_patches(file, complex_images(subject), settings, volume_name=subject.name))
    return PatchDataset(files)


def measure(temperature: float, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train with a temperature and measure the network."""
    pl.seed_everything(0)
    subjects = sorted(args.data.glob("SC-*.npz"))
    train = patches_of([s for s in subjects if s.stem not in HELD_OUT], folder, args.patch_size, 14)
    held_out = patches_of([s for s in subjects if s.stem in HELD_OUT], folder, args.patch_size, 12)
    module = FeatureModule(len(train), patch_size=args.patch_size, temperature=temperature)
    trainer = pl.Trainer(
        max_steps=args.steps,
        accelerator=args.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(module, DataLoader(train, batch_size=64, shuffle=True, drop_last=True))
    seconds = time.perf_counter() - start
    train_loss = float(trainer.callback_metrics.get("train_loss", float("nan")))
    (retrieval,) = trainer.validate(module, DataLoader(held_out, batch_size=64), verbose=False)

    net = module.feature_net.cpu().eval().requires_grad_(False)
    images = torch.stack([complex_images(s)[8, None] for s in subjects if s.stem in HELD_OUT])

    def dissimilarity(changed: Tensor) -> float:
        return float(ufloss_per_image(net, changed, images, stride=16).mean()) / 2

    with torch.no_grad():
        noise = [dissimilarity(noisy(images, share)) for share in NOISE]
        blur = [dissimilarity(blurred(images, factor)) for factor in BLUR]
    middle = images[:1, :, 64:192, 64:192]
    left = descent(UFLoss(net), middle, args.descent) if args.descent else float("nan")
    return {
        "temperature": temperature,
        "patches": len(train),
        "held_out": len(held_out),
        "steps": args.steps,
        "seconds": seconds,
        "train_loss": train_loss,
        **{name: float(value) for name, value in retrieval.items()},
        "noise": noise,
        "blur": blur,
        "descent": left,
    }


def show(results: list[dict[str, Any]]) -> None:
    """The table."""
    first = results[0]
    print(f"\n{first['patches']} patches, {first['held_out']} held out, {first['steps']} steps of 64")
    print("tau    loss   R@1  shift  noise  blur | 1-<f,f^> noise 0..10%                blur R 1..4"
          "                                | descent")  # fmt: skip
    for r in results:
        shares = "  ".join(f"{r['retrieval@1' + name]:.3f}" for name in ("", "_shift", "_noise", "_blur"))
        noise, blur = (" ".join(f"{value:.3f}" for value in r[name]) for name in ("noise", "blur"))
        print(f"{r['temperature']:<5} {r['train_loss']:6.3f} {shares} | {noise} {blur} | {r['descent']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of SC-*.npz")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.5, 0.2, 0.1, 0.07])
    parser.add_argument("--steps", type=int, default=400, help="training steps of 64 patches")
    parser.add_argument("--patch-size", type=int, default=40)
    parser.add_argument("--descent", type=int, default=400, help="steps of descent on UFLoss, 0 to leave out")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--threads", type=int, help="threads of torch")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for temperature in args.temperatures:
            results.append(measure(temperature, args, Path(folder)))
            args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            show(results[-1:])
    show(results)


if __name__ == "__main__":
    main()
