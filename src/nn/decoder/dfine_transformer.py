"""D-FINE's decoder: queries chosen from the pyramid, boxes refined as distributions over edge offsets.

Legend: B batch, S cells of all levels, Q queries, N noised queries, D width, C classes, R bins.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...ops.boxes import inverse_sigmoid
from ...ops.deformable import Sampling
from ...ops.distribution import distances_to_boxes, expected_distances, weighting_function
from ...ops.padding import is_symbol
from ...structures import Denoising, FinalOutput, LayerOutput, Level, Targets, TrainOutput
from ..layers import MLP, Activation, ConvNorm, flatten_map
from .checks import check_levels, check_numbers, checked_eval_idx, checked_points, layer_widths
from .denoising import blocked_pairs, make_noised_queries
from .layer import DecoderLayer, LayerSizes, Projection, QualityEstimator, make_score_head, stretch
from .query_selection import candidate_anchors, candidate_ranges, candidate_tokens, choose, may_propose

MAX_POSITION = 10.0  # position codes are kept within +-10


class _Queries(NamedTuple):
    """Content [B, Q, D] and boxes [B, Q, 4], without gradient, and what the encoder says of them."""

    content: Tensor
    boxes_cxcywh: Tensor
    proposed: LayerOutput


class DFINETransformer(nn.Module):
    """Query selection, fine-grained distribution refinement, quality estimation, contrastive denoising.

    Args:
        levels: What the encoder gives, shallow first.
        num_classes: C.
        feat_channels: What the reader of a configuration expects of `levels`; compared with them.
        feat_strides: Likewise.
        num_levels: Likewise, their number.
        hidden_dim: D; maps of another width are projected.
        num_layers: Decoder layers.
        nhead: Attention heads.
        dim_feedforward: Width inside a layer's feed-forward part.
        dropout: In the layers.
        activation: Of the feed-forward part.
        eval_idx: Last layer that runs in evaluation; negative counts from the end.
        num_queries: Q; fewer where the pyramid has fewer cells.
        num_points: Points of deformable attention on each level, or one number for all levels.
        num_denoising: About how many noised copies of objects a picture gets in training; 0 for none.
        label_noise_ratio: Twice the chance that a noised copy gets a random label.
        box_noise_scale: How far its edges move, in halves of the box's width or height.
        learn_query_content: Queries start as learnt vectors instead of the cells that they come from.
        reg_max: Index of the last bin, R - 1.
        reg_scale: Curvature of the weighting function, D-FINE's c.
        up: Its upper bound, D-FINE's a, in units of `reg_scale`.
        layer_scale: Width of the layers after `eval_idx`, in units of `hidden_dim`.
        cross_attn_method: Bilinear sampling, or the nearest cell with fixed offsets.
        query_select_method: The cells of the best class scores, or the best pairs of cell and class (so that
            one cell may give several queries).
        share_bbox_head: One head for the edge distributions of all layers.
        share_score_head: One class head for all layers.
        use_gateway: A learnt gate after cross-attention instead of a plain sum.

    Attributes:
        bins: [R] the weighting function W(n).
        reg_scale: As given.
        up: As given.
        eval_idx: Last layer that runs in evaluation, from 0.

    Raises:
        ValueError: A knob outside what is allowed, or one that `levels` contradicts.
    """

    bins: Tensor

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        *,
        feat_channels: tuple[int, ...] | None = None,
        feat_strides: tuple[int, ...] | None = None,
        num_levels: int | None = None,
        hidden_dim: int = 256,
        num_layers: int = 6,
        nhead: int = 8,
        dim_feedforward: int = 1024,
        dropout: float = 0.0,
        activation: Activation = "relu",
        eval_idx: int = -1,
        num_queries: int = 300,
        num_points: tuple[int, ...] | int = (3, 6, 3),
        num_denoising: int = 100,
        label_noise_ratio: float = 0.5,
        box_noise_scale: float = 1.0,
        learn_query_content: bool = False,
        reg_max: int = 32,
        reg_scale: float = 4.0,
        up: float = 0.5,
        layer_scale: float = 1.0,
        cross_attn_method: Literal["default", "discrete"] = "default",
        query_select_method: Literal["default", "one2many"] = "default",
        share_bbox_head: bool = False,
        share_score_head: bool = False,
        use_gateway: bool = True,
    ) -> None:
        super().__init__()
        check_levels(levels, feat_channels, feat_strides, num_levels)
        check_numbers(num_classes, num_queries, num_denoising, box_noise_scale)
        self.eval_idx = checked_eval_idx(eval_idx, num_layers)
        self.widths = layer_widths(num_layers, self.eval_idx, hidden_dim, nhead, layer_scale)
        if self.widths[-1] != hidden_dim and (share_bbox_head or share_score_head):
            raise ValueError(f"DFINETransformer.layer_scale: {layer_scale}; heads can only be shared at 1.")
        self.num_classes, self.num_queries, self.num_denoising = num_classes, num_queries, num_denoising
        self.label_noise_ratio, self.box_noise_scale = label_noise_ratio, box_noise_scale
        self.query_select_method = query_select_method
        self.reg_scale, self.up = float(reg_scale), float(up)
        self.register_buffer("bins", weighting_function(reg_max, up, reg_scale), persistent=False)

        points = checked_points(num_points, len(levels))
        sampling: Sampling = "nearest" if cross_attn_method == "discrete" else "bilinear"
        sizes = LayerSizes(
            hidden_dim, nhead, dim_feedforward, dropout, activation, points, sampling, use_gateway
        )
        self.layers = nn.ModuleList(DecoderLayer(sizes.scaled_to(width)) for width in self.widths)
        self.lqe_layers = nn.ModuleList(QualityEstimator(reg_max + 1) for _ in self.widths)
        self._build_queries(levels, hidden_dim, learn_query_content)
        self._build_heads(share_bbox_head, share_score_head)

    def _build_queries(self, levels: Sequence[Level], dim: int, learn_query_content: bool) -> None:
        self.input_proj = nn.ModuleList(
            nn.Identity() if level.channels == dim else ConvNorm(level.channels, dim, 1) for level in levels
        )
        self.enc_output = Projection(dim)
        self.enc_score_head = make_score_head(dim, self.num_classes)
        self.enc_bbox_head = MLP(dim, dim, 4, 3, zero_last=True)
        self.query_pos_head = MLP(4, 2 * dim, dim, 2)
        for layer in self.query_pos_head.layers:
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
        self.tgt_embed = nn.Embedding(self.num_queries, dim) if learn_query_content else None
        padding = self.num_classes  # the label of rows that stand for no object
        self.denoising_class_embed = (
            nn.Embedding(self.num_classes + 1, dim, padding_idx=padding) if self.num_denoising else None
        )

    def _build_heads(self, share_bbox_head: bool, share_score_head: bool) -> None:
        num_logits = 4 * self.bins.numel()
        self.pre_bbox_head = MLP(self.widths[0], self.widths[0], 4, 3, zero_last=True)
        self.dec_bbox_head = nn.ModuleList(
            MLP(width, width, num_logits, 3, zero_last=True)
            for width in (self.widths[:1] if share_bbox_head else self.widths)
        )
        self.dec_score_head = nn.ModuleList(
            make_score_head(width, self.num_classes)
            for width in (self.widths[:1] if share_score_head else self.widths)
        )

    def forward(
        self, maps: Sequence[Tensor], extent_hw: tuple[float, float], targets: Targets | None = None
    ) -> TrainOutput | FinalOutput:
        """Find the objects.

        Args:
            maps: [B, channels, h, w] as the levels given.
            extent_hw: The part of the (padded) maps that the picture covers along each side, (1.0, 1.0) at
                most; boxes are in units of this part.
            targets: The objects, for denoising in training; without them nothing is denoised.

        Returns:
            In training a `TrainOutput`; in evaluation what layer `eval_idx` says.
        """
        maps = [project(x) for project, x in zip(self.input_proj, maps, strict=True)]
        queries = self._select_queries(maps, extent_hw)
        if not self.training:
            layers, _ = self._refine(queries.content, queries.boxes_cxcywh, maps, extent_hw, None)
            return FinalOutput(layers[-1].logits, layers[-1].boxes_cxcywh)
        if self.denoising_class_embed is None or targets is None:
            layers, pre = self._refine(queries.content, queries.boxes_cxcywh, maps, extent_hw, None)
            return TrainOutput(tuple(layers), pre, queries.proposed, None, self.bins, self.reg_scale)
        noised = make_noised_queries(
            targets,
            self.num_classes,
            num_denoising=self.num_denoising,
            label_noise_ratio=self.label_noise_ratio,
            box_noise_scale=self.box_noise_scale,
        )
        content = torch.cat((self.denoising_class_embed(noised.labels), queries.content), 1)
        boxes = torch.cat((noised.boxes_cxcywh, queries.boxes_cxcywh), 1)
        num_noised, num_queries = noised.labels.shape[1], queries.content.shape[1]
        blocked = blocked_pairs(num_queries, noised.num_groups, noised.max_count, content.device)
        layers, pre = self._refine(content, boxes, maps, extent_hw, blocked)
        denoising = Denoising(
            tuple(_rows(layer, 0, num_noised) for layer in layers),
            _rows(pre, 0, num_noised),
            noised.num_groups,
            noised.max_count,
        )
        own = tuple(_rows(layer, num_noised, num_noised + num_queries) for layer in layers)
        own_pre = _rows(pre, num_noised, num_noised + num_queries)
        return TrainOutput(own, own_pre, queries.proposed, denoising, self.bins, self.reg_scale)

    def _select_queries(self, maps: Sequence[Tensor], extent_hw: tuple[float, float]) -> _Queries:
        """The most promising cells, with boxes around them."""
        shapes_hw = [(x.shape[-2], x.shape[-1]) for x in maps]
        ranges = candidate_ranges(shapes_hw, extent_hw)
        anchors = candidate_anchors(shapes_hw, extent_hw, ranges, maps[0].device)
        cells = self.enc_output(candidate_tokens(maps, ranges))
        logits = self.enc_score_head(cells).float()
        if is_symbol(shapes_hw[0][0]):
            inside = may_propose(shapes_hw, extent_hw, logits.device)
            logits = logits.where(inside[:, None], -torch.inf)
        chosen = choose(logits, self.num_queries, one2many=self.query_select_method == "one2many")
        cells, logits = _take(cells, chosen), _take(logits, chosen)
        boxes = (self.enc_bbox_head(cells).float() + anchors[chosen]).sigmoid()
        content = cells.detach()
        if self.tgt_embed is not None:
            content = self.tgt_embed.weight[: chosen.shape[1]].expand(len(cells), -1, -1)
        return _Queries(content, boxes.detach(), LayerOutput(logits, boxes))

    def _position(self, boxes: Tensor) -> Tensor:
        """The position code of boxes [B, Q, 4], in float32: bfloat16 would move them by 1/256."""
        if torch.is_autocast_enabled(boxes.device.type):
            with torch.autocast(boxes.device.type, enabled=False):
                return self._position(boxes)
        return self.query_pos_head(boxes).clamp(-MAX_POSITION, MAX_POSITION)  # type: ignore[no-any-return]

    def _refine(
        self,
        x: Tensor,
        boxes: Tensor,
        maps: Sequence[Tensor],
        extent_hw: tuple[float, float],
        blocked: Tensor | None,
    ) -> tuple[list[LayerOutput], LayerOutput]:
        """Run the layers on queries [B, Q, D] with boxes [B, Q, 4].

        Returns:
            Every layer's output in training, that of layer `eval_idx` in evaluation; and the output before
            the first refinement, with layer 0's logits (without the quality's part).
        """
        shapes_hw = [(level.shape[-2], level.shape[-1]) for level in maps]
        memory = torch.cat([flatten_map(level) for level in maps], 1)
        last = len(self.layers) - 1 if self.training else self.eval_idx
        outputs: list[LayerOutput] = []
        previous, values = torch.zeros_like(x), None
        corners, initial, pre = boxes.new_zeros(()), boxes, LayerOutput(x, boxes)
        for index in range(last + 1):
            layer, width = cast(DecoderLayer, self.layers[index]), self.widths[index]
            if values is None or width != x.shape[-1]:
                x, previous = stretch(x, width), stretch(previous, width)
                values = layer.cross_attn.arrange(stretch(memory, width), shapes_hw)
            position = stretch(self._position(boxes).to(x.dtype), width)
            x = layer(x, position, _on_map(boxes, extent_hw), values, shapes_hw, blocked)
            if index == 0:
                pre_boxes = (self.pre_bbox_head(x).float() + inverse_sigmoid(boxes)).sigmoid()
                pre = LayerOutput(_of_layer(self.dec_score_head, 0)(x).float(), pre_boxes)
                initial = pre_boxes.detach()
            corners = corners + _of_layer(self.dec_bbox_head, index)(x + previous).float()
            refined = distances_to_boxes(initial, expected_distances(corners, self.bins), self.reg_scale)
            if self.training or index == last:
                logits = self.lqe_layers[index](_of_layer(self.dec_score_head, index)(x), corners).float()
                outputs.append(LayerOutput(logits, refined, corners, initial))
            previous, boxes = x.detach(), refined.detach()
        return outputs, pre


def _on_map(boxes: Tensor, extent_hw: tuple[float, float]) -> Tensor:
    """Boxes [..., 4] in units of the picture, in units of the padded map; nothing is copied to the device."""
    if isinstance(extent_hw[0], float) and extent_hw == (1.0, 1.0):  # not symbols, of which no one knows
        return boxes
    height, width = (boxes.new_full((1,), extent) for extent in extent_hw)
    return boxes * torch.cat((width, height, width, height))


def _of_layer(heads: nn.ModuleList, index: int) -> nn.Module:
    """Layer `index`'s own head, or the one that all layers share."""
    return heads[0] if len(heads) == 1 else heads[index]


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows [B, k] of `x` [B, n, D] as [B, k, D]."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


def _rows(output: LayerOutput, start: int, stop: int) -> LayerOutput:
    """The queries from `start` to `stop` of a stage's output."""
    logits, boxes, corners, references = output
    return LayerOutput(
        logits[:, start:stop],
        boxes[:, start:stop],
        None if corners is None else corners[:, start:stop],
        None if references is None else references[:, start:stop],
    )
