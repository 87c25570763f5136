"""Figure 4A of the UFLoss paper: UFLoss of images with growing noise and growing blur, beside MSE, DSSIM and VGG.

    python fastmri_examples/figures/noise_and_blur.py --feature_net FILE --data_path FOLDER --output figure_4a.png

Noise: (1 - b) x + b n, b from 0 to 10%, the same noise at each level. Blur: the central 1/R of k-space, R from 1
to 4. Mean and spread are over images that are evenly spaced over all slices of the folder. The JSON file has the
curves of all images, Spearman's rho of the mean curve and the level (1 if it rises all the way), the share of
images whose own curve rises all the way, and the share of second differences of the mean curve that are not
negative (1 for a convex curve). VGG is drawn only with --vgg_weights.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import command_line as cli
import figure_images
from tqdm import tqdm

from fastmri_ufloss.metrics.degradation_curves import (
    BLUR,
    NOISE,
    degradation_values,
    make_distances,
    summarize_curve,
)
from fastmri_ufloss.models import load_vgg_features
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report.figures.degradation_curves import save_degradation_curves

LEVELS = {"noise": NOISE, "blur": BLUR}


def make_parser() -> argparse.ArgumentParser:
    """The flags of this figure."""
    parser = cli.make_parser(__doc__)
    group = figure_images.add_image_args(parser)
    group.add_argument("--num_images", type=int, default=12, help="(default: 12)")
    group.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    group.add_argument(
        "--vgg_weights",
        metavar="FILE",
        default=None,
        help="a file with torchvision's ImageNet weights of VGG-16, or 'download'",
    )
    cli.add_arguments_of(parser, make_distances, ("stride", "chunk_size"))
    return parser


def main() -> None:
    args = make_parser().parse_args()
    net, data_path, device = figure_images.load_network_and_data(args)
    images = figure_images.open_images(data_path, net, args.challenge)
    vgg = None
    if args.vgg_weights is not None:
        weights = "download" if args.vgg_weights == "download" else Path(args.vgg_weights)
        vgg = load_vgg_features("vgg16", weights=weights).requires_grad_(False).to(device)
    distances = make_distances(net, vgg=vgg, **cli.typed(args, ("stride", "chunk_size")))
    places = images.evenly(args.num_images)
    found: dict[str, dict[str, list[list[float]]]] = {kind: {name: [] for name in distances} for kind in LEVELS}
    used = []
    selected = figure_images.with_signal(images, places)
    for place, image in tqdm(selected, desc="Noise and blur", unit="image", total=len(places)):
        values = degradation_values(distances, image.to(device), seed=args.seed + len(used))
        for kind, by_name in values.items():
            for name, curve in by_name.items():
                found[kind][name].append(curve)
        used.append(place)
    curves = {
        kind: {name: summarize_curve(LEVELS[kind], rows) for name, rows in by_name.items()}
        for kind, by_name in found.items()
    }
    middle = used[len(used) // 2]
    save_degradation_curves(
        args.output, LEVELS, curves, images.read(*middle), num_images=len(used), seed=args.seed + len(used) // 2
    )
    document: dict[str, Any] = {
        "feature_net": figure_images.describe_network(net),
        "seed": args.seed,
        "images": [images.label(*place) for place in used],
        "levels": LEVELS,
        "curves": curves,
        "values": found,
    }
    write_json(figure_images.json_beside(args.output), document)
    for kind, by_name in curves.items():
        for name, curve in by_name.items():
            rho = "-" if curve["spearman"] is None else f"{curve['spearman']:.3f}"
            cli.say(
                f"{kind}, {name}: Spearman's rho {rho}, rises all the way in {curve['rising']:.0%} of the images, "
                f"{curve['convex']:.0%} of the second differences are not negative"
            )
    cli.say(f"Picture: {args.output}\nNumbers: {figure_images.json_beside(args.output)}")


if __name__ == "__main__":
    cli.run(main)
