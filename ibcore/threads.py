"""One thread for work that gains nothing from a second one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

_SMALL = (
    1e8  # weights × samples of a step: below, a second thread saved a quarter at most, measured
)


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


def threads_for(model: nn.Module, samples: int) -> AbstractContextManager[None]:
    """Let a small network's training steps take one thread, and a large one's all there are.

    Args:
        model: the network.
        samples: of a step, of all networks that are trained at once.
    """
    small = sum(p.numel() for p in model.parameters()) * samples < _SMALL
    return one_thread() if small else nullcontext()
