import json

import pytest

from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.subject_tables import comparison_rows, p_value_note, paired_rows

FIRST = {"a": {"SSIM": 0.5, "MSE": 1.0}, "b": {"SSIM": 0.7, "MSE": 2.0}, "c": {"SSIM": 0.6, "MSE": 3.0}}
SECOND = {"c": {"SSIM": 0.7, "MSE": 3.0}, "b": {"SSIM": 0.9, "MSE": 1.0}, "a": {"SSIM": 0.4, "MSE": 0.5}}


def test_subjects_find_each_other_by_name() -> None:
    ssim, mse = paired_rows(("one", FIRST), ("two", SECOND), {"SSIM": True, "MSE": False})
    assert (ssim["metric"], ssim["better in"]) == ("SSIM", "2 of 3")
    assert (ssim["one"], ssim["two"]) == pytest.approx((0.6, 2 / 3))
    assert ssim["difference"] == pytest.approx(0.2 / 3)
    assert ssim["95% from"] < ssim["difference"] < ssim["95% to"]
    assert (mse["metric"], mse["better in"]) == ("MSE", "2 of 3")


def test_what_there_is_not_is_none() -> None:
    (row,) = paired_rows(("one", {"a": FIRST["a"]}), ("two", {"a": FIRST["a"]}), {"SSIM": True})
    assert row["95% from"] is row["95% to"] is row["p"] is None
    json.dumps(row, allow_nan=False)


def test_subjects_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="must have the same subjects"):
        paired_rows(("one", FIRST), ("two", {"a": FIRST["a"]}), {"SSIM": True})


@pytest.mark.parametrize(("count", "smallest"), [(1, "below 1,"), (5, "below 0.062"), (6, None), (60, None)])
def test_few_subjects_are_pointed_out(count: int, smallest: str | None) -> None:
    note = p_value_note(count)
    assert note == "" if smallest is None else smallest in note


def test_rows_of_methods_carry_adjusted_p_and_effect_size() -> None:
    scores = {
        "RecNet": {subject: float(i) for i, subject in enumerate("abcdef")},
        "refinement": {subject: i + 0.1 * (i + 1) for i, subject in enumerate("abcdef")},
        "joint": {subject: i - 0.1 * (i + 1) for i, subject in enumerate("abcdef")},
    }
    refinement, joint = comparison_rows({"SSIM": scores}, {"SSIM": True}, baseline="RecNet")
    assert (refinement["first"], refinement["second"], joint["second"]) == ("RecNet", "refinement", "joint")
    assert (refinement["mean of first"], refinement["mean of second"]) == pytest.approx((2.5, 2.85))
    assert refinement["difference"] == pytest.approx(0.35)
    assert refinement["95% from"] < 0.35 < refinement["95% to"]
    assert (refinement["p"], refinement["p (Holm)"], refinement["effect size"]) == (0.03125, 0.0625, 1)
    assert (joint["effect size"], joint["better in"]) == (-1, "0 of 6")
    assert format_table([refinement, joint]).splitlines()[2].split()[:3] == ["SSIM", "RecNet", "refinement"]


def test_of_equal_methods_there_is_no_p() -> None:
    scores = {"SSIM": {method: {"a": 1.0, "b": 2.0} for method in ("one", "two")}}
    (row,) = comparison_rows(scores, {"SSIM": True}, baseline="one")
    assert row["p"] is row["p (Holm)"] is row["effect size"] is None and row["difference"] == 0
    json.dumps(row, allow_nan=False)
