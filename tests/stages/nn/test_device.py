"""Parts of a batch: all of it, in order, and fewer at a time once a GPU's memory was full."""

from itertools import chain

import pytest
import torch

from stages.nn.device import MicroBatches


class Net:
    """Holds `most` items at a time, as a GPU would."""

    def __init__(self, most: int):
        self.most, self.tried = most, []

    def __call__(self, part: list[int]) -> list[int]:
        self.tried.append(len(part))
        if len(part) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * item for item in part]


def test_parts_that_do_not_fit_are_halved_until_they_do_and_nothing_is_lost_or_doubled():
    net, items = Net(most=3), list(range(11))
    assert list(chain.from_iterable(MicroBatches()(net, items, 8))) == [2 * item for item in items]
    assert net.tried == [8, 4, 2, 2, 2, 2, 2, 1]


def test_what_did_not_fit_once_is_not_tried_again():
    net, parts = Net(most=4), MicroBatches()
    for _ in range(2):
        assert list(chain.from_iterable(parts(net, list(range(8)), 8))) == list(range(0, 16, 2))
    assert net.tried == [8, 4, 4, 4, 4]


def test_a_single_item_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        list(MicroBatches()(Net(most=0), [1, 2], 2))


def test_other_errors_are_not_taken_for_a_full_memory():
    def broken(part: list[int]) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(MicroBatches()(broken, [1], 1))
