"""Figure 4A of the UFLoss paper: UFLoss of images with growing noise and growing blur, beside MSE, DSSIM and VGG.

    python fastmri_examples/figures/noise_and_blur.py --feature_net FILE --data_path FOLDER --output figure_4a.png

Noise: (1 - b) x + b n, b from 0 to 10%, the same noise at each level. Blur: the central 1/R of k-space, R from 1
to 4. Mean and spread are over images that are evenly spaced over all slices of the folder. The JSON file has all
curves, Spearman's rho of the mean curve and the level, and the fractions of the images whose curve rises all the way,
and of the mean curve's second differences that are not negative. VGG is drawn only with --vgg_weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.models import load_vgg_features
from fastmri_ufloss.report.figures.noise_and_blur import draw_noise_and_blur, make_distances

GRID_ARGS = ("stride", "chunk_size")


def main() -> None:
    parser = recipe.make_parser(__doc__)
    group = figure_flags.add_image_args(parser)
    group.add_argument("--num_images", type=int, default=12)
    group.add_argument("--seed", type=int, default=0, help="of the noise")
    text = "a file with torchvision's ImageNet weights of VGG-16, or 'download'"
    group.add_argument("--vgg_weights", metavar="FILE", help=text)
    recipe.add_arguments(parser.add_argument_group("distances"), make_distances, GRID_ARGS)
    args = parser.parse_args()

    net, _, images = figure_flags.load_network_and_images(args)
    vgg = None
    if args.vgg_weights is not None:
        weights = "download" if args.vgg_weights == "download" else Path(args.vgg_weights)
        vgg = load_vgg_features("vgg16", weights=weights).requires_grad_(False).to(next(net.parameters()).device)
    distances = make_distances(net, vgg=vgg, **recipe.pick(args, GRID_ARGS))
    numbers = draw_noise_and_blur(args.output, images, distances, num_images=args.num_images, seed=args.seed)
    for kind, by_name in numbers["curves"].items():
        for name, curve in by_name.items():
            rho = "-" if curve["spearman"] is None else f"{curve['spearman']:.3f}"
            recipe.say(
                f"{kind}, {name}: Spearman's rho {rho}, rises all the way in {curve['rising']:.0%} of the images, "
                f"{curve['convex']:.0%} of the second differences are not negative"
            )
    figure_flags.finish(args.output, {"seed": args.seed, **numbers}, net=net)


if __name__ == "__main__":
    recipe.run(main)
