from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from fastmri_ufloss.data import MoDLDataTransform, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.mri import cg_sense, estimate_sens_maps, sens_reduce
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule, ReconstructionModule
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

SHAPE = (40, 36)


def images(slices: int = 3) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    disc = (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    return np.stack([disc * (1 + 0.4 * np.cos(9 * x + i) * np.cos(7 * y)) for i in range(slices)])


def points() -> np.ndarray:
    mask_func = create_mask_for_mask_type("poisson_2d", [], [3], center_size=14)
    return mask_func((1, *SHAPE, 2), seed=1)[0][0, ..., 0].numpy() > 0


def reconstruct(folder: Path, output: Path, *, methods: Mapping[str, Any], **options: object) -> ReconstructionModule:
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
    module = ReconstructionModule(methods)
    trainer.test(module, datamodule=data, verbose=False)
    return module


def zero_filled(kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
    return torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]


@pytest.mark.parametrize("has_mask", [True, False])
def test_volume_without_a_reference_by_every_method(tmp_path: Path, has_mask: bool) -> None:
    kspace = 1e-4 * simulate_kspace(images(), num_coils=4, seed=1)
    if has_mask:
        write_volume(tmp_path / "in" / "a.h5", kspace, mask=points())
    else:  # only zeros show how it was sampled
        write_volume(tmp_path / "in" / "a.h5", kspace * points())
    torch.manual_seed(0)
    modl = MoDLModule(num_unrolls=1, chans=2, num_pools=1)
    methods = {"zero_filled": zero_filled, "cg_sense": cg_sense, "modl": modl}
    module = reconstruct(tmp_path / "in", tmp_path / "out", methods=methods)
    masked = torch.view_as_real(torch.from_numpy(kspace[1:2] * points()))
    mask = torch.from_numpy(points())[None, None, ..., None]
    maps = estimate_sens_maps(masked, 14, mask=mask)
    for method in methods:
        with h5py.File(tmp_path / "out" / "reconstructions" / method / "a.h5") as file:
            volume = file["reconstruction"][()]
            np.testing.assert_array_equal(file["mask"][()], points())
        assert volume.shape == (3, *SHAPE) and np.isfinite(volume).all()
        if method != "modl":
            image = methods[method](masked, mask, maps)[0].abs().numpy()
            np.testing.assert_allclose(volume[1], image, atol=1e-4 * image.max())
    rows = module.residuals()
    residuals = {row["method"]: row["residual"] for row in rows}
    assert list(residuals) == list(methods) and {row["slices"] for row in rows} == {3}
    assert 0 < residuals["cg_sense"] < residuals["zero_filled"] < 1
    assert not (tmp_path / "out" / "reference").exists()


def test_the_reference_of_a_fully_sampled_file_is_written(tmp_path: Path) -> None:
    write_volume(tmp_path / "in" / "a.h5", simulate_kspace(images(), num_coils=4, snr=100, seed=1))
    mask_func = create_mask_for_mask_type("poisson_2d", [], [3], center_size=14)
    methods = {"zero_filled": zero_filled, "cg_sense": cg_sense}
    reconstruct(tmp_path / "in", tmp_path / "out", methods=methods, mask_func=mask_func)
    volumes = {}
    for folder in ("reference", "reconstructions/zero_filled", "reconstructions/cg_sense"):
        with h5py.File(tmp_path / "out" / folder / "a.h5") as file:
            volumes[folder] = file["reconstruction"][()]
    reference, *others = volumes.values()
    errors = [np.linalg.norm(volume - reference) for volume in others]
    assert errors[1] < 0.5 * errors[0]


def test_two_sets_of_maps_agree_better_with_an_object_larger_than_the_field_of_view(tmp_path: Path) -> None:
    kspace = simulate_kspace(images(1), num_coils=6, snr=100, seed=1)
    write_volume(tmp_path / "in" / "a.h5", np.ascontiguousarray(kspace[:, :, ::2]))
    mask_func = create_mask_for_mask_type("equispaced_fraction", [0.4], [2])
    torch.manual_seed(0)
    methods = {"cg_sense": cg_sense, "modl": MoDLModule(num_unrolls=1, chans=2)}
    residuals, errors = [], []
    for num_maps in (1, 2):
        out = tmp_path / str(num_maps)
        source = SensMapCache(out / "maps", num_maps=num_maps)
        module = reconstruct(tmp_path / "in", out, methods=methods, mask_func=mask_func, sens_maps=source)
        residuals.append({row["method"]: row["residual"] for row in module.residuals()})
        with h5py.File(out / "reconstructions" / "cg_sense" / "a.h5") as file:
            image = file["reconstruction"][0]
        with h5py.File(tmp_path / "in" / "a.h5") as file:
            target = file["reconstruction_rss"][0]
        errors.append(np.linalg.norm(image - target) / np.linalg.norm(target))
    assert all(residuals[1][name] < 0.5 * residuals[0][name] for name in methods)
    assert errors[1] < 0.5 * errors[0]


def test_there_must_be_a_method() -> None:
    with pytest.raises(ValueError, match="methods must hold at least one"):
        ReconstructionModule({})


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
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        mine = [(batch.fname[0], int(batch.slice_num[0])) for batch in data.test_dataloader()]
        assert mine == sorted(mine)
        places += mine
    assert sorted(places) == [(f"{number}.h5", i) for number in range(volumes) for i in range(3)]
