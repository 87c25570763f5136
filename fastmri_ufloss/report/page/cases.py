"""Slices worth looking at: where a method does worst and best, and where it differs most from the baseline."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Case", "choose_cases"]

Place = tuple[str, int]  # volume and slice


class Case(NamedTuple):
    """A slice to show, and why."""

    volume: str
    slice_num: int
    contrast: str
    why: str


class _Queue(NamedTuple):
    """Slices of a method with their values, the most extreme first."""

    kind: int
    method: str
    what: str  # such as "worst SSIM of MoDL"
    slices: list[tuple[Place, float]]


def choose_cases(document: Mapping[str, Any], *, focus: str, count: int) -> list[Case]:
    """At most ``count`` slices: a worst, a best, one far behind the baseline, one far before the baseline, and so on.

    The four kinds take turns, in this order, and in each kind the methods: next is the method that has been looked
    at least often so far; of several the earlier one of the document, the baseline last. A turn takes the method's
    most extreme slice that has not been taken. A volume gives at most count / number of volumes slices, rounded up,
    so that unlike scans are seen. A metric that is neither better large nor better small shows its lowest and its
    highest values. Where single slices have no value of it, the middle slices of the volumes are taken. A focus that
    is no metric of the document, and a count below 1, raise ValueError.
    """
    metrics = {metric["name"]: metric for metric in document["metrics"]}
    if focus not in metrics:
        raise ValueError(f"focus must be one of the metrics {', '.join(metrics)}, got {focus!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    contrasts = {(row["volume"], row["slice"]): row["contrast"] for row in document["slices"]}
    queues = _queues(document, metrics[focus])
    if not queues:
        return _middle_slices(contrasts, focus)[:count]
    most = math.ceil(count / len({volume for volume, _ in contrasts}))
    reasons = _take_turns(queues, document["baseline"], count=count, most=most)
    return [Case(*place, contrasts[place], "; ".join(why)) for place, why in reasons.items()]


def _take_turns(queues: Sequence[_Queue], baseline: str, *, count: int, most: int) -> dict[Place, list[str]]:
    """The reasons for each chosen slice, in the order of choice."""
    reasons: dict[Place, list[str]] = {}
    turns: Counter[str] = Counter()
    taken: Counter[str] = Counter()  # slices of a volume

    def is_free(place: Place) -> bool:
        return place not in reasons and taken[place[0]] < most

    waiting = list(queues)
    kind = 0
    while waiting and len(reasons) < count:
        if of_kind := [queue for queue in waiting if queue.kind == kind]:
            queue = min(of_kind, key=lambda queue: (turns[queue.method], queue.method == baseline))
            waiting.remove(queue)
            turns[queue.method] += 1
            for rank, (place, value) in enumerate(queue.slices):
                why = f"{queue.what}: {value:.4g}" + (f" (number {rank + 1})" if rank else "")
                if is_free(place):
                    reasons[place] = [why]
                    taken[place[0]] += 1
                    break
                if rank == 0 and place in reasons:
                    reasons[place].append(why)
            # all queues again, as long as one has a slice to give
            waiting = waiting or [q for q in queues if any(is_free(place) for place, _ in q.slices)]
        kind = (kind + 1) % 4
    return reasons


def _queues(document: Mapping[str, Any], metric: Mapping[str, Any]) -> list[_Queue]:
    name, larger, baseline = metric["name"], metric["larger_is_better"], document["baseline"]
    values: dict[str, dict[Place, float]] = defaultdict(dict)
    for row in document["slices"]:
        if row.get(name) is not None and math.isfinite(row[name]):
            values[row["method"]][row["volume"], row["slice"]] = row[name]
    words = ("worst", "best", "most behind", "most ahead of")
    if larger is None:
        words = ("lowest", "highest", "farthest below", "farthest above")
    queues = []
    for method in document["methods"]:
        ahead = {place: value - values[baseline].get(place, math.nan) for place, value in values[method].items()}
        for kind, word in enumerate(words):
            sign = (-1 if larger is False else 1) * (1 if kind % 2 == 0 else -1)
            what, chosen = f"{word} {name} of {method}", values[method]
            if kind >= 2:
                what = f"{method} {word} {baseline} in {name}"
                chosen = {place: value for place, value in ahead.items() if sign * value < 0}
            if chosen:
                slices = sorted(chosen.items(), key=lambda item: (sign * item[1], item[0]))
                queues.append(_Queue(kind, method, what, slices))
    return queues


def _middle_slices(contrasts: Mapping[Place, str], focus: str) -> list[Case]:
    places: dict[str, list[Place]] = defaultdict(list)
    for place in sorted(contrasts):
        places[place[0]].append(place)
    middles = [of_volume[len(of_volume) // 2] for of_volume in places.values()]
    return [Case(*place, contrasts[place], f"middle slice (single slices have no {focus})") for place in middles]
