"""Logs of trainings as TensorBoard's own reader sees them, and of runs that were killed, went on or began anew."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from fastmri_ufloss.report.figures.loss_curves import RunLog


class Logging(pl.LightningModule):
    """Logs its step in training, and in validation the epoch and an image, as fastMRI's module does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.log("train_terms/l2", float(self.global_step))
        return self.weight**2

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        image = torch.full((1, 4, 6), self.current_epoch / 10)
        self.logger.experiment.add_image("val_images_idx_0/target", image, global_step=self.global_step)
        self.log("val_terms/l2", float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, max_epochs: int, checkpoint: Path | None = None, *, every: int = 1) -> Path:
    """Train with 4 steps an epoch; returns a checkpoint of the end."""
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=pl.loggers.TensorBoardLogger(folder, name="tensorboard"),
        log_every_n_steps=every,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(torch.zeros(4, 1))
    trainer.fit(Logging(), loader, DataLoader(torch.zeros(1, 1)), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "end.ckpt")
    return folder / "end.ckpt"


def epochs_of_images(log: RunLog) -> dict[str, list[int]]:
    return {tag: list(images) for tag, images in log.images.items()}


def test_scalars_are_tensorboards_and_epochs_count_from_1(tmp_path: Path) -> None:
    fit(tmp_path, 3, every=2)
    log = RunLog(tmp_path)
    (version,) = (tmp_path / "tensorboard").iterdir()
    reader = EventAccumulator(str(version), size_guidance={"scalars": 0})
    reader.Reload()
    assert set(log.scalars) == {"train_terms/l2", "val_terms/l2"}
    for tag, scalars in log.scalars.items():
        assert [(step, value) for step, (_, value) in scalars.items()] == [
            (event.step, event.value) for event in reader.Scalars(tag)
        ]
    assert log.scalars["train_terms/l2"][11] == (3, 11.0)
    assert log.by_epoch("train_terms/l2") == {1: 2.0, 2: 6.0, 3: 10.0}  # steps 1 and 3, 5 and 7, 9 and 11
    assert log.by_epoch("val_terms/l2") == {1: 0.0, 2: 1.0, 3: 2.0}


def test_images_belong_to_the_epoch_of_their_validation(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    log = RunLog(tmp_path)
    assert epochs_of_images(log) == {"val_images_idx_0/target": [1, 2, 3]}
    for epoch in (1, 2, 3):
        image = log.read_image("val_images_idx_0/target", epoch)
        assert image.shape == (4, 6) and image.dtype == np.float32
        np.testing.assert_allclose(image, (epoch - 1) / 10, atol=0.5 / 255)


def test_a_run_that_goes_on_is_one_curve(tmp_path: Path) -> None:
    checkpoint = fit(tmp_path, 2)
    fit(tmp_path, 4, checkpoint)
    log = RunLog(tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert {step: epoch for step, (epoch, _) in log.scalars["train_terms/l2"].items()} == {
        step: 1 + step // 4 for step in range(16)
    }
    assert epochs_of_images(log) == {"val_images_idx_0/target": [1, 2, 3, 4]}


def write(folder: Path, steps: range, value: float, *, at: float) -> None:
    """A file of its own, of 4 steps an epoch, with an image and a score after each epoch."""
    writer = SummaryWriter(str(folder))
    for step in steps:
        time = at + step
        writer.add_scalar("train_terms/l2", value, step, walltime=time)
        writer.add_scalar("epoch", step // 4, step, walltime=time)
        if step % 4 == 3:
            writer.add_image("target", np.full((1, 3, 3), value, dtype=np.float32), step + 1, walltime=time)
            writer.add_scalar("val_terms/l2", value, step, walltime=time)
            writer.add_scalar("epoch", step // 4, step, walltime=time)
    writer.close()


def test_steps_that_repeat_count_once_and_the_later_file_wins(tmp_path: Path) -> None:
    write(tmp_path / "version_9", range(0, 11), 0.2, at=100)  # killed after step 10, its checkpoint is of step 8
    write(tmp_path / "version_10", range(8, 16), 0.4, at=0)
    first, second = (next((tmp_path / name).iterdir()) for name in ("version_9", "version_10"))
    rewrite_wall_time(first, 1.0)
    rewrite_wall_time(second, 2.0)
    log = RunLog(tmp_path)
    assert {step: round(value, 3) for step, (_, value) in log.scalars["train_terms/l2"].items()} == {
        step: 0.2 if step < 8 else 0.4 for step in range(16)
    }
    assert log.by_epoch("val_terms/l2") == pytest.approx({1: 0.2, 2: 0.2, 3: 0.4, 4: 0.4})
    assert [round(float(log.read_image("target", epoch).mean()), 1) for epoch in (1, 2, 3, 4)] == [0.2, 0.2, 0.4, 0.4]


def rewrite_wall_time(path: Path, first: float) -> None:
    """Give the first event of a file another time."""
    events = list(LegacyEventFileLoader(str(path)).Load())
    events[0].wall_time = first
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())


def test_a_run_begun_anew_replaces_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "a", range(0, 12), 0.2, at=0)
    write(tmp_path / "b", range(0, 4), 0.6, at=1000)
    rewrite_wall_time(next((tmp_path / "a").iterdir()), 1.0)
    rewrite_wall_time(next((tmp_path / "b").iterdir()), 2.0)
    log = RunLog(tmp_path)
    assert list(log.scalars["train_terms/l2"]) == [0, 1, 2, 3]
    assert epochs_of_images(log) == {"target": [1]}


def test_an_image_that_is_not_made_again_yet_is_gone(tmp_path: Path) -> None:
    write(tmp_path / "a", range(0, 8), 0.2, at=0)
    write(tmp_path / "b", range(6, 7), 0.6, at=1000)  # goes on from step 6, and has not come to the validation
    rewrite_wall_time(next((tmp_path / "a").iterdir()), 1.0)
    rewrite_wall_time(next((tmp_path / "b").iterdir()), 2.0)
    log = RunLog(tmp_path)
    assert epochs_of_images(log) == {"target": [1]}
    assert list(log.scalars["val_terms/l2"]) == [3]


def test_a_test_of_the_run_replaces_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", range(0, 8), 0.2, at=0)
    writer = SummaryWriter(str(tmp_path / "b"))  # Lightning logs this in each process
    writer.add_scalar("hp_metric", -1, 0)
    writer.close()
    assert len(RunLog(tmp_path).scalars["train_terms/l2"]) == 8


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_file_that_is_being_written_is_read_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    write(tmp_path, range(0, 8), 0.2, at=0)
    (path,) = tmp_path.iterdir()
    whole = len(RunLog(tmp_path).scalars["train_terms/l2"])
    path.write_bytes(path.read_bytes()[:-cut])
    log = RunLog(tmp_path)
    assert 4 <= len(log.scalars["train_terms/l2"]) <= whole
    assert log.by_epoch("val_terms/l2").get(1) == pytest.approx(0.2)
    assert epochs_of_images(log)["target"][0] == 1


def test_images_of_a_validation_that_was_killed_are_left_out(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    writer.add_scalar("train_terms/l2", 1.0, 0)
    writer.add_scalar("epoch", 0, 0)
    writer.add_image("target", np.ones((1, 3, 3), dtype=np.float32), 1)
    writer.close()
    assert RunLog(tmp_path).images == {}


def test_bad_logs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no TensorBoard logs \(events.out.tfevents\*\) in .*nowhere"):
        RunLog(tmp_path / "nowhere")
    file = tmp_path / "events.out.tfevents.1"
    header = (8).to_bytes(8, "little") + b"\0" * 4
    for content in (b"this is no file of events, but a text", header + b"\xff" * 8 + b"\0" * 4):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"events.out.tfevents.1 is not a file of TensorBoard events"):
            RunLog(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="must hold scalars with their epochs, got none"):
        RunLog(tmp_path)


def test_a_file_that_is_damaged_in_the_middle_is_read_up_to_there(tmp_path: Path) -> None:
    write(tmp_path, range(0, 8), 0.2, at=0)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert 0 < len(RunLog(tmp_path).scalars["train_terms/l2"]) < 8
