"""Figure 5A of the UFLoss paper: for some patches the nearest and the farthest ones of a bank, by their features.

    python fastmri_examples/figures/retrieval.py --feature_net FILE --data_path FOLDER --output figure_5a.png

FOLDER has {challenge}_test, whose patches are looked up, and {challenge}_train, the bank; or --data_path and
--bank_path name two folders, or one folder is both. A query's own subject is left out of the bank. The bank holds
--bank_size patches at random places, the same number of each slice. It is kept in --cache_dir volume by volume, so a
command that was interrupted goes on, and the next figure takes seconds. The search compares with every patch. The
JSON file has all places and inner products.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import command_line as cli
import figure_images
import torch
from feature_banks import build_bank
from figure_images import FigureImages
from torch import Tensor

from fastmri_ufloss.metrics.feature_bank import FeatureBank, features_at, search
from fastmri_ufloss.metrics.textured_patches import textured_corners
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.mri import image_scale
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report.figures.retrieval import Found, Query, save_retrieval

Place = tuple[int, int, int, int]  # volume, slice, row and column


def make_parser() -> argparse.ArgumentParser:
    """The flags of this figure."""
    parser = cli.make_parser(__doc__)
    group = figure_images.add_image_args(parser)
    group.add_argument(
        "--bank_path", type=Path, default=None, help="folder of the bank (default: {challenge}_train of --data_path)"
    )
    group.add_argument("--bank_size", type=int, default=4096, help="patches; the paper has 409600 (default: 4096)")
    group.add_argument("--cache_dir", type=Path, default=None, help="of the bank (default: beside the picture)")
    group.add_argument("--num_queries", type=int, default=4, help="each of another slice (default: 4)")
    group.add_argument(
        "--query",
        nargs=4,
        action="append",
        metavar=("VOLUME", "SLICE", "ROW", "COL"),
        help="a patch by its upper left corner; may be repeated (default: textured patches)",
    )
    group.add_argument("--num_found", type=int, default=4, help="nearest and farthest patches each (default: 4)")
    group.add_argument("--seed", type=int, default=0, help="of the places of the bank (default: 0)")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    net, data_path, device = figure_images.load_network_and_data(args)
    images = figure_images.open_images(data_path, net, args.challenge)
    bank_path = data_path if args.bank_path is None else args.bank_path
    bank_images = figure_images.open_images(bank_path, net, args.challenge, split="train")
    chosen = choose_queries(args, images, net)
    cache = args.output.parent / "cache" if args.cache_dir is None else args.cache_dir
    start = time.perf_counter()
    bank = build_bank(bank_images, net, size=args.bank_size, seed=args.seed, cache_dir=cache / "features")
    seconds = {"bank": time.perf_counter() - start}
    start = time.perf_counter()
    found = look_up(bank, chosen, images, bank_images, net, count=args.num_found, device=device)
    seconds["search"] = time.perf_counter() - start
    save_retrieval(args.output, [picture_of(*row, images, bank_images, net) for row in found])
    document = {
        "feature_net": figure_images.describe_network(net),
        "bank_size": len(bank.features),
        "seed": args.seed,
        "queries": [numbers_of(*row, images, bank_images) for row in found],
        "seconds": seconds,
    }
    write_json(figure_images.json_beside(args.output), document)
    cli.say(
        f"{len(found)} queries in a bank of {len(bank.features)} patches: {seconds['bank']:.1f} s for the bank, "
        f"{seconds['search']:.2f} s for the search\n"
        f"Picture: {args.output}\nNumbers: {figure_images.json_beside(args.output)}"
    )


def choose_queries(args: argparse.Namespace, images: FigureImages, net: PatchFeatureNet) -> list[Place]:
    """The patches that the user has typed, or else the most textured one of evenly spaced slices."""
    if hasattr(args, "query"):
        try:
            return [(images.number_of(name), int(n), int(row), int(col)) for name, n, row, col in args.query]
        except ValueError as error:
            raise ValueError(f"--query must be VOLUME SLICE ROW COL: {error}") from None
    places: list[Place] = []
    for index, (place, image) in enumerate(figure_images.with_signal(images, images.evenly(args.num_queries))):
        # not the same part of each image: of the first the best patch, of the next the second best ...
        row, col = textured_corners(image, net.patch_size, count=1 + index % 4)[-1].tolist()
        places.append((*place, row, col))
    return places


Result = tuple[Place, list[tuple[float, Place]], list[tuple[float, Place]]]


def look_up(
    bank: FeatureBank,
    chosen: list[Place],
    images: FigureImages,
    bank_images: FigureImages,
    net: PatchFeatureNet,
    *,
    count: int,
    device: torch.device,
) -> list[Result]:
    """For each query its nearest and its farthest patches with their inner products."""
    subjects = [volume.subject for volume in bank_images.volumes]
    results: list[Result] = []
    for number, slice_num, row, col in chosen:
        image = images.read(number, slice_num).to(device)
        # searched on the CPU: products of a GPU may be rounded to TF32
        query = features_at(net, image, torch.tensor([[row, col]])).cpu()
        own = torch.tensor([subject == images.volumes[number].subject for subject in subjects])
        allowed = ~own[bank.places[:, 0]][None]
        if int(allowed.sum()) < count:
            raise ValueError(
                f"the bank must have {count} patches of other subjects than {images.volumes[number].subject}, got "
                f"{int(allowed.sum())}: raise --bank_size, or give a --bank_path with other subjects"
            )
        sides = []
        for largest in (True, False):
            values, rows = search(query, bank.features, count=count, largest=largest, allowed=allowed)
            places = [tuple(place) for place in bank.places[rows[0]].tolist()]
            sides.append(list(zip(values[0].tolist(), places, strict=True)))
        results.append(((number, slice_num, row, col), sides[0], sides[1]))
    return results


def cut(images: FigureImages, place: Place, size: int) -> Tensor:
    """The magnitude of a patch, of an image at its scale."""
    number, slice_num, row, col = place
    image = images.read(number, slice_num)
    return (image.abs() / image_scale(image[None]))[row : row + size, col : col + size]


def picture_of(
    query: Place,
    nearest: list[tuple[float, Place]],
    farthest: list[tuple[float, Place]],
    images: FigureImages,
    bank_images: FigureImages,
    net: PatchFeatureNet,
) -> Query:
    sides = [
        [Found(cut(bank_images, place, net.patch_size).numpy(), value) for value, place in side]
        for side in (nearest, farthest)
    ]
    label = images.label(*query[:2]).replace(", ", "\n")
    return Query(cut(images, query, net.patch_size).numpy(), label, *sides)


def numbers_of(
    query: Place,
    nearest: list[tuple[float, Place]],
    farthest: list[tuple[float, Place]],
    images: FigureImages,
    bank_images: FigureImages,
) -> dict[str, Any]:
    def describe(source: FigureImages, place: Place) -> dict[str, Any]:
        return {"volume": source.volumes[place[0]].path.name, "slice": place[1], "corner": list(place[2:])}

    sides = {
        name: [{"inner_product": value, **describe(bank_images, place)} for value, place in side]
        for name, side in (("nearest", nearest), ("farthest", farthest))
    }
    return {**describe(images, query), **sides}


if __name__ == "__main__":
    cli.run(main)
