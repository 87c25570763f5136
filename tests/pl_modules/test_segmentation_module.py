"""A segmentation network learns a disc, gives the same labels in any unit and batch, and comes back from its file."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastmri_ufloss import distributed
from fastmri_ufloss.data.segmentation import SegmentationSample
from fastmri_ufloss.models import Segmenter, load_segmenter
from fastmri_ufloss.pl_modules import SeededSteps, SegmentationDataModule, SegmentationModule, segmentation_module
from fastmri_ufloss.pl_modules.segmentation_module import augment

TINY = {"num_classes": 2, "chans": 4, "num_levels": 2}


def discs(count: int, *, size: tuple[int, int] = (32, 32), seed: int = 0) -> list[SegmentationSample]:
    """Bright discs on noise, each an image of its own volume."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.arange(n).float() for n in size), indexing="ij")
    samples = []
    for number in range(count):
        row, col, radius = torch.rand(3, generator=generator).tolist()
        distance = torch.hypot(y - size[0] * (0.3 + 0.4 * row), x - size[1] * (0.3 + 0.4 * col))
        disc = distance < 4 + 3 * radius
        image = 1e-4 * (disc + 0.3 * torch.rand(size, generator=generator))
        samples.append(SegmentationSample(image[None], disc.long(), f"disc{number}.h5", 0))
    return samples


def batch_of(samples: list[SegmentationSample]) -> SegmentationSample:
    return next(iter(DataLoader(samples, batch_size=len(samples))))  # type: ignore[arg-type]


def make_module(**options: Any) -> SegmentationModule:
    torch.manual_seed(0)
    return SegmentationModule(**{**TINY, "lr": 2e-2, **options})


def make_trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"enable_checkpointing": False, "num_sanity_val_steps": 0, "devices": 1, **quiet, **options}
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, use_distributed_sampler=False, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A checkpoint after 32 steps, and the scores of its validation."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder, max_epochs=8, callbacks=[SeededSteps(0)])
    module = make_module()
    trainer.fit(module, DataLoader(discs(32), batch_size=8), DataLoader(discs(6, seed=1), batch_size=4))
    trainer.save_checkpoint(folder / "disc.ckpt")
    return folder / "disc.ckpt", {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_a_bright_disc_is_learned(trained: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    path, scores = trained
    assert 0.8 < scores["val_dice"] <= 1 and scores["val_dice/class_1"] == scores["val_dice"]
    loader = DataLoader(discs(6, seed=1), batch_size=4)
    (before,) = make_trainer(tmp_path).validate(make_module(), loader, verbose=False)
    assert before["val_dice"] < 0.5 and 0 < scores["val_loss"] < before["val_loss"]
    # the scores are those of the labels
    batch = batch_of(discs(6, seed=1))
    labels = load_segmenter(path)(batch.image)
    true = batch.segmentation
    dice = [2 * int((a & b).sum()) / int(a.sum() + b.sum()) for a, b in zip(labels, true, strict=True)]
    assert scores["val_dice"] == pytest.approx(np.mean(dice), rel=1e-6)


def test_a_segmenter_comes_back_from_its_checkpoint(trained: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    path, _ = trained
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"].items() >= {**TINY, "loss": "cross_entropy", "augment": True}.items()
    segmenter = load_segmenter(path)
    assert isinstance(segmenter.train(), Segmenter) and segmenter.num_classes == 2
    assert not any(module.training for module in segmenter.network.modules())
    assert not any(parameter.requires_grad for parameter in segmenter.parameters())
    weights = segmenter.network.state_dict(prefix="segmentation_net.")
    torch.testing.assert_close(weights, checkpoint["state_dict"], atol=0, rtol=0)
    checkpoint["hyper_parameters"]["chans"] = 8
    torch.save(checkpoint, tmp_path / "changed.ckpt")
    with pytest.raises(ValueError, match="does not fit its own settings"):
        load_segmenter(tmp_path / "changed.ckpt")
    torch.save({"state_dict": {"unet.weight": torch.ones(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="a checkpoint of another model"):
        load_segmenter(tmp_path / "other.ckpt")


@pytest.mark.parametrize("unit", [1e-7, 3.0, 1e6])
def test_any_unit_gives_the_same_labels(trained: tuple[Path, dict[str, float]], unit: float) -> None:
    segmenter, images = load_segmenter(trained[0]), batch_of(discs(3)).image
    labels = segmenter(images)
    assert labels.dtype == torch.int64 and labels.shape == (3, 32, 32) and 0 < int(labels.sum()) < 1000
    assert torch.equal(segmenter(images * unit), labels)
    torch.testing.assert_close(segmenter.network(images * unit), segmenter.network(images), atol=1e-3, rtol=1e-3)


def test_a_batch_of_two_is_two_singles(trained: tuple[Path, dict[str, float]]) -> None:
    segmenter, images = (
        load_segmenter(trained[0]),
        batch_of(discs(2)).image * torch.tensor([1.0, 50]).view(2, 1, 1, 1),
    )
    singles = torch.cat([segmenter.network(image) for image in images.split(1)])
    torch.testing.assert_close(segmenter.network(images), singles, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "dice_ce"])
def test_two_processes_give_what_one_gives(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(discs(4))
    halves = [batch_of(discs(4)[start : start + 2]) for start in (0, 2)]

    def gradient(part: Any, rank: int, world_size: int) -> Tensor:
        module = make_module(loss=loss).double()
        monkeypatch.setattr(module, "log", lambda *args, **options: None)
        monkeypatch.setattr(segmentation_module, "rank_and_world_size", lambda: (rank, world_size))
        torch.manual_seed(3)  # as SeededSteps does, in each process
        module.training_step(part._replace(image=part.image.double()), 0).backward()
        return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])  # type: ignore[union-attr]

    whole = gradient(batch, 0, 1)
    parts = [gradient(half, rank, 2) for rank, half in enumerate(halves)]
    torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-9, rtol=1e-6)


def test_validation_counts_an_image_once_whichever_process_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module, logged = make_module(), {}
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))

    def validate(*batches: Any) -> dict[str, float]:
        module.on_validation_epoch_start()
        for batch in batches:
            module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        return dict(logged)

    samples = discs(3)
    samples.append(samples[0]._replace(segmentation=torch.zeros(32, 32).long(), fname="background.h5"))
    one = validate(batch_of(samples))
    assert validate(batch_of(samples[:3]), batch_of(samples[2:])) == pytest.approx(one)
    # the image without the class has a loss, but no Dice
    of_discs = validate(batch_of(samples[:3]))
    assert of_discs["val_dice"] == pytest.approx(one["val_dice"])
    assert of_discs["val_loss"] != pytest.approx(one["val_loss"])

    def gather(gathered: list[Any], rows: Any) -> None:
        other = make_module()
        other.validation_step(batch_of(samples[1:]), 0)
        gathered[:] = [rows, other._rows]

    monkeypatch.setattr(distributed, "rank_and_world_size", lambda: (0, 2))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert validate(batch_of(samples[:2])) == pytest.approx(one)
    with pytest.raises(ValueError, match="an image with a class beside the background"):
        monkeypatch.setattr(distributed, "rank_and_world_size", lambda: (0, 1))
        validate(batch_of(samples[3:]))


def test_the_two_losses_are_their_formulas() -> None:
    batch, losses = batch_of(discs(2)), []
    for loss in ("cross_entropy", "dice_ce"):
        module = make_module(loss=loss)
        logits = module(batch.image).detach()
        losses.append(module._loss(logits, batch.segmentation).item())
    probability, disc = logits.softmax(dim=1)[:, 1], batch.segmentation
    entropy = -torch.where(disc == 1, probability, 1 - probability).log().mean()
    dice = 2 * (probability * disc).sum(dim=(1, 2)) / (probability + disc).sum(dim=(1, 2))
    assert losses == pytest.approx([entropy.item(), (entropy + 1 - dice.mean()).item()], rel=1e-5)


def test_augmentation_moves_image_and_segmentation_alike() -> None:
    samples = discs(16, size=(32, 48))
    segmentation = batch_of(samples).segmentation
    images = segmentation.unsqueeze(1) * 3e-4
    torch.manual_seed(0)
    draws = torch.rand(16, 5)
    moved, classes = augment(images, segmentation, draws)
    assert moved.shape == images.shape and classes.dtype == torch.int64 and set(classes.unique().tolist()) == {0, 1}
    gamma = torch.exp(0.3 * (2 * draws[:, 4] - 1))[:, None, None]  # which moves the half
    assert float(((moved[:, 0] > 0.5**gamma).long() != classes).float().mean()) < 0.01
    assert float((classes != segmentation).float().mean()) > 0.05
    # each draw by itself: the flips to the pixel, and what 0.5 leaves as it is
    still = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.5])
    torch.testing.assert_close(augment(images, segmentation, still.expand(16, 5))[1], segmentation)
    for number, axis in ((0, -1), (1, -2)):
        flipped = still.clone()
        flipped[number] = 0
        image, classes = augment(images, segmentation, flipped.expand(16, 5))
        assert torch.equal(classes, segmentation.flip(axis))
        torch.testing.assert_close(image * 3e-4, images.flip(axis))
    for number in (2, 3):
        changed = still.clone()
        changed[number] = 0.99
        assert not torch.equal(augment(images, segmentation, changed.expand(16, 5))[1], segmentation)
    bright = still.clone()
    bright[4] = 0.0
    image = augment(batch_of(samples).image, segmentation, bright.expand(16, 5))[0]
    plain = augment(batch_of(samples).image, segmentation, still.expand(16, 5))[0]
    torch.testing.assert_close(image, plain ** float(np.exp(-0.3)))


def test_what_is_turned_is_not_sheared_where_rows_and_columns_differ() -> None:
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(96) - 47.5, indexing="ij")
    disc = (torch.hypot(y, x) < 16).long()[None]
    draws = torch.tensor([[0.9, 0.9, 0.99, 0.5, 0.5]])
    _, turned = augment(disc.unsqueeze(1).float(), disc, draws)
    assert float((turned != disc).float().sum() / disc.sum()) < 0.03
    bar = ((y.abs() < 2) & (x.abs() < 20)).long()[None]
    _, turned = augment(bar.unsqueeze(1).float(), bar, draws)
    rows, cols = (values[turned[0] == 1] for values in (y, x))
    assert abs(float((rows * cols).sum() / cols.square().sum())) == pytest.approx(np.tan(0.98 * np.pi / 12), rel=0.05)


def test_augmentation_is_an_option_that_training_repeats(tmp_path: Path) -> None:
    def first_loss(module: SegmentationModule, seed: int) -> float:
        trainer = make_trainer(tmp_path, max_steps=1, callbacks=[SeededSteps(seed)])
        trainer.fit(module, DataLoader(discs(4), batch_size=4))
        return float(trainer.callback_metrics["train_loss"])

    largest = 2**32 - 1
    assert first_loss(make_module(), 1) == first_loss(make_module(), 1) != first_loss(make_module(), largest)
    assert first_loss(make_module(augment=False), 1) == first_loss(make_module(augment=False), 2)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    samples = discs(2)
    samples[1].image[0, 3, 3] = torch.nan
    module = make_module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"the loss is nan in epoch 0, step 0 on disc0\.h5, slice 0, disc1\.h5, slice 0"
    ):
        make_trainer(tmp_path, max_epochs=1).fit(module, DataLoader(samples, batch_size=2))
    torch.testing.assert_close(module.state_dict(), before, atol=0, rtol=0)


WriteVolume = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> WriteVolume:
    def volume(split: str, name: str, classes: list[int] | None, *, size: int = 32) -> None:
        """A single-coil volume with a slice for each class."""
        folder = tmp_path / f"singlecoil_{split}"
        folder.mkdir(exist_ok=True)
        slices = discs(len(classes or [0]), size=(size, size))
        with h5py.File(folder / name, "w") as file:
            file["reconstruction_esc"] = np.stack([slice_.image[0].numpy() for slice_ in slices])
            if classes is not None:
                masks = [s.segmentation.numpy() * c for s, c in zip(slices, classes, strict=True)]
                file["segmentation"] = np.stack(masks).astype(np.uint8)

    return volume


def test_data_module_batches(tmp_path: Path, write: WriteVolume) -> None:
    write("train", "a.h5", [0, 1, 1, 2, 1])
    write("train", "b.h5", [1, 2], size=24)
    write("train", "c.h5", None)
    write("val", "d.h5", [1, 0, 1])
    options: dict[str, Any] = {"batch_size": 2, "skip_missing": True}
    data = SegmentationDataModule(tmp_path, "singlecoil", **options)
    data.setup()
    assert data.num_classes == 3

    def epoch(data: SegmentationDataModule, number: int = 0) -> list[list[tuple[str, int]]]:
        loader = data.train_dataloader()
        loader.batch_sampler.set_epoch(number)  # type: ignore[union-attr]
        return [list(zip(batch.fname, batch.slice_num.tolist(), strict=True)) for batch in loader]

    batches = epoch(data)
    assert sorted(map(len, batches)) == [1, 2, 2, 2] and all(
        len({name for name, _ in batch}) == 1 for batch in batches
    )
    assert sorted(chain(*batches)) == [("a.h5", i) for i in range(5)] + [("b.h5", i) for i in range(2)]
    assert epoch(data) == batches != epoch(data, 1)
    assert epoch(SegmentationDataModule(tmp_path, "singlecoil", seed=5, **options)) != batches
    with_classes = SegmentationDataModule(tmp_path, "singlecoil", only_with_classes=True, **options)
    assert ("a.h5", 0) not in chain(*epoch(with_classes)) and len(with_classes.val_slices) == 3
    # two processes have all slices of the validation, equally many
    data.trainer = type("Trainer", (), {"world_size": 2, "global_rank": 0})()  # type: ignore[assignment]
    seen = []
    for data.trainer.global_rank in (0, 1):  # type: ignore[misc]
        seen.append([number for batch in data.val_dataloader() for number in batch.slice_num.tolist()])
    assert seen == [[0, 1], [2, 0]]


BAD_DATA: dict[str, tuple[dict[str, list[int] | None], dict[str, Any], str]] = {
    "absent": ({"train": [0, 1, 3], "val": [1]}, {}, "no slice of .*singlecoil_train has class 2: a network of 4"),
    "beyond": ({"train": [1, 2], "val": [1]}, {"num_classes": 4}, "no slice of .*singlecoil_train has class 3"),
    "above": ({"train": [1, 2], "val": [1]}, {"num_classes": 2}, "num_classes must be above .*, which is 2, got 2"),
    "new in val": ({"train": [1], "val": [2]}, {}, "num_classes must be above .*singlecoil_val, which is 2, got 2"),
    "background": ({"train": [0, 0], "val": [1]}, {}, "singlecoil_train must have a class beside the background"),
    "nothing in val": ({"train": [1], "val": [0]}, {}, "singlecoil_val must have a class beside the background"),
    "no masks": ({"train": None, "val": [1]}, {}, "no data set 'segmentation'.*ufloss.convert segmentation"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_learned_are_named(case: str, tmp_path: Path, write: WriteVolume) -> None:
    volumes, options, message = BAD_DATA[case]
    for split, classes in volumes.items():
        write(split, "a.h5", classes)
    with pytest.raises(ValueError, match=message):
        SegmentationDataModule(tmp_path, "singlecoil", **options).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l2"}, "loss must be one of cross_entropy, dice_ce, got 'l2'"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_module(**options)


def test_bad_input() -> None:
    module = make_module()
    batch = batch_of(discs(1))
    with pytest.raises(ValueError, match=r"segmentation must hold classes from 0 to 1, got 4 in one of disc0\.h5"):
        module.on_before_batch_transfer(batch._replace(segmentation=batch.segmentation * 4), 0)
    with pytest.raises(ValueError, match="challenge must be 'singlecoil' or 'multicoil', got 'knee'"):
        SegmentationDataModule("nowhere", "knee")
