"""Counts of what torch does: they hold on a shared machine, times do not."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# operations that give the host a value, or a size that follows from values: on a GPU it would wait for them
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "bincount")


class Ledger(TorchDispatchMode):
    """Counts the operations that reach the dispatcher, and the bytes of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("_record_function"):  # a profiler's mark, not work
            return func(*args, **(kwargs or {}))
        if name.startswith("index") and any(
            isinstance(x, torch.Tensor) and x.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for x in arg
        ):
            name = "nonzero (of a mask)"
        self.counts[name] += 1
        given = func(*args, **(kwargs or {}))
        self.nbytes += sum(x.nbytes for x in tree_leaves(given) if isinstance(x, torch.Tensor))
        return given

    def waits(self) -> list[str]:
        """The operations that a host would wait for, each as often as it ran."""
        return [name for name in self.counts.elements() if any(wait in name for wait in WAITS)]


def watch_copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all calls that would copy to the host, were the tensors on a GPU; fills as they happen."""
    copies: list[str] = []
    for name in ("cpu", "item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
        method = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: Any, _name: str = name, _method: Any = method) -> Any:
            copies.append(_name)
            return _method(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return copies
