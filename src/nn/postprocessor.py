"""From logits and relative boxes to detections in pixels."""

import torch
from torch import Tensor, nn

from ..ops.boxes import cxcywh_to_xyxy
from ..structures import Detections, FinalOutput


class DFINEPostProcessor(nn.Module):
    """The best pairs of query and class; no suppression of overlapping boxes is needed.

    Args:
        num_classes: Number of classes.
        num_top_queries: Detections kept for each picture; fewer where there are fewer pairs.

    Raises:
        ValueError: A number is not positive.
    """

    def __init__(self, num_classes: int, *, num_top_queries: int = 300) -> None:
        super().__init__()
        for name, number in (("num_classes", num_classes), ("num_top_queries", num_top_queries)):
            if number < 1:
                raise ValueError(f"DFINEPostProcessor.{name}: {number}; at least 1.")
        self.num_classes = num_classes
        self.num_top_queries = num_top_queries

    def forward(self, output: FinalOutput, sizes_hw: Tensor) -> Detections:
        """Choose and scale.

        Args:
            output: What the model gives in evaluation.
            sizes_hw: [B, 2] (height, width) of each picture as stored.

        Returns:
            Detections in pixels of those pictures; boxes may reach beyond them.
        """
        scores = output.logits.float().sigmoid().flatten(1)
        scores, index = scores.topk(min(self.num_top_queries, scores.shape[1]), 1)
        labels = index % self.num_classes
        query = index.div(self.num_classes, rounding_mode="floor")
        height, width = sizes_hw.to(output.boxes_cxcywh).unbind(-1)
        boxes = cxcywh_to_xyxy(output.boxes_cxcywh.gather(1, query[..., None].expand(-1, -1, 4)))
        return Detections(labels, boxes * torch.stack((width, height, width, height), -1)[:, None], scores)
