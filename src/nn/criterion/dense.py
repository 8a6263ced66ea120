"""The two sums that run over all queries, with their gradients worked out by hand.

Automatic differentiation would keep about ten tensors of the outputs' full size for them. Here the one
full-size tensor that stays is the gradient itself, and what lies between is made in blocks.

Legend: O outputs, S queries of the batch, C classes, K students, R bins of an edge distribution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blocks import blocks


class NegativeFocal(torch.autograd.Function):
    """sum of alpha * p^gamma * -log(1 - p) for each output, the factor p^gamma without gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, alpha: float, gamma: float) -> Tensor:
        """Sums [O] over logits [O, S, C]."""
        rows = logits.reshape(-1, logits.shape[-1])
        slope = torch.empty_like(rows)
        sums = rows.new_empty(len(rows))
        for part in blocks(len(rows), rows.shape[1], rows.device):
            p = rows[part].sigmoid()
            weights = p.pow(gamma).mul_(alpha)
            torch.mul(weights, p, out=slope[part])
            torch.sum(weights.mul_(F.softplus(rows[part])), 1, out=sums[part])
        ctx.save_for_backward(slope.view_as(logits))
        return sums.view(logits.shape[:2]).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """d/dx -log(1 - p) = p."""
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None, None], None, None


class Distillation(torch.autograd.Function):
    """sum of importance * T^2 * KL(teacher || student) for each student, the teacher without gradient."""

    @staticmethod
    def forward(ctx: Any, corner_logits: Tensor, importance: Tensor, temperature: float) -> Tensor:
        """Sums [K] over corner logits [K + 1, S, 4, R], the teacher's last, with importance [K, S]."""
        teacher = F.log_softmax(corner_logits[-1] / temperature, -1)
        slope = torch.zeros_like(corner_logits)
        sums = torch.empty_like(importance)
        num_rows = importance.shape[1]
        for part in blocks(num_rows, corner_logits[:-1, :1].numel(), importance.device):
            student = F.log_softmax(corner_logits[:-1, part] / temperature, -1)
            wanted = teacher[part].exp()
            weights = importance[:, part, None, None]
            torch.sub(student.exp(), wanted, out=slope[:-1, part]).mul_(weights)
            torch.sum((teacher[part] - student).mul_(wanted).mul_(weights), (-2, -1), out=sums[:, part])
        ctx.save_for_backward(slope)
        ctx.temperature = temperature
        return sums.sum(1) * temperature**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """d/dx T^2 KL(t || softmax(x / T)) = T * (softmax(x / T) - t)."""
        (slope,) = ctx.saved_tensors
        factors = torch.cat((grad * ctx.temperature, grad.new_zeros(1)))
        return slope * factors[:, None, None, None], None, None
