"""The reconstruction networks of this project behind one door: from a batch to an image and its reference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import fastmri
import torch
from fastmri.data.transforms import center_crop
from torch import Tensor, nn

from fastmri_ufloss.mri.sense import sens_reduce
from fastmri_ufloss.pl_modules.checkpoints import read_checkpoint
from fastmri_ufloss.pl_modules.host_modules import UnetModule, VarNetModule
from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.recnet_module import RecNetModule
from fastmri_ufloss.pl_modules.sense_module import sense_reconstruct

__all__ = [
    "NETWORKS",
    "SENSE_NETWORKS",
    "TITLES",
    "ImageKind",
    "Reconstructed",
    "Reconstructor",
    "load_reconstructor",
    "network_of",
]

Batch = Any  # a collated `MoDLSample`, or fastMRI's `UnetSample` for its U-Net
ImageKind = Literal["complex", "magnitude"]

NETWORKS: dict[str, type[nn.Module]] = {
    "recnet": RecNetModule,
    "modl": MoDLModule,
    "varnet": VarNetModule,
    "unet": UnetModule,
}
"""The modules by the name of the attribute that is their network."""

TITLES = {"recnet": "RecNet", "modl": "MoDL", "varnet": "VarNet", "unet": "U-Net"}

SENSE_NETWORKS = ("recnet", "modl")  # complex images, by coil maps


class Reconstructed(NamedTuple):
    """A batch after a reconstruction network, in the intensities of the file.

    Args:
        image: (batch, 1, rows, cols), complex or real magnitude.
        target: the reference of the same shape and kind, empty if there is none.
        zero_filled: of the same shape and kind.
        sens_maps: (batch, coils, rows, cols, 2), empty for networks without.
    """

    image: Tensor
    target: Tensor
    zero_filled: Tensor
    sens_maps: Tensor


class Reconstructor(nn.Module):
    """A reconstruction network of this project, called with a batch.

    RecNet and MoDL give complex images over the whole field of view, and the complex coil-combined reference; or,
    if asked for, their magnitudes. VarNet and the U-Net give magnitudes, cropped as fastMRI crops them, and the
    root-sum-of-squares (or single-coil) image of the file.

    Args:
        network: a name of `NETWORKS`.
        settings: the hyperparameters of its module.
        images: ``"complex"`` or ``"magnitude"``; what the network gives by itself if not given.

    Raises:
        ValueError: if the name is none of these, or the network has no complex images.
    """

    def __init__(
        self, network: str, settings: Mapping[str, Any] | None = None, *, images: ImageKind | None = None
    ) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
        if images is not None and images not in get_args(ImageKind):
            raise ValueError(f"images must be one of {', '.join(get_args(ImageKind))}, got {images!r}")
        if images == "complex" and network not in SENSE_NETWORKS:
            raise ValueError(f"images must be 'magnitude' for {network}, which has no complex ones, got 'complex'")
        self.name = network
        self.images: ImageKind = images or ("complex" if network in SENSE_NETWORKS else "magnitude")
        self.network: nn.Module = getattr(NETWORKS[network](**dict(settings or {})), network)

    def forward(self, batch: Batch) -> Reconstructed:
        """Reconstruct a batch.

        Args:
            batch: collated samples of the transform that the network is trained with.
        """
        if self.name == "unet":
            return self._unet(batch)
        return self._varnet(batch) if self.name == "varnet" else self._sense(batch)

    def _sense(self, batch: Batch) -> Reconstructed:
        result = sense_reconstruct(self.network, batch)
        with torch.autocast(batch.masked_kspace.device.type, enabled=False):
            zero_filled = torch.view_as_complex(sens_reduce(batch.masked_kspace, result.sens_maps))
        image, target = result.image.unsqueeze(1), result.reference
        target = target.unsqueeze(1) if target.numel() else target
        if self.images == "magnitude":
            image, target, zero_filled = image.abs(), target.abs(), zero_filled.abs()
        return Reconstructed(image, target, zero_filled, result.sens_maps)

    def _varnet(self, batch: Batch) -> Reconstructed:
        number = batch.num_low_frequencies
        if isinstance(number, Tensor):  # as in VarNetModule: it counts itself where they differ
            numbers = set(number.flatten().tolist())
            number = numbers.pop() if len(numbers) == 1 else None
        image = self.network(batch.masked_kspace, batch.mask, number).unsqueeze(1)
        with torch.autocast(batch.masked_kspace.device.type, enabled=False):
            coil_images = fastmri.complex_abs(fastmri.ifft2c(batch.masked_kspace))
            zero_filled = fastmri.rss(coil_images, dim=1).unsqueeze(1)
        target = batch.target.unsqueeze(1).to(image.dtype) if batch.target.ndim == 3 else torch.empty(0)
        size = target.shape[-2:] if target.numel() else _crop_size(batch, image)
        size = tuple(min(a, b) for a, b in zip(size, image.shape[-2:], strict=True))
        image, zero_filled = center_crop(image, size), center_crop(zero_filled, size)
        return Reconstructed(
            image, center_crop(target, size) if target.numel() else target, zero_filled, torch.empty(0)
        )

    def _unet(self, batch: Batch) -> Reconstructed:
        mean, std = (number[:, None, None, None].to(batch.image) for number in (batch.mean, batch.std))
        zero_filled = batch.image.unsqueeze(1)
        image = self.network(zero_filled) * std + mean
        target = batch.target.unsqueeze(1) * std + mean if batch.target.ndim == 3 else torch.empty(0)
        return Reconstructed(image.to(std.dtype), target, zero_filled * std + mean, torch.empty(0))


def _crop_size(batch: Batch, image: Tensor) -> tuple[int, int]:
    """That of the written image, as fastMRI crops it."""
    rows, cols = (int(torch.as_tensor(size).flatten()[0]) for size in batch.crop_size)
    if image.shape[-1] < cols:
        rows = cols = image.shape[-1]
    return rows, cols


def network_of(path: str | Path) -> tuple[str, dict[str, Any]]:
    """The network's name in `NETWORKS` and the module's hyperparameters, of a checkpoint of such a module.

    Raises:
        FileNotFoundError, ValueError: if there is none, or it is no checkpoint, or one of another model.
    """
    checkpoint = read_checkpoint(path)
    first = {name.partition(".")[0] for name in checkpoint["state_dict"]}
    found = [name for name in NETWORKS if name in first]
    if len(found) != 1:
        raise ValueError(
            f"{path} must be a checkpoint of one of {', '.join(NETWORKS)}, got one whose weights are named "
            f"{', '.join(sorted(first)[:4])}"
        )
    return found[0], dict(checkpoint.get("hyper_parameters", {}))


def load_reconstructor(path: str | Path, *, images: ImageKind | None = None) -> Reconstructor:
    """The `Reconstructor` of a checkpoint of stage 1.

    Args:
        path: a checkpoint of `RecNetModule`, `MoDLModule`, `VarNetModule` or `UnetModule`.
        images: see `Reconstructor`.

    Raises:
        FileNotFoundError, ValueError: see `network_of` and `Reconstructor`.
    """
    name, settings = network_of(path)
    reconstructor = Reconstructor(name, settings, images=images)
    weights = read_checkpoint(path, prefix=f"{name}.")["state_dict"].items()
    try:
        reconstructor.network.load_state_dict(
            {key.removeprefix(f"{name}."): value for key, value in weights if key.startswith(f"{name}.")}
        )
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own settings {settings} ({error})") from error
    return reconstructor
