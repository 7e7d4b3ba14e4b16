"""Where networks run, and how much of a batch fits there."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch


def pick_device() -> torch.device:
    """The GPU that this process may use, if there is one; else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_bfloat16(device: torch.device, wanted: bool | None = None) -> torch.autocast:
    """A context in which networks calculate in bfloat16; None: where the processor has it.

    Where it hasn't, it is emulated, and slower than float32.
    """
    if wanted is None:
        wanted = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_has_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@cache
def _cpu_has_bfloat16() -> bool:
    capable = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))


class MicroBatches:
    """Runs a network over a long input in parts; what a GPU's memory does not hold is halved for good."""

    def __init__(self) -> None:
        self.share = 1.0  # of the size that is asked for

    def __call__(self, run: Callable[[Any], Any], items: Sequence, size: int) -> Iterator[Any]:
        """`run` of each part of `items`, of `size` at most.

        Raises torch.OutOfMemoryError if one item alone is too much.
        """
        start = 0
        while start < len(items):
            count = max(1, int(size * self.share))
            result, error = _tried(run, items[start : start + count])
            if error is None:
                yield result
                start += count
                continue
            if count == 1:
                raise error
            # Only now, with the traceback's frames gone, is what the part held free again.
            del error
            torch.cuda.empty_cache()
            self.share = (count // 2) / size


def _tried(run: Callable[[Any], Any], part: Any) -> tuple[Any, torch.OutOfMemoryError | None]:
    try:
        return run(part), None
    except torch.OutOfMemoryError as error:
        return None, error.with_traceback(None)
