"""fastMRI's modules on Lightning 2: the same metrics, images and files, through the hooks that are left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastmri.pl_modules import MriModule as HostModule
from torch import Tensor, nn

from fastmri_ufloss.data.transforms import MoDLSample
from fastmri_ufloss.losses.weighted import LinearRamp, WeightedLoss
from fastmri_ufloss.metrics.volume_metric import VolumeMetric
from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter, masks_of

__all__ = ["MriModule", "keep_own_loss", "without_float64"]


class MriModule(HostModule):
    """``fastmri.pl_modules.MriModule`` for Lightning 2.

    A subclass writes ``training_step``, ``validation_step`` and ``test_step`` as it would for fastMRI's class,
    and returns the same keys. NMSE, PSNR and SSIM of validation are computed by fastMRI's own methods, which
    Lightning 2 does not call any more and this class does. Reconstructions of the test are written volume by
    volume, as soon as a volume is complete, to ``reconstructions`` in the trainer's ``default_root_dir``.

    Of a `fastmri_ufloss.losses.WeightedLoss` each term is logged by its name, in training as ``train_terms/NAME``
    and in validation as ``val_terms/NAME``; so are weights that change (``train_weights/NAME``) and gradient norms
    (``train_grad_norms/NAME``). A loss that is not finite stops the training before it reaches the weights of the
    network, and names the step, the file and the slice.
    """

    # Lightning 2 refuses a module that has these, and one that is not callable it does not see
    validation_step_end = None
    validation_epoch_end = None
    test_epoch_end = None

    val_log_indices: list[int] | None
    metrics: nn.ModuleDict
    _train_batch: Any
    _val_logs: list[dict[str, Any]]
    _writer: ReconstructionWriter

    def add_metrics(self, metrics: Mapping[str, VolumeMetric]) -> None:
        """Log further metrics of the validation's volumes as ``val_metrics/NAME``.

        Args:
            metrics: by name, of magnitude images; see `fastmri_ufloss.metrics.make_metrics`.
        """
        self.metrics = nn.ModuleDict(metrics)

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
        folder = Path(self.trainer.default_root_dir) / "reconstructions"
        self._writer = ReconstructionWriter(folder)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        masks = masks_of(batch, len(outputs["fname"]))
        slices = zip(outputs["fname"], outputs["slice"], outputs["output"], masks, strict=True)
        for fname, slice_num, image, mask in slices:
            self._writer.add(fname, int(slice_num), image, mask=mask)

    def on_test_epoch_end(self) -> None:
        self._writer.close()
        self.print(f"Saved reconstructions to {self._writer.folder}")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "mps":  # which has no float64
            batch = without_float64(batch, torch.float32)
        if device.type == "cpu" or not isinstance(batch, MoDLSample) or not batch.kspace.numel():
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        # the fully sampled k-space holds the masked one, which need not cross the bus as well
        batch = super().transfer_batch_to_device(batch._replace(masked_kspace=torch.empty(0)), device, dataloader_idx)
        return batch._replace(masked_kspace=batch.kspace * batch.mask)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._train_batch = batch
        # at each batch: an epoch that is resumed midway has no start
        if isinstance(getattr(self, "loss", None), WeightedLoss):
            self.loss.set_epoch(self.current_epoch)

    def on_before_backward(self, loss: Tensor) -> None:
        if not bool(loss.detach().isfinite().all()):
            raise ValueError(self._not_finite(loss))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._train_batch = None
        loss = getattr(self, "loss", None)
        for name, value in getattr(loss, "last_terms", {}).items():
            self.log(f"train_terms/{name}", value)
        if isinstance(loss, WeightedLoss):
            for name, norm in loss.last_grad_norms.items():
                self.log(f"train_grad_norms/{name}", norm)
            for name, weight in loss.weights.items():
                if isinstance(weight, LinearRamp):
                    self.log(f"train_weights/{name}", loss.current_weights[name])

    def _not_finite(self, loss: Tensor) -> str:
        """What to say of a loss that is not finite."""
        batch = self._train_batch
        slices = ""
        if hasattr(batch, "fname") and hasattr(batch, "slice_num"):
            pairs = zip(batch.fname, torch.as_tensor(batch.slice_num).tolist(), strict=True)
            slices = f" on {', '.join(f'{fname}, slice {number}' for fname, number in pairs)}"
        terms = {name: float(value) for name, value in getattr(getattr(self, "loss", None), "last_terms", {}).items()}
        return (
            f"the loss is {float(loss.detach().sum())} in epoch {self.current_epoch}, step {self.global_step}{slices}"
            f"{f', its terms are {terms}' if terms else ''}. The weights are still those of the step before; look at "
            "these data, or lower the learning rate or the weights of the loss"
        )

    def log_image(self, name: str, image: Tensor) -> None:
        if hasattr(getattr(self.logger, "experiment", None), "add_image"):
            super().log_image(name, torch.nan_to_num(image))


def keep_own_loss(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a state dict's network be loaded strictly into a module whose ``loss`` is another one.

    Of the entries of ``loss``, those that the module's own has by the same name and shape are loaded; others are
    left out, and what it has beside them stays as it is. All other names must agree, as ever. To be registered with
    ``module.register_load_state_dict_pre_hook``.
    """
    loss = getattr(module, "loss", None)
    own = {} if loss is None else loss.state_dict(prefix=f"{prefix}loss.")
    for name in [name for name in state_dict if name.startswith(f"{prefix}loss.")]:
        # what a module stores beside tensors has no shape
        if name not in own or getattr(own[name], "shape", None) != getattr(state_dict[name], "shape", None):
            del state_dict[name]
    for name, value in own.items():
        state_dict.setdefault(name, value)


def without_float64(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its float64 tensors as ``dtype``.

    Numbers such as ``max_value`` become float64 when they are collated, and so does all that a loss computes with
    them.
    """
    doubles = {name: x for name, x in batch._asdict().items() if isinstance(x, Tensor) and x.dtype == torch.float64}
    return batch._replace(**{name: x.to(dtype) for name, x in doubles.items()})
