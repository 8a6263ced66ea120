import pytest
import torch
from torch import nn

from src.optim import Rule, groups_table, parameter_groups


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Block()
        self.head = Block()
        self.register_buffer("anchors", torch.zeros(7))


def names_of(model: nn.Module, group: dict) -> list[str]:
    by_id = {id(p): name for name, p in model.named_parameters()}
    return [by_id[id(p)] for p in group["params"]]


def test_the_first_rule_that_matches_wins_and_the_rest_keeps_the_defaults() -> None:
    model = Toy()
    rules = [
        Rule(r"^backbone\.norm", None, 0.0),
        Rule(r"^backbone", 1e-5, None),
        Rule(r"norm|bias", None, 0.0),
    ]
    groups = parameter_groups(model, rules, lr=1e-3, weight_decay=0.1)
    assert [names_of(model, g) for g in groups] == [
        ["backbone.norm.weight", "backbone.norm.bias"],
        ["backbone.fc.weight", "backbone.fc.bias"],
        ["head.fc.bias", "head.norm.weight", "head.norm.bias"],
        ["head.fc.weight"],
    ]
    assert [g["lr"] for g in groups] == [1e-3, 1e-5, 1e-3, 1e-3]
    assert [g["weight_decay"] for g in groups] == [0.0, 0.1, 0.0, 0.1]
    assert [g["name"] for g in groups] == [*(r.pattern for r in rules), "rest"]
    assert all(g["initial_lr"] == g["lr"] for g in groups)
    assert [g["param_names"] for g in groups] == [names_of(model, g) for g in groups]


def test_a_rule_may_set_zero() -> None:
    groups = parameter_groups(Toy(), [Rule("head", 0.0, 0.0)], lr=1e-3, weight_decay=0.1)
    assert (groups[0]["lr"], groups[0]["weight_decay"]) == (0.0, 0.0)


def test_frozen_parameters_enter_and_train_once_released() -> None:
    model = Toy()
    model.backbone.requires_grad_(False)
    groups = parameter_groups(model, [Rule("backbone", 0.1, 0.0)], lr=0.1, weight_decay=0.0)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    optimizer = torch.optim.AdamW(groups)
    before = model.backbone.fc.weight.detach().clone()

    def step() -> None:
        optimizer.zero_grad()
        x = torch.randn(5, 4)
        (model.head.fc(x) + model.backbone.fc(x)).square().sum().backward()
        optimizer.step()

    step()
    assert torch.equal(model.backbone.fc.weight, before)
    model.backbone.requires_grad_(True)
    step()
    assert not torch.equal(model.backbone.fc.weight, before)


def test_without_rules_all_is_rest_and_without_rest_there_is_no_such_group() -> None:
    assert [g["name"] for g in parameter_groups(Toy(), [], lr=1.0, weight_decay=0.0)] == ["rest"]
    assert [g["name"] for g in parameter_groups(Toy(), [Rule(".")], lr=1.0, weight_decay=0.0)] == ["."]


def test_shared_parameters_enter_once() -> None:
    model = Toy()
    model.head.fc.weight = model.backbone.fc.weight
    groups = parameter_groups(model, [Rule("backbone")], lr=1.0, weight_decay=0.0)
    torch.optim.SGD(groups)  # refuses a parameter that stands in two groups
    assert names_of(model, groups[1]) == ["head.fc.bias", "head.norm.weight", "head.norm.bias"]


def test_a_pattern_that_matches_nothing_names_itself_and_the_nearest_parameters() -> None:
    with pytest.raises(ValueError, match=r"backbone\.nrom.*matches no parameter.*backbone\.norm\.") as caught:
        parameter_groups(Toy(), [Rule("backbone.nrom")], lr=1.0, weight_decay=0.0)
    assert "head" not in str(caught.value).split("nearest names are")[1].split(",")[0]


def test_upstreams_pattern_with_the_precedence_error_is_refused() -> None:
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"bn": nn.BatchNorm1d(2)})})
    with pytest.raises(ValueError, match="matches no parameter"):
        parameter_groups(model, [Rule("^(?=.*backbone)(?=.*norm|bn).*$")], lr=1.0, weight_decay=0.0)


def test_a_pattern_whose_parameters_are_taken_names_the_rule_that_took_them() -> None:
    rules = [Rule("^backbone", 1e-5), Rule("head"), Rule("backbone.*norm", None, 0.0)]
    with pytest.raises(
        ValueError, match=r"'backbone\.\*norm' gets no parameter: all 2 .* earlier '\^backbone' "
    ):
        parameter_groups(Toy(), rules, lr=1.0, weight_decay=0.0)


def test_all_empty_patterns_are_named_at_once() -> None:
    with pytest.raises(ValueError, match="'neck'.*'tail'"):
        parameter_groups(Toy(), [Rule("neck"), Rule("tail")], lr=1.0, weight_decay=0.0)


def test_a_broken_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'head\(' is no regular expression"):
        parameter_groups(Toy(), [Rule("head(")], lr=1.0, weight_decay=0.0)


def test_the_table_counts_tensors_and_parameters() -> None:
    groups = parameter_groups(Toy(), [Rule("^backbone", 1e-5, 0.0)], lr=2.5e-4, weight_decay=1.25e-4)
    lines = groups_table(groups).splitlines()
    assert lines[0].split() == ["pattern", "tensors", "parameters", "lr", "weight", "decay"]
    assert lines[1].split() == ["^backbone", "4", "21", "1e-05", "0"]
    assert lines[2].split() == ["rest", "4", "21", "0.00025", "0.000125"]
    assert lines[3].split() == ["total", "8", "42"]
    assert (
        len(
            {
                line.index(cell) + len(cell)
                for line, cell in zip(lines[1:3], ["1e-05", "0.00025"], strict=True)
            }
        )
        == 1
    )


class ToyViT(nn.Module):
    """The parameters that a ViT of two blocks has, under their names in a detector."""

    def __init__(self) -> None:
        super().__init__()
        vit = nn.Module()
        vit.cls_token = nn.Parameter(torch.zeros(1))
        vit.patch_embed = nn.Linear(2, 2, bias=False)
        vit.blocks = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
        vit.norm = nn.LayerNorm(2)
        self.backbone = nn.Module()
        self.backbone.vit = vit
        self.backbone.sta = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)


def test_layer_decay_lowers_the_rate_once_for_each_layer_above() -> None:
    rules = [Rule(r"vit\..*(?:norm|token)", 1.0, 0.0), Rule(r"^backbone\.", 1.0)]
    groups = parameter_groups(ToyViT(), rules, lr=8.0, weight_decay=0.1, layer_decay=0.5)
    assert [(g["param_names"], g["lr"], g["weight_decay"]) for g in groups] == [
        (["backbone.vit.cls_token"], 0.125, 0.0),
        (["backbone.vit.norm.weight", "backbone.vit.norm.bias"], 1.0, 0.0),
        (["backbone.vit.patch_embed.weight"], 0.125, 0.1),
        (["backbone.vit.blocks.0.weight"], 0.25, 0.1),
        (["backbone.vit.blocks.1.weight"], 0.5, 0.1),
        (["backbone.sta.weight", "backbone.sta.bias"], 1.0, 0.1),
        (["head.weight", "head.bias"], 8.0, 0.1),
    ]
    assert all(g["initial_lr"] == g["lr"] for g in groups)


def test_layer_decay_tells_the_vit_from_the_rest_without_rules_too() -> None:
    groups = parameter_groups(ToyViT(), [], lr=1.0, weight_decay=0.0, layer_decay=0.5)
    assert [g["lr"] for g in groups] == [0.125, 0.25, 0.5, 1.0, 1.0]
    assert groups[3]["param_names"] == ["backbone.vit.norm.weight", "backbone.vit.norm.bias"]


def test_layer_decay_keeps_the_table_at_a_line_for_each_pattern() -> None:
    groups = parameter_groups(
        ToyViT(), [Rule(r"^backbone\.vit", 1e-5)], lr=1e-3, weight_decay=0.0, layer_decay=0.8
    )
    lines = groups_table(groups).splitlines()
    assert len(lines) == 4
    assert lines[1].split() == [r"^backbone\.vit", "6", "17", "5.12e-06", "to", "1e-05", "0"]


def test_layer_decay_of_a_backbone_that_is_no_vit_is_refused() -> None:
    with pytest.raises(ValueError, match="layer_decay needs a ViT.*remove it"):
        parameter_groups(Toy(), [], lr=1.0, weight_decay=0.0, layer_decay=0.8)
