"""fastMRI's module on Lightning 2: the same metrics, images and files, through the hooks that are left."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from fastmri.data.transforms import center_crop_to_smallest
from fastmri.pl_modules import MriModule as HostModule
from torch import Tensor, nn

from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter, crop_like_fastmri
from fastmri_ufloss.data.sens_maps import read_coil_matrices, write_coil_matrices
from fastmri_ufloss.losses.weighted import AutoWeight, LinearRamp, WeightedLoss
from fastmri_ufloss.metrics.volume_metric import VolumeMetric
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.sense import sense_adjoint
from fastmri_ufloss.pl_modules.base_module import BaseModule

__all__ = ["Batch", "MriModule", "Reconstruction"]

Batch = Any  # a collated `MoDLSample`, or fastMRI's `UnetSample` for its U-Net

# numbers of a batch that the CPU alone reads: for their way back from a GPU it would have to wait
ON_CPU = ("num_low_frequencies", "slice_num", "crop_size", "first_row", "num_rows")

# arguments that are networks, no plain values
NOT_STORED = ("loss", "score_feature_net", "reconstruction", "image_losses")


class Reconstruction(NamedTuple):
    """A batch after a reconstruction network, in the intensities of the file."""

    image: Tensor
    """(batch, 1, rows, cols), complex of networks with coil maps, otherwise real magnitude."""
    reference: Tensor | None
    """What ``image`` is to be: coil-combined, or the file's root-sum-of-squares (or single-coil) image, if any."""
    zero_filled: Tensor
    """The image of the acquired samples alone, of the same shape and kind."""
    sens_maps: Tensor | None
    """(batch, coils, rows, cols, 2), or (batch, sets, coils, rows, cols, 2); None for networks without."""

    def magnitudes(self) -> "Reconstruction":
        """The same with magnitude images."""
        reference = None if self.reference is None else self.reference.abs()
        return self._replace(image=self.image.abs(), reference=reference, zero_filled=self.zero_filled.abs())


class MriModule(BaseModule, HostModule):
    """``fastmri.pl_modules.MriModule`` for Lightning 2, and what the reconstruction modules share.

    A subclass writes ``training_step``, ``validation_step`` and ``test_step`` as for fastMRI's class, and returns the
    same keys. Images of the test are written volume by volume into the trainer's ``default_root_dir``:
    ``reconstructions/*.h5``, leaderboard files; and ``stages/NAME/*.h5`` of further images (batch, rows, cols) that
    ``test_step`` returns by name under the key ``stages``.

    Each term of a `fastmri_ufloss.losses.WeightedLoss` is logged as ``train_terms/NAME`` and ``val_terms/NAME``;
    weights that change as ``train_weights/NAME``, gradient norms as ``train_grad_norms/NAME``.

    A loss is no hyperparameter: a checkpoint loads with another loss, too, and gives that loss the buffers and
    parameters of the same name and shape.
    """

    # removed from Lightning 2, which refuses a module that defines them as methods
    validation_step_end = None
    validation_epoch_end = None
    test_epoch_end = None

    title: str
    """The name of the network in tables."""
    samples: Literal["modl", "varnet", "unet"]
    """What a batch must be made for."""
    is_complex: bool = False
    """Whether `reconstruct` gives complex images."""
    replaceable: ClassVar[tuple[str, ...]] = ("loss.", "metrics.")
    """What the names of weights start with that a checkpoint may have otherwise, or lack."""

    val_log_indices: list[int] | None
    metrics: nn.ModuleDict
    loss: nn.Module | None
    _val_logs: list[dict[str, Any]]
    _writers: dict[str, ReconstructionWriter]

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """From a batch to images, for training, validation, test, refinement and inference."""
        raise NotImplementedError

    def add_metrics(self, metrics: Mapping[str, VolumeMetric]) -> None:
        """Log metrics of the validation's magnitude images, see `make_metrics`, as ``val_metrics/NAME``."""
        self.metrics = nn.ModuleDict(metrics)

    def save_hyperparameters(
        self, *args: Any, ignore: Any = None, frame: FrameType | None = None, logger: bool = True
    ) -> None:
        """Lightning's, without the networks that are handed in."""
        current = inspect.currentframe()
        frame = frame or (None if current is None else current.f_back)
        super().save_hyperparameters(*args, ignore=[*(ignore or ()), *NOT_STORED], frame=frame, logger=logger)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        own = {name: value for name, value in self.state_dict().items() if name.startswith(self.replaceable)}
        fitting = {
            name: value
            for name, value in checkpoint["state_dict"].items()
            if not name.startswith(self.replaceable)
            or (name in own and getattr(own[name], "shape", None) == getattr(value, "shape", None))
        }
        checkpoint["state_dict"] = {**own, **fitting}

    def weighted_loss(self) -> WeightedLoss | None:
        """The loss of the training, if it is a weighted sum."""
        loss = getattr(self, "loss", None)
        return loss if isinstance(loss, WeightedLoss) else None

    def loss_terms(self) -> dict[str, Tensor]:
        loss = self.weighted_loss()
        return {} if loss is None else loss.last_terms

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        # at each batch: an epoch that is resumed midway has no start
        loss = self.weighted_loss()
        if loss is not None:
            loss.set_epoch(self.current_epoch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        loss = self.weighted_loss()
        if loss is None:
            return
        for name, value in loss.last_terms.items():
            self.log(f"train_terms/{name}", value)
        for name, norm in loss.last_grad_norms.items():
            self.log(f"train_grad_norms/{name}", norm)
        for name, weight in loss.weights.items():
            if isinstance(weight, AutoWeight | LinearRamp):
                self.log(f"train_weights/{name}", loss.current_weights[name])

    def on_validation_epoch_start(self) -> None:
        self._val_logs = []
        if self.val_log_indices is None:
            loaders = self.trainer.val_dataloaders
            loader = loaders[0] if isinstance(loaders, list) else loaders
            self.val_log_indices = list(np.random.permutation(len(loader))[: self.num_log_images])

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        images = torch.stack([outputs["output"].float(), outputs["target"].float()])
        outputs = {**outputs, "output": images[0], "target": images[1]}
        # an objective that is no ``loss`` is not computed in validation
        for name, value in self.loss_terms().items() if hasattr(self, "loss") else ():
            self.log(f"val_terms/{name}", value, batch_size=len(outputs["fname"]), sync_dist=True)
        places = {name: outputs[name] for name in ("fname", "slice_num", "max_value")}
        for metric in getattr(self, "metrics", {}).values():
            metric.update(outputs["output"], outputs["target"], **places)
        # at once: fastMRI asks for each slice's
        (output, target), max_value = images.cpu(), torch.as_tensor(outputs["max_value"]).cpu()
        outputs = {**outputs, "output": output, "target": target, "max_value": max_value}
        self._val_logs.append(HostModule.validation_step_end(self, outputs))

    def on_validation_epoch_end(self) -> None:
        HostModule.validation_epoch_end(self, self._val_logs)
        self._val_logs = []
        for name, metric in getattr(self, "metrics", {}).items():
            self.log(f"val_metrics/{name}", metric.compute().float(), sync_dist=True)  # the same on all
            metric.reset()

    def on_test_epoch_start(self) -> None:
        self._writers = {}

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        folder = Path(self.trainer.default_root_dir)
        count, mask = len(outputs["fname"]), getattr(batch, "mask", None)
        masks = [None] * count if mask is None else mask.expand(count, *mask.shape[1:])
        images = {"reconstructions": outputs["output"]}
        images.update({f"stages/{name}": stage for name, stage in outputs.get("stages", {}).items()})
        for name, values in images.items():
            writer = self._writers.setdefault(name, ReconstructionWriter(folder / name))
            for fname, slice_num, image, mask in zip(outputs["fname"], outputs["slice"], values, masks, strict=True):
                writer.add(fname, int(slice_num), image, mask=None if name == "stages/reference" else mask)

    def on_test_epoch_end(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self.print(f"Saved reconstructions to {Path(self.trainer.default_root_dir) / 'reconstructions'}")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "mps":  # which has no float64
            batch = without_float64(batch, torch.float32)
        stays = {name: getattr(batch, name) for name in ON_CPU if hasattr(batch, name)}
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch._replace(**stays) if stays else batch

    def log_image(self, name: str, image: Tensor) -> None:
        if hasattr(getattr(self.logger, "experiment", None), "add_image"):
            super().log_image(name, torch.nan_to_num(image))

    @staticmethod
    def check_target(batch: Batch) -> None:
        """Raise ValueError unless each slice has a target image."""
        if batch.target.ndim != 3:
            raise ValueError(f"{batch.fname[0]} has no target image, which training and validation need")

    @staticmethod
    def val_logs(batch: Batch, batch_idx: int, image: Tensor, target: Tensor, loss: Tensor) -> dict[str, Any]:
        """What ``validation_step`` returns, of images (batch, 1, rows, cols) and targets (batch, rows, cols)."""
        target, output = center_crop_to_smallest(target, image[:, 0].abs())
        return {
            "batch_idx": batch_idx,
            "fname": batch.fname,
            "slice_num": batch.slice_num,
            "max_value": batch.max_value,
            "output": output,
            "target": target,
            "val_loss": loss,
        }

    @staticmethod
    def test_logs(batch: Batch, image: Tensor, stages: Mapping[str, Tensor]) -> dict[str, Any]:
        """What ``test_step`` returns, of images (batch, 1, rows, cols)."""
        size = getattr(batch, "crop_size", image.shape[-2:])  # a UnetSample is cropped already
        return {
            "fname": batch.fname,
            "slice": batch.slice_num,
            "output": crop_like_fastmri(image, size).cpu(),
            "stages": {name: crop_like_fastmri(stage, size).cpu() for name, stage in stages.items()},
        }


def data_range_of(reference: Tensor) -> Tensor:
    """The largest magnitude of each image (batch, 1, rows, cols), as a loss takes it."""
    data_range = reference.abs().amax(dim=(1, 2, 3))
    return torch.where(data_range > 0, data_range, 1.0)  # of a slice without signal any will do


def with_maps(batch: Batch) -> Batch:
    """A batch of `MoDLSample` with coil maps and reference, computed on the batch's device where it has none."""
    if batch.sens_maps is not None:
        return batch
    with torch.autocast(batch.mask.device.type, enabled=False):
        maps = _estimate_maps(batch)
        reference = None
        if batch.kspace is not None:
            reference = sense_adjoint(batch.kspace, maps)
    return batch._replace(sens_maps=maps, reference=reference, kspace=None, center=None)


def _estimate_maps(batch: Batch) -> Tensor:
    """The maps of a batch; those of bands are computed for the whole slices, then cut."""
    count, cols = batch.masked_kspace.shape[2:4]
    kspace, lines, shape = batch.masked_kspace, batch.num_low_frequencies, None
    if batch.center is not None:
        kspace, shape = batch.center, (int(batch.num_rows[0]), cols)
        lines = lines.clamp(max=min(kspace.shape[2:4]))
    files = batch.coil_matrix_file
    known = {} if files is None else read_coil_matrices(files, kspace.device)
    kept = dict(known)
    maps = estimate_sens_maps(kspace, lines, mask=batch.mask, shape=shape, coil_matrices=kept)
    if files is not None:
        write_coil_matrices(files, {i: x for i, x in kept.items() if x is not known.get(i)})
    if batch.center is None:
        return maps
    bands = zip(maps, batch.first_row.tolist(), strict=True)
    return torch.stack([whole[:, first : first + count] for whole, first in bands])


def without_float64(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its float64 tensors as ``dtype``: numbers such as ``max_value`` become float64 by collation."""
    doubles = {name: x for name, x in batch._asdict().items() if isinstance(x, Tensor) and x.dtype == torch.float64}
    return batch._replace(**{name: x.to(dtype) for name, x in doubles.items()})
