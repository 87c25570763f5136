"""The page as a reader has it: a program that answers by a rule drives it in a real browser."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_data import make_folders, read

from fastmri_ufloss.report.readers.analysis import analyze
from fastmri_ufloss.report.readers.answers import collect, read_key
from fastmri_ufloss.report.readers.study import StudySettings, choose_slices, make_study
from fastmri_ufloss.report.reconstructions import Reconstructions

QUALITY = {"reference": 4, "dim": 3, "noisy": 1}
DONE = "done"


def make(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    make_folders(tmp_path)
    data = Reconstructions({m: tmp_path / m for m in ("noisy", "dim")}, {"reference": tmp_path / "reference"})
    make_study(data, tmp_path / "study", StudySettings(("ann",), **settings), choose_slices(data, "all"))
    return read_key(tmp_path / "study" / "key.json")


class SimulatedReader:
    """Sees the identifier of the item, and what the key says of it."""

    def __init__(self, browser: Any, tmp_path: Path, key: dict[str, Any]) -> None:
        self.context = browser.new_context(viewport={"width": 1000, "height": 900}, accept_downloads=True)
        self.page, self.items, self.folder = self.context.new_page(), key["readers"]["ann"], tmp_path
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = (tmp_path / "study" / "reader_ann.html").as_uri()
        self.page.goto(self.url)

    def item(self, *, after: str = "") -> str:
        stage = self.page.wait_for_selector(f'section[data-item]:not([data-item=""]):not([data-item="{after}"])')
        name: str = stage.get_attribute("data-item")
        return name

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def save(self) -> Path:
        with self.page.expect_download() as download:
            self.page.click("#save")
        path = self.folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
        assert {url for url in self.requests if not url.startswith("blob:")} == {self.url}


def test_ratings_by_keys_with_undo_and_a_closed_tab(browser: Any, tmp_path: Path) -> None:
    key = make(tmp_path, criteria=("overall", "sharpness"), repeats=2, break_every=5)
    reader = SimulatedReader(browser, tmp_path, key)
    order, name = [], reader.item()
    while name != DONE:
        order.append(name)
        quality = QUALITY[reader.items[name]["method"]]
        if len(order) == 2:
            reader.press("4", "1")  # a slip
            wrong, name = name, reader.item(after=name)
            reader.press("Backspace")
            assert reader.item(after=name) == wrong
            name = wrong
        if len(order) == 4:
            reader.press(str(quality))  # half an answer, then the tab is closed
            reader.page.close()
            reader.page = reader.context.new_page()
            reader.page.goto(reader.url)
            assert reader.item() == name
            reader.press(str(5 - quality))
        else:
            reader.press(str(quality), str(5 - quality))
        if len(order) == 5:
            reader.page.wait_for_selector("text=time for a break")
        name = reader.item(after=name)
    assert order == list(reader.items)
    assert "20 of 20" in reader.page.inner_text("#counts")
    path = reader.save()
    assert path.name == "answers_ann.json"
    rows = collect(key, [path])
    assert all(row["score"] == (QUALITY[row["method"]] if row["criterion"] == "overall" else
                                5 - QUALITY[row["method"]]) for row in rows)  # fmt: skip
    opinion = {(r["criterion"], r["method"]): r["mean"] for r in analyze(key, rows)["opinion"]}
    assert {m: opinion["overall", m] for m in QUALITY} == QUALITY
    reader.close()


def test_pairs_and_answers_that_are_loaded(browser: Any, tmp_path: Path) -> None:
    key = make(tmp_path, protocol="pairs", beside=True)
    reader = SimulatedReader(browser, tmp_path, key)
    assert reader.page.locator(".panel").count() == 3
    for number in range(2):
        name = reader.item()
        reader.press("ArrowLeft" if number else "ArrowDown")
        reader.item(after=name)
    early = json.loads(reader.save().read_text())
    assert [a["choice"] for a in early["answers"]] == ["equal", "left"] and not early["complete"]
    reader.close()

    other = SimulatedReader(browser, tmp_path, key)  # another machine
    other.item()
    (tmp_path / "changed.json").write_text(json.dumps({**early, "answers": early["answers"][:1]}))
    (tmp_path / "study.json").write_text(json.dumps({**early, "study": "0" * 16}))
    for file in ("changed.json", "study.json"):
        other.page.set_input_files("#load", tmp_path / file)
        other.page.wait_for_selector(f"text={file} has no answers of this study by reader ann, or was changed")
    assert "0 of 6" in other.page.inner_text("#counts")
    other.page.set_input_files("#load", tmp_path / "answers_ann.json")
    other.page.wait_for_selector("text=2 of 6")
    name = other.item()
    assert name == list(other.items)[2]
    while name != DONE:
        other.press("ArrowRight")
        name = other.item(after=name)
    assert [row["choice"] for row in collect(key, [other.save()])] == ["equal", "left", *["right"] * 4]
    other.close()


def test_the_image_is_that_of_the_file(browser: Any, tmp_path: Path) -> None:
    key = make(tmp_path)
    reader = SimulatedReader(browser, tmp_path, key)
    name = reader.item()
    item = reader.items[name]
    expected = read(tmp_path / item["method"] / item["volume"])[item["slice"]]
    values, white = reader.page.evaluate(
        "() => [[...theReader.shown[0].image.values], [...theReader.images.values()][0].white]"
    )
    shown = np.reshape(values, expected.shape)
    np.testing.assert_allclose(shown, expected, atol=np.ptp(expected) / 2**13)
    pixels = "theReader.shown[0].raw.getContext('2d').getImageData(0, 0, 40, 40).data"
    gray = np.array(reader.page.evaluate(f"() => [...{pixels}]"))[::4]
    np.testing.assert_allclose(gray, np.clip(255 * expected.ravel() / white, 0, 255), atol=2)
    before = reader.page.evaluate("view.zoom")
    reader.press("+", "b")
    assert reader.page.evaluate("view.zoom") > before == 1
    reader.press("0")
    assert reader.page.evaluate("view.zoom") == 1
    reader.close()


@pytest.mark.parametrize("protocol", ["rating", "pairs"])
def test_buttons_do_what_keys_do(browser: Any, tmp_path: Path, protocol: str) -> None:
    key = make(tmp_path, protocol=protocol)
    reader = SimulatedReader(browser, tmp_path, key)
    name = reader.item()
    reader.page.click("text=3 good" if protocol == "rating" else "button:has-text('Equal')")
    second = reader.item(after=name)
    reader.page.click("#undo")
    assert reader.item(after=second) == name
    reader.close()
