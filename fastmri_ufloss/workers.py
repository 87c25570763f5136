"""Worker processes that end with their parent, and leave nothing behind."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import Any, TypeVar

__all__ = ["interruptible", "run_in_processes"]

Task = TypeVar("Task")
Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
RETRY_SECONDS = 0.01
GRACE_SECONDS = 10.0  # to remove a temporary file


def run_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int
) -> Iterator[tuple[Task, Result | str]]:
    """Call a function for each task in processes of one thread each.

    If the iterator is closed, or an exception ends it, tasks that are waiting are dropped, and those that run
    are ended by ``SystemExit``, so that they clean up.

    Args:
        function: of a module, which processes can import.
        tasks: its arguments.
        num_workers: number of processes.

    Yields:
        A task and its result, in the order in which they end; a text for a task whose process died.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _single_threads(), ProcessPoolExecutor(num_workers, context, initializer=_start) as pool:
        try:
            with _interrupts(signal.SIG_IGN):  # processes that start inherit it: Ctrl-C is for the parent
                futures = {pool.submit(function, task): task for task in tasks}
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:
                    yield futures[future], "a worker process died: is there memory for num_workers files at once?"
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _start() -> None:
    """Settings of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _raise_outside_callbacks(SystemExit(1)))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)


@contextlib.contextmanager
def _single_threads() -> Iterator[None]:
    """Processes that are started meanwhile use one thread."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, while HDF5 is written too."""
    with _interrupts(_raise_outside_callbacks(KeyboardInterrupt())):
        yield


def _raise_outside_callbacks(exception: BaseException) -> Callable[[int, FrameType | None], None]:
    """A handler of a signal. Python drops what is raised in h5py's callbacks, where most signals arrive."""

    def handle(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == weakref.__file__:
            threading.Timer(RETRY_SECONDS, signal.raise_signal, (number,)).start()
            return
        raise exception

    return handle


@contextlib.contextmanager
def _interrupts(handler: Any) -> Iterator[None]:
    """Another handler of Ctrl-C meanwhile."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set it
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
