"""The way of small host arrays to the device, without waiting for it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """`indices` as a tensor on `device`.

    To a GPU the copy runs from page-locked memory and does not block: a copy from pageable memory would wait
    for all work queued before it.
    """
    tensor = torch.from_numpy(indices)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
