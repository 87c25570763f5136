"""The page as a reader has it: drawn by a real browser, clicked and dragged."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from report_documents import METHODS, SHAPE, make_document, read_slice

from fastmri_ufloss.report.document import SliceImages
from fastmri_ufloss.report.page.cases import choose_cases
from fastmri_ufloss.report.page.html_page import BITS, write_page

DASH = "\u2013"
SECOND = 1  # panel: the reference is the first one

# of a canvas in a panel: the color where the middle of an image's pixel is
PIXEL = """([[rows, cols], panel, role, row, col]) => {
    const canvas = document.querySelectorAll(panel === null ? ".flicker" : ".panel")[panel ?? 0]
        .querySelector(`canvas[data-role="${role}"]`);
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const x = width / 2 + ((col + 0.5) / cols - view.x) * width * view.zoom;
    const y = height / 2 + ((row + 0.5) / rows - view.y) * height * view.zoom;
    return [...copy.getImageData(Math.floor(x), Math.floor(y), 1, 1).data.slice(0, 3)];
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    document = make_document()
    write_page(path, document, choose_cases(document, focus="SSIM (RSS)", count=4), read_slice)
    return path


@pytest.fixture
def open_page(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end the browser must have asked for nothing else and reported nothing."""
    contexts, complaints, requests, opened = [], [], [], []

    def open_it(path: Path = file, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append(path.as_uri())
        page.goto(opened[-1])
        page.wait_for_selector(".stage[data-shown]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == opened


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    """The page with the images as they are: no smoothing and no outlines."""
    page = open_page()
    page.evaluate("() => { document.documentElement.style.scrollBehavior = 'auto'; }")
    for key in ("smooth", "contours"):
        page.click(f"#toggle-{key}")
    page.evaluate("document.querySelector('.panel canvas').scrollIntoView({ block: 'center' })")
    settle(page)
    return page


def wait_until(page: Any, expression: str, argument: Any = None) -> None:
    """Without the page's eval, which it forbids itself."""
    for _ in range(200):
        if page.evaluate(f"(argument) => {expression}", argument):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"{expression} did not come")


def settle(page: Any) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def pixel(page: Any, row: int, col: int, *, panel: int | None = SECOND, role: str = "image") -> list[int]:
    settle(page)
    return page.evaluate(PIXEL, [SHAPE, panel, role, row, col])


def first_case() -> Any:
    document = make_document()
    case = choose_cases(document, focus="SSIM (RSS)", count=4)[0]
    return read_slice(case.volume, case.slice_num)


def gray(image: np.ndarray, reference: np.ndarray, row: int, col: int, *, level: float, width: float) -> float:
    low = (level - width / 2) * reference.max()
    return float(np.clip(255 * (image[row, col] - low) / (width * reference.max()), 0, 255))


def slide(page: Any, name: str, value: float) -> None:
    page.evaluate(
        "([id, value]) => { const input = document.getElementById(id); input.value = value;"
        " input.dispatchEvent(new Event('input')); }",
        [name, value],
    )


def column(page: Any, section: str, number: int) -> list[str]:
    return page.locator(f"#{section} tbody tr > :nth-child({number})").all_inner_texts()


def test_what_a_reader_sees_first(page: Any) -> None:
    assert page.title() == page.locator("h1").inner_text() == make_document()["title"]
    counts = page.locator("#counts").inner_text()
    for text in ("3 methods", "8 volumes", "4 subjects", "24 slices", "reference RSS, coil-combined"):
        assert text in counts
    assert page.locator("#means tbody tr").count() == len(METHODS)
    names = page.locator("#means tbody .name").all_inner_texts()
    assert names == list(METHODS)  # as text, not as HTML
    assert page.locator("#plots svg").count() == 5  # the metrics against RSS, and sharpness
    assert page.locator(".case").count() == 4
    assert page.locator(".panel .name").all_inner_texts() == ["RSS", *METHODS]


def test_best_of_a_column_and_what_is_not_tested(page: Any) -> None:
    best = page.locator("#means td.best")
    assert best.count() == 4  # of sharpness there is no best
    assert set(best.evaluate_all("cells => cells.map((cell) => cell.parentNode.rowIndex)")) == {3}
    headers = page.locator("#means thead th").all_inner_texts()
    assert headers[2:] == ["SSIM ↑", "NRMSE ↓", "PSNR (dB) ↑", "UFLoss ↓", "sharpness*"]


def test_tables_sort_by_a_click_and_by_keys(page: Any) -> None:
    header = page.locator('#means th[data-column="NRMSE (RSS)"]')
    order = [column(page, "means", 1)]
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    values = [float(text.split()[-4]) for text in column(page, "means", 4)]
    assert values == sorted(values)
    order.append(column(page, "means", 1))
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    order.append(column(page, "means", 1))
    assert order[1] == order[2][::-1] and order[0] == order[2]
    assert page.locator('#means th[aria-sort="none"]').count() == 6


def test_missing_values_stay_last(page: Any) -> None:
    button = page.locator('#volumes th[data-column="SSIM (RSS)"] button')
    for _ in range(2):
        button.click()
        values = column(page, "volumes", 6)
        assert values[-1] == DASH and DASH not in values[:-1]


def test_contrast_and_reference_are_chosen_for_the_whole_page(page: Any) -> None:
    before = column(page, "means", 3), page.locator("#volumes tbody tr").count()
    page.select_option("#contrast", "PD")
    assert column(page, "means", 3) != before[0]
    assert page.locator("#volumes tbody tr").count() == before[1] // 2
    assert set(column(page, "volumes", 3)) == {"PD"}
    page.select_option("#reference", "coil-combined")
    assert page.locator("#means thead th").all_inner_texts()[2] == "SSIM* ↑"
    assert page.locator(".panel .name").first.inner_text() == "coil-combined"


def test_volumes_are_filtered(page: Any) -> None:
    page.fill("#volume-filter", "file3 PICS")
    assert page.locator("#volumes tbody tr").count() == 1
    page.fill("#volume-filter", "")
    page.select_option("#volume-method", METHODS[1])
    assert page.locator("#volumes tbody tr").count() == 8
    page.fill("#volume-filter", "nowhere")
    assert column(page, "volumes", 1) == ["no rows"]


def test_many_rows_are_on_pages(open_page: Callable[..., Any], tmp_path: Path) -> None:
    document = make_document(num_volumes=40)
    path = tmp_path / "many.html"
    write_page(path, document, choose_cases(document, focus="SSIM (RSS)", count=1), read_slice)
    page = open_page(path)
    rows = page.locator("#volumes tbody tr")
    pager = page.locator("#volumes .pager")
    assert rows.count() == 50 and f"1{DASH}50 of 120" in pager.inner_text()
    for _ in range(2):
        pager.get_by_role("button", name="Next rows").click()
    assert rows.count() == 20 and pager.get_by_role("button", name="Next rows").is_disabled()
    page.locator('#volumes th[data-column="volume"] button').click()
    assert column(page, "volumes", 1)[0] == "file0.h5"  # sorting begins at the first page again


def test_a_dot_tells_its_subject(page: Any) -> None:
    page.locator("#plots svg").first.scroll_into_view_if_needed()
    place = page.evaluate(
        """() => { const plot = plots[0]; const frame = plot.svg.getBoundingClientRect(); const dot = plot.dots[2];
        const scale = frame.width / plot.width;
        return { x: frame.left + dot.x * scale, y: frame.top + dot.y * scale, subject: dot.subject }; }"""
    )
    page.mouse.move(place["x"], place["y"])
    assert place["subject"] in page.locator("#tip").inner_text()
    # the same subject in all plots, in both contrasts of all methods
    assert page.locator("#plots svg").nth(1).locator(".over circle").count() == 2 * len(METHODS)
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()


def test_images_are_decoded_to_their_numbers(page: Any) -> None:
    images = first_case()
    found = page.evaluate(
        """async () => { const images = await imagesOfCase(0);
        return [...images.references, ...images.methods].map((one) => [...one.image.values]); }"""
    )
    for values, image in zip(found, [*images.reference.values(), *images.outputs.values()], strict=True):
        half_step = image.max() / (2**BITS - 1) / 2
        np.testing.assert_allclose(np.reshape(values, SHAPE), image, rtol=1e-6, atol=1.001 * half_step)


def test_windowing_is_linked_and_as_computed(page: Any) -> None:
    images = first_case()
    shown = [images.reference["RSS"], *images.outputs.values()]
    white = float(np.percentile(shown[0], 99.5) / shown[0].max())
    for level, width in ((white / 2, white), (0.4, 0.3)):
        if level == 0.4:
            slide(page, "level", level)
            slide(page, "width", width)
        for panel, image in enumerate(shown):
            for row, col in ((3, 5), (18, 26), (35, 40)):
                expected = gray(image, shown[0], row, col, level=level, width=width)
                found = pixel(page, row, col, panel=panel)
                assert found[0] == found[1] == found[2] and abs(found[0] - expected) <= 1
    page.click("#reset-window")
    expected = gray(shown[1], shown[0], 3, 5, level=white / 2, width=white)
    assert abs(pixel(page, 3, 5)[0] - expected) <= 1


def test_a_drag_with_shift_or_the_right_button_changes_the_window(page: Any) -> None:
    box = page.locator(".panel canvas").first.bounding_box()
    for button, key in (("right", None), ("left", "Shift")):
        before = page.evaluate("[view.level, view.width]")
        if key:
            page.keyboard.down(key)
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down(button=button)
        page.mouse.move(box["x"] + 90, box["y"] + 30, steps=3)
        page.mouse.up(button=button)
        if key:
            page.keyboard.up(key)
        level, width = page.evaluate("[view.level, view.width]")
        assert level < before[0] and width > before[1]
        assert float(page.locator("#width").input_value()) == pytest.approx(width, abs=0.01)
    assert page.evaluate("view.zoom") == 1


def test_zoom_is_linked_keeps_what_is_below_the_pointer_and_resets(page: Any) -> None:
    images = first_case()
    box = page.locator(".panel canvas").first.bounding_box()
    x, y = box["x"] + 0.7 * box["width"], box["y"] + 0.21 * box["height"]
    page.mouse.move(x, y)
    page.mouse.move(x + 1, y)
    page.mouse.wheel(0, -800)
    wait_until(page, "view.zoom > 3")
    below = page.evaluate(
        "([x, y]) => theViewer.panels[0].main.pixelAt({ clientX: x, clientY: y }, view)", [x + 1, y]
    )
    assert (below["row"], below["col"]) == (int(0.21 * SHAPE[0]), int((x + 1 - box["x"]) / box["width"] * SHAPE[1]))
    page.mouse.move(1, 1)
    white = float(np.percentile(images.reference["RSS"], 99.5) / images.reference["RSS"].max())
    for panel, image in enumerate([images.reference["RSS"], *images.outputs.values()]):
        expected = gray(image, images.reference["RSS"], *below.values(), level=white / 2, width=white)
        assert abs(pixel(page, below["row"], below["col"], panel=panel)[0] - expected) <= 1
        # and it is enlarged: its neighbors are several pixels away
        assert page.evaluate("view.zoom") * box["width"] / SHAPE[1] > 12
    page.locator(".panel canvas").nth(2).dblclick()
    assert page.evaluate("[view.zoom, view.x, view.y]") == [1, 0.5, 0.5]


def test_keys_and_drags_move_the_zoomed_images(page: Any) -> None:
    page.locator(".stage").focus()
    for _ in range(6):
        page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    x = page.evaluate("view.x")
    assert x > 0.5
    box = page.locator(".panel canvas").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 100, steps=3)
    page.mouse.up()
    zoom = page.evaluate("view.zoom")
    assert page.evaluate("view.x") == pytest.approx(x - 40 / box["width"] / zoom, abs=1e-6)
    assert page.locator(".readout").nth(2).inner_text() != ""  # the value below the pointer, in each panel
    page.locator(".stage").press("0")
    assert page.evaluate("view.zoom") == 1


def test_error_maps_have_a_gain_and_can_be_hidden(page: Any) -> None:
    images = first_case()
    reference, output = images.reference["RSS"], images.outputs[METHODS[1]]
    white = np.percentile(reference, 99.5)
    colors = matplotlib.colormaps["inferno"]
    for gain in (5, 12):
        slide(page, "gain", gain)
        for row, col in ((3, 5), (18, 26)):
            error = min(gain * abs(float(output[row, col]) - float(reference[row, col])) / white, 1)
            near = [255 * np.array(colors(round(255 * error) + by)[:3]) for by in (-1, 0, 1)]
            found = pixel(page, row, col, panel=2, role="error")
            assert min(np.abs(found - color).max() for color in near) <= 1
    assert page.locator("canvas[data-role=error]").first.is_visible()
    page.click("#toggle-errors")
    assert page.locator("canvas[data-role=error]").first.is_hidden()


def test_outlines_of_segmentations_can_be_shown(page: Any) -> None:
    page.click("#toggle-contours")
    settle(page)
    found = page.evaluate(
        """() => [...document.querySelectorAll(".panel")].map((panel) => {
            const canvas = panel.querySelector("canvas");
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            const counts = [0, 0];
            for (let i = 0; i < data.length; i += 4) {
                if (data[i] > 200 && data[i + 1] < 120 && data[i + 2] < 120) counts[0]++;
                if (data[i] > 200 && data[i + 1] > 170 && data[i + 2] < 120) counts[1]++;
            }
            return counts;
        })"""
    )
    assert all(true > 50 for true, _ in found)
    assert [predicted > 50 for _, predicted in found] == [False, False, True, False]


def test_flicker_by_hand_and_by_itself(page: Any) -> None:
    images = first_case()
    page.click("#toggle-flicker")
    assert page.locator(".panels").is_hidden()
    page.locator(".flicker select").nth(1).select_option(label=METHODS[1])
    label = page.locator(".flicker-label")
    page.locator(".stage").focus()
    page.keyboard.press(" ")
    page.keyboard.press(" ")
    texts = [label.inner_text()]
    grays = [pixel(page, 30, 8, panel=None, role="flicker")[0]]
    page.keyboard.press(" ")
    texts.append(label.inner_text())
    grays.append(pixel(page, 30, 8, panel=None, role="flicker")[0])
    assert sorted(texts) == ["A: RSS", f"B: {METHODS[1]}"]
    reference = images.reference["RSS"]
    white = float(np.percentile(reference, 99.5) / reference.max())
    for text, value in zip(texts, grays, strict=True):
        image = reference if text.startswith("A") else images.outputs[METHODS[1]]
        assert abs(value - gray(image, reference, 30, 8, level=white / 2, width=white)) <= 1
    page.get_by_role("button", name="Play").click()
    last = label.inner_text()
    for sign in ("!==", "==="):
        wait_until(page, f"document.querySelector('.flicker-label').textContent {sign} argument", last)
    page.get_by_role("button", name="Pause").click()


def test_another_case(page: Any) -> None:
    def shown() -> str:
        return page.locator(".case-heading h3").inner_text()

    first, before = shown(), pixel(page, 10, 10)
    page.locator(".case").nth(1).click()
    page.wait_for_selector('.stage[data-shown="1"]')
    assert shown() != first and page.locator(".case").nth(1).get_attribute("aria-current") == "true"
    assert pixel(page, 10, 10) != before
    page.locator(".stage").press("p")
    page.wait_for_selector('.stage[data-shown="0"]')
    assert shown() == first


def test_cases_are_ordered_by_a_score(page: Any) -> None:
    page.select_option("#case-metric", "NRMSE (RSS)")
    page.select_option("#case-method", METHODS[0])
    values = [float(text.split()[-1]) for text in page.locator(".case .why").all_inner_texts()]
    assert values == sorted(values, reverse=True)  # of NRMSE the largest is the worst
    page.click("#case-worstFirst")
    found = [float(text.split()[-1]) for text in page.locator(".case .why").all_inner_texts()]
    assert found == values[::-1]


def test_an_image_that_is_missing(open_page: Callable[..., Any], tmp_path: Path) -> None:
    def read(volume: str, slice_num: int) -> SliceImages:
        images = read_slice(volume, slice_num)
        return SliceImages({"RSS": images.reference["RSS"]}, {METHODS[0]: images.outputs[METHODS[0]]}, None, {})

    document = make_document()
    write_page(tmp_path / "missing.html", document, choose_cases(document, focus="SSIM (RSS)", count=1), read)
    page = open_page(tmp_path / "missing.html")
    missing = page.locator(".panel .missing")
    assert [missing.nth(panel).is_visible() for panel in range(4)] == [False, False, True, True]
    assert page.locator("#toggle-contours").is_hidden()
    page.select_option("#reference", "coil-combined")  # of which this slice has none
    assert missing.first.is_visible()
    page.click("#toggle-flicker")
    page.get_by_role("button", name="Swap").click()
    assert page.locator(".flicker-label").inner_text() == f"B: {METHODS[-1]} (no image)"


def test_dark_and_narrow(open_page: Callable[..., Any]) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        page.set_viewport_size({"width": 420, "height": 800})
        settle(page)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 420  # only tables scroll sideways
    assert grounds[0] != grounds[1]
