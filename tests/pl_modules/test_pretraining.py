"""Patches of a data set for the feature network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastmri_ufloss.data import MoDLDataTransform, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.mri import image_scale
from fastmri_ufloss.pl_modules import MriDataModule, PatchDataModule
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> MriDataModule:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, names in {"train": "ab", "val": "c"}.items():
        for name in names:
            kspace = simulate_kspace(rng.random((2, 44, 40)) + 0.5, num_coils=3, seed=ord(name))
            write_volume(root / f"multicoil_{split}" / f"{name}.h5", 1e-4 * kspace)
    mask_func = create_mask_for_mask_type("random", [0.3], [2])
    transform = MoDLDataTransform(mask_func, use_seed=False, sens_maps=SensMapCache(root / "maps"))
    return MriDataModule(
        root,
        "multicoil",
        transform,
        transform,
        transform,
        cache_dir=root / "cache",
        mask_func=mask_func,
        num_workers=0,
    )


def module(source: MriDataModule, folder: Path, **options: object) -> PatchDataModule:
    settings = {"patch_size": 32, "patches_per_slice": 3, "batch_size": 4, **options}
    return PatchDataModule(source, patch_dir=folder, **settings)  # type: ignore[arg-type]


def test_patches_of_all_slices_in_a_stable_order(source: MriDataModule, tmp_path: Path) -> None:
    patches = module(source, tmp_path / "a")
    assert patches.num_patches() == 12
    patches.setup("fit")
    assert len(patches.train_patches) == 12 and len(patches.val_patches) == 6
    again = module(source, tmp_path / "b")
    again.setup("fit")
    for i in range(12):
        assert torch.equal(patches.train_patches[i][0], again.train_patches[i][0])
    seen = sorted(i for _, indices in patches.train_dataloader() for i in indices.tolist())
    assert seen == list(range(12))


def test_patches_are_cut_from_the_reference_at_its_scale(source: MriDataModule, tmp_path: Path) -> None:
    patches = module(source, tmp_path, patches_per_slice=1)
    patches.setup("fit")
    reference = source.dataset("train")[0].reference
    scaled = torch.view_as_real(reference / image_scale(reference[None])).permute(2, 0, 1)
    patch = patches.train_patches[0][0]
    windows = scaled.unfold(1, 36, 1).unfold(2, 36, 1).permute(1, 2, 0, 3, 4)
    distances = (windows - patch).abs().amax(dim=(2, 3, 4))
    assert float(distances.min()) < 2e-3  # half precision


def test_existing_files_are_kept_and_parameters_make_new_ones(source: MriDataModule, tmp_path: Path) -> None:
    first = module(source, tmp_path)
    first.setup("fit")
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    module(source, tmp_path).setup("fit")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times
    module(source, tmp_path, patches_per_slice=2).setup("fit")
    module(source, tmp_path, seed=1).setup("fit")
    assert len(list(tmp_path.iterdir())) == 3 * len(times)


def test_rss_patches_have_one_channel(source: MriDataModule, tmp_path: Path) -> None:
    patches = module(source, tmp_path, images="rss")
    patches.setup("fit")
    assert patches.in_chans == patches.train_patches.patch_shape[0] == 1
    assert float(patches.train_patches[0][0].min()) >= 0


def test_bad_input_is_named(source: MriDataModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images must be 'combined' or 'rss'"):
        module(source, tmp_path, images="kspace")
    with pytest.raises(ValueError, match=r"at least as large as a patch of 60x60, got 44x40 at image 0 of a\.h5"):
        module(source, tmp_path, patch_size=60).setup("fit")
