import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from PIL import Image

from fastmri_ufloss.report import save_contours


def image(rows: int = 60, cols: int = 44, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, cols)).astype(np.float32)


def mask(*box: int, shape: tuple[int, int] = (60, 44), number: int = 1) -> np.ndarray:
    """A rectangle from the first row and column up to the last, both inside."""
    top, left, bottom, right = box
    classes = np.zeros(shape, dtype=np.uint8)
    classes[top : bottom + 1, left : right + 1] = number
    return classes


def outlines(axis: Axes) -> list[tuple[str, tuple[float, ...]]]:
    """Color and extent (left, top, right, bottom) of each outline, in the order in which they are drawn."""
    found = []
    for child in axis.get_children():
        if isinstance(child, ContourSet):
            color = "red" if np.allclose(child.get_edgecolor()[0], to_rgba("red")) else "yellow"
            points = child.get_paths()[0].vertices
            found.append((color, (*points.min(axis=0), *points.max(axis=0))))
    return found


def limits(axis: Axes) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    return left, top, right, bottom


def test_outlines_run_along_the_borders_of_the_classes(figures: list[Figure]) -> None:
    truth, shifted = mask(20, 12, 29, 25), mask(20, 14, 29, 27)
    images = {"reference": image(), "RecNet": image(seed=1) * np.exp(0.7j), "zero-filled": image(seed=2)}
    save_contours("unused.png", images, truth=truth, predictions={"RecNet": shifted})
    axes = np.array(figures[0].axes).reshape(2, 3)
    true, predicted = ("red", (11.5, 19.5, 25.5, 29.5)), ("yellow", (13.5, 19.5, 27.5, 29.5))
    for row in axes:
        assert [outlines(axis) for axis in row] == [[true], [true, predicted], [true]]
    np.testing.assert_allclose(axes[0, 1].images[0].get_array(), np.abs(images["RecNet"]))
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["true", "predicted"]


def test_each_class_has_an_outline_that_is_closed_at_the_border(figures: list[Figure]) -> None:
    truth = mask(0, 0, 9, 9) + mask(0, 10, 9, 43, number=3)
    save_contours("unused.png", {"one": image()}, truth=truth, predictions={})
    expected = [("red", (-0.5, -0.5, 9.5, 9.5)), ("red", (9.5, -0.5, 43.5, 9.5))]
    assert outlines(figures[0].axes[0]) == expected
    assert limits(figures[0].axes[0]) == (-0.5, -0.5, 43.5, 59.5)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["true"]


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (mask(20, 12, 29, 25), mask(0, 0, 1, 1), (7.5, 13.5, 28.5, 34.5)),  # 14 wide, and 1.5 times that
        (mask(30, 20, 31, 21), None, (14.5, 24.5, 25.5, 35.5)),  # a quarter of 44, at least
        (mask(0, 40, 3, 43), None, (32.5, -0.5, 43.5, 10.5)),  # in the image
        (mask(0, 0, 59, 43), None, (-23.5, -15.5, 66.5, 74.5)),  # wider than the image: the image in its middle
        (mask(0, 0, 0, 0) * 0, mask(40, 4, 41, 5), (-0.5, 34.5, 10.5, 45.5)),  # no truth: around the prediction
        (mask(0, 0, 0, 0) * 0, None, (15.5, 23.5, 26.5, 34.5)),  # nothing: the middle
    ],
)
def test_the_zoom_is_a_square_around_the_truth(
    figures: list[Figure], truth: np.ndarray, prediction: np.ndarray | None, expected: tuple[float, ...]
) -> None:
    predictions = {} if prediction is None else {"one": prediction}
    save_contours("unused.png", {"one": image()}, truth=truth, predictions=predictions)
    whole, zoom = figures[0].axes
    assert limits(zoom) == expected
    left, top = whole.patches[0].get_xy()
    assert (left, top, left + whole.patches[0].get_width(), top + whole.patches[0].get_height()) == expected


def test_the_grey_scales_are_those_of_the_first_image(figures: list[Figure]) -> None:
    images = {"reference": image(), "RecNet": 2 * image(seed=1)}
    images["reference"][20:] *= 5  # bright, and out of the zoom
    notes = {"RecNet": "Dice 0.8"}
    save_contours("unused.png", images, truth=mask(1, 1, 5, 5), predictions={}, notes=notes, title="a scan")
    shown = [axis.images[0].norm for axis in figures[0].axes]
    left, top, right, bottom = (round(limit + 0.5) for limit in limits(figures[0].axes[2]))
    zoom = images["reference"][top:bottom, left:right]
    assert {(norm.vmin, norm.vmax) for norm in shown[:2]} == {(0, np.percentile(images["reference"], 99.5))}
    assert {(norm.vmin, norm.vmax) for norm in shown[2:]} == {(0, np.percentile(zoom, 99.5))}
    assert shown[0].vmax > 2 * shown[2].vmax
    assert [axis.get_title() for axis in figures[0].axes] == ["reference", "RecNet\nDice 0.8", "", ""]
    assert figures[0].get_suptitle() == "a scan"


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (64, 64)])
def test_any_size_and_nothing_to_outline(tmp_path: Path, shape: tuple[int, int]) -> None:
    empty, full = np.zeros(shape, dtype=int), np.ones(shape, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = {"one": np.zeros(shape), "two": image(*shape)}
        save_contours(tmp_path / "a.png", images, truth=empty, predictions={"one": empty, "two": full})
        save_contours(tmp_path / "b.jpg", images, truth=full, predictions={"two": empty})
    for name, kind in (("a.png", "PNG"), ("b.jpg", "JPEG")):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind and max(picture.size) < 3000


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    path, truth = tmp_path / "picture.png", mask(1, 1, 5, 5)
    good = {"one": image()}
    with pytest.raises(ValueError, match="images must hold at least one"):
        save_contours(path, {}, truth=truth, predictions={})
    with pytest.raises(ValueError, match=r"one shape \(rows, cols\), got \(44, 60\) for 'two'"):
        save_contours(path, {**good, "two": image().T}, truth=truth, predictions={})
    with pytest.raises(ValueError, match="truth must have the shape of images"):
        save_contours(path, good, truth=truth.T, predictions={})
    with pytest.raises(ValueError, match=r"predictions\['one'\] must have the shape of images"):
        save_contours(path, good, truth=truth, predictions={"one": truth[:5]})
    with pytest.raises(ValueError, match="truth must hold class numbers of an integer dtype, got float32"):
        save_contours(path, good, truth=truth.astype(np.float32), predictions={})
    for argument in ("predictions", "notes"):
        with pytest.raises(ValueError, match=rf"{argument} must have the names of images \['one'\], got 'tow'"):
            save_contours(path, good, truth=truth, **{"predictions": {}, argument: {"tow": truth}})
    with pytest.raises(ValueError, match="path must end in"):
        save_contours(tmp_path / "picture.tif", good, truth=truth, predictions={})
    assert not list(tmp_path.iterdir())
