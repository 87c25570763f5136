"""Slices worth looking at: where a method does worst and best, and where it differs most from the baseline."""

import math
from collections import Counter
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
    highest values. Where single slices have no value of it, the middle slices of the volumes are taken.

    Raises:
        ValueError: if focus is no metric of the document, or count is below 1.
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
                why = f"{queue.what}: {value:.4g}" + (f" ({_ordinal(rank)})" if rank else "")
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
    values: dict[str, dict[Place, float]] = {method: {} for method in document["methods"]}
    name, larger, baseline = metric["name"], metric["larger_is_better"], document["baseline"]
    for row in document["slices"]:
        value = row.get(name)
        if value is not None and math.isfinite(value) and row["method"] in values:
            values[row["method"]][row["volume"], row["slice"]] = float(value)
    words = ("worst", "best", "most behind", "most ahead of")
    if larger is None:
        words = ("lowest", "highest", "farthest below", "farthest above")
    queues = []
    for method, of_method in values.items():
        base = values[baseline]
        ahead = {place: value - base[place] for place, value in of_method.items() if place in base}
        for kind, word in enumerate(words if method != baseline else words[:2]):
            sign = (-1 if larger is False else 1) * (1 if kind % 2 == 0 else -1)
            if kind < 2:
                what, chosen = f"{word} {name} of {method}", of_method
            else:
                what = f"{method} {word} {baseline} in {name}"
                chosen = {place: value for place, value in ahead.items() if sign * value < 0}
            if chosen:
                slices = sorted(chosen.items(), key=lambda item: (sign * item[1], item[0]))
                queues.append(_Queue(kind, method, what, slices))
    return queues


def _middle_slices(contrasts: Mapping[Place, str], focus: str) -> list[Case]:
    volumes: dict[str, list[int]] = {}
    for volume, slice_num in sorted(contrasts):
        volumes.setdefault(volume, []).append(slice_num)
    why = f"middle slice (single slices have no {focus})"
    middles = {volume: numbers[len(numbers) // 2] for volume, numbers in volumes.items()}
    return [Case(volume, number, contrasts[volume, number], why) for volume, number in middles.items()]


def _ordinal(rank: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get((rank + 1) % 10, "th")
    return f"{rank + 1}{'th' if 10 <= (rank + 1) % 100 <= 20 else suffix}"
