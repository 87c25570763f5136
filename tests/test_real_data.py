"""The chain from a scan to the table, on real multi-coil k-space and on real images."""

import json
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from helpers import DATA, needs_data

from fastmri_ufloss.data import MoDLDataTransform, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.data.simulate import simulate_volume, write_volume
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule


def scores(root: Path, path: Path, acceleration: int) -> dict[str, dict[str, float]]:
    """Scores of an untrained MoDL and of the baselines."""
    mask_func = create_mask_for_mask_type("random", [0.19], [acceleration])
    transform = MoDLDataTransform(mask_func, sens_maps=SensMapCache(path / "maps"))
    data = MriDataModule(
        root, "multicoil", transform, transform, transform, cache_dir=path, mask_func=mask_func, num_workers=0
    )
    torch.manual_seed(0)
    module = MoDLModule(model={"num_unrolls": 1, "chans": 2, "num_pools": 1})
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=path, logger=False, enable_progress_bar=False)
    trainer.test(module, datamodule=data, verbose=False)
    return {row["method"]: row for row in json.loads((path / "scores.json").read_text())["means"]}


@needs_data()
def test_brain_scan(tmp_path: Path) -> None:
    kspace = np.load(DATA / "multicoil" / "invivo_brain_16ch.npy")
    write_volume(tmp_path / "data" / "multicoil_test" / "brain.h5", kspace[None], acquisition="AXT1")
    rows = scores(tmp_path / "data", tmp_path / "run", acceleration=3)
    for against in ("RSS", "coil-combined"):
        zero_filled, cg = (rows[name][f"NRMSE ({against})"] for name in ("zero-filled", "CG-SENSE"))
        assert cg < 0.85 * zero_filled < 0.3


@needs_data()
def test_cardiac_images(tmp_path: Path) -> None:
    images = np.load(DATA / "sunnybrook" / "SC-N-02.npz")["images"][:1] / 255.0
    path = tmp_path / "data" / "multicoil_test" / "heart.h5"
    simulate_volume(path, images, num_coils=8, snr=30.0, seed=1)
    rows = scores(tmp_path / "data", tmp_path / "run", acceleration=4)
    assert rows["CG-SENSE"]["NRMSE (RSS)"] < rows["zero-filled"]["NRMSE (RSS)"] < 0.5
