"""What a training has logged for TensorBoard: scalars by epoch, and images."""

import io
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event

__all__ = ["LoggedScalar", "RunLog"]

EPOCH = "epoch"  # Lightning's own scalar, which goes with all others of its step
HEADER = struct.Struct("<QI")  # the length of a record and its checksum; after the record comes its own
CHECKSUM = 4


class LoggedScalar(NamedTuple):
    """A number of a step.

    Args:
        step: of the optimizer, counting from 0.
        epoch: counting from 1.
        value: the number.
    """

    step: int
    epoch: int
    value: float


class _Place(NamedTuple):
    """Where the file of an image is to be read."""

    path: Path
    offset: int
    step: int


class RunLog:
    """The logs of a run, of all its processes: a run that goes on writes files of its own.

    Where steps repeat, since a run was killed and went on from an earlier checkpoint or was begun anew, those of the
    later file count. Files that end in the middle of a record, as those of a run that is being written, are read as
    far as they go. Images stay on disk until they are asked for. Checksums are not compared: that takes a second for
    each megabyte.

    Args:
        folder: of the run, or any other with event files in it or below.

    Raises:
        FileNotFoundError: if there is no such folder or no event file.
        ValueError: if a file is not one of events, or there are no scalars.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.rglob("events.out.tfevents*"))
        if not paths:
            raise FileNotFoundError(f"no TensorBoard logs (events.out.tfevents*) in {folder}")
        sessions = sorted((_read_session(path) for path in paths), key=lambda session: session.wall_time)
        self.scalars: dict[str, list[LoggedScalar]] = {}
        """Of each tag, by step."""
        self._images: dict[str, dict[int, _Place]] = {}
        for session in sessions:
            self._append(session)
        if not self.scalars:
            raise ValueError(f"the TensorBoard logs in {folder} must hold scalars with their epochs, got none")

    @property
    def image_epochs(self) -> dict[str, list[int]]:
        """The epochs, counting from 1, of which there are images, by tag."""
        return {tag: sorted(places) for tag, places in self._images.items()}

    def by_epoch(self, tag: str) -> dict[int, float]:
        """The mean of a scalar over the steps of each epoch that were logged; epochs count from 1.

        Raises:
            KeyError: if it was not logged.
        """
        values: dict[int, list[float]] = {}
        for scalar in self.scalars[tag]:
            values.setdefault(scalar.epoch, []).append(scalar.value)
        return {epoch: float(np.mean(of_epoch)) for epoch, of_epoch in sorted(values.items())}

    def steps_per_epoch(self, tag: str) -> float:
        """How many steps of an epoch were logged, on average."""
        return len(self.scalars[tag]) / max(len({scalar.epoch for scalar in self.scalars[tag]}), 1)

    def read_image(self, tag: str, epoch: int) -> np.ndarray:
        """An image (rows, cols) of float32 in 0 .. 1, of 8 bits; the first of its channels.

        Args:
            tag: of the image.
            epoch: counting from 1.

        Raises:
            KeyError: if there is none.
        """
        place = self._images[tag][epoch]
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            event = Event.FromString(_read_record(file) or b"")
        (encoded,) = (value.image.encoded_image_string for value in event.summary.value if value.tag == tag)
        image = matplotlib.image.imread(io.BytesIO(encoded), format="png")
        return np.asarray(image if image.ndim == 2 else image[..., 0], dtype=np.float32)

    def _append(self, session: "_Session") -> None:
        """Add a process; what earlier ones have logged from its first step on is of no account."""
        start = session.first_step
        if start is None:
            return
        for scalars in self.scalars.values():
            scalars[:] = [scalar for scalar in scalars if scalar.step < start]
        for places in self._images.values():
            for epoch in [epoch for epoch, place in places.items() if place.step >= start]:
                del places[epoch]
        for tag, added in session.scalars.items():
            self.scalars.setdefault(tag, []).extend(added)
        for tag, more in session.images.items():
            self._images.setdefault(tag, {}).update(more)
        self.scalars = {tag: scalars for tag, scalars in self.scalars.items() if scalars}
        self._images = {tag: places for tag, places in self._images.items() if places}


class _Session(NamedTuple):
    """What one process has written."""

    wall_time: float
    scalars: dict[str, list[LoggedScalar]]
    images: dict[str, dict[int, _Place]]

    @property
    def first_step(self) -> int | None:
        steps = [scalars[0].step for scalars in self.scalars.values()]
        return min(steps) if steps else None


def _read_session(path: Path) -> _Session:
    """The scalars of a file, and the places of its images."""
    wall_time = 0.0
    raw: dict[str, dict[int, float]] = {}
    epochs: dict[int, int] = {}
    waiting: dict[str, int] = {}  # images come before the scalars of their validation, with another count of steps
    images: dict[str, dict[int, _Place]] = {}
    for offset, event in _read_events(path):
        wall_time = wall_time or event.wall_time
        for value in event.summary.value:
            if value.HasField("image"):
                waiting[value.tag] = offset
            elif not value.HasField("simple_value"):
                continue
            elif value.tag == EPOCH:
                epochs[event.step] = round(value.simple_value) + 1
                for tag, place in waiting.items():
                    images.setdefault(tag, {})[epochs[event.step]] = _Place(path, place, event.step)
                waiting = {}
            else:
                raw.setdefault(value.tag, {})[event.step] = value.simple_value  # of a step that repeats the last
    return _Session(wall_time, dict(_with_epochs(raw, epochs)), images)


def _with_epochs(
    raw: Mapping[str, Mapping[int, float]], epochs: Mapping[int, int]
) -> Iterator[tuple[str, list[LoggedScalar]]]:
    for tag, values in raw.items():
        found = [LoggedScalar(step, epochs[step], value) for step, value in sorted(values.items()) if step in epochs]
        if found:
            yield tag, found


def _read_events(path: Path) -> Iterable[tuple[int, Event]]:
    """The events of a file and where they start; a last one that is not complete is left out."""
    with open(path, "rb") as file:
        while True:
            offset = file.tell()
            record = _read_record(file)
            if record is None:
                return
            try:
                event = Event.FromString(record)
            except DecodeError as error:
                raise ValueError(f"{path} is not a file of TensorBoard events, or it is damaged ({error})") from error
            yield offset, event


def _read_record(file: io.BufferedReader) -> bytes | None:
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    length, _ = HEADER.unpack(header)
    end = file.tell() + length + CHECKSUM
    if end > file.seek(0, io.SEEK_END):
        return None
    file.seek(end - length - CHECKSUM)
    record = file.read(length)
    file.seek(end)
    return record
