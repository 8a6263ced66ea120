"""HGNetv2, the backbone of the published D-FINE models, on timm's implementation."""

from typing import Literal

from timm.models.hgnet import HighPerfGpuNet, model_cfgs
from torch import Tensor, nn

from ...structures import Level
from ..layers import freeze_batch_norms

NUM_STAGES = 4


class HGNetv2(nn.Module):
    """PP-HGNetV2; tensor names and values are those of upstream D-FINE and of timm.

    The constructor builds with random weights; `load_pretrained` (in `pretrained.py`) fills them.

    Args:
        name: Size of the network.
        return_idx: Stages whose maps are given, ascending, from 0 (stride 4) to 3 (stride 32).
        freeze_at: Last frozen stage; 0 or more freezes the stem too, -1 nothing.
        freeze_stem_only: With `freeze_at` 0 or more, freeze the stem and no stage.
        freeze_norm: Fix statistics, scale and shift of every batch norm.
        use_lab: A learnt scale and shift after each activation.
        pretrained: Whether `load_pretrained` fills the network; False trains it from scratch.
        checkpoint_path: File for `load_pretrained`; without one it asks timm's hub.

    Attributes:
        levels: Width and stride of each map.
        image_mean: None: pictures are taken as they are, in [0, 1].
        image_std: None, likewise.
        timm_name: What timm calls this network with the weights that D-FINE starts from.

    Raises:
        ValueError: A knob outside what is allowed.
    """

    image_mean: None = None
    image_std: None = None

    def __init__(
        self,
        *,
        name: Literal["B0", "B1", "B2", "B3", "B4", "B5", "B6"] = "B4",
        return_idx: tuple[int, ...] = (1, 2, 3),
        freeze_at: int = -1,
        freeze_stem_only: bool = True,
        freeze_norm: bool = False,
        use_lab: bool = False,
        pretrained: bool = True,
        checkpoint_path: str | None = None,
    ) -> None:
        super().__init__()
        variant = f"hgnetv2_{name.lower()}"
        if variant not in model_cfgs:
            raise ValueError(f"HGNetv2.name: '{name}'; allowed are B0 to B6.")
        indices = tuple(return_idx)
        if not indices or list(indices) != sorted(set(indices)) or not set(indices) <= set(range(NUM_STAGES)):
            raise ValueError(f"HGNetv2.return_idx: {indices}; ascending stages, 0 to {NUM_STAGES - 1}.")
        if not -1 <= freeze_at < NUM_STAGES:
            raise ValueError(f"HGNetv2.freeze_at: {freeze_at}; -1 to {NUM_STAGES - 1}.")
        self.return_idx = indices
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.timm_name = f"{variant}.ssld_stage1_in22k_in1k"

        net = HighPerfGpuNet(model_cfgs[variant], num_classes=0, head_hidden_size=None, use_lab=use_lab)
        self.stem: nn.Module = net.stem
        self.stages = net.stages[: indices[-1] + 1]
        self.levels = tuple(
            Level(net.feature_info[i]["num_chs"], net.feature_info[i]["reduction"]) for i in indices
        )
        if freeze_norm:
            freeze_batch_norms(self)
        self.num_frozen_stages = 0 if freeze_at < 0 or freeze_stem_only else freeze_at + 1
        self.stem_is_frozen = freeze_at >= 0
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _frozen_parts(self) -> list[nn.Module]:
        return ([self.stem] if self.stem_is_frozen else []) + list(self.stages[: self.num_frozen_stages])

    def train(self, mode: bool = True) -> "HGNetv2":
        """As of any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of a batch [B, 3, H, W] in [0, 1], as `levels` says; H and W multiples of 32."""
        x = self.stem(images)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.return_idx:
                maps.append(x)
        return tuple(maps)
