"""Worker processes that end with their parent, and leave nothing behind."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import TypeVar

__all__ = ["interruptible", "run_in_processes"]

Task = TypeVar("Task")
Result = TypeVar("Result")

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
RETRY_SECONDS = 0.01
GRACE_SECONDS = 10.0  # to remove a temporary file


def run_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int
) -> Generator[tuple[Task, Result | str], None, None]:
    """Call a function for each task in processes of one thread each; yield tasks with their results as they end.

    A task whose process died has a text. If the iterator is closed, or an exception ends it, waiting tasks are
    dropped and running ones get a SystemExit.
    """
    others, context = set(multiprocessing.active_children()), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=_start) as pool:
        try:
            with _inherited():
                futures = {pool.submit(_call, function, task): task for task in tasks}
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:
                    yield futures[future], "a worker process died: is there memory for num_workers files at once?"
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextlib.contextmanager
def _inherited() -> Iterator[None]:
    """Processes that start meanwhile use one thread, and leave Ctrl-C to their parent."""
    environment = dict(os.environ)
    os.environ.update(THREADS)
    if sys.platform != "win32":  # which cannot block a signal: see `_start`
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        for name in THREADS:
            os.environ.pop(name)
        os.environ.update(environment)
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    try:
        return function(task)
    except SystemExit:
        os._exit(1)  # the pool would go on with the next task


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _raise_outside_callbacks(SystemExit(1)))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, while HDF5 is written too."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set a handler
        yield
        return
    before = signal.signal(signal.SIGINT, _raise_outside_callbacks(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise_outside_callbacks(exception: BaseException) -> Callable[[int, FrameType | None], None]:
    """A handler of a signal. Python drops what is raised in h5py's callbacks, where most signals arrive."""

    def handle(number: int, frame: FrameType | None) -> None:
        if any(caller.f_code.co_filename == weakref.__file__ for caller, _ in traceback.walk_stack(frame)):
            threading.Timer(RETRY_SECONDS, signal.raise_signal, (number,)).start()
            return
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)  # a second one would end the cleaning up
        raise exception

    return handle
