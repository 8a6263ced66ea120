import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.deploy.comparison.model_info import count_flops, describe, parameter_table


class Attention(nn.Module):
    """Tokens of a 4-channel map attend to each other, by each of torch's ways."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.multi = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).transpose(1, 2)  # [B, H * W, 4], not contiguous
        if self.kind == "multi":
            return self.multi(tokens, tokens, tokens, need_weights=False)[0]
        if self.kind == "fused":
            return F.scaled_dot_product_attention(tokens[:, None], tokens[:, None], tokens[:, None])
        return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens


class Toy(nn.Module):
    """The parts of a detector in small."""

    def __init__(self, kind: str = "fused", two_part_backbone: bool = True):
        super().__init__()
        conv = nn.Conv2d(3, 4, 2, stride=2, bias=False)
        self.backbone = nn.ModuleDict({"vit": conv, "sta": nn.Dropout()}) if two_part_backbone else conv
        self.encoder = Attention(kind)
        self.decoder = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = (
            self.backbone["vit"](images)
            if isinstance(self.backbone, nn.ModuleDict)
            else self.backbone(images)
        )
        return self.decoder(self.encoder(maps).flatten(0, -2))


def test_parameters_by_part_add_up():
    toy = Toy()
    toy.backbone["sta"] = nn.Linear(2, 3)
    toy.extra = nn.Parameter(torch.zeros(7))
    table = parameter_table(toy)
    assert table == {"backbone.vit": 48, "backbone.sta": 9, "encoder": 80, "decoder": 25, "other": 7}
    assert sum(table.values()) == sum(p.numel() for p in toy.parameters())
    assert parameter_table(Toy(two_part_backbone=False)) == {"backbone": 48, "encoder": 80, "decoder": 25}


def test_frozen_parameters_count_and_shared_ones_once():
    toy = Toy(two_part_backbone=False).requires_grad_(False)
    toy.encoder.again = toy.encoder.multi
    assert parameter_table(toy)["encoder"] == 80


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ["fused", "multi", "plain"])
def test_work_worked_out_by_hand(kind, frozen):
    toy = Toy(kind).requires_grad_(not frozen)
    tokens = 4 * 6
    conv, linear = 2 * tokens * 48, 2 * tokens * 4 * 5
    products = 2 * 2 * tokens * tokens * 4  # q by k, attention by v; all heads together are 4 wide
    projections = 2 * tokens * 4 * 4 * 4 if kind == "multi" else 0  # q, k, v and out
    flops = count_flops(toy, (8, 12))
    assert flops.attention == products
    assert flops.total == conv + linear + products + projections


def test_counting_leaves_everything_as_it_was():
    toy = Toy("multi")
    toy.train()
    toy.encoder.eval()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    count_flops(toy, (4, 4))
    assert (
        toy.training and toy.decoder.training and not toy.encoder.training and not toy.encoder.multi.training
    )
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert all(p.grad is None for p in toy.parameters())


def test_describe_as_dict_and_table():
    model, deployed = Toy("plain"), Toy("plain")
    deployed.decoder = nn.Linear(4, 5, bias=False)
    info = describe(model, deployed, (8, 12))
    content = json.loads(json.dumps(info.to_dict()))
    assert content["parameters"]["train"]["total"] == 153 and content["parameters"]["deploy"]["total"] == 148
    assert content["gflops"]["with_attention_products"] > content["gflops"]["without_attention_products"] > 0
    assert content["size_hw"] == [8, 12]
    lines = info.table().splitlines()
    assert [line.split()[0] for line in lines[:5]] == [
        "parameters",
        "backbone.vit",
        "encoder",
        "decoder",
        "total",
    ]
    assert lines[4].split() == ["total", "153", "148"] and "8x12" in info.table()
