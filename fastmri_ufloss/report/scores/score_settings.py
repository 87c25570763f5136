"""What volumes are scored with, in plain values that a worker process can be sent."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.reconstructions import path_stamp

__all__ = ["COIL_COMBINED", "FeatureNetFile", "ScoreSettings"]

COIL_COMBINED = "coil-combined"
VERSION = 3  # of the scores: a new one makes all of them anew


@dataclass(frozen=True)
class FeatureNetFile:
    """A feature network that UFLoss is measured with.

    Args:
        path: of the network.
        in_chans: 1 for magnitudes, 2 for complex images.
        name: to tell several networks apart, may be empty.
        trained_on: whether a method was trained with the network.
    """

    path: Path
    in_chans: int
    name: str = ""
    trained_on: bool = False

    @property
    def metric(self) -> str:
        """The name of the score."""
        words = ", ".join(filter(None, (self.name, "trained on" if self.trained_on else "")))
        return f"UFLoss ({words})" if words else "UFLoss"


@dataclass(frozen=True)
class ScoreSettings:
    """What volumes are scored with.

    Args:
        references: their names, the main one first; ``COIL_COMBINED`` is computed from the k-space where the volume
            has no file of that name.
        feature_nets: of UFLoss.
        segmenter: checkpoint of a segmentation network, for Dice.
        num_classes: of the segmenter, with the background.
        stride: of the patches of UFLoss; its default if None.
        device: of networks and coil maps.
        load_segmenter: reads ``segmenter``; the network gives class numbers (batch, rows, cols) of magnitudes
            (batch, 1, rows, cols).
        pictures: folder for a picture of each volume with the contours of its segmentations.
    """

    references: tuple[str, ...]
    feature_nets: tuple[FeatureNetFile, ...] = ()
    segmenter: Path | None = None
    num_classes: int = 0
    stride: int | None = None
    device: str = "cpu"
    load_segmenter: Callable[[Path], nn.Module] | None = None
    pictures: Path | None = None

    @property
    def main_reference(self) -> str:
        """The reference that UFLoss of magnitudes and Dice are measured against."""
        return self.references[0]

    @property
    def stamp(self) -> list[Any]:
        """What the scores depend on, in plain values."""
        nets = [[*path_stamp(net.path), net.in_chans, net.metric] for net in self.feature_nets]
        segmenter = None if self.segmenter is None else [*path_stamp(self.segmenter), self.num_classes]
        return [VERSION, list(self.references), nets, segmenter, self.stride]

    def picture_path(self, name: str) -> Path | None:
        """The picture of a volume, None if none is drawn."""
        return None if self.segmenter is None or self.pictures is None else self.pictures / f"{Path(name).stem}.png"

    def feature_net(self, net: FeatureNetFile) -> nn.Module:
        """A network in eval mode on the device, read once in each process."""
        return _load(PatchFeatureNet.load, net.path, tuple(path_stamp(net.path)), self.device)

    def segmentation_net(self) -> nn.Module:
        """The segmenter, likewise."""
        if self.segmenter is None or self.load_segmenter is None:
            raise ValueError("settings must have a segmenter and its reader, got none")
        return _load(self.load_segmenter, self.segmenter, tuple(path_stamp(self.segmenter)), self.device)


@lru_cache(maxsize=8)
def _load(load: Callable[[Path], nn.Module], path: Path, stamp: tuple[Any, ...], device: str) -> nn.Module:
    """A network; a file with another stamp is read anew."""
    return load(path).to(device).eval().requires_grad_(False)
