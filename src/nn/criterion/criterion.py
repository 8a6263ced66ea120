"""D-FINE's training criterion: a fixed number of operations and one wait for the device, whatever the depth.

Legend: B batch, Q queries of a picture, S = B * Q, C classes, L decoder layers, O outputs (layers, pre and,
for the matching queries, encoder), N pairs of prediction and object, G of them in the box losses, R bins.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ...ops.boxes import corner_planes, overlap
from ...ops.distribution import bin_targets, boxes_to_distances
from ...structures import Targets, TrainOutput
from .losses import distillation_loss, fine_grained_loss, matchability_aware_loss, varifocal_loss
from .matcher import HungarianMatcher
from .normalisers import Normalisers, normalisers
from .pairs import NoisedLayout, Pairs, StepPairs, pair_up
from .stacking import Stacked, stack_denoising, stack_matching

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vfl": ("loss_vfl",),
        "mal": ("loss_mal",),
        "boxes": ("loss_bbox", "loss_giou"),
        "local": ("loss_fgl", "loss_ddf"),
    }
)
DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"loss_vfl": 1.0, "loss_mal": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_fgl": 0.15, "loss_ddf": 1.5}
)


class DFINECriterion(nn.Module):
    """All losses of a training step, weighted and by name.

    The names are upstream's: `loss_vfl` or `loss_mal`, `loss_bbox`, `loss_giou`, `loss_fgl` of the last
    layer; with `loss_ddf` and the suffix `_aux_i` of the layers before; `_pre` of the boxes before
    refinement; `_enc_0` of the encoder's proposals; `_dn_i` and `_dn_pre` of the denoising queries. They
    follow the model, never the batch: without any object the losses of pairs are zeros that still belong to
    the graph, so that every rank of a distributed run has the same losses and every parameter its gradient.

    Class losses use each output's own matching, the others the union of all matchings (D-FINE's GO-LSD). What
    the sums are divided by is averaged over the ranks, and over a step's micro-batches where their counts are
    given, so that these train as one rank would on the whole batch. A loss that is not finite is returned as
    it is.

    Args:
        matcher: Assigns objects to queries.
        num_classes: C, compared with the outputs.
        weight_dict: A weight >= 0 for each loss that `losses` switches on.
        losses: What to compute: "vfl" (loss_vfl) or DEIM's "mal" (loss_mal), "boxes" (loss_bbox, loss_giou),
            "local" (loss_fgl, loss_ddf). Heads that none of them trains get gradients of 0.
        alpha: Weight of the VFL's negative terms.
        gamma: Exponent of the VFL's negative terms.
        mal_gamma: Exponent of the MAL.
        reg_max: Number of bins less one, if stated: compared with the outputs.
        temperature: Softness of the distributions that DDF compares, above 0.

    Raises:
        ValueError: A setting is unknown, missing or out of range.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        num_classes: int,
        *,
        weight_dict: Mapping[str, float] = DEFAULT_WEIGHTS,
        losses: tuple[str, ...] = ("vfl", "boxes", "local"),
        alpha: float = 0.75,
        gamma: float = 2.0,
        mal_gamma: float = 1.5,
        reg_max: int | None = None,
        temperature: float = 5.0,
    ) -> None:
        super().__init__()
        _check_losses(losses, weight_dict)
        if not 0 <= alpha <= 1 or min(gamma, mal_gamma) < 0 or temperature <= 0:
            raise ValueError(
                "DFINECriterion: alpha must be in [0, 1], gamma and mal_gamma >= 0 and temperature > 0, "
                f"but they are {alpha}, {gamma}, {mal_gamma} and {temperature}"
            )
        self.matcher = matcher
        self.num_classes = num_classes
        self.weight_dict = dict(weight_dict)
        self.losses = tuple(losses)
        self.alpha = alpha
        self.gamma = gamma
        self.mal_gamma = mal_gamma
        self.reg_max = reg_max
        self.temperature = temperature

    def forward(
        self, output: TrainOutput, targets: Targets, step_counts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses by name, float32 scalars.

        Computed in float32 whatever autocast says. The host waits for the device once, for the costs.

        Args:
            output: What the model gave.
            targets: The objects of its pictures.
            step_counts: [M, 8] what `count` says of all M micro-batches of the step, this one among them;
                the mean of their losses is then the loss of one batch of all their pictures. None where this
                batch is all that the rank has in the step.

        Raises:
            ValueError: The outputs have other classes or bins than stated.
        """
        self._check(output)
        with torch.autocast(output.bins.device.type, enabled=False):
            matching, noised = stack_matching(output), stack_denoising(output)
            pairs = self._pair(matching, output, targets)
            own, of_noised = normalisers(pairs.counts, step_counts)
            named = self._family(matching, pairs.matching, own, targets, output)
            if noised is not None:
                named |= self._family(noised, pairs.denoising, of_noised, targets, output)
                if "local" in self.losses:
                    # the last denoising layer is the teacher; its own loss has a name, and nothing to learn
                    last = noised.suffixes[len(noised.corners) - 1]
                    named[f"loss_ddf{last}"] = named[f"loss_fgl{last}"] * 0
        return named

    @torch.no_grad()
    def count(self, output: TrainOutput, targets: Targets) -> Tensor:
        """[8] float32, how many pairs of each kind this batch has: a row of `forward`'s `step_counts`."""
        with torch.autocast(output.bins.device.type, enabled=False):
            return self._pair(stack_matching(output), output, targets).counts

    def _pair(self, matching: Stacked, output: TrainOutput, targets: Targets) -> StepPairs:
        """Whom the losses compare."""
        num_queries = output.encoder.boxes_cxcywh.shape[1]
        # [O, S, X] -> [O, B, Q, X]
        by_picture = (len(matching.suffixes), len(targets.counts), num_queries, -1)
        logits, boxes = matching.logits.detach(), matching.boxes.detach()
        matches = self.matcher(logits.view(by_picture), boxes.view(by_picture), targets)
        return pair_up(matches, targets.counts, num_queries, _noised_layout(output), logits.device)

    def _family(
        self, stacked: Stacked, pairs: Pairs, norms: Normalisers, targets: Targets, output: TrainOutput
    ) -> dict[str, Tensor]:
        """The losses of one family of outputs by name."""
        true_boxes = targets.boxes_cxcywh.float()[pairs.objects]
        # [O, S, 4] -> [O, N, 4]
        boxes = stacked.boxes.flatten(0, 1).index_select(0, pairs.rows.flatten()).view_as(true_boxes)
        iou, giou = overlap(corner_planes(boxes), corner_planes(true_boxes))
        iou = iou.detach()
        by_class, by_box = pairs.by_class, pairs.by_box
        values: dict[str, Tensor] = {}
        picks = pairs.rows[:, by_class] * self.num_classes + targets.labels[pairs.objects[:, by_class]]
        if "vfl" in self.losses:
            vfl = varifocal_loss(stacked.logits, picks, iou[:, by_class], self.alpha, self.gamma)
            values["loss_vfl"] = vfl / norms.objects
        if "mal" in self.losses:
            mal = matchability_aware_loss(stacked.logits, picks, iou[:, by_class], self.mal_gamma)
            values["loss_mal"] = mal / norms.objects
        if "boxes" in self.losses:
            values["loss_bbox"] = (boxes - true_boxes)[:, by_box].abs().sum((1, 2)) / norms.boxes
            values["loss_giou"] = (1 - giou[:, by_box]).sum(1) / norms.boxes
        if "local" in self.losses:
            layers = slice(0, len(stacked.corners))
            rows = pairs.rows[layers, by_box]
            local = (stacked, rows, iou[layers, by_box], norms)
            values["loss_fgl"] = self._fine_grained(*local, true_boxes[layers, by_box], output)
            values["loss_ddf"] = self._distillation(*local)
        if "boxes" not in self.losses or not {"vfl", "mal"} & set(self.losses):
            # what no loss reads belongs to the graph all the same: DDP stops at a parameter without gradient
            unread = 0 * (stacked.logits.sum() + stacked.boxes.sum())
            values = {name: sums + unread for name, sums in values.items()}
        return {
            name + suffix: value
            for name, sums in values.items()
            for suffix, value in zip(stacked.suffixes, (sums * self.weight_dict[name]).unbind(), strict=False)
        }

    def _fine_grained(
        self,
        stacked: Stacked,
        rows: Tensor,
        iou: Tensor,
        norms: Normalisers,
        true_boxes: Tensor,
        output: TrainOutput,
    ) -> Tensor:
        """FGL [L] of the pairs whose rows [L, G], IoU [L, G] and true boxes [L, G, 4] are given."""
        index = rows.flatten()
        # [L, S, 4, R] -> [L, G, 4, R]
        edges = stacked.corners.flatten(0, 1).index_select(0, index)
        edges = edges.view(*rows.shape, *stacked.corners.shape[2:])
        references = stacked.references.flatten(0, 1).index_select(0, index).view_as(true_boxes)
        corners = torch.stack(corner_planes(true_boxes), -1)
        distances = boxes_to_distances(references, corners, output.reg_scale)
        bins = bin_targets(distances, output.bins.detach().float())
        return fine_grained_loss(edges, *bins, iou) / norms.boxes

    def _distillation(self, stacked: Stacked, rows: Tensor, iou: Tensor, norms: Normalisers) -> Tensor:
        """DDF [L - 1]: matched queries count by their IoU, the others by the teacher's confidence."""
        num_students = len(stacked.corners) - 1
        confidence = stacked.logits[num_students].detach().amax(-1).sigmoid()
        importance = (confidence * norms.rest).repeat(num_students, 1)
        importance.view(-1)[rows[:-1]] = iou[:-1] * norms.matched
        return distillation_loss(stacked.corners, importance, self.temperature)

    def _check(self, output: TrainOutput) -> None:
        """Compare what was stated with what the model gives."""
        num_classes, num_bins = output.encoder.logits.shape[-1], output.bins.numel()
        if num_classes != self.num_classes:
            raise ValueError(
                f"DFINECriterion is made for {self.num_classes} classes, but the model gives {num_classes}: "
                "set num_classes alike for both"
            )
        if self.reg_max is not None and self.reg_max != num_bins - 1:
            raise ValueError(
                f"DFINECriterion: reg_max is stated as {self.reg_max}, but the decoder's is {num_bins - 1}: "
                "set both alike, or leave the criterion's out"
            )


def _noised_layout(output: TrainOutput) -> NoisedLayout:
    if output.denoising is None:
        return NoisedLayout()
    denoising = output.denoising
    return NoisedLayout(len(denoising.layers) + 1, denoising.num_groups, denoising.max_count)


def _check_losses(losses: tuple[str, ...], weight_dict: Mapping[str, float]) -> None:
    """Raise for what `losses` and `weight_dict` name in vain, or leave out."""
    unknown = sorted(set(losses) - set(FAMILIES))
    if unknown or not losses:
        raise ValueError(
            f"DFINECriterion: losses is {list(losses)}, but it must name at least one of {list(FAMILIES)}"
        )
    if {"vfl", "mal"} <= set(losses):
        raise ValueError(
            f"DFINECriterion: losses is {list(losses)}, but vfl and mal both train the class scores; keep one"
        )
    wanted = {name for family in losses for name in FAMILIES[family]}
    known = {name for names in FAMILIES.values() for name in names}
    if set(weight_dict) - known or wanted - set(weight_dict):
        raise ValueError(
            f"DFINECriterion: weight_dict names {sorted(weight_dict)}, but losses {list(losses)} need "
            f"{sorted(wanted)} (0 switches a loss off), and {sorted(known)} are all that it may name"
        )
    if min(weight_dict.values()) < 0:
        raise ValueError(f"DFINECriterion: weights must be >= 0, but weight_dict is {dict(weight_dict)}")
