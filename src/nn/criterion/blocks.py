"""How large tensors are worked through on a CPU: in parts that the allocator keeps and the caches hold."""

from collections.abc import Iterator

import torch

CPU_ELEMENTS = 2**20


def blocks(num_rows: int, row_size: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover `num_rows` rows of `row_size` elements, in order.

    On a CPU each has about CPU_ELEMENTS elements: the C library gives larger pieces of memory back to the
    system each time, and a large batch would spend most of its time in fetching them again. Any other
    device takes all rows at once.
    """
    step = max(1, CPU_ELEMENTS // max(1, row_size)) if device.type == "cpu" else max(1, num_rows)
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))
