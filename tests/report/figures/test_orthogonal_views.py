from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastmri_ufloss.report import orthogonal_views, save_orthogonal_views


def volume(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape or (5, 8, 6)).astype(np.float32)


class CountingVolume:
    """A volume that cannot be read as a whole, and counts how often a slice is read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.read = data, [0] * len(data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __getitem__(self, index: int) -> np.ndarray:
        self.read[range(len(self.data)).index(index)] += 1
        return self.data[index]


@pytest.mark.parametrize("shape", [(5, 8, 6), (4, 7, 9), (1, 1, 1)])
def test_the_planes_and_the_projections(shape: tuple[int, int, int]) -> None:
    data = volume(*shape)
    views = orthogonal_views(data)
    slices, rows, cols = (n // 2 for n in shape)
    np.testing.assert_array_equal(views["rows x cols"], data[slices])
    np.testing.assert_array_equal(views["slices x cols"], data[:, rows])
    np.testing.assert_array_equal(views["slices x rows"], data[:, :, cols])
    np.testing.assert_array_equal(views["maximum over slices"], data.max(axis=0))
    np.testing.assert_array_equal(views["maximum over rows"], data.max(axis=1))


def test_complex_values_are_shown_by_magnitude() -> None:
    data = volume()
    for name, view in orthogonal_views(data * np.exp(2j)).items():
        np.testing.assert_allclose(view, orthogonal_views(data)[name], rtol=1e-6)


def test_every_slice_is_read_once() -> None:
    data = CountingVolume(volume())
    orthogonal_views(data)
    assert data.read == [1] * 5


def test_an_open_dataset_gives_what_the_array_gives(tmp_path: Path) -> None:
    data = volume()
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file["reconstruction"] = data
        views = orthogonal_views(file["reconstruction"])
        save_orthogonal_views(tmp_path / "views.jpg", {"MoDL": file["reconstruction"]})
    for name, view in orthogonal_views(data).items():
        np.testing.assert_array_equal(views[name], view)
    with Image.open(tmp_path / "views.jpg") as picture:
        assert picture.format == "JPEG"


def test_one_scale_for_all_volumes_and_the_proportions_of_the_voxels(figures: list[Figure]) -> None:
    first, second = volume(), 3 * volume(seed=1)
    save_orthogonal_views("unused.png", {"reference": first, "MoDL": second}, voxel_size=(4, 1, 2))
    axes = np.array(figures[0].axes).reshape(2, 5)
    assert [line[0].get_ylabel() for line in axes] == ["reference", "MoDL"]
    tops = np.array([[axis.images[0].norm.vmax for axis in line] for line in axes])
    views = list(orthogonal_views(first).values())
    np.testing.assert_allclose(tops[:, :3], np.percentile(np.concatenate([v.ravel() for v in views[:3]]), 99.5))
    np.testing.assert_allclose(tops[:, 3:], np.percentile(np.concatenate([v.ravel() for v in views[3:]]), 99.5))
    assert [axis.get_aspect() for axis in axes[0]] == [1 / 2, 4 / 2, 4 / 1, 1 / 2, 4 / 2]
    for axis, view in zip(axes[1], orthogonal_views(second).values(), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), view)


@pytest.mark.parametrize("voxel_size", [(8, 1, 1), (0.2, 1, 1)])
def test_all_views_have_one_scale_in_mm(figures: list[Figure], voxel_size: tuple[float, ...]) -> None:
    data = volume(20, 50, 40)
    save_orthogonal_views("unused.png", {"one": data, "two": data}, voxel_size=voxel_size)
    figures[0].draw_without_rendering()
    widths = [axis.get_window_extent().width for axis in figures[0].axes[:5]]
    np.testing.assert_allclose(np.array(widths) / (40, 40, 50, 40, 40), widths[0] / 40, rtol=0.02)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    path = tmp_path / "views.png"
    with pytest.raises(ValueError, match="volume must have shape"):
        orthogonal_views(volume(4, 5))
    with pytest.raises(ValueError, match="volume must have shape"):
        orthogonal_views(volume(0, 4, 5))
    with pytest.raises(ValueError, match="volumes must hold"):
        save_orthogonal_views(path, {})
    with pytest.raises(ValueError, match="volumes must all have one shape"):
        save_orthogonal_views(path, {"one": volume(), "two": volume(4, 8, 6)})
    for voxel_size in ((1, 1), (1, 0, 1), (1, float("nan"), 1)):
        with pytest.raises(ValueError, match="voxel_size must be"):
            save_orthogonal_views(path, {"one": volume()}, voxel_size=voxel_size)
    with pytest.raises(ValueError, match="path must end in"):
        save_orthogonal_views(tmp_path / "views.gif", {"one": volume()})
    assert not list(tmp_path.iterdir())
