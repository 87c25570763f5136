"""A blinded reader study: a page for each reader that needs nothing else, and a key that stays with the organizer.

A page shows images in random order, without the names of methods, files and subjects: its identifiers are random, and
what they stand for is in ``key.json`` alone. `fastmri_ufloss.report.readers.answers` reads what readers send back.

Protocols, as in Seitzer et al., MICCAI 2018, table 1: "rating", each image from 1 (poor) to 4 (very good) by each
criterion; and "pairs", which of two images of a slice is better, or neither.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.files import atomic_path, name_some, write_json
from fastmri_ufloss.report.figures.drawing import white_of
from fastmri_ufloss.report.page.html_page import encode_image, json_block, page_frame
from fastmri_ufloss.report.reconstructions import Reconstructions, VolumeFiles

__all__ = ["CRITERION", "SCALE", "Protocol", "StudySettings", "choose_slices", "make_study"]

FORMAT_VERSION = 1
Protocol = Literal["rating", "pairs"]
CRITERION = "overall image quality"
SCALE = {1: "poor", 2: "fair", 3: "good", 4: "very good"}
_SCRIPTS = ("study.js", "canvas.js", "readers.js")
Place = tuple[VolumeFiles, int]
Item = dict[str, Any]


@dataclass(frozen=True)
class StudySettings:
    """How a study is made.

    Args:
        readers: their names, different, of letters, digits, - and _.
        title: of the page.
        protocol: "rating" or "pairs".
        criteria: of the ratings, or the question that pairs are compared by.
        beside: a reference is shown beside each image, and not rated.
        repeats: images, or pairs, that each reader sees a second time, to know how well a reader agrees with himself.
        break_every: images after which the page proposes a break.
        seed: of the orders and identifiers; it is in the key.
    """

    readers: tuple[str, ...]
    title: str = "Image quality"
    protocol: Protocol = "rating"
    criteria: tuple[str, ...] = (CRITERION,)
    beside: bool = False
    repeats: int = 0
    break_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        fits = bool(self.readers) and len(set(self.readers)) == len(self.readers)
        fits = fits and all(re.fullmatch(r"[\w-]+", name) for name in self.readers)
        require(fits, "readers must be different names of letters, digits, - and _", ", ".join(self.readers))
        check(self.protocol in ("rating", "pairs"), "protocol", "'rating' or 'pairs'", repr(self.protocol))
        fits = bool(self.criteria) and len(set(self.criteria)) == len(self.criteria) and all(self.criteria)
        check(fits, "criteria", "different texts", list(self.criteria))
        check_at_least_one(break_every=self.break_every)
        check(self.repeats >= 0, "repeats", "at least 0", self.repeats)


def choose_slices(data: Reconstructions, rule: str) -> list[Place]:
    """The slices of a study: "all", "segmented", "every:N" or "different:K".

    "segmented" are slices with a class, of volumes that have a segmentation; "every:N" is every N-th slice of each
    volume, from half of N on; "different:K" are the K slices in which the methods differ most from their mean,
    relative to it. Raises ValueError for another rule, or if there is no such slice.
    """
    name, _, number = rule.partition(":")
    fits = rule in ("all", "segmented") or (name in ("every", "different") and number.isdecimal() and int(number) > 0)
    check(fits, "slices", "all, segmented, every:N or different:K", repr(rule))
    places = [(files, number) for files in data.volumes for number in range(files.num_slices)]
    if name == "every":
        step = int(number)
        places = [place for place in places if place[1] % step == min(step // 2, place[0].num_slices - 1)]
    elif name == "segmented":
        check(
            any(files.segmentation for files in data.volumes), "slices", "another rule without --segmentations", rule
        )
        classes = {files.name: files.read().segmentation for files in data.volumes}
        segmented = {
            (name, n) for name, of in classes.items() if of is not None for n in np.flatnonzero(of.any((1, 2)))
        }
        places = [place for place in places if (place[0].name, place[1]) in segmented]
    elif name == "different":
        spread = []
        for files, number_ in tqdm(places, desc="differences", unit="slice"):
            images = np.stack(list(files.read(number_).outputs.values())).astype(np.float64)
            mean = images.mean(axis=0)
            spread.append(float(np.square(images - mean).sum() / max(np.square(mean).sum(), 1e-30)))
        chosen = sorted(np.argsort(spread)[::-1][: int(number)].tolist())
        places = [places[index] for index in chosen]
    require(bool(places), f"slices {rule!r} must leave a slice", f"none of {len(data)} volumes")
    return places


def make_study(
    data: Reconstructions, folder: str | Path, settings: StudySettings, places: Sequence[Place]
) -> list[Path]:
    """Write ``reader_NAME.html`` for each reader and ``key.json``; returns the pages.

    The images are those of the methods and of the first reference of ``data``, if there is one, which is rated like
    a method unless the settings show it beside. Raises ValueError for fewer than two to compare, more repeats than
    images, an image that is not finite, or a folder that has another study.
    """
    folder = Path(folder)
    reference = data.references[0] if data.references else None
    check(reference is not None or not settings.beside, "beside", "for a study with a reference", "none")
    compared = [*data.methods, *([reference] if reference and not settings.beside else [])]
    require(len(compared) > 1, "a study must compare at least two methods, or a method and a reference", compared)
    if (folder / "key.json").exists():
        raise ValueError(f"{folder / 'key.json'} is the key of another study: take another folder")
    rng = np.random.default_rng(settings.seed)
    study = _token(rng)
    readers: dict[str, dict[str, Item]] = {}
    tokens: dict[str, dict[tuple[str, int, str], str]] = {}  # of images, by reader
    shown = [*compared, *([reference] if settings.beside and reference else [])]
    for reader in settings.readers:
        tokens[reader] = {(files.name, n, source): _token(rng) for files, n in places for source in shown}
        readers[reader] = _make_items(rng, settings, places, compared)
    key = {
        "format_version": FORMAT_VERSION,
        "study": study,
        **{name: value for name, value in asdict(settings).items() if name != "readers"},
        "methods": compared,
        "reference": reference,
        "scale": {str(score): word for score, word in SCALE.items()},
        "readers": readers,
    }
    pages = [folder / f"reader_{reader}.html" for reader in settings.readers]
    with contextlib.ExitStack() as stack:
        files_of = {}
        start, end = page_frame("readers.html", _SCRIPTS, settings.title)
        for reader, page in zip(settings.readers, pages, strict=True):
            path = stack.enter_context(atomic_path(page))
            files_of[reader] = stack.enter_context(open(path, "w", encoding="utf-8"))
            files_of[reader].write(start)
            files_of[reader].write(json_block("study", _page_data(study, reader, settings, readers[reader], tokens)))
        # images are in an order that tells nothing
        for index in tqdm(rng.permutation(len(places)).tolist(), desc="images", unit="slice"):
            for source, block in _encoded(places[index], shown, rng):
                volume, slice_num = places[index][0].name, places[index][1]
                for reader, file in files_of.items():
                    file.write(json_block(f"image-{tokens[reader][volume, slice_num, source]}", block))
        for file in files_of.values():
            file.write(end)
    for of_reader in readers.values():
        for item in of_reader.values():
            item.pop("images")
    write_json(folder / "key.json", key)
    return pages


def _token(rng: np.random.Generator) -> str:
    return rng.bytes(8).hex()


def _make_items(
    rng: np.random.Generator, settings: StudySettings, places: Sequence[Place], compared: Sequence[str]
) -> dict[str, Item]:
    """What a reader is asked, by a random identifier, in the order of the page; repeats come in its second half."""
    items: list[Item] = []
    for files, slice_num in places:
        place = {"volume": files.name, "slice": slice_num, "subject": files.subject, "contrast": files.contrast}
        if settings.protocol == "rating":
            items += [{**place, "method": method, "images": [method]} for method in compared]
        else:
            for pair in itertools.combinations(compared, 2):
                left, right = pair if rng.random() < 0.5 else pair[::-1]
                items.append({**place, "left": left, "right": right, "images": [left, right]})
    check(settings.repeats <= len(items), "repeats", f"at most {len(items)}", settings.repeats)
    order = rng.permutation(len(items)).tolist()
    shown = {_token(rng): {**items[index], "repeat_of": None} for index in order}
    again = [list(shown)[index] for index in rng.choice(len(items), settings.repeats, replace=False)]
    repeated = [(_token(rng), {**shown[first], "repeat_of": first}) for first in again]
    entries = list(shown.items())
    for entry in repeated:  # after the first time, and in the second half
        first = 1 + max(len(entries) // 2, [token for token, _ in entries].index(entry[1]["repeat_of"]))
        entries.insert(int(rng.integers(first, len(entries) + 1)), entry)
    return dict(entries)


def _page_data(
    study: str,
    reader: str,
    settings: StudySettings,
    items: dict[str, Item],
    tokens: dict[str, dict[tuple[str, int, str], str]],
) -> dict[str, Any]:
    """What the page of a reader knows: identifiers of items and of images."""
    listed = []
    for token, item in items.items():
        images = [tokens[reader][item["volume"], item["slice"], source] for source in item["images"]]
        beside = None
        if settings.beside:
            of_slice = {key[2]: t for key, t in tokens[reader].items() if key[:2] == (item["volume"], item["slice"])}
            beside = of_slice[list(of_slice)[-1]]
        listed.append({"id": token, "images": images, "beside": beside})
    return {
        "study": study,
        "reader": reader,
        "title": settings.title,
        "protocol": settings.protocol,
        "criteria": settings.criteria,
        "scale": list(SCALE.items()),
        "break_every": settings.break_every,
        "items": listed,
        "color_map": "",
    }


def _encoded(place: Place, shown: Sequence[str], rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """The images of a slice, all with one gray scale, in random order."""
    files, slice_num = place
    volume = files.read(slice_num)
    images = {name: image[0] for name, image in {**volume.outputs, **volume.references}.items() if name in shown}
    if bad := [name for name, image in images.items() if not np.isfinite(image).all()]:
        raise ValueError(f"{files.name}, slice {slice_num}: NaN or infinite values in {name_some(bad)}")
    top = max(float(image.max()) for image in images.values()) or 1.0
    white = float(np.median([white_of(image) for image in images.values()]))
    for name in rng.permutation(list(images)).tolist():
        yield name, {"top": top, "white": white, "image": encode_image(images[name])}
