"""Figure 4B of the UFLoss paper: gradient descent on UFLoss alone, from a blurred image towards the sharp one.

    python fastmri_examples/figures/deblurring.py --feature_net FILE --data_path FOLDER --output figure_4b.png

The start is the central 1/R of the image's k-space, R = 4. The picture has curves of UFLoss and of NRMSE, which the
descent does not see, and images on the way. Gradient descent is the paper's, --optimizer adam another one. The JSON
file has the curves, whether UFLoss falls all the way, and both values at the end relative to the start.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import figure_flags
import recipe

from fastmri_ufloss.report.figures.noise_and_blur import descend, draw_deblurring

DESCENT_ARGS = (
    *("num_steps", "optimizer", "lr", "patches_per_step", "stride", "measure_stride", "measure_every"),
    *("chunk_size", "seed"),
)


def main() -> None:
    parser = recipe.make_parser(__doc__)
    group = figure_flags.add_image_args(parser)
    group.add_argument("--volume", help="file name (default: the volume in the middle of the folder)")
    group.add_argument("--slice", type=int | None, help="number (default: the middle one)")
    group.add_argument("--size", type=int, default=128, help="of the central square that is taken")
    group.add_argument("--factor", type=float, default=4.0, help="R of the blur")
    group.add_argument("--num_images", type=int, default=5, help="on the way, start and end included")
    recipe.add_arguments(parser.add_argument_group("descent"), descend, DESCENT_ARGS)
    args = parser.parse_args()

    net, _, images = figure_flags.load_network_and_images(args)
    place = images.place(args.volume, args.slice, otherwise=len(images.volumes) // 2)
    options = {"num_images": args.num_images, **recipe.pick(args, DESCENT_ARGS)}
    numbers = draw_deblurring(args.output, images, place, size=args.size, factor=args.factor, options=options)
    ends = (
        f"{label} {numbers[key][0]:.4f} to {numbers[key][-1]:.4f} ({numbers[f'{key}_ratio']:.2f} of the start)"
        for key, label in (("ufloss", "UFLoss"), ("nrmse", "NRMSE"))
    )
    recipe.say(f"{numbers['image']}, from R = {args.factor:g}, {numbers['steps'][-1]} steps: {', '.join(ends)}")
    rise = f"rose now and then, by at most {numbers['largest_rise']:.2%} of the start between measurements"
    recipe.say(f"UFLoss {'fell from each measurement to the next' if numbers['monotone'] else rise}")
    figure_flags.finish(args.output, numbers, net=net)


if __name__ == "__main__":
    recipe.run(main)
