"""What all Lightning modules of this package share: safe checkpoints, a stop before a loss that is not finite, and
checkpoints and random numbers with which a resumed run ends as one that was never killed."""

import inspect
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.models.checkpoints import read_checkpoint

__all__ = ["AtomicCheckpointIO", "BaseModule", "LastCheckpoint", "SeededSteps", "read_checkpoint"]

_Module = TypeVar("_Module", bound="BaseModule")

_SIZES = r"chans|(in|out|sens|refinement|discriminator)_chans|(sens_)?pools|convs_per_.+|width|num_(?!patches|log_).+"
_LARGEST = 4096  # layers, channels, poolings ... of a network

_LightningModule: Any = pl.LightningModule  # without types, as fastMRI's modules are: theirs are mixed in


class BaseModule(_LightningModule):
    """A module whose checkpoints hold plain values and tensors only.

    A loss that is not finite raises ValueError before the weights are changed, with the names of files and slices.
    """

    prefix: ClassVar[str]  # what the names of the network's weights start with
    _train_batch: Any = None
    _is_checked = False  # the loss of this batch

    @classmethod
    def load_from_checkpoint(
        cls: type[_Module],
        checkpoint_path: str | Path,
        map_location: torch.device | str = "cpu",
        *,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> _Module:
        """The module of a checkpoint; kwargs such as ``loss`` go before what the checkpoint has.

        ``weights_only`` is Lightning's argument, and nothing is unpickled without it either.

        Raises FileNotFoundError or ValueError, see `read_checkpoint`, also if the weights do not fit the settings.
        """
        checkpoint = read_checkpoint(checkpoint_path, prefix=cls.prefix)
        settings = checkpoint["hyper_parameters"]
        # not by Lightning, whose versions before 2.6 unpickle, and whose later ones must be told not to
        parameters = inspect.signature(cls.__init__).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        known = {name: value for name, value in settings.items() if takes_all or name in parameters}
        if unknown := sorted(settings.keys() - known.keys()):
            warnings.warn(
                f"{checkpoint_path} has settings that {cls.__name__} does not know: {unknown}", stacklevel=2
            )
        try:
            known |= kwargs
            cls.check_settings(known)
            module = cls(**known)
            module.on_load_checkpoint(checkpoint)
            module.load_state_dict(checkpoint["state_dict"])
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{checkpoint_path} does not fit its own settings {settings} ({reason})") from error
        return module.to(map_location)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Raise ValueError, before any memory is taken, where no network of these settings can be made here."""
        for name, value in settings.items():
            if re.fullmatch(_SIZES, name) and isinstance(value, int):
                check(0 <= value <= _LARGEST, name, f"from 0 to {_LARGEST}", value)
        try:
            with torch.device("meta"):
                network = cls(**settings)
        except (RuntimeError, TypeError, ArithmeticError, IndexError, AttributeError) as error:
            raise ValueError(f"no {cls.__name__} has the settings {_plain(settings)} ({error})") from error
        tensors = (*network.parameters(), *network.buffers())
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        fits = (
            f"{_plain(settings)} must give a network of less than the {memory / 1e9:.0f} GB of this machine's memory"
        )
        require(needed < memory, fits, f"{needed / 1e9:.0f} GB")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._train_batch = batch
        self._is_checked = False

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._train_batch = None

    def on_before_backward(self, loss: Tensor) -> None:
        if not self._is_checked:
            self.checked(loss)

    def checked(self, loss: Tensor) -> Tensor:
        """The value of a step's loss, which is finite, on the CPU: the progress bar need not wait for a GPU again."""
        value = loss.detach().cpu()
        if not bool(value.isfinite().all()):
            self.stop_training(f"the loss is {float(value.sum())}", self.loss_terms())
        self._is_checked = True
        return value

    def with_cosine(
        self, optimizer: torch.optim.Optimizer, *, warmup_steps: int = 0
    ) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """The optimizer with a rate that rises to its own in a line, then falls along a cosine to the last step."""

        def rate(step: int) -> float:
            # before the first step the trainer does not know its data, and to ask would spoil a resume in an epoch
            total = self.trainer.estimated_stepping_batches if step else 1
            rising = min(1.0, (step + 1) / (warmup_steps + 1))
            return rising * (1 + math.cos(math.pi * min(1.0, step / total))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def loss_terms(self) -> dict[str, Tensor]:
        """The terms of the loss of this step by name."""
        return {}

    def stop_training(self, problem: str, terms: Mapping[str, Tensor]) -> None:
        """Raise ValueError: the problem, where it happened, and the terms of the loss."""
        values = {name: float(value) for name, value in terms.items()}
        slices = _slices_of(self._train_batch)
        raise ValueError(
            f"{problem} in epoch {self.current_epoch}, step {self.trainer.fit_loop.total_batch_idx}"
            f"{f' on {slices}' if slices else ''}{f', its terms are {values}' if values else ''}. The weights are "
            "still those of the step before, and the checkpoints on disk are of earlier steps; look at these data, "
            "or lower the learning rate or the weights of the loss"
        )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not isinstance(value, nn.Module)}


def _slices_of(batch: Any) -> str:
    """File names and numbers of a batch's slices; empty where the batch has none."""
    if not (hasattr(batch, "fname") and hasattr(batch, "slice_num")):
        return ""
    pairs = zip(batch.fname, torch.as_tensor(batch.slice_num).tolist(), strict=True)
    return ", ".join(f"{fname}, slice {slice_num}" for fname, slice_num in pairs)


class SeededSteps(pl.Callback):
    """Seeds torch's generators at each training batch from (seed, epoch, batch), in every process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # after a resume Lightning's versions differ in batch_idx; the loader knows what it has given
        batch_idx = getattr(trainer.train_dataloader, "used_batches", batch_idx)
        # distinct for any run of fewer than a million batches an epoch; torch takes 64 bits
        torch.manual_seed(((self.seed * 100_003 + trainer.current_epoch) * 1_000_003 + batch_idx) % 2**64)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place: Lightning moves them from the folder of temporary files, which a kill or
    a full disk cuts short where that is another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        # a file of Python says what did not fit; torch 2.5 left out the last bytes without a word
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)


class LastCheckpoint(Checkpoint):
    """Writes the checkpoint of a run from which it goes on, with the same end, whenever it is killed.

    That is after each epoch, and within an epoch after every ``every_n_train_steps`` steps of all optimizers, but
    never between the last batch of an epoch and the validation, which a resumed run would leave out, nor while
    gradients are being accumulated, which are in no checkpoint.
    """

    def __init__(self, path: str | Path, *, every_n_train_steps: int) -> None:
        self.path = path
        self.every_n_train_steps = every_n_train_steps
        self._step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # with max_steps, Lightning would resume from the end of an epoch as if that were in its midst
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        before, self._step = self._step, trainer.global_step
        if self._step != before and self._step % self.every_n_train_steps == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning counts a batch as completed after the hooks of its end only, and its versions resume differently
        loops = checkpoint["loops"]["fit_loop"]
        for counts in (loops["epoch_loop.batch_progress"][part] for part in ("total", "current")):
            counts["completed"] = counts["processed"]
