"""Reading and writing files: nobody ever sees half of one, and a damaged one is named."""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["atomic_path", "file_stamp", "lock_folder", "name_some", "remove_leftovers", "write_json"]


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to, which takes the final name when the block ends well.

    If the block raises, the disk is full or the process dies, ``path`` is as it was before. A missing folder is made.
    Where the disk is full, whatever the block raises becomes an OSError that names ``path``. Temporary files that
    killed processes left in the folder are removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(".*.tmp"):
        if _is_abandoned(other):
            other.unlink(missing_ok=True)
    prefix = f".{path.name}.{_machine()}-{os.getpid()}."
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)  # mkstemp makes files private; give them the usual permissions
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except Exception as error:
        code = _why_full(temporary)
        if code is None:
            raise
        raise OSError(code, f"{path} could not be written: {os.strerror(code)}") from error
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """Where the number of a process means something: the machine, or a container on it."""
    numbers = Path("/proc/self/ns/pid")
    where = os.readlink(numbers) if numbers.is_symlink() else ""
    return hashlib.sha256(f"{platform.node()} {where}".encode()).hexdigest()[:8]


def _is_abandoned(temporary: Path) -> bool:
    """Whether a temporary file is of a process of this machine that has ended."""
    owner = re.search(rf"\.{_machine()}-(\d+)\.[^.]+\.tmp$", temporary.name)
    if owner is None or sys.platform == "win32":
        return False
    try:
        os.kill(int(owner[1]), 0)  # a signal that does nothing
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's, which runs
        pass
    return False


def _why_full(path: Path) -> int | None:
    """The number of the error with which a file cannot grow by a megabyte, None if it can."""
    try:
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size + 2**20)
    except AttributeError:  # not on every system
        return None
    except OSError as error:
        return error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None
    return None


def remove_leftovers(paths: Iterable[Path], *, stale_seconds: float = 60.0) -> list[Path]:
    """Remove temporary files of `atomic_path` that a killed process left: fastMRI would take them for volumes.

    ``paths`` are final names. Files of the last ``stale_seconds`` stay and are returned, unless their process was one
    of this machine and has ended.
    """
    young = []
    for path in paths:
        for file in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # it has got its name meanwhile
                if _is_abandoned(file) or time.time() - file.stat().st_mtime > stale_seconds:
                    file.unlink()
                else:
                    young.append(file)
    return young


def lock_folder(folder: Path) -> None:
    """Keep a folder, which is made if need be, for this process until it ends; ValueError if another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    import fcntl

    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # and never closed, which ends the lock
    try:
        # not flock: the workers of a killed process would have that lock for some more seconds
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        message = f"another process is writing into {folder}: wait for its end, or choose another folder"
        raise ValueError(message) from error
    except OSError:  # a file system without locks
        os.close(descriptor)


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write plain values as JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")


def file_stamp(path: str | Path) -> list[int]:
    """Size and time of modification (ns): a file with another stamp has changed."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def name_some(names: Sequence[object], *, shown: int = 10) -> str:
    """The first of some names, and how many more there are, for a message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
