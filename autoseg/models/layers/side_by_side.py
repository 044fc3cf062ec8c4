"""Independent jobs, each on a processor's core of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, an operation runs on the thread that called it; number of threads as before when it ends."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def shares(length: int, parts: int) -> list[slice]:
    """Slices that share out `length` evenly among `parts`."""
    return [slice(i * length // parts, (i + 1) * length // parts) for i in range(parts)]


def side_by_side(jobs: Sequence[Callable[[], None]]) -> None:
    """Do all jobs at once, each on one thread.

    Pays where operations are so long that few of them wait for Python's lock. What a job needs much memory for is best
    made before: a new thread's memory comes fresh from the system, page by page. Gradients are not recorded. What a job
    raises is raised again when all have ended.
    """
    # A new thread knows nothing of what its maker has turned off.
    inference = torch.is_inference_mode_enabled()

    def run(job: Callable[[], None]) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            job()

    with one_thread():
        if len(jobs) == 1:
            run(jobs[0])
            return
        with ThreadPoolExecutor(len(jobs)) as pool:
            for result in [pool.submit(run, job) for job in jobs]:
                result.result()
