"""The chain from a scan to the table, on real multi-coil k-space and on real images."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import DATA, needs_data, simulate_volume

from fastmri_ufloss.baselines import CLASSICAL_METHODS
from fastmri_ufloss.convert.jobs import missing_jobs, plan_jobs, run_jobs
from fastmri_ufloss.data import MoDLDataTransform, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.metrics import mean_scores, score_run
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule, ReconstructionModule
from fastmri_ufloss.simulation.simulate import write_volume


def scores(root: Path, path: Path, acceleration: int) -> dict[str, dict[str, float]]:
    """Scores of an untrained MoDL and of the baselines."""
    mask_func = create_mask_for_mask_type("random", [0.19], [acceleration])
    transform = MoDLDataTransform(mask_func, sens_maps=SensMapCache(path / "maps"))
    data = MriDataModule(
        root, "multicoil", transform, transform, transform, cache_dir=path, mask_func=mask_func, num_workers=0
    )
    torch.manual_seed(0)
    module = MoDLModule(num_unrolls=1, chans=2, num_pools=1)
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=path, logger=False, enable_progress_bar=False)
    trainer.test(module, datamodule=data, verbose=False)
    outputs = {"zero-filled": path / "stages/zero_filled", "CG-SENSE": path / "stages/cg_sense"}
    references = {"RSS": root / "multicoil_test", "coil-combined": path / "stages/reference"}
    return {row["method"]: row for row in mean_scores(score_run(outputs, references))}


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


SCANS = {
    "multicoil/invivo_brain_16ch.npy": {},
    "multicoil/phantom_16ch.npy": {},
    "multicoil/phantom_32ch.npy": {},
    "multicoil/phantom_b_16ch.npy": {"noise": Path("multicoil/noise_b_16ch.npy")},
    "undersampled/brain_8ch_poisson8x.npy": {},
    "sunnybrook/SC-HF-I-40.npz": {"key": "images"},
    "brain_maps_komamri.h5": {},
}


@needs_data()
@pytest.mark.parametrize("name", SCANS)
def test_every_scan_is_converted_and_reconstructed(tmp_path: Path, name: str) -> None:
    source, settings = DATA / name, dict(SCANS[name])
    if source.suffix == ".h5":  # digital maps of tissue: the density is an image
        with h5py.File(source) as maps:
            np.save(tmp_path / "density.npy", maps["sample/data"][..., 0].astype(np.float32))
        source = tmp_path / "density.npy"
    if "noise" in settings:
        settings["noise"] = DATA / settings["noise"]
    jobs = plan_jobs("numpy", [source], tmp_path / "volumes", settings=settings)
    summary = run_jobs(missing_jobs(jobs))
    assert not summary.failed and len(summary.converted) == 1
    assert not missing_jobs(jobs)
    undersampled = "undersampled" in name
    assert any("points of k-space were acquired, with gaps" in text for text in summary.warnings) == undersampled
    with h5py.File(summary.converted[0], "r+") as volume:
        assert ("mask" in volume) == undersampled
        if volume["kspace"].shape[0] > 2:  # two slices are enough here
            for data_set in ("kspace", "reconstruction_rss"):
                values = volume[data_set][:2]
                del volume[data_set]
                volume[data_set] = values
    mask_func = None if undersampled else create_mask_for_mask_type("poisson_2d", [], [4], center_size=20)
    transform = MoDLDataTransform(mask_func)
    data = MriDataModule(
        tmp_path, "multicoil", transform, transform, transform, cache_dir=tmp_path / "cache", mask_func=mask_func,
        test_path=tmp_path / "volumes", num_workers=0,
    )  # fmt: skip
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False)
    module = ReconstructionModule({name: CLASSICAL_METHODS[name] for name in ("zero_filled", "cg_sense")})
    trainer.test(module, datamodule=data, verbose=False)
    residuals = {row["method"]: row["residual"] for row in module.residuals()}
    assert residuals["cg_sense"] < 0.8 * residuals["zero_filled"] < 0.8
    if not undersampled:
        outputs = {name: tmp_path / "reconstructions" / name for name in module.methods}
        means = mean_scores(score_run(outputs, {"coil-combined": tmp_path / "reference"}))
        zero_filled, cg = (row["NRMSE (coil-combined)"] for row in means)
        assert cg < zero_filled < 0.6
