"""fastMRI's module on Lightning 2 gives what fastMRI's own code gives on the same predictions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastmri.evaluate
import fastmri.pl_modules
import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import column_mask
from torch.utils.data import DataLoader, Dataset

from fastmri_ufloss.pl_modules import MriModule

VOLUMES = {"a.h5": 3, "b.h5": 2, "c.h5": 4}


class Predictions(Dataset):
    """Targets and outputs of slices, volume by volume."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.slices = []
        for fname, count in VOLUMES.items():
            target = rng.random((count, 20, 18)).astype(np.float32)
            output = target + 0.1 * rng.standard_normal(target.shape).astype(np.float32)
            for number in range(count):
                self.slices.append((fname, number, target[number], output[number], float(target.max())))

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> Any:
        return self.slices[index]


def logs_of(batch: Any, batch_idx: int) -> dict[str, Any]:
    fname, slice_num, target, output, max_value = batch
    return {
        "batch_idx": batch_idx,
        "fname": fname,
        "slice_num": slice_num,
        "max_value": max_value,
        "output": output,
        "target": target,
        "val_loss": (output - target).abs().mean(),
    }


class Ours(MriModule):
    def __init__(self) -> None:
        super().__init__(num_log_images=2)
        self.images: dict[str, torch.Tensor] = {}

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return logs_of(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"fname": batch[0], "slice": batch[1], "output": batch[3].numpy()}

    def log_image(self, name: str, image: torch.Tensor) -> None:
        self.images[name] = image


def lightning_1(loader: DataLoader, indices: list[int]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """fastMRI's own methods, called in the order in which Lightning 1 calls them."""
    host = fastmri.pl_modules.MriModule(num_log_images=2)
    host.val_log_indices = indices
    images: dict[str, torch.Tensor] = {}
    logged: dict[str, float] = {}
    host.log_image = lambda name, image: images.update({name: image})
    host.log = lambda name, value, **_: logged.update({name: float(value)})
    host.validation_epoch_end([host.validation_step_end(logs_of(b, i)) for i, b in enumerate(loader)])
    return logged, images


def trainer(tmp_path: Path) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )


@pytest.mark.parametrize("batch_size", [1, 2])
def test_validation_equals_fastmri_on_lightning_1(tmp_path: Path, batch_size: int) -> None:
    loader, ours = DataLoader(Predictions(), batch_size=batch_size), Ours()
    np.random.seed(0)
    metrics = trainer(tmp_path).validate(ours, loader, verbose=False)[0]
    assert ours.val_log_indices is not None and len(ours.val_log_indices) == 2
    expected, images = lightning_1(loader, ours.val_log_indices)
    assert metrics == pytest.approx(expected, rel=1e-6)
    assert ours.images.keys() == images.keys() and len(images) == 6
    for name, image in images.items():
        torch.testing.assert_close(ours.images[name], image)


def test_log_indices_are_those_that_lightning_1_draws(tmp_path: Path) -> None:
    loader, ours = DataLoader(Predictions()), Ours()
    np.random.seed(7)
    trainer(tmp_path).validate(ours, loader, verbose=False)
    np.random.seed(7)
    assert ours.val_log_indices == list(np.random.permutation(len(loader))[:2])


def test_validation_metrics_are_those_of_volumes(tmp_path: Path) -> None:
    data = Predictions()
    metrics = trainer(tmp_path).validate(Ours(), DataLoader(data), verbose=False)[0]
    values: dict[str, list[float]] = {"nmse": [], "psnr": [], "ssim": []}
    for fname in VOLUMES:
        target, output = (np.stack([s[i] for s in data.slices if s[0] == fname]) for i in (2, 3))
        values["nmse"].append(float(fastmri.evaluate.nmse(target, output)))
        values["psnr"].append(float(fastmri.evaluate.psnr(target, output)))
        values["ssim"].append(float(fastmri.evaluate.ssim(target, output)[0]))
    for name, per_volume in values.items():
        assert metrics[f"val_metrics/{name}"] == pytest.approx(np.mean(per_volume), rel=1e-5)


def test_metrics_start_anew_with_each_validation(tmp_path: Path) -> None:
    ours, loader, runner = Ours(), DataLoader(Predictions()), trainer(tmp_path)
    first = runner.validate(ours, loader, verbose=False)
    assert runner.validate(ours, loader, verbose=False) == first


def test_reconstructions_are_written_volume_by_volume(tmp_path: Path) -> None:
    data = Predictions()
    repeated = torch.utils.data.ConcatDataset([data, torch.utils.data.Subset(data, [0])])  # as DDP pads
    trainer(tmp_path).test(Ours(), DataLoader(repeated, batch_size=2), verbose=False)
    folder = tmp_path / "reconstructions"
    assert sorted(p.name for p in folder.iterdir()) == sorted(VOLUMES)
    for fname in VOLUMES:
        with h5py.File(folder / fname) as volume:
            expected = np.stack([s[3] for s in data.slices if s[0] == fname])
            np.testing.assert_array_equal(volume["reconstruction"][()], expected)


def test_the_test_writes_the_masks_of_its_batches_and_the_stages(tmp_path: Path) -> None:
    masks, images = column_mask(2, 9, center=3), torch.rand(2, 8, 9)
    outputs = {"fname": ["a.h5", "a.h5"], "slice": torch.tensor([0, 1]), "output": images}
    stages = {"zero_filled": images, "reconstruction": images, "reference": images}
    for name, mask, expected in (("one", masks[:1], True), ("each", masks, True), ("none", None, False)):
        batch = SimpleNamespace() if mask is None else SimpleNamespace(mask=mask)
        module = MriModule()
        module.trainer = SimpleNamespace(default_root_dir=tmp_path / name)
        module.print = lambda text: None  # type: ignore[method-assign]
        module.on_test_epoch_start()
        module.on_test_batch_end({**outputs, "stages": stages}, batch, 0)
        module.on_test_epoch_end()
        has_mask = {}
        for path in (tmp_path / name).rglob("*.h5"):
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["reconstruction"][()], images.numpy())
                has_mask[path.parent.name] = "mask" in file
                if "mask" in file:
                    np.testing.assert_array_equal(file["mask"][()], masks[0].numpy().ravel())
        others = dict.fromkeys(("reconstructions", "zero_filled", "reconstruction"), expected)
        assert has_mask == {**others, "reference": False}  # the reference was made of all samples
