"""fastMRI's modules on Lightning 2: the same metrics, images and files, through the hooks that are left."""

import tempfile
from pathlib import Path
from typing import Any

import fastmri
import numpy as np
import torch
from fastmri.pl_modules import MriModule as HostModule
from torch import Tensor

from fastmri_ufloss.files import atomic_path

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
    _writer: "_VolumeWriter"

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
        self._writer = _VolumeWriter(folder)

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


class _VolumeWriter:
    """Collects the slices of a volume and writes it with ``fastmri.save_reconstructions`` when it is complete.

    Slices of a volume come one after another. Where several processes share a data set, some come again at the
    end to make the numbers equal: those are dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fname = ""
        self._slices: dict[int, np.ndarray] = {}
        self._written: set[str] = set()

    def add(self, fname: str, slice_num: int, image: np.ndarray | Tensor) -> None:
        if fname != self._fname:
            self.close()
            self._fname = fname
        if fname not in self._written:
            self._slices[slice_num] = np.asarray(image)

    def close(self) -> None:
        """Write the volume at hand."""
        if not self._slices:
            return
        volume = np.stack([image for _, image in sorted(self._slices.items())])
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(self.folder / self._fname) as temporary,
            tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as scratch,
        ):
            fastmri.save_reconstructions({self._fname: volume}, Path(scratch))
            (Path(scratch) / self._fname).replace(temporary)
        self._written.add(self._fname)
        self._slices = {}
