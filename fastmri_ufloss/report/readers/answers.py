"""What readers have answered: their files against the key of the study."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmri_ufloss.checks import check
from fastmri_ufloss.files import name_some
from fastmri_ufloss.report.readers.study import FORMAT_VERSION, SCALE

__all__ = ["checksum", "collect", "opinion_of_slices", "read_answers", "read_key", "scores_of_images"]

CHOICES = ("left", "equal", "right")
PREFERENCE = "preference"
Scores = dict[str, dict[tuple[str, str, int], list[float]]]
Row = dict[str, Any]


def read_key(path: str | Path) -> dict[str, Any]:
    """The key of a study; ValueError for another file."""
    key = _read_json(Path(path))
    needed = ("study", "protocol", "criteria", "methods", "readers")
    if not isinstance(key, dict) or not key.keys() >= set(needed):
        raise ValueError(f"{path} must be the key.json of a reader study, it lacks some of {', '.join(needed)}")
    number = key.get("format_version")
    check(number == FORMAT_VERSION, f"the format of {path}", str(FORMAT_VERSION), number)
    return key


def collect(key: Mapping[str, Any], paths: Sequence[str | Path], *, incomplete: bool = False) -> list[Row]:
    """The answers of all readers: a row for each reader, item and, of ratings, criterion.

    A row has ``reader``, ``volume``, ``slice``, ``subject``, ``contrast``, ``repeat`` (whether the item was shown a
    second time), ``item``, ``first`` (the item that it repeats), ``seconds``; of ratings ``method``, ``criterion``
    and ``score``; of pairs ``left``, ``right`` and ``choice``. With ``incomplete`` what is there of a file is taken.

    Raises:
        ValueError: names a file that is of another study or reader, of a reader twice, was changed, has a score out
            of range or not all answers; or the readers of whom there is no file, unless ``incomplete``.
    """
    rows: list[Row] = []
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        answers = _read_answers(key, path, incomplete=incomplete)
        reader = answers["reader"]
        if reader in files:
            raise ValueError(f"{path} and {files[reader]} are both of reader {reader!r}: leave one of them out")
        files[reader] = path
        items = key["readers"][reader]
        for answer in answers["answers"]:
            item = items[answer["item"]]
            place = {name: item[name] for name in ("volume", "slice", "subject", "contrast")}
            base = {"reader": reader, **place, "repeat": item["repeat_of"] is not None, "item": answer["item"]}
            base |= {"first": item["repeat_of"] or answer["item"], "seconds": answer.get("seconds")}
            if key["protocol"] == "rating":
                scores = answer["values"].items()
                rows += [
                    {**base, "method": item["method"], "criterion": name, "score": score} for name, score in scores
                ]
            else:
                rows.append({**base, "left": item["left"], "right": item["right"], "choice": answer["choice"]})
    missing = [reader for reader in key["readers"] if reader not in files]
    if (missing and not incomplete) or not rows:
        names = name_some(missing or list(key["readers"]))
        raise ValueError(f"there are no answers of reader {names}; --incomplete goes on without")
    return rows


def read_answers(path: str | Path) -> dict[str, dict[tuple[str, str, int], float]]:
    """`opinion_of_slices` of what the command ``collect`` has written; ValueError for another file."""
    document = _read_json(Path(path))
    if not isinstance(document, dict) or not document.keys() >= {"key", "answers"}:
        raise ValueError(f"{path} must be the answers.json of a reader study")
    return opinion_of_slices(document["key"], document["answers"])


def opinion_of_slices(
    key: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[tuple[str, str, int], float]]:
    """The readers' mean of each criterion by method, volume and slice."""
    scores = scores_of_images(key, rows)
    return {name: {place: float(np.mean(given)) for place, given in of.items()} for name, of in scores.items()}


def scores_of_images(key: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Scores:
    """What the readers gave, by criterion and by method, volume and slice; repeats do not count twice."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["repeat"]:
            continue
        volume, number = row["volume"], row["slice"]
        if key["protocol"] == "rating":
            scores[row["criterion"]][(row["method"], volume, number)].append(float(row["score"]))
        else:
            won = {"left": 1.0, "equal": 0.5, "right": 0.0}[row["choice"]]
            scores[PREFERENCE][(row["left"], volume, number)].append(won)
            scores[PREFERENCE][(row["right"], volume, number)].append(1 - won)
    return {name: dict(of) for name, of in scores.items()}


def _read_answers(key: Mapping[str, Any], path: Path, *, incomplete: bool) -> dict[str, Any]:
    answers = _read_json(path)
    fits = isinstance(answers, dict) and isinstance(answers.get("answers"), list) and "study" in answers
    if not fits:
        raise ValueError(f"{path} must be a file of answers, saved by a reader's page")
    if answers["study"] != key["study"]:
        raise ValueError(f"{path} is of another study, {answers['study']!r}, not of {key['study']!r}")
    reader = answers.get("reader")
    check(reader in key["readers"], f"reader of {path}", f"one of {', '.join(key['readers'])}", repr(reader))
    items, seen = key["readers"][reader], set()
    for answer in answers["answers"]:
        name = answer.get("item") if isinstance(answer, dict) else None
        if name not in items or name in seen:
            raise ValueError(f"{path} has an answer to {name!r}, which is not in the study, or has it twice")
        seen.add(name)
        _check_answer(key, answer, path)
    if answers.get("checksum") != checksum(key, answers["answers"]):
        raise ValueError(f"{path} was changed after the page had saved it: its checksum does not fit")
    if len(seen) < len(items) and not incomplete:
        raise ValueError(
            f"{path} has {len(seen)} of {len(items)} answers: let {reader!r} finish, or take it with --incomplete"
        )
    return answers


def _check_answer(key: Mapping[str, Any], answer: Mapping[str, Any], path: Path) -> None:
    where = f"the answer to {answer['item']} in {path}"
    if key["protocol"] == "pairs":
        check(answer.get("choice") in CHOICES, where, f"one of {', '.join(CHOICES)}", repr(answer.get("choice")))
        return
    values = answer.get("values")
    fits = isinstance(values, dict) and set(values) == set(key["criteria"])
    check(fits, where, f"scores of {', '.join(key['criteria'])}", values)
    for name, score in values.items():  # type: ignore[union-attr]
        fits = isinstance(score, int) and not isinstance(score, bool) and score in SCALE
        check(fits, f"{name!r} of {where}", f"a whole number from {min(SCALE)} to {max(SCALE)}", repr(score))


def checksum(key: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> str:
    """FNV-1a of 64 bits of the answers as text, as the page makes it: finds what was changed by accident."""
    lines = []
    for answer in answers:
        given = [answer["values"][n] for n in key["criteria"]] if key["protocol"] == "rating" else [answer["choice"]]
        lines.append(" ".join(map(str, [answer["item"], *given])))
    value = 0xCBF29CE484222325
    for byte in "\n".join(lines).encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON ({error})") from error
