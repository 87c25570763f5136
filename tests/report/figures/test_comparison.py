from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastmri_ufloss.report import save_comparison, save_picture
from fastmri_ufloss.report.figures.drawing import most_textured


def image(rows: int = 60, cols: int = 44, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, cols)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG")])
def test_the_suffix_is_the_format(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / "new" / f"picture{suffix}"
    save_comparison(path, {"CG-SENSE": image()}, title="a scan")
    with Image.open(path) as picture:
        assert picture.format == kind and min(picture.size) > 200
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (64, 64), (64, 100)])
def test_any_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    save_comparison(tmp_path / "picture.png", {name: image(*shape, seed=len(name)) for name in ("a", "bb", "ccc")})
    with Image.open(tmp_path / "picture.png") as picture:
        assert max(picture.size) < 3000


def test_one_grey_scale_one_zoom_and_differences_from_the_first(figures: list[Figure]) -> None:
    first, second = image(), 2 * image(seed=1) * np.exp(0.7j)
    save_comparison("unused.png", {"one": first, "two": second}, notes={"two": "residual 0.5"}, title="a scan")
    axes = np.array(figures[0].axes).reshape(3, 2)
    shown = [[axis.images[0] if axis.images else None for axis in row] for row in axes]
    assert {picture.norm.vmax for row in shown for picture in row if picture} == {np.percentile(first, 99.5)}
    np.testing.assert_array_equal(shown[0][0].get_array(), first)
    np.testing.assert_allclose(shown[0][1].get_array(), np.abs(second))
    row, col = axes[0, 0].patches[0].get_xy()[::-1]
    row, col, side = round(row + 0.5), round(col + 0.5), 44 // 3
    for column, magnitude in enumerate((first, np.abs(second))):
        np.testing.assert_allclose(shown[1][column].get_array(), magnitude[row : row + side, col : col + side])
    assert shown[2][0] is None
    np.testing.assert_allclose(shown[2][1].get_array(), 5 * np.abs(np.abs(second) - first), rtol=1e-6)
    assert [axis.get_title() for axis in axes[0]] == ["one", "two"]
    assert "residual 0.5" in [text.get_text() for text in axes[2, 1].texts]
    assert figures[0].get_suptitle() == "a scan"


def test_differences_from_another_image(figures: list[Figure]) -> None:
    first, second = image(), 2 * image(seed=1)
    save_comparison("unused.png", {"one": first, "two": second}, compare_with="two")
    axes = np.array(figures[0].axes).reshape(3, 2)
    assert not axes[2, 1].images
    np.testing.assert_allclose(axes[2, 0].images[0].get_array(), 5 * np.abs(first - second), rtol=1e-6)
    assert axes[0, 0].images[0].norm.vmax == np.percentile(second, 99.5)
    with pytest.raises(ValueError, match="compare_with must be one of the images"):
        save_comparison("unused.png", {"one": first}, compare_with="two")


def test_the_zoom_is_where_the_structure_is(figures: list[Figure]) -> None:
    blank = np.ones((90, 60), np.float32)
    textured = blank.copy()
    textured[50:70, 30:50] += image(20, 20)
    blank[:, 4:6] = 100  # bright and without structure
    save_comparison("unused.png", {"one": blank, "two": np.maximum(blank, textured)})
    col, row = figures[0].axes[0].patches[0].get_xy()
    assert 49 <= row + 0.5 <= 51 and 29 <= col + 0.5 <= 31


def test_an_empty_image_is_black(tmp_path: Path, figures: list[Figure]) -> None:
    save_comparison("unused.png", {"one": np.zeros((8, 8))})
    assert figures[0].axes[0].images[0].norm.vmax == 1
    assert len(figures[0].axes) == 2  # no difference


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(ValueError, match="images must hold at least one"):
        save_comparison(path, {})
    with pytest.raises(ValueError, match="one shape"):
        save_comparison(path, {"one": image(), "two": image().T})
    with pytest.raises(ValueError, match="one shape"):
        save_comparison(path, {"one": image()[None]})
    with pytest.raises(ValueError, match="notes must have the names"):
        save_comparison(path, {"one": image()}, notes={"tow": "a slip"})
    with pytest.raises(ValueError, match="path must end in"):
        save_comparison(tmp_path / "picture.tif", {"one": image()})
    assert not list(tmp_path.iterdir())


def test_picture_with_a_reference(tmp_path: Path) -> None:
    save_picture(tmp_path / "picture.png", image(), {"MoDL": image(seed=1)})
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
    with pytest.raises(ValueError, match="one shape"):
        save_picture(tmp_path / "picture.png", image(), {"MoDL": image().T})


def test_most_textured_square() -> None:
    flat = np.zeros((60, 90))
    flat[31:49, 61:79] = image(18, 18)
    assert most_textured(flat) == (30, 60, 20)
    assert most_textured(np.ones((1, 5))) == (0, 0, 1)
