"""``python -m fastmri.evaluate`` with the same flags, on today's stack.

fastMRI pushes NumPy arrays of one element into ``runstats``, whose version since Python 3.10 keeps arrays, and then
fails when it prints its result. Here each value becomes a number.
"""

import runpy

import numpy as np
import runstats

__all__ = ["main"]


class _NumberStatistics(runstats.Statistics):
    def push(self, value: float | np.ndarray) -> None:
        super().push(np.asarray(value).item())


def main() -> None:
    """Run fastMRI's evaluation with the arguments of the command line."""
    runstats.Statistics = _NumberStatistics
    runpy.run_module("fastmri.evaluate", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
