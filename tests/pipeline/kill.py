"""A kill in the middle of changes to an OUTPUT, without a process."""

from collections.abc import Callable

import pytest

from pipeline import storage


class Kill:
    """After `left` more files were written or deleted, the next change raises KeyboardInterrupt instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.left = 0
        for name in ("delete", "write_bytes"):
            monkeypatch.setattr(storage, name, self._counted(getattr(storage, name)))

    def _counted(self, change: Callable) -> Callable:
        def step(*arguments: object) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            change(*arguments)

        return step
