"""What happens to a loss in a training run: terms, ramps and norms in the log, factors in the checkpoint, NaN."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastmri_ufloss.losses import LinearRamp, WeightedLoss, make_loss
from fastmri_ufloss.metrics import make_metrics
from fastmri_ufloss.pl_modules import MriModule


class Sample(NamedTuple):
    image: Tensor
    fname: str
    slice_num: int
    max_value: float


class Slices(Dataset):
    """Noisy images to be scaled right by a network of one weight."""

    def __init__(self, bad: int | None = None) -> None:
        self.images = 1 + torch.rand(6, 20, 20, generator=torch.Generator().manual_seed(0))
        if bad is not None:
            self.images[bad, 3, 4] = math.nan

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], f"file{index // 3}.h5", index % 3, 2.0)


class Module(MriModule):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__(num_log_images=0)
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.loss = loss
        self.logged: dict[str, list[float]] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        target = batch.image.nan_to_num(1.0).unsqueeze(1)
        return self.loss(self.weight * batch.image.unsqueeze(1), target, batch.max_value)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        output = self.weight * batch.image
        return {
            "batch_idx": batch_idx,
            "fname": batch.fname,
            "slice_num": batch.slice_num,
            "max_value": batch.max_value,
            "output": output,
            "target": batch.image,
            "val_loss": self.loss(output.unsqueeze(1), batch.image.unsqueeze(1), batch.max_value),
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def log(self, name: str, value: Any, **options: Any) -> None:
        self.logged.setdefault(name, []).append(float(value))
        super().log(name, value, **options)


def fit(module: Module, path: Path, *, bad: int | None = None, validate: bool = True, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=path,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 3, "limit_val_batches": 1.0 if validate else 0, **options},
    )
    trainer.fit(module, DataLoader(Slices(bad), batch_size=2), DataLoader(Slices(), batch_size=2))
    return trainer


def test_terms_weights_and_norms_are_logged(tmp_path: Path) -> None:
    loss = make_loss({"l1": 1.0, "dssim": LinearRamp(0.2, 1.0, 0, 2), "l2": "auto"}, grad_norms_every=2)
    module = Module(loss)
    trainer = fit(module, tmp_path)
    assert len(module.logged["train_terms/l1"]) == len(module.logged["train_terms/dssim"]) == 9
    assert module.logged["train_terms/l1"][-1] < module.logged["train_terms/l1"][0]
    assert module.logged["train_weights/dssim"] == pytest.approx([0.2] * 3 + [0.6] * 3 + [1.0] * 3)
    assert "train_weights/l1" not in module.logged
    assert len(module.logged["train_weights/l2"]) == 9 and min(module.logged["train_weights/l2"]) > 0
    assert len(module.logged["train_grad_norms/l1"]) == 5 and min(module.logged["train_grad_norms/dssim"]) > 0
    # the validation's loss has the final weights from the first epoch on
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    first_terms = {name: sum(module.logged[f"val_terms/{name}"][:3]) / 3 for name in ("l1", "dssim")}
    own = module.logged["train_weights/l2"][2] * sum(module.logged["val_terms/l2"][:3]) / 3
    assert module.logged["validation_loss"][0] == pytest.approx(sum(first_terms.values()) + own, rel=1e-5)
    assert {"val_terms/l1", "val_terms/dssim", "train_terms/l1"} <= set(metrics)


def test_metrics_are_logged_by_volume(tmp_path: Path) -> None:
    module = Module(make_loss({"l1": 1.0}))
    module.add_metrics(make_metrics(["nrmse", "dssim"]))
    metrics = fit(module, tmp_path).callback_metrics
    nrmse = float(metrics["val_metrics/nrmse"])
    assert nrmse == pytest.approx(abs(1 - float(module.weight)), rel=1e-4)  # after the last step
    assert nrmse == pytest.approx(float(metrics["val_metrics/nmse"]) ** 0.5, rel=1e-3)
    assert 0 < float(metrics["val_metrics/dssim"]) < 1
    assert module.logged["val_metrics/nrmse"][0] > nrmse  # each epoch for itself


def test_factors_are_in_the_checkpoint_and_a_resumed_run_goes_on_with_them(tmp_path: Path) -> None:
    module = Module(make_loss({"l1": 1.0, "dssim": 0.5}, normalize=True))
    trainer = fit(module, tmp_path)
    assert module.logged["train_terms/l1"][0] * float(module.loss.factors["l1"]) == pytest.approx(1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(stored["state_dict"]["loss.factor_of_dssim"], module.loss.factors["dssim"])
    resumed = Module(make_loss({"l1": 1.0, "dssim": 0.5}, normalize=True))
    resumed_trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False, max_epochs=4,
        enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    resumed_trainer.fit(resumed, DataLoader(Slices(), batch_size=2), ckpt_path=tmp_path / "last.ckpt")
    assert resumed_trainer.global_step == 12
    assert resumed.loss.factors == module.loss.factors


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_slice(tmp_path: Path) -> None:
    module = Module(make_loss({"l1": 1.0, "dssim": 0.5}))
    named = (
        r"the loss is nan in epoch 0, step 2 on file1.h5, slice 1, file1.h5, slice 2, its terms are .*'dssim': nan"
    )
    with pytest.raises(ValueError, match=named):
        fit(module, tmp_path, bad=5, validate=False)
    assert module.weight.isfinite()


class SaveAt(pl.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_ramps_follow_a_run_that_is_resumed_within_an_epoch(tmp_path: Path) -> None:
    weights = {"l1": LinearRamp(0.0, 1.0, 0, 4)}
    path = tmp_path / "last.ckpt"
    whole = Module(make_loss(weights))
    fit(whole, tmp_path, validate=False, callbacks=[SaveAt(7, path)])
    resumed = Module(make_loss(weights))
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False, max_epochs=3,
        enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(resumed, DataLoader(Slices(), batch_size=2), ckpt_path=path)
    steps = len(resumed.logged["train_weights/l1"])
    assert steps in (2, 3)  # as the version of Lightning goes on within an epoch
    assert resumed.logged["train_weights/l1"] == whole.logged["train_weights/l1"][-steps:] == [0.5] * steps
    assert isinstance(resumed.loss, WeightedLoss)
