"""fastMRI's modules on Lightning 2: the same metrics, images and files, through the hooks that are left."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from fastmri.pl_modules import MriModule as HostModule
from torch import Tensor, nn

from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter
from fastmri_ufloss.losses.weighted import LinearRamp, WeightedLoss
from fastmri_ufloss.metrics.volume_metric import VolumeMetric
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.sense import sens_reduce
from fastmri_ufloss.pl_modules.base_module import BaseModule

__all__ = [
    "Batch",
    "MriModule",
    "Reconstruction",
    "masks_of",
    "with_maps",
    "without_float64",
]

Batch = Any  # a collated `MoDLSample`, or fastMRI's `UnetSample` for its U-Net

# arguments that are networks, no plain values
NOT_STORED = ("loss", "score_feature_net", "reconstruction", "image_losses")


class Reconstruction(NamedTuple):
    """A batch after a reconstruction network, in the intensities of the file.

    Args:
        image: (batch, 1, rows, cols), complex of networks with coil maps, otherwise real magnitude.
        reference: what ``image`` is to be, of the same shape and kind: coil-combined, or the file's
            root-sum-of-squares (or single-coil) image; None where the file has none.
        zero_filled: the image of the acquired samples alone, of the same shape and kind.
        sens_maps: (batch, coils, rows, cols, 2); None for networks without.
    """

    image: Tensor
    reference: Tensor | None
    zero_filled: Tensor
    sens_maps: Tensor | None

    def magnitudes(self) -> "Reconstruction":
        """The same with magnitude images."""
        reference = None if self.reference is None else self.reference.abs()
        return self._replace(image=self.image.abs(), reference=reference, zero_filled=self.zero_filled.abs())


class MriModule(BaseModule, HostModule):
    """``fastmri.pl_modules.MriModule`` for Lightning 2, and what the reconstruction modules share.

    A subclass writes ``training_step``, ``validation_step`` and ``test_step`` as it would for fastMRI's class,
    and returns the same keys. NMSE, PSNR and SSIM of validation are computed by fastMRI's own methods, which
    Lightning 2 does not call any more and this class does.

    Images of the test are written volume by volume, as soon as a volume is complete, into the trainer's
    ``default_root_dir``: ``reconstructions/*.h5``, leaderboard files; and ``stages/NAME/*.h5``, in the same form, of
    further images (batch, rows, cols) that ``test_step`` returns by name under the key ``stages``.

    Of a `fastmri_ufloss.losses.WeightedLoss` each term is logged by its name, in training as ``train_terms/NAME``
    and in validation as ``val_terms/NAME``; so are weights that change (``train_weights/NAME``) and gradient norms
    (``train_grad_norms/NAME``). A loss that is not finite stops the training before it reaches the weights of the
    network, and names the step, the file and the slice.

    A loss is no hyperparameter. A checkpoint that was trained with another loss can be loaded: buffers and
    parameters of the module's loss that the checkpoint has by the same name and shape are loaded, others stay.
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

    val_log_indices: list[int] | None
    metrics: nn.ModuleDict
    loss: nn.Module | None
    _val_logs: list[dict[str, Any]]
    _writers: dict[str, ReconstructionWriter]

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """From a batch to images, for training, validation, test, refinement and inference."""
        raise NotImplementedError

    def add_metrics(self, metrics: Mapping[str, VolumeMetric]) -> None:
        """Log further metrics of the validation's volumes as ``val_metrics/NAME``.

        Args:
            metrics: by name, of magnitude images; see `fastmri_ufloss.metrics.make_metrics`.
        """
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
        checkpoint["state_dict"] = self.keep_own(checkpoint["state_dict"], "loss.", "metrics.")

    def keep_own(self, state_dict: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
        """A state dict with this module's own entries below some prefixes where the given ones do not fit."""
        own = {name: value for name, value in self.state_dict().items() if name.startswith(prefixes)}
        fitting = {
            name: value
            for name, value in state_dict.items()
            if not name.startswith(prefixes)
            or (name in own and getattr(own[name], "shape", None) == getattr(value, "shape", None))
        }
        return {**own, **fitting}

    def loss_terms(self) -> dict[str, Tensor]:
        return dict(getattr(getattr(self, "loss", None), "last_terms", {}))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        # at each batch: an epoch that is resumed midway has no start
        loss = self.scheduled_loss()
        if loss is not None:
            loss.set_epoch(self.current_epoch)

    def scheduled_loss(self) -> WeightedLoss | None:
        """The weighted sum whose weights follow the epochs, if the loss is one."""
        loss = getattr(self, "loss", None)
        return loss if isinstance(loss, WeightedLoss) else None

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        for name, value in self.loss_terms().items():
            self.log(f"train_terms/{name}", value)
        loss = self.scheduled_loss()
        if loss is not None:
            for name, norm in loss.last_grad_norms.items():
                self.log(f"train_grad_norms/{name}", norm)
            for name, weight in loss.weights.items():
                if isinstance(weight, LinearRamp):
                    self.log(f"train_weights/{name}", loss.current_weights[name])

    def on_validation_epoch_start(self) -> None:
        self._val_logs = []
        if self.val_log_indices is None:
            loaders = self.trainer.val_dataloaders
            loader = loaders[0] if isinstance(loaders, list) else loaders
            self.val_log_indices = list(np.random.permutation(len(loader))[: self.num_log_images])

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        outputs = {**outputs, "output": outputs["output"].float(), "target": outputs["target"].float()}
        for name, value in getattr(getattr(self, "loss", None), "last_terms", {}).items():
            self.log(f"val_terms/{name}", value, batch_size=len(outputs["fname"]), sync_dist=True)
        for metric in getattr(self, "metrics", {}).values():
            metric.update(
                outputs["output"],
                outputs["target"],
                fname=outputs["fname"],
                slice_num=outputs["slice_num"],
                max_value=outputs["max_value"],
            )
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
        masks = masks_of(batch, len(outputs["fname"]))
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
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def log_image(self, name: str, image: Tensor) -> None:
        if hasattr(getattr(self.logger, "experiment", None), "add_image"):
            super().log_image(name, torch.nan_to_num(image))


def with_maps(batch: Batch) -> Batch:
    """A batch of `MoDLSample` with coil maps, and with the reference where k-space is fully sampled.

    Those that it has, or computed on the device where it is.
    """
    if batch.sens_maps is not None:
        return batch
    with torch.autocast(batch.mask.device.type, enabled=False):
        maps = estimate_sens_maps(batch.masked_kspace, batch.num_low_frequencies, mask=batch.mask)
        reference = None
        if batch.kspace is not None:
            reference = torch.view_as_complex(sens_reduce(batch.kspace, maps))[:, 0]
    return batch._replace(sens_maps=maps, reference=reference, kspace=None)


def masks_of(batch: Any, count: int) -> list[Tensor | None]:
    """The sampling mask of each of the ``count`` samples of a batch; None where the batch has no masks."""
    mask = getattr(batch, "mask", None)
    return [None] * count if mask is None else list(mask.expand(count, *mask.shape[1:]))


def without_float64(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its float64 tensors as ``dtype``.

    Numbers such as ``max_value`` become float64 when they are collated, and so does all that a loss computes with
    them.
    """
    doubles = {name: x for name, x in batch._asdict().items() if isinstance(x, Tensor) and x.dtype == torch.float64}
    return batch._replace(**{name: x.to(dtype) for name, x in doubles.items()})
