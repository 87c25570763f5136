"""fastMRI's modules on Lightning 2: the same metrics, images and files, through the hooks that are left."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastmri.pl_modules import MriModule as HostModule
from torch import Tensor

from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter

__all__ = ["MriModule"]


class MriModule(HostModule):
    """``fastmri.pl_modules.MriModule`` for Lightning 2.

    A subclass writes ``training_step``, ``validation_step`` and ``test_step`` as it would for fastMRI's class,
    and returns the same keys. NMSE, PSNR and SSIM of validation are computed by fastMRI's own methods, which
    Lightning 2 does not call any more and this class does. Reconstructions of the test are written volume by
    volume, as soon as a volume is complete, to ``reconstructions`` in the trainer's ``default_root_dir``.

    Terms of a loss that keeps them in ``last_terms`` are logged by their names.
    """

    # Lightning 2 refuses a module that has these, and one that is not callable it does not see
    validation_step_end = None
    validation_epoch_end = None
    test_epoch_end = None

    val_log_indices: list[int] | None
    _val_logs: list[dict[str, Any]]
    _writer: ReconstructionWriter

    def on_validation_epoch_start(self) -> None:
        self._val_logs = []
        if self.val_log_indices is None:
            loaders = self.trainer.val_dataloaders
            loader = loaders[0] if isinstance(loaders, list) else loaders
            self.val_log_indices = list(np.random.permutation(len(loader))[: self.num_log_images])

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        outputs = {**outputs, "output": outputs["output"].float(), "target": outputs["target"].float()}
        self._val_logs.append(HostModule.validation_step_end(self, outputs))

    def on_validation_epoch_end(self) -> None:
        HostModule.validation_epoch_end(self, self._val_logs)
        self._val_logs = []

    def on_test_epoch_start(self) -> None:
        folder = Path(self.trainer.default_root_dir) / "reconstructions"
        self._writer = ReconstructionWriter(folder)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        for fname, slice_num, image in zip(outputs["fname"], outputs["slice"], outputs["output"], strict=True):
            self._writer.add(fname, int(slice_num), image)

    def on_test_epoch_end(self) -> None:
        self._writer.close()
        self.print(f"Saved reconstructions to {self._writer.folder}")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for name, value in getattr(getattr(self, "loss", None), "last_terms", {}).items():
            self.log(f"train_terms/{name}", value)

    def log_image(self, name: str, image: Tensor) -> None:
        if hasattr(getattr(self.logger, "experiment", None), "add_image"):
            super().log_image(name, torch.nan_to_num(image))
