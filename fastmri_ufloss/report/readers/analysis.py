"""What follows from the answers of a reader study: opinion scores, preferences, agreement, and other scores' fit."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from fastmri_ufloss.checks import check
from fastmri_ufloss.metrics.paired import bootstrap_interval
from fastmri_ufloss.report.readers.answers import PREFERENCE, Scores, scores_of_images
from fastmri_ufloss.report.readers.study import SCALE
from fastmri_ufloss.report.subject_tables import SubjectScores, comparison_rows, plain, statistics_notes

__all__ = ["analyze", "bradley_terry"]

PRIOR = 0.1  # wins of each method over each other that are added, so that strengths stay finite
NUM_RESAMPLES = 1000
Row = dict[str, Any]


def analyze(
    key: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    baseline: str | None = None,
    report: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Tables of a study, in plain values.

    Args:
        key, rows: of `read_key` and `collect`.
        baseline: the method that others are compared with, the first if not given.
        report: the document of a report of the same methods and files, whose scores are correlated with the readers'.

    Returns:
        ``opinion``: mean opinion score and standard deviation over all images and readers, by criterion and method,
        with a 95% interval by bootstrap over subjects. Of pairs the score is the part of its comparisons that an
        image wins, 1/2 for equal. ``comparisons``: differences by subject, as in a report, two-sided Wilcoxon tests
        with Holm's correction. ``strengths``: of pairs, log strengths by `bradley_terry`, whose mean is 0.
        ``agreement``: between readers, Krippendorff's alpha (ordinal) and the mean weighted kappa (quadratic) of all
        pairs of readers; of each reader with himself, the weighted kappa of what was shown twice.
        ``correlations``: Spearman's and Kendall's coefficients of each score of the report and the readers' mean,
        over the images of a subject, the mean over subjects with its interval. ``notes``.

    Raises:
        ValueError: for an unknown baseline, or a report that has none of the images.
    """
    methods = list(key["methods"])
    baseline = baseline or methods[0]
    check(baseline in methods, "baseline", f"one of {', '.join(methods)}", repr(baseline))
    subjects = {row["volume"]: row["subject"] for row in rows}
    scores = scores_of_images(key, rows)
    by_subject = _by_subject(scores, subjects)
    compared = comparison_rows(by_subject, dict.fromkeys(by_subject, True), baseline=baseline)
    notes = list(statistics_notes(by_subject, compared, list(by_subject), baseline))
    document = {
        "study": key["study"],
        "protocol": key["protocol"],
        "methods": methods,
        "baseline": baseline,
        "readers": sorted({row["reader"] for row in rows}),
        "opinion": _opinion(scores, by_subject, methods),
        "comparisons": compared,
        "strengths": _strengths(methods, rows) if key["protocol"] == "pairs" else [],
        "agreement": _agreement(key, rows),
        "correlations": [] if report is None else _correlations(scores, subjects, report),
        "notes": notes,
    }
    result: dict[str, Any] = plain(document)
    return result


def _by_subject(scores: Scores, subjects: Mapping[str, str]) -> SubjectScores:
    values: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for name, of in scores.items():
        for (method, volume, _), given in of.items():
            values[name][method][subjects[volume]] += given
    return {
        name: {method: {subject: float(np.mean(v)) for subject, v in each.items()} for method, each in of.items()}
        for name, of in values.items()
    }


def _opinion(scores: Scores, by_subject: SubjectScores, methods: Sequence[str]) -> list[Row]:
    rows = []
    for name, of in scores.items():
        for method in methods:
            given = np.array([score for (m, *_), each in of.items() if m == method for score in each])
            if given.size:
                low, high = bootstrap_interval(list(by_subject[name][method].values()))
                spread = float(given.std(ddof=1)) if given.size > 1 else np.nan
                numbers = {"mean": float(given.mean()), "std": spread, "95% from": low, "95% to": high}
                rows.append({"criterion": name, "method": method, "answers": given.size, **numbers})
    return rows


def bradley_terry(wins: np.ndarray, *, prior: float = PRIOR) -> np.ndarray:
    """Log strengths b of methods, of mean 0: P(i better than j) = exp(b_i) / (exp(b_i) + exp(b_j)).

    ``wins[i, j]`` counts how often i was better than j, 1/2 for equal; ``prior`` is added to each, so that a method
    that always wins has a finite strength. Maximum likelihood by Hunter's iteration (Annals of Statistics 2004).
    """
    wins = wins + prior * (1 - np.eye(len(wins)))
    games, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(10_000):
        new = wins.sum(axis=1) / (games / (strength[:, None] + strength)).sum(axis=1)
        new /= np.exp(np.log(new).mean())
        if np.abs(np.log(new / strength)).max() < 1e-10:
            break
        strength = new
    result: np.ndarray = np.log(new)
    return result


def _strengths(methods: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Strengths with intervals by bootstrap over subjects."""
    index = {method: number for number, method in enumerate(methods)}
    wins: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(methods), len(methods))))
    for row in rows:
        if not row["repeat"]:
            left, right = index[row["left"]], index[row["right"]]
            won = {"left": 1.0, "equal": 0.5, "right": 0.0}[row["choice"]]
            wins[row["subject"]][left, right] += won
            wins[row["subject"]][right, left] += 1 - won
    of_subjects = np.stack([wins[subject] for subject in sorted(wins)])
    strengths = bradley_terry(of_subjects.sum(axis=0))
    ends = np.full((2, len(methods)), np.nan)
    if len(of_subjects) > 1:
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(of_subjects), size=(NUM_RESAMPLES, len(of_subjects)))
        resampled = np.stack([bradley_terry(of_subjects[indices].sum(axis=0)) for indices in drawn])
        ends = np.quantile(resampled, [0.025, 0.975], axis=0)
    total = of_subjects.sum(axis=0)
    return [
        {
            "method": method,
            "strength": strengths[number],
            "95% from": ends[0, number],
            "95% to": ends[1, number],
            "won": total[number].sum(),
            "lost": total[:, number].sum(),
        }
        for method, number in index.items()
    ]


def _agreement(key: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Between readers, and of each reader with himself."""
    try:
        import krippendorff
        from sklearn.metrics import cohen_kappa_score
    except ImportError as error:
        advice = "pip install 'fastmri-ufloss[readers]'"
        raise ImportError(f"agreement needs krippendorff and scikit-learn ({error}): {advice}") from error
    ratings = key["protocol"] == "rating"
    levels = list(SCALE) if ratings else [0, 1, 2]

    def kappa(first: Sequence[int], second: Sequence[int]) -> float:
        if len(first) < 2 or len(set(first) | set(second)) < 2:
            return float("nan")
        return float(cohen_kappa_score(first, second, labels=levels, weights="quadratic"))

    table: list[Row] = []
    for criterion in key["criteria"] if ratings else [PREFERENCE]:
        given: dict[str, dict[tuple[Any, ...], int]] = defaultdict(dict)  # by reader, what by an image or a pair
        twice: dict[str, list[tuple[int, int]]] = defaultdict(list)
        first: dict[tuple[str, str], int] = {}
        for row in rows:
            if ratings and row["criterion"] != criterion:
                continue
            what, level = _answer(row, ratings=ratings)
            if row["repeat"]:
                if (row["reader"], row["first"]) in first:
                    twice[row["reader"]].append((first[row["reader"], row["first"]], level))
            else:
                given[row["reader"]][what] = level
                first[row["reader"], row["item"]] = level
        pairs = []
        for a, b in combinations(sorted(given), 2):
            both = sorted(given[a].keys() & given[b].keys())
            pairs.append(kappa([given[a][w] for w in both], [given[b][w] for w in both]))
        alpha = float("nan")
        if len(given) > 1 and len({level for of in given.values() for level in of.values()}) > 1:
            everything = sorted(set().union(*given.values()))
            matrix = [[of.get(what, np.nan) for what in everything] for of in given.values()]
            alpha = float(
                krippendorff.alpha(reliability_data=np.array(matrix, float), level_of_measurement="ordinal")
            )
        known = [value for value in pairs if not np.isnan(value)]
        mean = float(np.mean(known)) if known else float("nan")
        table.append(
            {"criterion": criterion, "between": "readers", "answers": sum(map(len, given.values())),
             "weighted kappa": mean, "Krippendorff's alpha": alpha}
        )  # fmt: skip
        for reader, levels_of in sorted(twice.items()):
            own = kappa(*(list(each) for each in zip(*levels_of, strict=True)))
            table.append(
                {"criterion": criterion, "between": f"{reader}, twice", "answers": len(levels_of),
                 "weighted kappa": own, "Krippendorff's alpha": None}
            )  # fmt: skip
    return table


def _answer(row: Mapping[str, Any], *, ratings: bool) -> tuple[tuple[Any, ...], int]:
    """What was asked, the same for all readers, and the answer as a level."""
    place = row["volume"], row["slice"]
    if ratings:
        return (*place, row["method"]), int(row["score"])
    first, second = sorted((row["left"], row["right"]))
    level = {"left": 2, "equal": 1, "right": 0}[row["choice"]]  # how much the first is better
    return (*place, first, second), level if row["left"] == first else 2 - level


def _correlations(scores: Scores, subjects: Mapping[str, str], report: Mapping[str, Any]) -> list[Row]:
    """How well each score of a report goes with the readers'."""
    known = {(row["method"], row["volume"], row["slice"]): row for row in report["slices"]}
    table: list[Row] = []
    coefficients: dict[str, Callable[..., Any]] = {"Spearman": stats.spearmanr, "Kendall": stats.kendalltau}
    for criterion, of in scores.items():
        shared = [place for place in of if place in known]
        if not shared:
            raise ValueError("report must have images of the study: its methods, files and slices are all others")
        for metric in report["metrics"]:
            found: dict[str, list[float]] = {name: [] for name in coefficients}
            for subject in sorted({subjects[volume] for _, volume, _ in shared}):
                pairs = [
                    (known[place][metric["name"]], np.mean(of[place]))
                    for place in shared
                    if subjects[place[1]] == subject and known[place].get(metric["name"]) is not None
                ]
                a, b = np.array(pairs, float).reshape(-1, 2).T
                if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0:
                    for name, coefficient in coefficients.items():
                        found[name].append(float(coefficient(a, b).statistic))
            row: Row = {"criterion": criterion, "metric": metric["name"], "subjects": len(found["Spearman"])}
            for name, values in found.items():
                low, high = bootstrap_interval(values) if values else (np.nan, np.nan)
                row |= {name: np.mean(values) if values else np.nan, f"{name} 95% from": low, f"{name} 95% to": high}
            table.append(row)
    return table
