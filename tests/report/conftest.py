"""The command of the report in a folder of small volumes, and a browser for the pages."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from report_data import make_folders

from fastmri_ufloss.report import __main__ as command
from fastmri_ufloss.report.document import Comparison

NAMED = os.environ.get("FASTMRI_UFLOSS_BROWSER")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Outcome(dict[str, Any]):
    """The document, with what the command has printed and the comparison that the page would get."""

    stdout = stderr = ""
    comparison: Comparison


@pytest.fixture
def report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command without its page, in a folder with a reference and two methods; gives ``report.json``."""
    make_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pages: list[Comparison] = []
    monkeypatch.setattr(command, "write_report", lambda path, comparison, **_: pages.append(comparison))

    def run(*options: object, status: int = 0) -> Outcome:
        capfd.readouterr()
        assert command.main(list(map(str, options))) == status
        outcome = Outcome()
        if status == 0:
            text = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
            outcome.update(json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")))
            outcome.comparison = pages[-1]
        outcome.stdout, outcome.stderr = capfd.readouterr()
        return outcome

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = NAMED or next(filter(None, map(shutil.which, NAMES)), None)
    if NAMED is None:
        pytest.importorskip("playwright.sync_api")
        if executable is None:
            pytest.skip(f"none of {', '.join(NAMES)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()
