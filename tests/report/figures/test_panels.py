from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_documents import METHODS, make_document, read_slice

from fastmri_ufloss.report.figures.panels import panel_scores, save_panels


def test_images_zooms_and_errors_on_one_scale(figures: list[Figure]) -> None:
    images = read_slice("file0.h5", 0)
    reference = images.reference["RSS"]
    save_panels("unused.png", ("RSS", reference), images.outputs, title="a case")
    axes = np.array(figures[0].axes).reshape(3, 4)
    white = np.percentile(reference, 99.5)
    assert {axis.images[0].norm.vmax for axis in axes.flat if axis.images} == {white}
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), reference)
    col, row = (round(place + 0.5) for place in axes[0, 0].patches[0].get_xy())
    side = 40 // 3
    assert not axes[2, 0].images  # the reference has no error
    for column, image in enumerate(images.outputs.values(), start=1):
        zoom = axes[1, column].images[0].get_array()
        np.testing.assert_array_equal(zoom, image[row : row + side, col : col + side])
        np.testing.assert_allclose(axes[2, column].images[0].get_array(), 5 * np.abs(image - reference), rtol=1e-5)
    assert [axis.get_title() for axis in axes[0]] == ["RSS", *METHODS]


def test_scores_of_the_slice_are_below_the_errors(figures: list[Figure]) -> None:
    document, images = make_document(), read_slice("file7.h5", 2)
    scores = panel_scores(document, "file7.h5", 2, metrics=["SSIM (RSS)", "PSNR (RSS)"])
    row = next(r for r in document["slices"] if (r["volume"], r["slice"], r["method"]) == ("file7.h5", 2, METHODS[0]))
    assert scores[METHODS[0]] == {"SSIM": f"{row['SSIM (RSS)']:.3f}", "PSNR": f"{row['PSNR (RSS)']:.1f} dB"}
    assert list(scores[METHODS[2]]) == ["PSNR"]  # it has no SSIM
    save_panels("unused.png", ("RSS", images.reference["RSS"]), images.outputs, scores=scores)
    texts = [text.get_text() for axis in figures[0].axes for text in axis.texts]
    assert f"SSIM {row['SSIM (RSS)']:.3f}\nPSNR {row['PSNR (RSS)']:.1f} dB" in texts


def test_metrics_of_one_label_go_by_their_names() -> None:
    scores = panel_scores(
        make_document(), "file0.h5", 0, metrics=["SSIM (coil-combined)", "SSIM (RSS)", "PSNR (RSS)"]
    )
    assert list(scores[METHODS[0]]) == ["SSIM (coil-combined)", "SSIM (RSS)", "PSNR"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 90), (90, 3)])
@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_any_size(tmp_path: Path, shape: tuple[int, int], suffix: str) -> None:
    image = np.random.default_rng(0).random(shape)
    path = tmp_path / f"panels.{suffix}"
    save_panels(path, ("RSS", image), {"$a$" * 30: np.zeros(shape)}, title="long " * 60)
    assert path.stat().st_size > 1000


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="one shape"):
        save_panels("unused.png", ("RSS", np.ones((3, 4))), {"one": np.ones((4, 3))})
    with pytest.raises(ValueError, match="scores must have the names of images"):
        save_panels("unused.png", ("RSS", np.ones((3, 4))), {"one": np.ones((3, 4))}, scores={"two": {}})
