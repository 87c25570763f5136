from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastmri_ufloss.report.figures.error_maps import save_error_maps


def image(rows: int = 60, cols: int = 44, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, cols)).astype(np.float32)


def test_one_grey_scale_the_middle_and_errors_of_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Figure] = []
    monkeypatch.setattr(
        "fastmri_ufloss.report.figures.error_maps.write_figure", lambda path, figure, *, dpi: written.append(figure)
    )
    reference, images = image(), {"one": image(seed=1), "two": 2 * image(seed=2)}
    save_error_maps("unused.png", reference, images, notes={"two": "SSIM 0.5"}, title="a scan")
    axes = np.array(written[0].axes[:9]).reshape(3, 3)
    white = np.percentile(reference, 99.5)
    assert {axis.images[0].norm.vmax for axis in axes[:2].flat} == {white}
    errors = [np.abs(shown - reference) / white for shown in images.values()]
    for axis in axes[2, 1:]:
        assert axis.images[0].norm.vmax == pytest.approx(np.percentile(errors, 99))
    for column, shown in enumerate((reference, *images.values())):
        np.testing.assert_array_equal(axes[0, column].images[0].get_array(), shown)
        np.testing.assert_array_equal(axes[1, column].images[0].get_array(), shown[23:37, 15:29])
        if column:
            np.testing.assert_allclose(axes[2, column].images[0].get_array(), errors[column - 1])
    assert axes[0, 1].patches[0].get_xy() == (14.5, 22.5)
    assert [axis.get_title() for axis in axes[0]] == ["reference", "one", "two\nSSIM 0.5"]
    assert written[0].get_suptitle() == "a scan"


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (64, 64)])
def test_any_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    save_error_maps(tmp_path / "a.png", image(*shape), {name: image(*shape, seed=len(name)) for name in ("a", "bb")})
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and max(picture.size) < 3000
    assert len(list(tmp_path.iterdir())) == 1


def test_no_image_and_no_error(tmp_path: Path) -> None:
    save_error_maps(tmp_path / "alone.png", image(), {})
    save_error_maps(tmp_path / "equal.png", image(), {"equal": image()})
    assert {path.name for path in tmp_path.iterdir()} == {"alone.png", "equal.png"}


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have the shape of reference"):
        save_error_maps(tmp_path / "a.png", image(), {"one": image(5, 5)})
    with pytest.raises(ValueError, match="notes must have the names of images"):
        save_error_maps(tmp_path / "a.png", image(), {"one": image()}, notes={"two": "?"})
    with pytest.raises(ValueError, match="path must end in"):
        save_error_maps(tmp_path / "a.gif", image(), {"one": image()})
