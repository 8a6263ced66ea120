"""Batch normalisation over all ranks, on CPUs as well.

torch's SyncBatchNorm refuses CPU tensors, so a run on several gloo processes would normalise each rank's
share on its own and drift from the run on one process.
"""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # type: ignore[attr-defined, unused-ignore]

from ..distributed import world_size


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
        stats: Tensor = all_reduce(  # type: ignore[no-untyped-call, unused-ignore]
            torch.cat((x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count))
        )
        total, square, count = torch.split(stats, [x.shape[1], x.shape[1], 1])
        mean = total / count
        var = (square / count - mean.square()).clamp(min=0)
        self._track(mean.detach(), (var * count / (count - 1).clamp(min=1)).detach())
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        normalised: Tensor = x * scale[:, None, None] + shift[:, None, None]
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
