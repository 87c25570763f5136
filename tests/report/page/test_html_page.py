import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_documents import METHODS, make_document, read_slice

from fastmri_ufloss.report.document import SliceImages
from fastmri_ufloss.report.figures.drawing import method_color
from fastmri_ufloss.report.page.cases import choose_cases
from fastmri_ufloss.report.page.html_page import write_page, write_report

SSIM = "SSIM (RSS)"


class Reader(HTMLParser):
    """Elements, text of scripts by id, and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: dict[str | None, str] = {}
        self.title = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        self.name = dict(attributes).get("id")

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[self.name] = self.scripts.get(self.name, "") + text
        if self.tags and self.tags[-1] == "title" and not self.title:
            self.title = text


def written(path: Path, document: dict[str, Any], *, count: int = 3) -> Reader:
    cases = choose_cases(document, focus=SSIM, count=count)
    write_page(path, document, cases, read_slice)
    return Reader(path.read_text(encoding="utf-8"))


def test_names_from_users_stay_text(tmp_path: Path) -> None:
    document = make_document()
    page = written(tmp_path / "report.html", document)
    assert page.title == document["title"]
    # the data of the page, of three cases, and one program: nothing that a name has closed or opened
    assert page.tags.count("script") == 5 and set(page.scripts) == {
        "page-data",
        *(f"images-{i}" for i in range(3)),
        None,
    }
    data = json.loads(page.scripts["page-data"])
    assert data["title"] == document["title"] and data["methods"] == list(METHODS)
    assert "b" not in page.tags


def test_nothing_is_asked_of_others_and_nothing_runs_but_the_page(tmp_path: Path) -> None:
    page = written(tmp_path / "report.html", make_document())
    names = dict(page.attributes)
    assert "src" not in names and not any(name.startswith("on") for name, _ in page.attributes)
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)


def test_volumes_are_in_the_page_and_slices_are_not(tmp_path: Path) -> None:
    document = make_document()
    data = json.loads(written(tmp_path / "report.html", document).scripts["page-data"])
    for row, stored in zip(document["volumes"], data["volumes"], strict=True):
        assert (stored["volume"], stored["method"]) == (row["volume"], row["method"])
        for metric in document["metrics"]:
            value = row[metric["name"]]
            assert stored[metric["name"]] == (None if value is None else pytest.approx(value, rel=1e-5))
    assert "slices" not in data and len(data["cases"]) == 3


def test_numbers_that_are_none(tmp_path: Path) -> None:
    document = make_document(missing=False)
    document["volumes"][0][SSIM] = float("inf")
    document["means"][0]["mean"] = float("nan")
    data = json.loads(written(tmp_path / "report.html", document).scripts["page-data"])
    assert data["volumes"][0][SSIM] is None and data["means"][0]["mean"] is None


def test_slices_of_cases_are_read_once_and_one_at_a_time(tmp_path: Path) -> None:
    document, asked = make_document(), []

    def read(volume: str, slice_num: int) -> SliceImages:
        asked.append((volume, slice_num))
        return read_slice(volume, slice_num)

    cases = choose_cases(document, focus=SSIM, count=5)
    write_page(tmp_path / "report.html", document, cases, read)
    assert asked == [(case.volume, case.slice_num) for case in cases]


def test_an_image_that_is_missing_or_not_finite_is_none(tmp_path: Path) -> None:
    document = make_document()

    def read(volume: str, slice_num: int) -> SliceImages:
        images = read_slice(volume, slice_num)
        outputs = {METHODS[0]: images.outputs[METHODS[0]], METHODS[1]: np.full((40, 48), np.nan, np.float32)}
        return images._replace(outputs=outputs, reference={"RSS": images.reference["RSS"]})

    write_page(tmp_path / "report.html", document, choose_cases(document, focus=SSIM, count=1), read)
    stored = json.loads(Reader((tmp_path / "report.html").read_text()).scripts["images-0"])
    assert [image is None for image in stored["methods"]] == [False, True, True]
    assert [image is None for image in stored["references"]] == [False, True]


def test_no_half_of_a_page_is_left(tmp_path: Path) -> None:
    document = make_document()

    def damaged(volume: str, slice_num: int) -> SliceImages:
        raise ValueError(f"{volume} is damaged")

    with pytest.raises(ValueError, match="is damaged"):
        write_page(tmp_path / "report.html", document, choose_cases(document, focus=SSIM, count=1), damaged)
    assert not list(tmp_path.iterdir())


class Compared:
    document = make_document()
    read_slice = staticmethod(read_slice)


def test_a_whole_report(tmp_path: Path) -> None:
    write_report(tmp_path / "new", Compared(), focus=SSIM, num_cases=1)  # type: ignore[arg-type]
    assert (tmp_path / "new" / "report.html").stat().st_size > 10_000
    names = ("box_plots", "box_plots_coil-combined", "panels_1", "perception_distortion")
    expected = {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == expected
    for path in (tmp_path / "new" / "figures").glob("*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF") and b"/Type3" not in content and b"/FontFile2" in content
    with Image.open(tmp_path / "new" / "figures" / "panels_1.png") as picture:
        assert picture.width > 1000


def test_without_ufloss_there_is_no_perception_distortion(tmp_path: Path) -> None:
    compared = Compared()
    metrics = [metric for metric in make_document()["metrics"] if metric["label"] != "UFLoss"]
    compared.document = {**make_document(), "metrics": metrics, "references": ["RSS"]}
    (tmp_path / "figures").mkdir()
    for name in ("perception_distortion.png", "box_plots_coil-combined.pdf", "panels_2.png", "mine.png"):
        (tmp_path / "figures" / name).touch()  # of an earlier report, and another's
    write_report(tmp_path, compared, focus=SSIM, num_cases=1)  # type: ignore[arg-type]
    found = {path.name for path in (tmp_path / "figures").iterdir()}
    assert found == {"box_plots.png", "box_plots.pdf", "panels_1.png", "panels_1.pdf", "mine.png"}


def test_no_two_methods_or_references_are_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    page = "fastmri_ufloss.report.page.html_page"
    monkeypatch.setattr(f"{page}.save_box_plots", lambda path, *_, reference: drawn.append(path.name))
    monkeypatch.setattr(f"{page}.perception_distortion_metrics", lambda document: None)
    monkeypatch.setattr(f"{page}.save_panels", lambda *_, **__: None)
    compared = Compared()
    references = ["RSS", "coil-combined", "é", "ü"]
    compared.document = {**make_document(), "references": references}
    write_report(tmp_path, compared, focus=SSIM, num_cases=1)  # type: ignore[arg-type]
    assert len(set(drawn)) == 2 * len(references)
    colors = [method_color(index) for index in range(40)]
    assert len(set(colors)) == 40 and all(re.fullmatch("#[0-9A-Fa-f]{6}", color) for color in colors)
