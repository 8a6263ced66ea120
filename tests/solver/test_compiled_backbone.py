"""`compile: True` as users run it: what Inductor makes of the backbone, against the plain one."""

import pytest
import torch
from step_cases import make_detector
from torch import Tensor, nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._inductor import metrics

from src.nn.backbone import DINOv3Backbone
from src.solver.optimization import wrapped

SIZES = ((64, 96), (96, 96), (128, 64))


def maps_and_gradients(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    backbone.zero_grad()
    maps = backbone(images)
    sum(x.square().mean() for x in maps).backward()
    found = {f"map {index}": x.detach() for index, x in enumerate(maps)}
    return found | {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.usefixtures("inductor")
def test_one_compiled_graph_gives_the_maps_and_gradients_of_the_plain_backbone_at_all_sizes() -> None:
    plain, model = make_detector(), make_detector()
    metrics.reset()
    compiled = wrapped(model, compiled=True).backbone
    for height, width in SIZES:
        images = torch.rand(2, 3, height, width)
        expected, given = maps_and_gradients(plain.backbone, images), maps_and_gradients(compiled, images)
        assert given.keys() == expected.keys() >= {"map 2", "vit.blocks.0.attn.qkv.weight"}
        for name, value in expected.items():
            most = 5e-6 * float(value.abs().max())
            torch.testing.assert_close(given[name], value, rtol=0, atol=most, msg=f"{name} at {images.shape}")
    graphs = len(_debug_get_cache_entry_list(DINOv3Backbone.forward.__code__))
    assert graphs == (len(SIZES) if torch.__version__.startswith("2.10.") else 1)  # 2.10 sees layouts as new
    assert metrics.generated_kernel_count > 100  # Inductor's own, forward and backward
