"""Callbacks of the recipes."""

from typing import Any

import pytorch_lightning as pl
import torch

__all__ = ["SeededSteps"]


class SeededSteps(pl.Callback):
    """Seeds torch's generators at each training batch from (seed, epoch, batch).

    Random numbers of a step (the patches of UFLoss, dropout) are then the same after a resume as without an
    interruption, and the same in every process.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # after a resume Lightning's versions differ in batch_idx; the loader knows what it has given
        batch_idx = getattr(trainer.train_dataloader, "used_batches", batch_idx)
        # distinct for any run of fewer than a million batches an epoch; torch takes 64 bits
        torch.manual_seed((self.seed * 100_003 + trainer.current_epoch) * 1_000_003 + batch_idx)
