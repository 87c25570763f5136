"""Metrics that are summed up slice by slice and counted per volume, whichever process has which slice."""

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from fastmri_ufloss.checks import require
from fastmri_ufloss.losses.images import check_images, no_autocast

__all__ = ["SliceMetric", "VolumeMetric", "as_images", "sum_dtype", "volume_id"]


class SliceMetric(Metric):
    """Numbers of slices, from which volumes have their values.

    Slices may come in any order, in batches of any size, and on any process. A slice that comes again, as distributed
    samplers repeat some, counts once. Kept are a few numbers of each slice, in float64 (float32 on MPS), which a
    subclass names in ``slice_sums``; a ``torchmetrics.MetricCollection`` computes numbers of one name once.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    slice_sums: tuple[str, ...]

    def __init__(self) -> None:
        # a process without new slices would give its cached value, and the others would wait for it forever
        super().__init__(compute_with_cache=False)
        for name in self._states():
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def per_volume(self) -> dict[int, float]:
        """The value of each volume of all processes by `volume_id`; all processes must call this, for the same."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._volume_values()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """``torchmetrics.Metric.sync``, also where a process has seen no slice."""
        # torchmetrics sends float32 for an empty list, which the others would read as their own dtype
        for name, dtype in self._states().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                getattr(self, name).append(torch.empty(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    @abstractmethod
    def _volume_values(self) -> dict[int, float]:
        """`per_volume` of the slices that are here."""

    def _states(self) -> dict[str, torch.dtype]:
        sums = dict.fromkeys(self.slice_sums, sum_dtype(self.device))
        return {"volume": torch.int64, "slice_num": torch.int64, **sums}

    def _add(self, fname: Sequence[str], slice_num: Tensor | Sequence[int], *values: Tensor) -> None:
        """Keep the numbers of the slices of a batch, (batch,) each, in the order of ``slice_sums``."""
        count = len(values[0])
        fits = not isinstance(fname, str) and len(fname) == count
        require(fits, f"fname must hold the {count} names of the slices' volumes", repr(fname))
        places = torch.as_tensor(slice_num)
        fits = places.shape == (count,) and not places.is_floating_point()
        require(fits, f"slice_num must hold {count} integers", f"{places.dtype} of shape {tuple(places.shape)}")
        columns = (torch.tensor([volume_id(name) for name in fname]), places, *values)
        for (name, dtype), column in zip(self._states().items(), columns, strict=True):
            getattr(self, name).append(column.to(device=self.device, dtype=dtype))

    def _slices(self) -> tuple[np.ndarray, np.ndarray]:
        """The volume of each slice, (slices,), and its numbers, (slices, len(slice_sums)), float64.

        Each slice is there once; they are sorted, so that sums do not depend, to the last digit, on how slices came.
        """
        columns = []
        for name in self._states():
            state = getattr(self, name)
            if isinstance(state, list):  # of batches; after an exchange it is one tensor
                state = torch.cat(state) if state else torch.empty(0)
            columns.append(state.cpu().numpy())
        volume, slice_num, *values = columns
        _, first = np.unique(np.stack([volume, slice_num], axis=1), axis=0, return_index=True)
        return volume[first], np.stack(values, axis=1).astype(np.float64)[first]

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=sum_dtype(self.device), device=self.device)


class VolumeMetric(SliceMetric):
    """The mean over volumes of a value that each volume has from its slices, as fastMRI counts.

        metric.update(output, target, fname=batch.fname, slice_num=batch.slice_num, max_value=batch.max_value)
        self.log("val_metrics/nrmse", metric)

    is how a Lightning module uses a metric, which Lightning resets after each epoch. For batches, processes and what
    is kept see `SliceMetric`.

    A subclass writes ``slice_sums``, `slice_values` and, unless the value of a volume is the mean of a single number,
    `volume_value`.
    """

    @abstractmethod
    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, ...]:
        """The numbers of each slice of images (batch, 1, rows, cols), (batch,) each, as ``slice_sums`` names them."""

    def volume_value(self, values: Tensor) -> float | None:
        """The value of a volume from its slices' numbers, (slices, len(slice_sums)); None leaves the volume out."""
        return values.mean().item()

    def update(
        self,
        output: Tensor,
        target: Tensor,
        *,
        fname: Sequence[str],
        slice_num: Tensor | Sequence[int],
        max_value: Tensor | None = None,
    ) -> None:
        """Add the slices of a batch, (batch, rows, cols) or (batch, 1, rows, cols), real magnitudes or complex.

        ``fname`` names each slice's volume, and ``slice_num``, (batch,), is the slice's number there; metrics with a
        data range need ``max_value``, (batch,), of each slice's volume. Raises ValueError for other arguments.
        """
        output, target = as_images(output, target)
        if max_value is not None:
            shape = tuple(max_value.shape)
            require(shape == (len(output),), f"max_value must have shape ({len(output)},)", shape)
        with no_autocast(output):  # a score does not depend on the precision of the training
            values = self.slice_values(output.detach(), target.detach(), max_value)
        self._add(fname, slice_num, *values)

    def compute(self) -> Tensor:
        """The mean over volumes, a scalar, nan without volumes; all processes must call this, for the same."""
        values = list(self._volume_values().values())
        return self._scalar(sum(values) / len(values) if values else float("nan"))

    def _volume_values(self) -> dict[int, float]:
        volume, rows = self._slices()
        values = {name: self.volume_value(torch.from_numpy(rows[volume == name])) for name in np.unique(volume)}
        return {int(name): value for name, value in values.items() if value is not None}


def as_images(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Images (batch, 1, rows, cols) of images that may lack the second axis, after `check_images`."""
    demand = "output must have shape (batch, rows, cols) or (batch, 1, rows, cols)"
    require(output.ndim in (3, 4), demand, tuple(output.shape))
    if output.ndim == target.ndim == 3:
        output, target = output.unsqueeze(1), target.unsqueeze(1)
    check_images(output, target)
    return output, target


def volume_id(fname: str) -> int:
    """64 bits of a hash of a volume's name, as a signed integer, which processes can exchange."""
    return int.from_bytes(blake2b(fname.encode(), digest_size=8).digest(), "little", signed=True)


def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums over pixels: float64, float32 on MPS, which lacks float64."""
    return torch.float32 if device.type == "mps" else torch.float64
