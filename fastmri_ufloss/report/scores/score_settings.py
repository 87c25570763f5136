"""What volumes are scored with, in plain values that a worker process can be sent."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from fastmri_ufloss.report.reconstructed_volume import stamp_of

__all__ = ["COIL_COMBINED", "FeatureNetFile", "ScoreSettings"]

COIL_COMBINED = "coil-combined"
VERSION = 2  # of the scores: a new one makes all of them anew


@dataclass(frozen=True)
class FeatureNetFile:
    """A feature network that UFLoss is measured with.

    Args:
        path: of the network.
        in_chans: 1 for magnitudes, 2 for complex images.
        name: to tell several networks apart, may be empty.
        trained_on: whether a method was trained with it.
    """

    path: Path
    in_chans: int
    name: str = ""
    trained_on: bool = False

    @property
    def metric(self) -> str:
        """The name of the score."""
        words = [word for word in (self.name, "trained on" if self.trained_on else "") if word]
        return f"UFLoss ({', '.join(words)})" if words else "UFLoss"


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
        load_feature_net: reads a file of ``feature_nets``.
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
    load_feature_net: Callable[[Path], nn.Module] | None = None
    load_segmenter: Callable[[Path], nn.Module] | None = None
    pictures: Path | None = None

    @property
    def main_reference(self) -> str:
        """The reference that UFLoss of magnitudes and Dice are measured against."""
        return self.references[0]

    @property
    def stamp(self) -> list[Any]:
        """What the scores depend on, in plain values."""
        nets = [[*stamp_of(net.path), net.in_chans, net.metric] for net in self.feature_nets]
        segmenter = None if self.segmenter is None else [*stamp_of(self.segmenter), self.num_classes]
        return [VERSION, list(self.references), nets, segmenter, self.stride]

    def feature_net(self, net: FeatureNetFile) -> nn.Module:
        """A network in eval mode on the device, read once in each process."""
        return _load(self.load_feature_net, net.path, stamp_of(net.path), self.device)

    def segmentation_net(self) -> nn.Module:
        """The segmenter, likewise."""
        if self.segmenter is None:
            raise ValueError("settings must have a segmenter, got none")
        return _load(self.load_segmenter, self.segmenter, stamp_of(self.segmenter), self.device)


@lru_cache(maxsize=8)
def _load(
    load: Callable[[Path], nn.Module] | None, path: Path, stamp: tuple[str, int, int], device: str
) -> nn.Module:
    """The stamp makes a changed file, or another one of the same relative path, another network."""
    if load is None:
        raise ValueError(f"settings must have a reader of {path}, got none")
    return load(path).to(device).eval().requires_grad_(False)
