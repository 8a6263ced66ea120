"""A trained model as it is used: norms and factors folded into weights, training's parts left out."""

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn

from .backbone import DINOv3Backbone
from .backbone.adapter_blocks import PyramidAttention
from .decoder import DFINETransformer
from .decoder.attention import DeformableAttention
from .encoder.blocks import RepBlock
from .layers import FrozenBatchNorm2d

_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


def to_deploy(model: nn.Module, sampling: Literal["gather", "bilinear"] = "gather") -> nn.Module:
    """A copy of `model` for inference alone: the same outputs within rounding, for less work.

    In the copy every convolution that a batch norm follows directly carries it in its weights, a pair of
    3x3 and 1x1 convolutions is one 3x3, layers after `eval_idx` are gone and so are the class heads and
    quality estimators that do not run and the embedding of noised labels, and deformable attention that is
    bilinear gathers instead of calling grid_sample. LoRA's factors are in the weights. The weighting function
    is a constant already.

    Args:
        model: A detector with a DFINETransformer as `decoder`; it is not changed.
        sampling: `bilinear` leaves grid_sample where it is.

    Returns:
        The copy in evaluation mode, without gradients. It must not be set to training mode.

    Raises:
        ValueError: The model does not sample bilinearly, though `sampling` says so.
    """
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    decoder = deployed.decoder
    assert isinstance(decoder, DFINETransformer), "only D-FINE's decoder is known here"
    if isinstance(deployed.backbone, DINOv3Backbone):
        deployed.backbone.merge_lora()
    _leave_out_training_parts(decoder)
    _choose_sampling(deployed, sampling)
    _fold_norms(deployed)
    _merge_branches(deployed)
    return deployed


def _choose_sampling(model: nn.Module, sampling: Literal["gather", "bilinear"]) -> None:
    found = [one for one in model.modules() if isinstance(one, DeformableAttention | PyramidAttention)]
    smooth = [one for one in found if one.sampling == "bilinear"]
    if sampling == "bilinear" and not smooth:
        raise ValueError(
            "sampling `bilinear` was asked for, but this model's attention reads the nearest cells "
            "(cross_attn_method: discrete); leave it out"
        )
    for one in smooth:
        one.sampling = sampling


def _leave_out_training_parts(decoder: DFINETransformer) -> None:
    last = decoder.eval_idx
    decoder.denoising_class_embed = None
    decoder.num_denoising = 0
    decoder.layers = decoder.layers[: last + 1]
    decoder.widths = decoder.widths[: last + 1]
    decoder.lqe_layers = _only_last(decoder.lqe_layers, last)
    if len(decoder.dec_bbox_head) > 1:
        decoder.dec_bbox_head = decoder.dec_bbox_head[: last + 1]
    if len(decoder.dec_score_head) > 1:
        decoder.dec_score_head = _only_last(decoder.dec_score_head, last)


def _only_last(modules: nn.ModuleList, last: int) -> nn.ModuleList:
    return nn.ModuleList([nn.Identity() for _ in range(last)] + [modules[last]])


@torch.no_grad()
def _fold_norms(model: nn.Module) -> None:
    """Fold the batch norm of every block that names a pair `conv` and `norm` (timm: `bn`)."""
    for module in list(model.modules()):
        for name in ("norm", "bn"):
            conv, norm = getattr(module, "conv", None), getattr(module, name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _BATCH_NORMS):
                module.conv = _folded(conv, norm)
                setattr(module, name, nn.Identity())


def _folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """`conv` with `norm`, a batch norm in evaluation, in its weights; reckoned in float64."""
    mean, var, scale, shift = (
        cast(Tensor, getattr(norm, name)).double()
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    scale = scale / (var + cast(float, norm.eps)).sqrt()
    shift = shift - mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    return _convolution_like(conv, weight.to(conv.weight), shift.to(conv.weight))


def _convolution_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = nn.Parameter(bias, requires_grad=False)
    return made


@torch.no_grad()
def _merge_branches(model: nn.Module) -> None:
    """Replace every RepBlock, its norms folded, by one 3x3 convolution and the activation."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepBlock):
                setattr(parent, name, nn.Sequential(_merged(child), child.act))


def _merged(block: RepBlock) -> nn.Conv2d:
    wide, narrow = block.conv1.conv, block.conv2.conv
    assert wide.bias is not None and narrow.bias is not None, "norms are folded first"
    weight = wide.weight.clone()
    weight[:, :, 1:2, 1:2] += narrow.weight
    return _convolution_like(wide, weight, wide.bias + narrow.bias)
