import copy
from collections import Counter

import pytest
from report_documents import METHODS, make_document

from fastmri_ufloss.report.page.cases import choose_cases

SSIM, NRMSE = "SSIM (RSS)", "NRMSE (RSS)"


def value(document: dict, case: tuple, method: str, metric: str) -> float:
    place = (case[0], case[1], method)
    return next(row[metric] for row in document["slices"] if (row["volume"], row["slice"], row["method"]) == place)


def all_values(document: dict, method: str, metric: str) -> list[float]:
    return [r[metric] for r in document["slices"] if r["method"] == method and r[metric] is not None]


@pytest.mark.parametrize(("metric", "worst", "best"), [(SSIM, min, max), (NRMSE, max, min)])
def test_a_worst_and_a_best_slice_come_first(metric: str, worst: type, best: type) -> None:
    document = make_document()
    cases = choose_cases(document, focus=metric, count=4)
    # methods take turns, the baseline last
    assert value(document, cases[0], METHODS[1], metric) == worst(all_values(document, METHODS[1], metric))
    assert value(document, cases[1], METHODS[2], metric) == best(all_values(document, METHODS[2], metric))
    assert cases[0].why.startswith(f"worst {metric} of {METHODS[1]}: ")
    assert cases[1].why.startswith(f"best {metric} of {METHODS[2]}: ")


def test_far_ahead_of_the_baseline_and_far_behind() -> None:
    document = make_document()
    for row in document["slices"]:
        if (row["volume"], row["slice"]) == ("file2.h5", 1):
            row[SSIM] = {METHODS[0]: 0.8, METHODS[1]: 0.79, METHODS[2]: 0.83}[row["method"]]
        if (row["volume"], row["slice"]) == ("file5.h5", 0):
            row[SSIM] = {METHODS[0]: 0.75, METHODS[1]: 0.95, METHODS[2]: 0.96}[row["method"]]
    cases = choose_cases(document, focus=SSIM, count=24)
    reasons = {case[:2]: case.why for case in cases}
    assert f"{METHODS[1]} most behind {METHODS[0]} in {SSIM}: -0.01" in reasons["file2.h5", 1]
    assert f"{METHODS[2]} most ahead of {METHODS[0]} in {SSIM}: 0.21" in reasons["file5.h5", 0]
    # nobody else is behind: no case says so of them
    assert sum("most behind" in why for why in reasons.values()) == 1


def test_cases_are_spread_over_volumes_and_methods_and_are_the_same_each_time() -> None:
    document = make_document()
    cases = choose_cases(document, focus=SSIM, count=12)
    assert len(cases) == len({case[:2] for case in cases}) == 12
    assert max(Counter(case.volume for case in cases).values()) <= 2  # 12 of 8 volumes, rounded up
    assert all(any(method in case.why for case in cases) for method in METHODS)
    shuffled = {**document, "slices": document["slices"][::-1]}
    assert choose_cases(shuffled, focus=SSIM, count=12) == cases
    assert choose_cases(document, focus=SSIM, count=5) == choose_cases(document, focus=SSIM, count=5)


def test_one_bad_volume_does_not_fill_the_list() -> None:
    document = make_document()
    for row in document["slices"]:
        if row["volume"] == "file3.h5":
            row[SSIM] = 0.1 + 0.01 * row["slice"]
    volumes = [case.volume for case in choose_cases(document, focus=SSIM, count=8)]
    assert volumes[0] == "file3.h5" and len(set(volumes)) == 8
    assert [case.volume for case in choose_cases(document, focus=SSIM, count=16)].count("file3.h5") == 2


def test_no_more_cases_than_slices() -> None:
    document = make_document(num_volumes=1)
    cases = choose_cases(document, focus=SSIM, count=12)
    assert sorted(case.slice_num for case in cases) == [0, 1, 2]
    assert {case.contrast for case in cases} == {"PD"}


def test_slices_without_a_value_are_not_chosen() -> None:
    document = make_document()
    kept = ("file4.h5", 2)
    for row in document["slices"]:
        if (row["volume"], row["slice"]) != kept:
            row[SSIM] = None
        elif row["method"] == METHODS[0]:
            row[SSIM] = float("nan")
    assert [case[:2] for case in choose_cases(document, focus=SSIM, count=4)] == [kept]


def test_a_metric_that_single_slices_do_not_have() -> None:
    document = copy.deepcopy(make_document())
    for row in document["slices"]:
        row[SSIM] = None
    cases = choose_cases(document, focus=SSIM, count=3)
    assert [(case.volume, case.slice_num) for case in cases] == [(f"file{i}.h5", 1) for i in range(3)]
    assert "no SSIM" in cases[0].why


def test_neither_large_nor_small_is_better() -> None:
    document = make_document()
    case = choose_cases(document, focus="sharpness", count=1)[0]
    assert case.why.startswith(f"lowest sharpness of {METHODS[1]}")
    assert value(document, case, METHODS[1], "sharpness") == min(all_values(document, METHODS[1], "sharpness"))


def test_one_method_is_its_own_baseline() -> None:
    cases = choose_cases(make_document(methods=METHODS[:1]), focus=SSIM, count=4)
    assert [case.why.split()[0] for case in cases] == ["worst", "best", "worst", "best"]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="focus must be one of the metrics SSIM"):
        choose_cases(make_document(), focus="SSIM", count=3)
    with pytest.raises(ValueError, match="count must be at least 1"):
        choose_cases(make_document(), focus=SSIM, count=0)
