"""Mixed precision: which type the forward pass runs in, and the scaling that float16 needs."""

import logging
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch

logger = logging.getLogger(__name__)


class Precision(NamedTuple):
    """How the model's forward pass runs.

    Attributes:
        device_type: "cuda" or "cpu".
        dtype: Type of the matrix products; None for float32 throughout.
        casts_weights: Whether their weights are of this type too, with float32 masters for the optimizer
            (opt level O2); otherwise autocast casts them at each use (O1).
    """

    device_type: str
    dtype: torch.dtype | None
    casts_weights: bool = False

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which the model is called (the criterion is not: it stays in float32)."""
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaling that goes with the type; passes everything through unless it is float16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)


def choose_precision(
    device: torch.device,
    *,
    use_amp: bool,
    dtype: Literal["auto", "bfloat16", "float16"] = "auto",
    opt_level: Literal["O1", "O2"] = "O1",
) -> Precision:
    """The precision for `device`: bfloat16 where the device computes in it, else float16 on a GPU.

    A CPU without bfloat16 instructions would only emulate it, slower than float32: "auto" then stays in
    float32 and says so.
    """
    if not use_amp:
        if opt_level != "O1":
            logger.warning(
                "amp.opt_level: %s has no effect without use_amp: the run is in float32", opt_level
            )
        return Precision(device.type, None)
    if dtype != "auto":
        chosen: torch.dtype = getattr(torch, dtype)
    elif device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        chosen = torch.bfloat16 if native else torch.float16
    elif torch.cpu._is_avx512_bf16_supported():
        chosen = torch.bfloat16
    else:
        logger.warning("use_amp: this CPU has no bfloat16 instructions; the run stays in float32")
        return Precision(device.type, None)
    return Precision(device.type, chosen, opt_level == "O2")
