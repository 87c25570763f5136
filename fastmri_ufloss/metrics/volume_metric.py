"""A metric that is summed up slice by slice and counted per volume, whichever process has which slice."""

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from fastmri_ufloss.losses.images import check_images, full_precision

__all__ = ["VolumeMetric", "energy", "identify_slices", "to_sum_precision", "volume_id"]


class VolumeMetric(Metric):
    """The mean over volumes of a value that each volume has from its slices, as fastMRI counts.

    Slices may come in any order, in batches of any size, and on any process: processes exchange what they know when
    the value is computed, and a volume's slices find each other by its name. A slice that comes again, as
    distributed samplers repeat some so that all processes have equally many, counts once: the first counts. Kept are
    a few numbers of each slice, in float64 (float32 on MPS, which has no float64), never images.

        metric.update(output, target, fname=batch.fname, slice_num=batch.slice_num, max_value=batch.max_value)
        self.log("val_metrics/nrmse", metric)

    is how a Lightning module uses one, and Lightning resets it after each epoch. To call the metric, instead of its
    ``update``, gives the value of the batch as well, as if its slices were all that their volumes have.

    A subclass names its numbers of a slice in ``slice_sums`` and writes `slice_values` and `volume_value`. Metrics
    with the same names must have the same numbers: a ``torchmetrics.MetricCollection`` then computes them once.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    slice_sums: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        # a process without new slices would give its cached value, and the others would wait for it forever
        super().__init__(compute_with_cache=False)
        for name in self._states():
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abstractmethod
    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, ...]:
        """The numbers of each slice, (batch,) each, in the order of ``slice_sums``.

        Args:
            output: (batch, 1, rows, cols), without gradient.
            target: the same shape and kind.
            max_value: (batch,), of the volumes, or None.
        """

    @abstractmethod
    def volume_value(self, values: Tensor) -> float | None:
        """The value of a volume, or None if it has none and is left out.

        Args:
            values: the numbers of its slices, (slices, len(slice_sums)), float64, on the CPU.
        """

    def update(
        self,
        output: Tensor,
        target: Tensor,
        *,
        fname: Sequence[str],
        slice_num: Tensor | Sequence[int],
        max_value: Tensor | None = None,
    ) -> None:
        """Add the slices of a batch.

        Args:
            output: (batch, rows, cols) or (batch, 1, rows, cols), real magnitude or complex.
            target: the same shape and kind.
            fname: the name of each slice's volume.
            slice_num: the number of each slice in its volume, (batch,).
            max_value: the largest intensity of each slice's volume, (batch,). A metric that needs no data range does
                not use it; it is there so that all metrics are called alike.

        Raises:
            ValueError: if an argument is not as above, or the metric lacks what it needs.
        """
        if output.ndim not in (3, 4):
            raise ValueError(
                f"output must have shape (batch, rows, cols) or (batch, 1, rows, cols), got {tuple(output.shape)}"
            )
        if output.ndim == target.ndim == 3:
            output, target = output.unsqueeze(1), target.unsqueeze(1)
        check_images(output, target)
        count = len(output)
        slices = identify_slices(fname, slice_num, count)
        if max_value is not None and max_value.shape != (count,):
            raise ValueError(f"max_value must have shape ({count},), got {tuple(max_value.shape)}")
        with full_precision(output):  # a score does not depend on the precision of the training
            values = self.slice_values(output.detach(), target.detach(), max_value)
        for (name, dtype), row in zip(self._states().items(), (*slices, *values), strict=True):
            getattr(self, name).append(row.to(device=self.device, dtype=dtype))

    def compute(self) -> Tensor:
        """The mean over volumes, a scalar on the metric's device; nan if there is none.

        All processes must call it, and all get the same.
        """
        values = list(self._value_of_each_volume().values())
        mean = sum(values) / len(values) if values else float("nan")
        return torch.tensor(mean, dtype=_sum_dtype(self.device), device=self.device)

    def per_volume(self) -> dict[int, float]:
        """The value of each volume by its `volume_id`, of the volumes of all processes.

        All processes must call it, and all get the same.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._value_of_each_volume()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """``torchmetrics.Metric.sync``, also where a process has seen no slice."""
        # torchmetrics sends float32 for an empty list, which the others would read as their own dtype
        for name, dtype in self._states().items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                getattr(self, name).append(torch.empty(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def _states(self) -> dict[str, torch.dtype]:
        return {
            "volume": torch.int64,
            "slice_num": torch.int64,
            **dict.fromkeys(self.slice_sums, _sum_dtype(self.device)),
        }

    def _value_of_each_volume(self) -> dict[int, float]:
        columns = []
        for name in self._states():
            state = getattr(self, name)
            if isinstance(state, list):  # of batches; after an exchange it is one tensor
                state = torch.cat(state) if state else torch.empty(0)
            columns.append(state.tolist())
        volumes: dict[int, dict[int, list[float]]] = {}
        for volume, slice_num, *values in zip(*columns, strict=True):
            volumes.setdefault(volume, {}).setdefault(slice_num, values)
        # sorted, so that the sums do not depend on the order in which slices came, not in the last digit
        found = {}
        for volume, slices in sorted(volumes.items()):
            rows = [values for _, values in sorted(slices.items())]
            value = self.volume_value(torch.tensor(rows, dtype=torch.float64))
            if value is not None:
                found[volume] = value
        return found


def volume_id(fname: str) -> int:
    """64 bits of a hash of a volume's name, the same in every process and run, as a signed integer.

    Names have no fixed length, so this is what processes exchange. Among 10^6 volumes two have the same with a
    probability of 3e-8.
    """
    return int.from_bytes(blake2b(fname.encode(), digest_size=8).digest(), "little", signed=True)


def identify_slices(fname: Sequence[str], slice_num: Tensor | Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """The `volume_id` and the number of each slice of a batch, (count,), int64.

    Raises:
        ValueError: if there are not ``count`` names and integers.
    """
    if isinstance(fname, str) or len(fname) != count:
        raise ValueError(f"fname must hold the {count} names of the slices' volumes, got {fname!r}")
    numbers = torch.as_tensor(slice_num)
    if numbers.shape != (count,) or numbers.is_floating_point():
        raise ValueError(f"slice_num must hold {count} integers, got {numbers.dtype} of shape {tuple(numbers.shape)}")
    return torch.tensor([volume_id(name) for name in fname]), numbers.to(torch.int64)


def to_sum_precision(images: Tensor) -> Tensor:
    """Images in float64 or complex128; on MPS, which lacks them, in float32 or complex64.

    Of raw intensities the squares would underflow in half precision, and a GPU may round the factors of a float32
    convolution to 10 bits.
    """
    dtype = _sum_dtype(images.device)
    return images.to(dtype.to_complex() if images.is_complex() else dtype)


def energy(images: Tensor) -> Tensor:
    """sum |x|^2 of each image of (batch, 1, rows, cols), (batch,), real."""
    return images.abs().square().sum(dim=(1, 2, 3))


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
