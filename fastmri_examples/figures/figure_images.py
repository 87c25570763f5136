"""The images of a data folder for figures, and the feature network that sees them."""

import argparse
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import command_line as cli
import fastmri
import h5py
import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.data.index import list_volumes, read_metadata
from fastmri_ufloss.data.segmentation import find_reconstruction
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.mri import estimate_sens_maps, sens_reduce

LEADERBOARD = "reconstruction"
NET_FILE = "feature_net.safetensors"
SUFFIXES = (".png", ".pdf")


class EmptyImageError(ValueError):
    """A slice without a signal."""


class Volume(NamedTuple):
    """A volume of images.

    Args:
        path: of the file.
        shape: (slices, rows, cols).
        subject: its attribute ``patient_id``, or the stem of the file where it has none.
        contrast: its attribute ``acquisition``, or an empty text.
    """

    path: Path
    shape: tuple[int, int, int]
    subject: str
    contrast: str


class FigureImages:
    """The images of a folder: complex coil-combined, or magnitudes.

    Complex images are made of fully sampled k-space, with ESPIRiT maps of its 24x24 centre; those of a single coil
    are its Fourier transform. Magnitudes are the data set ``reconstruction`` of leaderboard files, or
    ``reconstruction_rss`` or ``reconstruction_esc`` of fastMRI volumes.

    Args:
        folder: of the volumes.
        is_complex: which of the two.
        challenge: ``"singlecoil"`` or ``"multicoil"``, of fastMRI volumes.

    Raises:
        FileNotFoundError: if there is no volume.
        ValueError: if a volume has no such images, or was undersampled.
    """

    def __init__(self, folder: str | Path, *, is_complex: bool, challenge: str = "multicoil") -> None:
        self.folder = Path(folder)
        self.is_complex = is_complex
        self.challenge = challenge
        self.volumes = [self._describe(path) for path in list_volumes(folder)]

    def __len__(self) -> int:
        return sum(volume.shape[0] for volume in self.volumes)

    def evenly(self, count: int) -> list[tuple[int, int]]:
        """Evenly spaced slices over all volumes, (number of the volume, slice); all if there are no more."""
        places = [(number, index) for number, volume in enumerate(self.volumes) for index in range(volume.shape[0])]
        if count < 1:
            raise ValueError(f"the number of images must be at least 1, got {count}")
        if count >= len(places):
            return places
        return [places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)]

    def read(self, number: int, slice_num: int) -> Tensor:
        """An image (rows, cols), complex64 or float32, of a volume.

        Raises:
            EmptyImageError: if the slice has no signal.
            ValueError: if it is missing or not finite.
        """
        volume = self.volumes[number]
        if not 0 <= slice_num < volume.shape[0]:
            raise ValueError(f"{volume.path} has slices 0 to {volume.shape[0] - 1}, got {slice_num}")
        with h5py.File(volume.path, "r") as file:
            image = self._combine(file["kspace"][slice_num]) if self.is_complex else _magnitudes(file, slice_num)
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"{volume.path}: slice {slice_num} has NaN or infinite values")
        if not bool((image != 0).any()):
            raise EmptyImageError(f"{volume.path}: slice {slice_num} has no signal")
        return image

    def number_of(self, name: str) -> int:
        """The number of a volume by its file name, with or without suffix."""
        for number, volume in enumerate(self.volumes):
            if name in (volume.path.name, volume.path.stem):
                return number
        raise ValueError(f"{self.folder} has no volume {name!r}, only {_some([v.path.stem for v in self.volumes])}")

    def label(self, number: int, slice_num: int) -> str:
        """A volume and its slice in words."""
        return f"{self.volumes[number].path.stem}, slice {slice_num}"

    def _combine(self, kspace: np.ndarray) -> Tensor:
        """The complex image of k-space (coils, rows, cols) or, of a single coil, (rows, cols)."""
        values = torch.view_as_real(torch.from_numpy(kspace.astype(np.complex64)))
        if self.challenge == "singlecoil":
            return torch.view_as_complex(fastmri.ifft2c(values))
        if not bool(torch.isfinite(values).all()):
            return torch.full(values.shape[1:3], torch.nan)  # as `read` finds it
        return torch.view_as_complex(sens_reduce(values[None], estimate_sens_maps(values[None])))[0, 0]

    def _describe(self, path: Path) -> Volume:
        try:
            with h5py.File(path, "r") as file:
                is_volume, attributes = "kspace" in file, dict(file.attrs)
                found = file.get(LEADERBOARD)
                images = find_reconstruction(file) if found is None else found
                shape = None if images is None else tuple(images.shape)
        except OSError as error:
            raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error
        if self.is_complex:
            if not is_volume:
                raise ValueError(
                    f"{path} has no k-space, so no complex images: give fastMRI volumes, or a feature network of 1 "
                    "channel, for magnitudes"
                )
            metadata = read_metadata(path, self.challenge)
            if metadata["sampling"] is not None:
                raise ValueError(f"{path} is undersampled: these figures need fully sampled k-space")
            size = metadata["kspace_shape"]
            shape = (size[0], *size[-2:])
        if shape is None or len(shape) != 3 or 0 in shape:
            raise ValueError(f"{path} must have a reconstruction (slices, rows, cols), got {shape}")
        subject, contrast = (_text(attributes.get(name)) for name in ("patient_id", "acquisition"))
        return Volume(path, shape, subject or path.stem, contrast)


def add_image_args(parser: argparse.ArgumentParser, *, split: str = "test") -> Any:
    """The flags that all figures of feature networks share."""
    group = parser.add_argument_group("network and images")
    group.add_argument(
        "--feature_net", type=Path, default=None, help="of 1 or 2 channels (default: what pretrain.py has written)"
    )
    group.add_argument(
        "--data_path",
        type=Path,
        default=None,
        help=f"folder of fastMRI volumes or of leaderboard files, or one with {{challenge}}_{split} "
        "(default: the generated demo data set)",
    )
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {cli.DIRS_FILE}")
    group.add_argument("--device", default=None, help="of torch (default: cuda if there is one, otherwise cpu)")
    group.add_argument(
        "--output",
        type=Path,
        required=True,
        help="a PNG or PDF; the numbers go to a JSON file beside it",
    )
    return group


def load_network_and_data(args: argparse.Namespace) -> tuple[PatchFeatureNet, Path, torch.device]:
    """The feature network, the data folder, and the device.

    Raises:
        ValueError, OSError: if one of them is missing, or the picture could not be written in the end.
    """
    if args.output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must end in one of {', '.join(SUFFIXES)}, got {args.output}")
    data_path, is_demo = cli.find_data(args)
    file = args.feature_net
    if file is None:
        file = cli.log_path() / ("feature_net_demo" if is_demo else "feature_net") / NET_FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"no --feature_net, and no {file} yet: train one with "
                f"python fastmri_examples/modl_ufloss/pretrain.py --challenge {args.challenge}"
                + ("" if is_demo else f" --data_path {data_path}")
            )
        cli.say(f"Feature network: {file}")
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return PatchFeatureNet.load(file).requires_grad_(False).to(device), data_path, device


def open_images(data_path: Path, net: PatchFeatureNet, challenge: str, *, split: str = "test") -> FigureImages:
    """The images of a folder, or of its subfolder of a split where it has one, as the network takes them."""
    folder = data_path / f"{challenge}_{split}"
    images = FigureImages(folder if folder.is_dir() else data_path, is_complex=net.in_chans == 2, challenge=challenge)
    for volume in images.volumes:
        if min(volume.shape[1:]) < net.patch_size:
            raise ValueError(
                f"{volume.path} has images of {volume.shape[1]}x{volume.shape[2]}, smaller than the patches of the "
                f"feature network, {net.patch_size}x{net.patch_size}"
            )
    return images


def default_of(function: Callable[..., Any], name: str) -> Any:
    """The default of an argument, where it stands."""
    return inspect.signature(function).parameters[name].default


def json_beside(output: Path) -> Path:
    """The file of the numbers."""
    return output.with_suffix(".json")


def describe_network(net: PatchFeatureNet) -> dict[str, Any]:
    """What the numbers of a figure need to say of the network."""
    return {"in_chans": net.in_chans, "patch_size": net.patch_size, "num_features": net.num_features}


def with_signal(images: FigureImages, places: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Some images and their places, one after another; those without a signal are left out with a warning."""
    count = 0
    for place in places:
        try:
            image = images.read(*place)
        except EmptyImageError as error:
            warnings.warn(f"{error}: left out", stacklevel=2)
            continue
        count += 1
        yield place, image
    if not count:
        raise ValueError(f"{images.folder} must have images with a signal, got none")


def _magnitudes(file: h5py.File, slice_num: int) -> Tensor:
    images = file.get(LEADERBOARD)
    images = find_reconstruction(file) if images is None else images
    return torch.from_numpy(np.abs(images[slice_num]).astype(np.float32))


def _text(value: Any) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")).strip()


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
