"""Figure 4B of the UFLoss paper: gradient descent on UFLoss alone, from a blurred image towards the sharp one.

    python fastmri_examples/figures/deblurring.py --feature_net FILE --data_path FOLDER --output figure_4b.png

The start is the central 1/R of the image's k-space, R = 4. Curves of UFLoss and of NRMSE, which the descent does not
see, and images on the way. Plain gradient descent is the paper's; --optimizer adam is there too. The JSON file has
the curves, whether UFLoss falls from each measurement to the next, and both values at the end relative to the start.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import command_line as cli
import figure_images
from torch import Tensor

from fastmri_ufloss.metrics.feature_descent import descend, summarize_descent
from fastmri_ufloss.mri.degradation import blurred
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report.figures.descent import save_descent

DESCENT_ARGS = (
    "num_steps",
    "optimizer",
    "lr",
    "patches_per_step",
    "stride",
    "measure_stride",
    "measure_every",
    "chunk_size",
    "seed",
)


def central_square(image: Tensor, size: int, patch_size: int) -> Tensor:
    """The middle of an image, at most ``size`` rows and columns."""
    if size < patch_size:
        raise ValueError(f"--size must be at least that of a patch, {patch_size}, got {size}")
    rows, cols = (min(size, n) for n in image.shape)
    row, col = (image.shape[0] - rows) // 2, (image.shape[1] - cols) // 2
    return image[row : row + rows, col : col + cols]


def make_parser() -> argparse.ArgumentParser:
    """The flags of this figure."""
    parser = cli.make_parser(__doc__)
    group = figure_images.add_image_args(parser)
    group.add_argument("--volume", default=None, help="file name (default: the volume in the middle of the folder)")
    group.add_argument("--slice", type=int, default=None, help="number (default: the middle one)")
    group.add_argument("--size", type=int, default=128, help="of the central square that is taken (default: 128)")
    group.add_argument("--factor", type=float, default=4.0, help="R of the blur (default: 4)")
    group.add_argument("--num_images", type=int, default=5, help="on the way, start and end included (default: 5)")
    cli.add_arguments_of(parser.add_argument_group("descent"), descend, DESCENT_ARGS)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    if args.num_images < 2:
        raise ValueError(f"--num_images must be at least 2, got {args.num_images}")

    net, data_path, device = figure_images.load_network_and_data(args)
    images = figure_images.open_images(data_path, net, args.challenge)
    number = len(images.volumes) // 2 if args.volume is None else images.number_of(args.volume)
    slice_num = images.volumes[number].shape[0] // 2 if args.slice is None else args.slice
    target = central_square(images.read(number, slice_num), args.size, net.patch_size).to(device)
    start = blurred(target[None], args.factor)[0]
    settings = cli.typed(args, DESCENT_ARGS)
    num_steps = settings.get("num_steps", figure_images.default_of(descend, "num_steps"))
    # the images change most at the beginning, so the pictures are closer there
    keep = sorted({round(num_steps * (i / (args.num_images - 1)) ** 2) for i in range(args.num_images)})
    result = descend(net, start, target, keep=keep, **settings)
    save_descent(
        args.output,
        target.abs().cpu().numpy(),
        {step: image.abs().cpu().numpy() for step, image in result.images.items()},
        steps=result.steps,
        ufloss=result.ufloss,
        nrmse=result.nrmse,
    )
    facts = summarize_descent(result)
    document = {
        "feature_net": figure_images.describe_network(net),
        "image": images.label(number, slice_num),
        "size": list(target.shape),
        "factor": args.factor,
        "optimizer": settings.get("optimizer", figure_images.default_of(descend, "optimizer")),
        "steps": result.steps,
        "ufloss": result.ufloss,
        "nrmse": result.nrmse,
        **facts,
    }
    write_json(figure_images.json_beside(args.output), document)
    cli.say(
        f"{images.label(number, slice_num)}, from R = {args.factor:g}, {num_steps} steps: UFLoss "
        f"{result.ufloss[0]:.4f} to {result.ufloss[-1]:.4f} ({facts['ufloss_ratio']:.2f} of the start), NRMSE "
        f"{result.nrmse[0]:.4f} to {result.nrmse[-1]:.4f} ({facts['nrmse_ratio']:.2f} of the start)\n"
        + (
            "UFLoss fell from each measurement to the next"
            if facts["monotone"]
            else f"UFLoss rose now and then, by at most {facts['largest_rise']:.2%} of the start between measurements"
        )
        + f"\nPicture: {args.output}\nNumbers: {figure_images.json_beside(args.output)}"
    )


if __name__ == "__main__":
    cli.run(main)
