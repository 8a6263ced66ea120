"""What backbones around a ViT have in common: a training plan freezes it and releases it block by block."""

from torch import nn

from .vit import ViT, ViTShape


class StagedViT(nn.Module):
    """A backbone around a ViT, of which the last blocks may learn alone; what is beside the ViT always does.

    Attributes:
        vit: The ViT.
        gradient_checkpointing: Whether its blocks keep their input alone in training.
    """

    vit: ViT
    gradient_checkpointing: bool

    @property
    def num_blocks(self) -> int:
        """Blocks of the ViT."""
        return len(self.vit.blocks)

    def set_trainable_blocks(self, blocks: int | None) -> None:
        """Chooses what of the ViT learns from now on; the adapter always does.

        Args:
            blocks: None for the whole ViT, 0 for nothing of it, n for its last n blocks and its final norm.

        Raises:
            ValueError: There are not so many blocks.
        """
        _train_last_blocks(self.vit, blocks)
        self.train(self.training)

    def train(self, mode: bool = True) -> "StagedViT":
        """As of any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        _rest_frozen_parts(self.vit)
        self.vit.set_grad_checkpointing(self.gradient_checkpointing and mode)
        return self


def check_knobs(section: str, freeze_epochs: int, pretrained_shape: ViTShape) -> None:
    """Refuse what no such backbone can do.

    Args:
        section: The class's name.
        freeze_epochs: Its `freeze_backbone_epochs`.
        pretrained_shape: Where it departs from the ViT whose weights it is filled with.

    Raises:
        ValueError: A knob is outside what is allowed.
    """
    if freeze_epochs < 0:
        raise ValueError(f"{section}.freeze_backbone_epochs: {freeze_epochs}; 0 or more.")
    if pretrained_shape.given():
        raise ValueError(
            f"{section}: {pretrained_shape.given()} changes the ViT, so that no pretrained weights fit it: "
            f"leave these out, or set {section}.pretrained=False to train from scratch."
        )


def _train_last_blocks(vit: ViT, blocks: int | None) -> None:
    """Lets the last blocks and the final norm learn and holds the rest still, or lets everything learn.

    A part that is held still needs no gradient, so autograd keeps nothing of the blocks before the first
    one that learns.

    Args:
        vit: What `build_vit` or `build_dinov2` gives.
        blocks: How many blocks learn; 0 none of the ViT at all, None all of it with embedding and tokens.

    Raises:
        ValueError: There are not so many blocks.
    """
    depth = len(vit.blocks)
    if blocks is not None and not 0 <= blocks <= depth:
        raise ValueError(f"backbone blocks to train: {blocks}; this ViT has {depth}: 0 to {depth}, or all.")
    vit.requires_grad_(blocks is None)
    if blocks:
        vit.blocks[depth - blocks :].requires_grad_(True)
        vit.norm.requires_grad_(True)


def _rest_frozen_parts(vit: ViT) -> None:
    """Puts every part of the ViT that has no parameter to train into evaluation mode."""
    parts = [vit.patch_embed, *vit.blocks, vit.norm]
    for part in parts:
        if not _learns(part):
            part.eval()
    if not _learns(vit):
        vit.eval()


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
