import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from fastmri_ufloss.baselines import CLASSICAL_METHODS, dlmri, pics
from fastmri_ufloss.data import MoDLDataTransform, create_mask_for_mask_type
from fastmri_ufloss.mri import cg_sense, estimate_sens_maps
from fastmri_ufloss.pl_modules import METHODS, MoDLModule, MriDataModule, ReconstructionModule
from fastmri_ufloss.pl_modules.sense_module import Reconstruction
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

SHAPE = (40, 36)


def images(slices: int = 3) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    disc = (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    return np.stack([disc * (1 + 0.4 * np.cos(9 * x + i) * np.cos(7 * y)) for i in range(slices)])


def points() -> np.ndarray:
    mask_func = create_mask_for_mask_type("poisson_2d", [], [3], center_size=14)
    return mask_func((1, *SHAPE, 2), seed=1)[0][0, ..., 0].numpy() > 0


def reconstruct(
    folder: Path, output: Path, *, methods: tuple[str, ...], modl: MoDLModule | None = None, **options: object
) -> ReconstructionModule:
    transform = MoDLDataTransform(**options)
    data = MriDataModule(
        folder, "multicoil", transform, transform, transform, cache_dir=output / "cache", test_path=folder,
        mask_func=transform.mask_func, num_workers=0,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=output,
        logger=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    module = ReconstructionModule(methods, modl=modl)
    trainer.test(module, datamodule=data, verbose=False)
    return module


@pytest.mark.parametrize("has_mask", [True, False])
def test_volume_without_a_reference_by_every_method(
    tmp_path: Path, has_mask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = CLASSICAL_METHODS["dlmri"]._replace(
        function=partial(dlmri, num_iterations=1, num_atoms=20, sparsity=3, patch_size=4)
    )
    monkeypatch.setitem(CLASSICAL_METHODS, "dlmri", quick)
    kspace = 1e-4 * simulate_kspace(images(), num_coils=4, seed=1)
    if has_mask:
        write_volume(tmp_path / "in" / "a.h5", kspace, mask=points())
    else:  # only zeros show how it was sampled
        write_volume(tmp_path / "in" / "a.h5", kspace * points())
    torch.manual_seed(0)
    modl = MoDLModule(model={"num_unrolls": 1, "chans": 2, "num_pools": 1})
    reconstruct(tmp_path / "in", tmp_path / "out", methods=tuple(METHODS), modl=modl)
    masked = torch.view_as_real(torch.from_numpy(kspace[1:2] * points()))
    mask = torch.from_numpy(points())[None, None, ..., None]
    maps = estimate_sens_maps(masked, 14, mask=mask)
    expected = {
        "cg_sense": cg_sense(masked, mask, maps),
        "pics_wavelet": pics(masked, mask, maps),
        "pics_tv": pics(masked, mask, maps, regularizer="total_variation"),
    }
    for method in METHODS:
        with h5py.File(tmp_path / "out" / "reconstructions" / method / "a.h5") as file:
            volume = file["reconstruction"][()]
            np.testing.assert_array_equal(file["mask"][()], points())
        assert volume.shape == (3, *SHAPE) and np.isfinite(volume).all()
        if method in expected:
            image = expected[method][0].abs().numpy()
            np.testing.assert_allclose(volume[1], image, atol=1e-4 * image.max())
    rows = json.loads((tmp_path / "out" / "residuals.json").read_text())["residuals"]
    residuals = {row["method"]: row["residual"] for row in rows}
    assert list(residuals) == list(METHODS)
    assert 0 < residuals["cg_sense"] < residuals["zero_filled"] < 1
    assert (tmp_path / "out" / "pictures" / "a.png").is_file()
    assert not (tmp_path / "out" / "scores.json").exists()


def test_volume_with_a_reference_is_scored(tmp_path: Path) -> None:
    write_volume(tmp_path / "in" / "a.h5", simulate_kspace(images(), num_coils=4, snr=100, seed=1))
    mask_func = create_mask_for_mask_type("poisson_2d", [], [3], center_size=14)
    reconstruct(tmp_path / "in", tmp_path / "out", methods=("zero_filled", "pics_tv"), mask_func=mask_func)
    means = json.loads((tmp_path / "out" / "scores.json").read_text())["means"]
    assert [row["method"] for row in means] == ["zero-filled", "PICS, total variation"]
    assert means[1]["NRMSE (RSS)"] < 0.5 * means[0]["NRMSE (RSS)"]


def test_a_weight_is_that_of_its_method() -> None:
    mask = torch.from_numpy(points())[None, None, ..., None]
    kspace = torch.view_as_real(torch.from_numpy(simulate_kspace(images(1), num_coils=4, seed=1))) * mask
    maps = estimate_sens_maps(kspace, 14, mask=mask)
    batch = SimpleNamespace(masked_kspace=kspace, mask=mask)
    result = Reconstruction(torch.empty(0), maps, torch.empty(0))
    found = ReconstructionModule(["zero_filled", "cg_sense"], weights={"cg_sense": 0.5}).reconstruct(batch, result)
    torch.testing.assert_close(found["cg_sense"], cg_sense(kspace, mask, maps, lam=0.5))
    with pytest.raises(ValueError, match="weights must be of methods that have one, got zero_filled"):
        ReconstructionModule(["zero_filled", "cg_sense"], weights={"zero_filled": 0.5})
    with pytest.raises(ValueError, match="weights must be of the methods zero_filled, got 'cg_sense'"):
        ReconstructionModule(["zero_filled"], weights={"cg_sense": 0.5})


def test_bad_methods_are_named() -> None:
    for methods, message in ((("wavelets",), "methods must be some of"), (("cg_sense",) * 2, "each once")):
        with pytest.raises(ValueError, match=message):
            ReconstructionModule(methods)
    with pytest.raises(ValueError, match="'modl' needs a trained network"):
        ReconstructionModule(["modl"])


@pytest.mark.parametrize("volumes", [2, 3])
def test_test_of_two_processes_has_each_slice_once(tmp_path: Path, volumes: int) -> None:
    for number in range(volumes):
        write_volume(tmp_path / "in" / f"{number}.h5", simulate_kspace(images(), num_coils=2, seed=number))
    transform = MoDLDataTransform()
    data = MriDataModule(
        tmp_path, "multicoil", transform, transform, transform, cache_dir=tmp_path / "cache",
        test_path=tmp_path / "in", num_workers=0,
    )  # fmt: skip
    places = []
    for rank in (0, 1):
        data._rank_and_world_size = lambda rank=rank: (rank, 2)  # type: ignore[method-assign]
        mine = [(batch.fname[0], int(batch.slice_num[0])) for batch in data.test_dataloader()]
        assert mine == sorted(mine)
        places += mine
    assert sorted(places) == [(f"{number}.h5", i) for number in range(volumes) for i in range(3)]
