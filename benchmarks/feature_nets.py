"""Which feature network for UFLoss? Architectures, augmentation, temperatures and widths, on real cardiac images.

    python benchmarks/feature_nets.py --data FOLDER [--variants NAME ...] [--json FILE]

FOLDER holds the Sunnybrook subjects as ``SC-*.npz`` with magnitudes ``images`` (n, rows, cols), which get a smooth
random phase. Each variant trains for the same CPU seconds on 20 subjects and is measured on 4 others. To find a
shifted, noisy or blurred copy of a patch is easy, also for an untrained network. To find the same place in the other
phase of the heart, or in the next slice, is not; each image has another random phase, so that it does not help. Then
the squared distance to images that differ by the same error (NRMSE 0.1): blurred, noisy, with a ghost, another
brightness or phase, shifted by a pixel; and the distances along noise and blur. Last, what UFLoss costs with it:
forward and backward pass of a band of 64 rows of 372 columns.
"""

import argparse
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from runs import HELD_OUT, VALIDATION
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import DataLoader

from fastmri_ufloss.data.patches import PatchDataset, PatchSettings, patch_file_name, write_volume_patches
from fastmri_ufloss.files import write_json
from fastmri_ufloss.losses import UFLoss, ufloss_per_image
from fastmri_ufloss.models import PatchFeatureNet, pretrained_feature_net
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.pl_modules import FeatureModule
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.noise_and_blur import blurred, noisy

AUGMENTED = {"phase_augmentation": True, "magnitude_augmentation": True}
NARROW = {"architecture": "narrow", "lr": 1e-3, **AUGMENTED}
VARIANTS: dict[str, dict[str, Any]] = {
    "resnet18": {**AUGMENTED},
    "resnet18, not augmented": {},
    "resnet18, rate 1e-3": {"lr": 1e-3, **AUGMENTED},
    "narrow": NARROW,
    "narrow, not augmented": {"architecture": "narrow", "lr": 1e-3},
    "narrow, patches of 40": {**NARROW, "patch_size": 40},
    "narrow, width 16": {**NARROW, "width": 16},
    "narrow, width 48": {**NARROW, "width": 48},
    "narrow, temperature 1": {**NARROW, "temperature": 1.0},
    "narrow, temperature 0.2": {**NARROW, "temperature": 0.2},
    "narrow, temperature 0.07": {**NARROW, "temperature": 0.07},
    "resnet18, untrained": {"lr": 0.0},
    "narrow, untrained": {"architecture": "narrow", "lr": 0.0},
    "general-complex": {},
}
NOISE, BLUR = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1), (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
ERROR = 0.1
BATCH = 64


def complex_images(path: Path) -> Tensor:
    """The images of a subject, each with a smooth phase that depends on names only and at its scale."""
    magnitude = np.load(path, allow_pickle=False)["images"].astype(np.float32)
    generator = np.random.default_rng(zlib.crc32(path.stem.encode()))
    phase = gaussian_filter(generator.standard_normal(magnitude.shape), (0, 30, 30), mode="wrap")
    phase = phase / phase.std() + generator.uniform(0, 2 * np.pi, (len(magnitude), 1, 1))
    images = torch.from_numpy((magnitude * np.exp(1j * phase)).astype(np.complex64))
    return images / image_scale(images).reshape(-1, 1, 1)


def train(settings: dict[str, Any], subjects: Sequence[Path], folder: Path, seconds: float) -> tuple[Any, int]:
    """The network after so many CPU seconds of training, and its steps."""
    pl.seed_everything(0)
    files = []
    patches = PatchSettings(settings.get("patch_size", 60), 30, seed=0)
    for subject in subjects:
        file = folder / patch_file_name(subject, patches, in_chans=2)
        files.append(write_volume_patches(file, complex_images(subject), patches, volume_name=subject.name))
    data = PatchDataset(files)

    def fit(steps: int) -> tuple[FeatureModule, float]:
        pl.seed_everything(0)
        module = FeatureModule(len(data), **settings)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_steps=steps, accelerator="cpu", enable_model_summary=False, **quiet)
        start = time.process_time()
        trainer.fit(module, DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True))
        return module, time.process_time() - start

    if settings.get("lr") == 0:
        return FeatureModule(1, **settings).feature_net, 0
    times = [fit(steps)[1] for steps in (2, 22)]
    steps = max(1, round((seconds - times[0]) / (times[1] - times[0]) * 20))
    return fit(steps)[0].feature_net, steps


def cut(images: Tensor, places: Sequence[tuple[int, int, int]], size: int) -> Tensor:
    """Patches (n, 2, size, size) at (image, row, col)."""
    patches = torch.stack([images[i, r : r + size, c : c + size] for i, r, c in places])
    return torch.view_as_real(patches).movedim(-1, 1).contiguous()


@torch.no_grad()
def retrieval(net: PatchFeatureNet, subjects: Sequence[Tensor]) -> dict[str, float]:
    """Fractions of patches that are found again by a changed copy, and the area under the curve of the hard ones."""
    size, generator = net.patch_size, torch.Generator().manual_seed(0)
    kinds: dict[str, list[Tensor]] = {name: [] for name in ("itself", "shift", "noise", "blur", "phase", "slice")}
    for images in subjects:
        for first in range(0, len(images) - 3, 2):  # pairs: end of diastole and of systole of a slice
            corners = torch.randint(40, 216 - size, (12, 2), generator=generator).tolist()
            at = {d: [(first + d, row, col) for row, col in corners] for d in (0, 1, 2)}
            patch = cut(images, at[0], size)
            kinds["itself"].append(patch)
            kinds["shift"].append(cut(images, [(i, row + 2, col + 2) for i, row, col in at[0]], size))
            kinds["noise"].append(patch + 0.1 / 2**0.5 * torch.randn(patch.shape, generator=generator))
            kinds["blur"].append(F.avg_pool2d(F.pad(patch, (1, 1, 1, 1), mode="reflect"), 3, stride=1))
            kinds["phase"].append(cut(images, at[1], size))
            kinds["slice"].append(cut(images, at[2], size))
    features = {name: net(torch.cat(patches)) for name, patches in kinds.items()}
    scores = {}
    for name in list(kinds)[1:]:
        products = features[name] @ features["itself"].T
        better = (products > products.diagonal()[:, None]).sum(dim=1).float()
        scores[f"found: {name}"] = float((better == 0).float().mean())
        if name in ("phase", "slice"):
            scores[f"area: {name}"] = 1 - float(better.mean()) / len(better)
    return scores


def at_error(images: Tensor, changed: Tensor) -> Tensor:
    """The change made as large as ERROR of each image."""
    change = changed - images
    ratio = ERROR * images.flatten(1).norm(dim=1) / change.flatten(1).norm(dim=1)
    return images + ratio.reshape(-1, 1, 1) * change


@torch.no_grad()
def distances(net: PatchFeatureNet, subjects: Sequence[Tensor]) -> dict[str, Any]:
    """UFLoss of changes of one size, and along noise and blur."""
    images = torch.cat([each[6:10:2] for each in subjects])
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal(images.shape), (0, 25, 25), mode="wrap")
    field = torch.from_numpy(smooth / smooth.std()).float()
    changed = {
        "blur": blurred(images, 2.5),
        "noise": images + torch.randn(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(0)),
        "ghost": images + torch.roll(images, 64, dims=-1),
        "brightness": images * (1 + 0.1 * field),
        "turn": images * torch.exp(0.1j * field),
        "a pixel": torch.roll(images, 1, dims=-1),
    }

    def ufloss(other: Tensor) -> float:
        return float(ufloss_per_image(net, other[:, None], images[:, None], stride=20).mean())

    values: dict[str, Any] = {f"to: {name}": ufloss(at_error(images, other)) for name, other in changed.items()}
    values["along noise"] = [ufloss(noisy(images, fraction)) for fraction in NOISE]
    values["along blur"] = [ufloss(blurred(images, factor)) for factor in BLUR]
    return values


def cost(net: PatchFeatureNet) -> float:
    """CPU seconds of UFLoss with its gradient, the least of five."""
    loss, target = UFLoss(net), torch.randn(1, 1, 64, 372, dtype=torch.complex64)
    times = []
    for _ in range(5):
        output = torch.randn(target.shape, dtype=target.dtype).requires_grad_()
        start = time.process_time()
        loss(output, target).backward()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of SC-*.npz")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--cpu_seconds", type=float, default=240, help="of training, by one thread")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(args.data.glob("SC-*.npz"))
    training = [path for path in paths if path.stem not in (*HELD_OUT, *VALIDATION)]
    subjects = [complex_images(path) for path in paths if path.stem in VALIDATION]
    rows, curves = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.variants:
            if name == "general-complex":
                net, steps = pretrained_feature_net(name), 0
            else:
                net, steps = train(VARIANTS[name], training, Path(folder), args.cpu_seconds)
            net = net.eval().requires_grad_(False)
            size = sum(parameter.numel() for parameter in net.parameters())
            measured = distances(net, subjects)
            curves[name] = {axis: measured.pop(axis) for axis in ("along noise", "along blur")}
            row = {"network": name, "parameters": size, "steps": steps, **retrieval(net, subjects), **measured}
            rows.append(row | {"seconds": cost(net)})
            print(format_table(rows[-1:]), flush=True)
    print(format_table(rows))
    if args.json:
        settings = {"cpu_seconds": args.cpu_seconds, "noise": NOISE, "blur": BLUR, "error": ERROR}
        write_json(args.json, {"settings": settings, "networks": rows, "curves": curves})


if __name__ == "__main__":
    main()
