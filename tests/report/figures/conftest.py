"""Figures as they are drawn, before they are written."""

import pytest
from matplotlib.figure import Figure

from fastmri_ufloss.report.figures import drawing


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, instead of their files."""
    written: list[Figure] = []
    monkeypatch.setattr(drawing, "write_figure", lambda path, figure, *, dpi: written.append(figure))
    return written
