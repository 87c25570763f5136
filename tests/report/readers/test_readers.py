"""A reader study from folders to tables: what a page holds, what files are refused, and what answers come to."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import krippendorff
import numpy as np
import pytest
from report_data import NAMES, make_folders, read, write
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from fastmri_ufloss.report import __main__ as report_command
from fastmri_ufloss.report.readers import __main__ as command
from fastmri_ufloss.report.readers.analysis import analyze, bradley_terry
from fastmri_ufloss.report.readers.answers import checksum, collect, read_key
from fastmri_ufloss.report.readers.study import SCALE, StudySettings, choose_slices, make_study
from fastmri_ufloss.report.reconstructions import Reconstructions

METHODS = ("noisy", "dim")
QUALITY = {"reference": 3.6, "dim": 2.8, "noisy": 1.6}
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder with a reference and two methods; gives what it printed."""
    make_folders(tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*options: object, fails: bool = False) -> str:
        capfd.readouterr()
        assert command.main(list(map(str, options))) == fails
        printed = capfd.readouterr()
        return printed.err if fails else printed.out

    return call


def make(run: Run, *options: object, readers: tuple[str, ...] = ("ann", "ben")) -> dict[str, Any]:
    run("make", *METHODS, "--output_path", "study", "--reference", "reference", *options, "--readers", *readers)
    return read_key("study/key.json")


def answer(key: dict[str, Any], reader: str, *, noise: float = 0.0, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What a reader sends back whose scores follow a rule with noise."""
    rng, answers = np.random.default_rng(seed), []
    for name, item in key["readers"][reader].items():
        if key["protocol"] == "rating":
            scores = {
                c: int(np.clip(round(QUALITY[item["method"]] + noise * rng.normal()), 1, 4)) for c in key["criteria"]
            }
            answers.append({"item": name, "values": scores, "seconds": 1.5})
        else:
            better = QUALITY[item["left"]] - QUALITY[item["right"]] + noise * rng.normal()
            choice = "equal" if abs(better) < 0.1 else "left" if better > 0 else "right"
            answers.append({"item": name, "choice": choice, "seconds": 2.0})
    document = {"study": key["study"], "reader": reader, "protocol": key["protocol"], "answers": answers}
    return {**document, "complete": True, "checksum": checksum(key, answers), **changes}


def save(document: dict[str, Any], name: str) -> str:
    Path(name).write_text(json.dumps(document))
    return name


def test_a_page_tells_nothing_and_the_key_everything(run: Run) -> None:
    with h5py.File("noisy/a.h5", "a") as file:
        file.attrs["patient_id"] = "patient-one"
    printed = run("make", *METHODS, "--output_path", "study", "--reference", "reference", "--readers", "ann", "ben")
    assert "6 slices of 3 volumes" in printed and "Key, not for readers: study/key.json" in printed
    key = read_key("study/key.json")
    pages = {reader: Path(f"study/reader_{reader}.html").read_text(encoding="utf-8") for reader in ("ann", "ben")}
    seen = set()
    for reader, page in pages.items():
        text = re.sub(r'"data":"[^"]*"', "", page)  # what may be anything
        data = text[text.index('id="study"') : text.rindex("<script>")]
        for word in ("noisy", "dim", "reference", "a.h5", "patient", "slice"):
            assert word not in data
        assert "http" not in data
        items = key["readers"][reader]
        shown = Counter((item["volume"], item["slice"], item["method"]) for item in items.values())
        assert len(shown) == 6 * 3 and set(shown.values()) == {1}
        asked = json.loads(re.search(r'id="study">(.*?)</script>', page)[1])
        assert [item["id"] for item in asked["items"]] == list(items)
        tokens = re.findall(r'id="image-(\w+)"', page)
        assert sorted(tokens) == sorted(token for item in asked["items"] for token in item["images"])
        assert not seen & {*items, *tokens}  # nothing that links the pages
        seen |= {*items, *tokens}
    orders = [[(i["volume"], i["slice"], i["method"]) for i in of.values()] for of in key["readers"].values()]
    assert orders[0] != orders[1]


def test_the_same_seed_is_the_same_study(run: Run) -> None:
    for folder, seed in (("one", 3), ("two", 3), ("three", 4)):
        run("make", *METHODS, "--output_path", folder, "--readers", "ann", "--seed", seed)
    pages = [Path(folder, "reader_ann.html").read_bytes() for folder in ("one", "two", "three")]
    assert pages[0] == pages[1] != pages[2]


def test_slices_are_chosen_by_rules(run: Run) -> None:
    data = Reconstructions({m: m for m in METHODS}, {}, segmentations="val")
    places = [(files.name, n) for files in data.volumes for n in range(2)]

    def chosen(rule: str) -> list[tuple[str, int]]:
        return [(files.name, n) for files, n in choose_slices(data, rule)]

    assert chosen("all") == places
    assert chosen("segmented") == places[1:]  # the first slice of the first volume has no class
    assert chosen("every:2") == [(name, 1) for name in NAMES]
    assert chosen("every:9") == [(name, 1) for name in NAMES]  # at least one of each volume
    spread = {}
    for name, n in places:
        images = np.stack([read(Path(method, name))[n] for method in METHODS]).astype(float)
        spread[name, n] = np.square(images - images.mean(axis=0)).sum() / np.square(images.mean(axis=0)).sum()
    assert chosen("different:2") == sorted(sorted(spread, key=spread.__getitem__)[-2:])
    without = Reconstructions({m: m for m in METHODS}, {})
    for rule, message in (("every:0", "every:N or different:K"), ("some", "must be"), ("segmented", "segmentations")):
        with pytest.raises(ValueError, match=message):
            choose_slices(without, rule)


def test_repeats_come_later_and_pairs_are_complete(run: Run) -> None:
    key = make(run, "--protocol", "pairs", "--repeats", 5)
    lefts = Counter()
    for items in key["readers"].values():
        first = {name: item for name, item in items.items() if item["repeat_of"] is None}
        pairs = Counter((i["volume"], i["slice"], *sorted((i["left"], i["right"]))) for i in first.values())
        assert len(pairs) == 6 * 3 and set(pairs.values()) == {1}
        lefts.update(item["left"] for item in first.values())
        repeats = {name: item for name, item in items.items() if item["repeat_of"] is not None}
        assert len(repeats) == len({item["repeat_of"] for item in repeats.values()}) == 5
        order = list(items)
        for name, item in repeats.items():
            original = items[item["repeat_of"]]
            assert order.index(name) > max(order.index(item["repeat_of"]), len(order) // 3)
            assert {**item, "repeat_of": None} == original
    assert min(lefts[m] for m in (*METHODS, "reference")) > 3  # sides are by chance


def test_opinion_scores_and_tests_are_those_of_the_answers(run: Run) -> None:
    key = make(run, "--criteria", "overall", "sharpness", "--repeats", 4)
    documents = [answer(key, reader, noise=0.7, seed=seed) for seed, reader in enumerate(("ann", "ben"))]
    files = [save(document, f"{document['reader']}.json") for document in documents]
    printed = run("analyze", "--key", "study/key.json", "--output_path", "out", "--baseline", "dim", *files)
    assert "opinion" in printed and "Krippendorff" in printed
    result = json.loads(Path("out/readers.json").read_text())
    given = defaultdict(list)
    twice: dict[str, list[list[int]]] = defaultdict(lambda: [[], []])
    for document in documents:
        items = key["readers"][document["reader"]]
        scores = {a["item"]: a["values"]["sharpness"] for a in document["answers"]}
        for name, score in scores.items():
            item = items[name]
            if item["repeat_of"] is None:
                given[item["method"], item["volume"]].append((document["reader"], item["slice"], score))
            else:
                twice[document["reader"]][0].append(scores[item["repeat_of"]])
                twice[document["reader"]][1].append(score)
    for method in (*METHODS, "reference"):
        every = [score for (m, _), of in given.items() if m == method for *_, score in of]
        (row,) = (r for r in result["opinion"] if (r["criterion"], r["method"]) == ("sharpness", method))
        assert row["answers"] == len(every) == 12
        assert (row["mean"], row["std"]) == pytest.approx((np.mean(every), np.std(every, ddof=1)))
    subject_means = {m: [np.mean([s for *_, s in given[m, name]]) for name in NAMES] for m in ("dim", "noisy")}
    (row,) = (r for r in result["comparisons"] if (r["metric"], r["second"]) == ("sharpness", "noisy"))
    assert row["difference"] == pytest.approx(np.mean(np.subtract(subject_means["noisy"], subject_means["dim"])))
    assert row["p"] == pytest.approx(stats.wilcoxon(subject_means["noisy"], subject_means["dim"]).pvalue)
    matrix = np.array(
        [[score for key_ in sorted(given) for r, _, score in sorted(given[key_]) if r == reader]
         for reader in ("ann", "ben")]
    )  # fmt: skip
    (row,) = (r for r in result["agreement"] if (r["criterion"], r["between"]) == ("sharpness", "readers"))
    expected = krippendorff.alpha(matrix.astype(float), level_of_measurement="ordinal")
    assert row["Krippendorff's alpha"] == pytest.approx(expected)
    kappa = cohen_kappa_score(*matrix, labels=list(SCALE), weights="quadratic")
    assert row["weighted kappa"] == pytest.approx(kappa)
    for reader, pair in twice.items():
        (row,) = (
            r for r in result["agreement"] if (r["criterion"], r["between"]) == ("sharpness", f"{reader}, twice")
        )
        own = cohen_kappa_score(*pair, labels=list(SCALE), weights="quadratic")
        assert row["weighted kappa"] is None or row["weighted kappa"] == pytest.approx(own)
    for name in ("readers.json", "answers.json", "opinion.csv", "agreement.csv", "opinion.png", "opinion.pdf"):
        assert Path("out", name).is_file()


def test_a_rule_is_found_back_from_pairs(run: Run) -> None:
    key = make(run, "--protocol", "pairs", "--repeats", 3, readers=("ann", "ben", "cem"))
    files = [
        save(answer(key, reader, noise=1.5, seed=seed), f"{reader}.json")
        for seed, reader in enumerate(key["readers"])
    ]
    result = analyze(key, collect(key, files))
    strengths = {row["method"]: row["strength"] for row in result["strengths"]}
    assert strengths["reference"] > strengths["dim"] > strengths["noisy"]
    assert sum(strengths.values()) == pytest.approx(0)
    assert sum(row["won"] for row in result["strengths"]) == 6 * 3 * 3  # repeats do not count


def test_bradley_terry_is_the_maximum_of_the_likelihood() -> None:
    truth = np.array([0.9, 0.1, -1.0])
    chance = 1 / (1 + np.exp(truth - truth[:, None]))
    wins = 400 * chance * (1 - np.eye(3))
    np.testing.assert_allclose(bradley_terry(wins, prior=0), truth, atol=1e-6)
    always = np.array([[0, 5.0], [0, 0]])
    assert np.isfinite(bradley_terry(always)).all() and np.diff(bradley_terry(always)) < 0


def test_scores_of_a_report_go_with_the_readers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_command, "write_report", lambda *_, **__: None)
    for name in NAMES:  # a third method, so that a subject has six images
        write(Path("best", name), read(Path("reference", name)) * np.float32(0.99))
    monkeypatch.setitem(QUALITY, "best", 3.4)
    methods = (*METHODS, "best")
    run("make", *methods, "--output_path", "study", "--readers", "ann")
    key = read_key("study/key.json")
    file = save(answer(key, "ann"), "ann.json")
    report = ["--reference", "reference", "--output_path", "report"]
    assert report_command.main([*methods, *report]) == 0
    run("analyze", "--key", "study/key.json", "--output_path", "out", "--report", "report/report.json", file)
    rows = {row["metric"]: row for row in json.loads(Path("out/readers.json").read_text())["correlations"]}
    document = json.loads(Path("report/report.json").read_text())
    items = {(i["method"], i["volume"], i["slice"]): QUALITY[i["method"]] for i in key["readers"]["ann"].values()}
    values = []
    for name in NAMES:
        pairs = [
            (row["SSIM (reference)"], round(items[row["method"], name, row["slice"]]))
            for row in document["slices"]
            if row["volume"] == name
        ]
        values.append(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    assert rows["SSIM (reference)"]["Spearman"] == pytest.approx(np.mean(values))
    assert rows["NRMSE (reference)"]["Spearman"] < 0 < rows["SSIM (reference)"]["Kendall"]
    # and beside the other scores in the report itself
    assert report_command.main([*methods, *report, "--readers", "out/answers.json"]) == 0
    document = json.loads(Path("report/report.json").read_text())
    name = "readers: overall image quality"
    assert name in [metric["name"] for metric in document["metrics"] if metric["tested"]]
    for row in document["slices"]:
        assert row[name] == round(QUALITY[row["method"]])
    assert any(row["metric"] == name for row in document["comparisons"])


def test_answers_that_do_not_fit_are_named(run: Run) -> None:
    key = make(run)
    good = answer(key, "ann")
    first = good["answers"][0]
    other = save(answer(key, "ben"), "ben.json")

    def with_answers(answers: list[dict[str, Any]]) -> dict[str, Any]:
        return {**good, "answers": answers, "checksum": checksum(key, answers)}

    bad_score = {**first, "values": {"overall image quality": 5}}
    cases = [
        ({**good, "study": "0" * 16}, "is of another study"),
        ({**good, "reader": "cem"}, "reader of ann.json must be one of ann, ben, got 'cem'"),
        ({**good, "answers": [{**first, "values": {"overall image quality": 2 + first["values"][
            "overall image quality"] % 3}}, *good["answers"][1:]]}, "was changed after the page had saved it"),
        (with_answers([bad_score, *good["answers"][1:]]), "must be a whole number from 1 to 4, got 5"),
        (with_answers(good["answers"][:-2]), "ann.json has 16 of 18 answers: let 'ann' finish"),
        (with_answers([*good["answers"], first]), "or has it twice"),
        (with_answers([{**first, "item": "f" * 16}]), "which is not in the study"),
        ({"answers": 3}, "must be a file of answers"),
    ]  # fmt: skip
    options = ["collect", "--key", "study/key.json", "--output_path", "out"]
    for document, message in cases:
        assert message in run(*options, save(document, "ann.json"), other, fails=True)
        assert not Path("out").exists()
    assert "are both of reader 'ben'" in run(*options, other, save(answer(key, "ben"), "again.json"), fails=True)
    assert "no answers of reader ann; --incomplete goes on" in run(*options, other, fails=True)
    Path("text.json").write_text("hello")
    assert "text.json must be JSON" in run(*options, "text.json", fails=True)
    assert "no file nowhere.json" in run(*options, "nowhere.json", fails=True)
    half = save(with_answers(good["answers"][:7]), "half.json")
    assert "25 answers of 2 readers (ann, ben)" in run(*options, half, other, "--incomplete")
    assert "must be the key.json" in run("collect", "--key", other, "--output_path", "out", other, fails=True)


def test_studies_that_cannot_be_are_named(run: Run) -> None:
    base = ["make", "--output_path", "study", "--readers", "ann"]
    write(Path("short", "a.h5"), read(Path("noisy", "a.h5")))
    broken = read(Path("noisy", "b.h5"))
    broken[1, 3, 3] = np.nan
    for name in NAMES:
        write(Path("broken", name), broken if name == "b.h5" else read(Path("noisy", name)))
    for options, message in [
        (["noisy"], "must compare at least two methods, or a method and a reference, got ['noisy']"),
        (["noisy", "short"], "short lacks b.h5"),
        (["noisy", "broken"], "b.h5, slice 1: NaN or infinite values in broken"),
        ([*METHODS, "--beside"], "beside must be for a study with a reference"),
        ([*METHODS, "--repeats", 99], "repeats must be at most 12, got 99"),
        ([*METHODS, "--criteria", "a", "a"], "criteria must be different texts"),
        ([*METHODS, "--slices", "9th"], "slices must be all, segmented, every:N or different:K, got '9th'"),
    ]:
        assert message in run(*base[:1], *options, *base[1:], fails=True)
        assert not Path("study").exists() or not list(Path("study").iterdir())
    with pytest.raises(ValueError, match="readers must be different names"):
        StudySettings(("a b",))
    run(*base[:1], *METHODS, *base[1:])
    assert "key.json is the key of another study" in run(*base[:1], *METHODS, *base[1:], fails=True)
    data = Reconstructions({m: m for m in METHODS}, {"reference": "reference"})
    pages = make_study(data, "beside", StudySettings(("ann",), beside=True), choose_slices(data, "all"))
    assert len(read_key("beside/key.json")["readers"]["ann"]) == 12 and pages[0].is_file()
