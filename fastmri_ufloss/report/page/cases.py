"""Slices worth looking at: where a method does worst and best, and where it differs most from the baseline."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Case", "choose_cases"]


class Case(NamedTuple):
    """A slice to show, and why."""

    volume: str
    slice_num: int
    contrast: str
    why: str


class _Queue(NamedTuple):
    """Slices of one method, the most extreme first."""

    kind: int
    method: str
    what: str  # such as "worst SSIM of MoDL"
    slices: list[tuple[float, str, int]]  # value, volume, slice


def choose_cases(document: Mapping[str, Any], *, focus: str, count: int) -> list[Case]:
    """Slices of a report: a worst one, a best one, one far behind the baseline, one far before it, and so on.

    The four kinds take turns, in this order, and in each kind the methods: next is the method that has been looked
    at least often so far; of several the earlier one of the document, the baseline last. A turn takes the method's
    most extreme slice that has not been taken. A volume gives at most count / number of volumes slices, rounded up,
    so that unlike scans are seen. Of a metric that is neither better large nor better small the lowest and the
    highest values are shown. Where single slices have no value of it, the middle slices of the volumes are taken.

    Args:
        document: of the report, with ``methods``, ``baseline``, ``metrics`` and ``slices``.
        focus: name of the metric.
        count: number of cases; there are fewer if there are not so many slices.

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


def _take_turns(
    queues: Sequence[_Queue], baseline: str, *, count: int, most: int
) -> dict[tuple[str, int], list[str]]:
    """The reasons for each chosen slice, in the order of choice."""
    reasons: dict[tuple[str, int], list[str]] = {}
    turns: Counter[str] = Counter()
    open_queues = list(queues)
    kind = 0
    while open_queues and len(reasons) < count:
        of_kind = [queue for queue in open_queues if queue.kind == kind]
        kind = (kind + 1) % 4
        if not of_kind:
            continue
        queue = min(of_kind, key=lambda queue: (turns[queue.method], queue.method == baseline))
        open_queues.remove(queue)
        turns[queue.method] += 1
        taken = Counter(volume for volume, _ in reasons)
        for rank, (value, volume, slice_num) in enumerate(queue.slices):
            why = f"{queue.what}: {value:.4g}" + (f" ({_ordinal(rank)})" if rank else "")
            if (volume, slice_num) in reasons and rank == 0:
                reasons[volume, slice_num].append(why)
            if (volume, slice_num) not in reasons and taken[volume] < most:
                reasons[volume, slice_num] = [why]
                break
        if not open_queues:
            open_queues = _remaining(queues, reasons, most)
    return reasons


def _remaining(queues: Sequence[_Queue], reasons: Mapping[tuple[str, int], Any], most: int) -> list[_Queue]:
    """All queues again, as long as one has a slice to give."""
    taken = Counter(volume for volume, _ in reasons)

    def has_more(queue: _Queue) -> bool:
        return any((v, s) not in reasons and taken[v] < most for _, v, s in queue.slices)

    return [queue for queue in queues if has_more(queue)]


def _queues(document: Mapping[str, Any], metric: Mapping[str, Any]) -> list[_Queue]:
    values: dict[str, dict[tuple[str, int], float]] = {method: {} for method in document["methods"]}
    for row in document["slices"]:
        value = row.get(metric["name"])
        if value is not None and math.isfinite(value) and row["method"] in values:
            values[row["method"]][row["volume"], row["slice"]] = float(value)
    name, larger, baseline = metric["name"], metric["larger_is_better"], document["baseline"]
    sign = -1 if larger is False else 1  # the worst is the least of sign * value
    words = ("lowest", "highest", "farthest below", "farthest above")
    if larger is not None:
        words = ("worst", "best", "most behind", "most ahead of")
    queues = []
    for method, of_method in values.items():
        ends = [(0, f"{words[0]} {name} of {method}", of_method), (1, f"{words[1]} {name} of {method}", of_method)]
        if method != baseline:
            both = {place: value - values[baseline][place] for place, value in of_method.items()
                    if place in values[baseline]}  # fmt: skip
            behind, ahead = ({p: v for p, v in both.items() if end * sign * v > 0} for end in (-1, 1))
            ends.append((2, f"{method} {words[2]} {baseline} in {name}", behind))
            ends.append((3, f"{method} {words[3]} {baseline} in {name}", ahead))
        for kind, what, found in ends:
            order = sign if kind % 2 == 0 else -sign
            slices = sorted((order * value, *place) for place, value in found.items())
            if slices:
                queues.append(_Queue(kind, method, what, [(order * value, v, s) for value, v, s in slices]))
    return queues


def _middle_slices(contrasts: Mapping[tuple[str, int], str], focus: str) -> list[Case]:
    volumes: dict[str, list[int]] = {}
    for volume, slice_num in sorted(contrasts):
        volumes.setdefault(volume, []).append(slice_num)
    why = f"middle slice (single slices have no {focus})"
    middles = {volume: numbers[len(numbers) // 2] for volume, numbers in volumes.items()}
    return [Case(volume, number, contrasts[volume, number], why) for volume, number in middles.items()]


def _ordinal(rank: int) -> str:
    number = rank + 1
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
