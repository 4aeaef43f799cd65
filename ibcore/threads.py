"""One thread for work that gains nothing from a second one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, and put the setting back; also as a decorator.

    At the end of each parallel region torch's threads wait for one another. In a small network a
    region takes microseconds: a second thread saves nothing there, and where another process keeps
    its core busy each region waits for that process.

    The setting is the process's: threads of Python that compute meanwhile see it too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
