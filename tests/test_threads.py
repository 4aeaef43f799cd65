"""Laws of the number of threads: one within, the setting of before after it."""

import pytest
import torch

from ibcore.threads import one_thread, threads_for


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_within_there_is_one_thread_and_after_it_as_many_as_before():
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_an_error_puts_the_setting_back():
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 2


def test_it_decorates_functions_however_often_they_are_called():
    @one_thread()
    def threads(depth):
        return [torch.get_num_threads(), *(threads(depth - 1) if depth else [])]

    for _ in range(2):
        assert threads(2) == [1, 1, 1]
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("samples", "inside"), [(10, 1), (10**7, 3)])
def test_a_small_step_takes_one_thread_and_a_large_one_all(samples, inside):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(torch.nn.Linear(10, 10), samples):
            assert torch.get_num_threads() == inside
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
