"""The report goes on where it was, in any number of processes, and does not hold all volumes."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_data import NAMES, SIZE, columns, make_acquired, make_folders, write

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report import scoring

FOLDERS = ("noisy", "dim", "--reference", "reference", "--output_path", "out")
Report = Callable[..., Any]


def test_only_what_has_changed_is_scored_again(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    original = scoring.score_files

    def count(files: Any, settings: Any) -> Any:
        scored.append(files.name)
        return original(files, settings)

    monkeypatch.setattr(scoring, "score_files", count)
    first = report(*FOLDERS)
    assert scored == list(NAMES)
    scored.clear()
    assert report(*FOLDERS) == first and scored == []
    os.utime(tmp_path / "dim" / "b.h5")
    assert report(*FOLDERS) == first and scored == ["b.h5"]
    scored.clear()
    (tmp_path / "out" / "cache" / "c.h5.json").write_text("{half")
    assert report(*FOLDERS) == first and scored == ["c.h5"]
    scored.clear()
    PatchFeatureNet(1, patch_size=32).save(tmp_path / "net.safetensors")
    for stride in (8, 8, 4):
        report(*FOLDERS, "--feature_net", "net.safetensors", "--stride", stride)
    assert scored == [*NAMES, *NAMES]
    scored.clear()
    report("noisy", "dim", "more=reference", *FOLDERS[2:])  # another method
    assert scored == list(NAMES)
    scored.clear()
    report("noisy", "dim", "more=reference", "--reference", "other=reference", *FOLDERS[4:])  # another name
    assert scored == list(NAMES)


def test_an_interrupted_call_goes_on(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    original, scored = scoring.score_files, []

    def interrupt(files: Any, settings: Any) -> Any:
        if files.name == "b.h5" and scored == ["a.h5"]:
            scored.append("")
            raise KeyboardInterrupt
        scored.append(files.name)
        return original(files, settings)

    monkeypatch.setattr(scoring, "score_files", interrupt)
    assert "the same command goes on" in report(*FOLDERS, status=130).stderr
    document = report(*FOLDERS)
    assert scored == ["a.h5", "", "b.h5", "c.h5"] and len(document["volumes"]) == 6
    assert "1 of 3 volumes were scored before" in document.stdout


def test_two_workers_give_what_one_gives(report: Report, tmp_path: Path) -> None:
    for name in NAMES:
        make_acquired(tmp_path, name)
    options = (*FOLDERS, "--kspace", "kspace", "--masks", "masks")
    for name in NAMES:
        write(tmp_path / "masks" / name, np.ones(1), name="none", mask=columns())
    PatchFeatureNet(2, patch_size=32).save(tmp_path / "net.safetensors")
    options = (*options, "--feature_net", "net.safetensors", "--stride", 8)
    one = report(*options)
    for path in (tmp_path / "out" / "cache").iterdir():
        path.unlink()
    two = report(*options, "--num_workers", 2)
    for document in (one, two):
        document.pop("settings")
    assert one == two


def test_memory_does_not_grow_with_the_volumes(report: Report, tmp_path: Path) -> None:
    peaks = []
    for count in (1, 2, 8):  # the first one is for what is imported
        names = tuple(f"{number}.h5" for number in range(count))
        for path in tmp_path.glob("*/*.h5*"):
            path.unlink()
        make_folders(tmp_path, names=names, slices=20)
        for path in tmp_path.glob("out/cache/*"):
            path.unlink()
        tracemalloc.start()
        report(*FOLDERS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    volume = 3 * 20 * SIZE * SIZE * 4  # of both methods and the reference
    assert peaks[2] - peaks[1] < 2 * volume  # and not 6, with all that is computed of them
