"""Every loss along growing noise and growing blur of real images, and what it adds to a training step.

    python benchmarks/losses.py --images FOLDER [--feature_net FILE] [--json FILE] [--picture FILE]

FOLDER holds magnitudes as npz files (`images` (n, rows, cols), a file for each subject, all of a size); of the
Sunnybrook images only the subjects that other benchmarks test are used. `--kspace FILE`, a fully sampled slice as npy
(coils, rows, cols), adds a complex image, combined with this project's maps.

Noise: |(1 - b) x + b n|, n complex noise whose deviation is the 95th percentile of x; so a scanner's noise makes
magnitudes. Complex images stay complex. Blur: the central 1/R of k-space in both directions. The tables have means
over the images of the loss, and of the norm of its gradient in the output times the 95th percentile of the image, so
that it has no unit; Spearman's rho of the mean loss and the level; and in how many images the loss rises from each
level to the next. ufloss takes all patches of the grid at `--stride`; without a feature network, which is not trained
here, there is no ufloss. perceptual is VGG-16, up to relu2_2. The training step is that of `loss_step.py`.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loss_step import measure_steps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from runs import HELD_OUT
from scipy.stats import spearmanr
from torch import Tensor, nn

from fastmri_ufloss.losses import LOSS_NAMES, make_loss
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures, load_vgg_features
from fastmri_ufloss.mri import estimate_sens_maps, sens_reduce
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.drawing import write_figure
from fastmri_ufloss.report.figures.noise_and_blur import blurred, noisy

RANDOM = "random"
NOISE, BLUR = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1), (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
LEVELS = {"noise": tuple(f"{100 * b:.0f}%" for b in NOISE), "blur": tuple(f"R={factor:g}" for factor in BLUR)}

Curves = dict[str, dict[str, Any]]
"""For noise and for blur: ``values`` and ``gradients`` by level, ``rho``, ``rising``."""


def magnitude_images(folder: Path, slices_per_subject: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, rows, cols), evenly spaced in each subject, and the largest intensity of the subject of each."""
    files = sorted(folder.glob("*.npz"))
    files = [file for file in files if file.stem in HELD_OUT] or files
    if not files:
        sys.exit(f"error: no npz files in {folder}")
    images, ranges = [], []
    for file in files:
        volume = np.load(file, allow_pickle=False)["images"].astype(np.float32)
        count = min(slices_per_subject, len(volume))
        images.append(volume[(2 * np.arange(count) + 1) * len(volume) // (2 * count)])
        ranges += [float(volume.max())] * count
    return torch.from_numpy(np.concatenate(images)).unsqueeze(1), torch.tensor(ranges)


def complex_image(file: Path) -> tuple[Tensor, Tensor]:
    """The coil-combined image (1, 1, rows, cols) of k-space (coils, rows, cols), and its largest intensity."""
    kspace = torch.view_as_real(torch.from_numpy(np.load(file).astype(np.complex64)))[None]
    image = torch.view_as_complex(sens_reduce(kspace, estimate_sens_maps(kspace)))
    return image, image.abs().amax().reshape(1)


def degraded(images: Tensor) -> dict[str, list[Tensor]]:
    """The images with more and more noise, and more and more blur; the first of each are the images themselves."""
    return {
        "noise": [images, *(noisy(images, share) for share in NOISE[1:])],
        "blur": [images, *(blurred(images, factor) for factor in BLUR[1:])],
    }


def load_feature_net(file: Path | None, option: str, in_chans: int) -> PatchFeatureNet | None:
    if file is None:
        print(f"ufloss is left out: it needs --{option} FILE, a feature network with in_chans={in_chans}")
        return None
    net = PatchFeatureNet.load(file)
    if net.in_chans != in_chans:
        sys.exit(
            f"error: --{option} must be a feature network with in_chans={in_chans}, got {net.in_chans} in {file}"
        )
    return net


def load_vgg(weights: str) -> VGGFeatures:
    torch.manual_seed(0)
    return VGGFeatures("vgg16").eval() if weights == RANDOM else load_vgg_features("vgg16", weights=weights)


def losses_for(images: Tensor, net: nn.Module | None, vgg_weights: str, stride: int) -> dict[str, nn.Module]:
    """All losses in eval mode, by the name in the table."""
    # each further scale of ms_ssim needs images of twice the size
    scales = sum(10 * 2**scale < min(images.shape[-2:]) for scale in range(5))
    settings = {"ms_ssim": {"num_scales": scales}, "ufloss": {"stride": stride}}
    notes = {
        "ms_ssim": f" ({scales} scales)" if scales < 5 else "",
        "perceptual": " (random VGG)" if vgg_weights == RANDOM else "",
    }
    vgg = load_vgg(vgg_weights)
    return {
        name + notes.get(name, ""): make_loss(
            {name: 1.0}, feature_net=net, vgg=vgg, settings={name: settings.get(name, {})}
        ).eval()
        for name in LOSS_NAMES
        if name != "ufloss" or net is not None
    }


def scores_of(loss: nn.Module, outputs: Tensor, targets: Tensor, ranges: Tensor) -> list[tuple[float, float]]:
    """The loss of each image, and the norm of its gradient times the scale of the target."""
    scores = []
    for output, target, data_range in zip(outputs.split(1), targets.split(1), ranges.split(1), strict=True):
        output = output.clone().requires_grad_()
        value = loss(output, target, data_range)
        (gradient,) = torch.autograd.grad(value, output)
        scores.append((float(value.detach()), float(torch.linalg.vector_norm(gradient) * image_scale(target))))
    return scores


def curves_of(loss: nn.Module, images: Tensor, ranges: Tensor, changed: Mapping[str, list[Tensor]]) -> Curves:
    """Means over the images at each level."""
    result: Curves = {}
    for name, levels in changed.items():
        scores = np.array([scores_of(loss, level, images, ranges) for level in levels])
        mean = scores.mean(axis=1)
        result[name] = {
            "values": mean[:, 0].tolist(),
            "gradients": mean[:, 1].tolist(),
            "rho": float(spearmanr(np.arange(len(levels)), mean[:, 0]).statistic),
            "rising": int((np.diff(scores[..., 0], axis=0) > 0).all(axis=0).sum()),
        }
    return result


def measure_curves(title: str, images: Tensor, ranges: Tensor, losses: Mapping[str, nn.Module]) -> dict[str, Curves]:
    """The curves of all losses, as tables on the terminal too."""
    changed = degraded(images)
    results = {}
    for name, loss in losses.items():
        start = time.perf_counter()
        results[name] = curves_of(loss, images, ranges, changed)
        print(f"{title}, {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{title}: {len(images)} of {images.shape[-2]}x{images.shape[-1]}")
    for change, levels in LEVELS.items():
        for quantity in ("values", "gradients"):
            rows = []
            for name, curves in results.items():
                curve = curves[change]
                rows.append({"loss": name, **dict(zip(levels, curve[quantity], strict=True))})
                if quantity == "values":
                    rows[-1] |= {"rho": curve["rho"], f"rising, of {len(images)}": curve["rising"]}
            print(f"\n{change}: {'loss' if quantity == 'values' else 'norm of its gradient'}\n{format_table(rows)}")
    print(f"\nat equal images, and the loss at 10% noise / at R=2\n{format_table(extremes(results))}")
    return results


def extremes(results: Mapping[str, Curves]) -> list[dict[str, Any]]:
    """What a loss is at equal images, and whether it minds noise or blur more."""
    return [
        {
            "loss": name,
            "value": curves["blur"]["values"][0],
            "gradient": curves["blur"]["gradients"][0],
            "noise / blur": curves["noise"]["values"][-1] / curves["blur"]["values"][BLUR.index(2.0)],
        }
        for name, curves in results.items()
    ]


def save_curves(path: Path, results: Mapping[str, Curves]) -> None:
    """A panel for noise and one for blur; each loss is 1 at the largest level."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, change, levels in zip(axes, LEVELS, ([100 * b for b in NOISE], BLUR), strict=True):
        for index, (name, curves) in enumerate(results.items()):
            values = np.array(curves[change]["values"])
            # many lie on each other: let what is beneath be seen
            style = {"linestyle": ("-", "--", ":")[index % 3], "marker": "ox^sDv"[index % 6], "fillstyle": "none"}
            axis.plot(levels, values / values[-1], color=f"C{index}", label=name, **style)
        axis.set_xlabel({"noise": "noise b, %", "blur": "blur: k-space cropped to 1/R, R"}[change])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss / loss at the largest level")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    write_figure(path, figure, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of npz files with magnitudes")
    parser.add_argument("--slices_per_subject", type=int, default=2)
    parser.add_argument("--kspace", type=Path, help="npy file (coils, rows, cols), for complex images")
    parser.add_argument("--feature_net", type=Path, help="of ufloss for magnitudes, 1 channel")
    parser.add_argument("--complex_feature_net", type=Path, help="of ufloss for complex images, 2 channels")
    parser.add_argument("--vgg_weights", default=RANDOM, help="of VGG-16: a file, or random (default)")
    parser.add_argument("--stride", type=int, default=20, help="of ufloss's grid along noise and blur")
    parser.add_argument("--only", choices=("curves", "times"), help="measure a part; the JSON file keeps the other")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of the training step's image")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the training step"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="the curves of the magnitudes, a PNG or JPG")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    settings["vgg_weights"] = Path(args.vgg_weights).name
    document: dict[str, Any] = {}
    if args.only and args.json and args.json.is_file():
        document = json.loads(args.json.read_text(encoding="utf-8"))
    document |= {"settings": settings, "levels": LEVELS}
    if args.only != "times":
        document |= measure_all_curves(args)
    if args.only != "curves":
        document["training_step"] = measure_steps(
            args.feature_net,
            size=args.size,
            steps=args.steps,
            repeats=args.repeats,
            threads=args.threads,
            device=args.device,
        )
    if args.json:
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


def measure_all_curves(args: argparse.Namespace) -> dict[str, Any]:
    """The curves of magnitudes, and of a complex image where there is one."""
    document = {}
    net = load_feature_net(args.feature_net, "feature_net", 1)
    images, ranges = magnitude_images(args.images, args.slices_per_subject)
    losses = losses_for(images, net, args.vgg_weights, args.stride)
    document["magnitudes"] = measure_curves("magnitudes", images, ranges, losses)
    if args.picture:
        save_curves(args.picture, document["magnitudes"])
    if args.kspace:
        net = load_feature_net(args.complex_feature_net, "complex_feature_net", 2)
        images, ranges = complex_image(args.kspace)
        losses = losses_for(images, net, args.vgg_weights, args.stride)
        document["complex"] = measure_curves("complex images", images, ranges, losses)
    return document


if __name__ == "__main__":
    main()
