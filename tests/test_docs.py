"""The lines that the documentation links to are those that it names."""

import re
from pathlib import Path

import pytest
from helpers import ROOT

LINK = re.compile(r"\[`(?P<name>\w+)`\]\((?P<path>[^)#]+)#L(?P<line>\d+)\)")
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if LINK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_lines_are_right(page: Path) -> None:
    links = list(LINK.finditer(page.read_text(encoding="utf-8")))
    assert links
    for link in links:
        lines = (page.parent / link["path"]).resolve().read_text(encoding="utf-8").splitlines()
        definition = re.compile(rf"\s*(class|def) {link['name']}\b")
        here = [number for number, line in enumerate(lines, start=1) if definition.match(line)]
        assert int(link["line"]) in here, f"{link['name']} is defined in line {here} of {link['path']}"
