"""Batch normalisation over all ranks, on CPUs as well.

torch's SyncBatchNorm refuses CPU tensors, so a run on several gloo processes would normalise each rank's
share on its own and drift from the run on one process.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import world_size


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        """[...] -> [...]."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004 - the same
        """[...] -> [...]."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class GlooSyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch statistics are those of all ranks' pictures together.

    Takes and gives [B, C, H, W]; B may differ between ranks. In evaluation, or alone, it is BatchNorm2d.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise `input` [B, C, H, W]."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float()
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _SumOverRanks.apply(torch.cat((x.sum((0, 2, 3)), count)))
        total = sums[-1]
        mean = sums[:-1] / total
        centred = x - mean[:, None, None]
        var: Tensor = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / total
        self._track(mean.detach(), (var * total / (total - 1).clamp(min=1)).detach())
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        normalised: Tensor = centred * scale[:, None, None]
        if self.bias is not None:
            normalised = normalised + self.bias[:, None, None]
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased_var, momentum)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with every BatchNorm2d replaced by one that looks at all ranks; same names and tensors."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return, unused-ignore]
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlooSyncBatchNorm2d
    return model
