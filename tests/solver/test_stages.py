from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from src.core import StageSettings
from src.solver import stages as module
from src.solver.stages import Stage, backbone_groups, stages_table

plan_stages = partial(module.plan_stages, num_blocks=12)


def test_without_a_list_there_is_one_stage() -> None:
    (stage,) = plan_stages([], epochs=5)
    assert (stage.start, stage.end, stage.backbone) == (0, 5, "all")
    assert stage.strong_augmentation
    assert stage.multi_scale


def test_unstated_fields_are_inherited_and_the_restart_is_not() -> None:
    stages = plan_stages(
        [
            StageSettings(start=0, backbone="frozen", backbone_lr_factor=0.5),
            StageSettings(start=4, strong_augmentation=False, ema_restart_decay=0.99),
            StageSettings(start=6, backbone="all"),
        ],
        epochs=8,
    )
    assert [(s.start, s.end) for s in stages] == [(0, 4), (4, 6), (6, 8)]
    assert [s.backbone for s in stages] == ["frozen", "frozen", "all"]
    assert [s.strong_augmentation for s in stages] == [True, False, False]
    assert [s.ema_restart_decay for s in stages] == [None, 0.99, None]
    assert all(s.backbone_lr_factor == 0.5 for s in stages)


def test_pictures_are_mixed_in_the_stages_that_say_so_and_only_with_strong_augmentation() -> None:
    """DEIM's four phases; the third states one chance less, the others go on."""
    stages = plan_stages(
        [
            StageSettings(start=0, strong_augmentation=False),
            StageSettings(start=4, strong_augmentation=True, mosaic=0.5, mixup=0.25, copyblend=0.5),
            StageSettings(start=29, mosaic=0.0, mixup=0.0),
            StageSettings(start=50, strong_augmentation=False),
        ],
        epochs=58,
        freeze_epochs=6,
    )
    assert [(s.start, *s.chances) for s in stages] == [
        (0, 0, 0, 0),
        (4, 0.5, 0.25, 0.5),
        (6, 0.5, 0.25, 0.5),
        (29, 0, 0, 0.5),
        (50, 0, 0, 0),
    ]
    told = stages_table(stages).splitlines()
    assert "strong, mosaic 0.5, mixup 0.25, copyblend 0.5" in told[2] and "strong, copyblend 0.5 " in told[4]
    assert "mosaic" not in told[1] + told[5]


def test_negative_starts_count_from_the_end() -> None:
    stages = plan_stages([StageSettings(start=0), StageSettings(start=-2, multi_scale=False)], epochs=10)
    assert [(s.start, s.end) for s in stages] == [(0, 8), (8, 10)]


def test_stages_after_the_end_never_come(caplog: pytest.LogCaptureFixture) -> None:
    (stage,) = plan_stages([StageSettings(start=0), StageSettings(start=72, multi_scale=False)], epochs=3)
    assert (stage.start, stage.end, stage.multi_scale) == (0, 3, True)
    assert caplog.messages == ["stages.1 (start: 72) never starts: the run has 3 epochs"]


def test_freeze_epochs_cut_a_stage_in_two() -> None:
    stages = plan_stages([StageSettings(start=0), StageSettings(start=7)], epochs=9, freeze_epochs=3)
    assert [(s.start, s.end, s.backbone) for s in stages] == [(0, 3, "frozen"), (3, 7, "all"), (7, 9, "all")]


def test_freeze_backbone_freezes_all_stages() -> None:
    stages = plan_stages([StageSettings(start=0), StageSettings(start=7)], epochs=9, freeze_backbone=True)
    assert [s.backbone for s in stages] == ["frozen", "frozen"]


def released(stages: tuple[Stage, ...]) -> list[tuple[int, int, object, float]]:
    return [(s.start, s.end, s.backbone, s.backbone_lr_factor) for s in stages]


def test_blocks_are_released_one_after_another_and_stay_released() -> None:
    listed = [
        StageSettings(start=0, backbone="frozen", ema_restart_decay=0.9),
        StageSettings(start=10, unfreeze_blocks=3, unfreeze_every=2, ema_restart_decay=0.99),
        StageSettings(start=20, strong_augmentation=False),
    ]
    stages = plan_stages(listed, epochs=25)
    assert released(stages) == [
        (0, 10, "frozen", 1.0),
        (10, 12, 1, 0.1),
        (12, 14, 2, 0.1),
        (14, 20, 3, 0.1),
        (20, 25, 3, 0.1),
    ]
    assert [s.ema_restart_decay for s in stages] == [0.9, 0.99, None, None, None]
    assert [s.strong_augmentation for s in stages] == [True] * 4 + [False]


def test_the_next_stage_cuts_a_release_and_goes_on_with_what_came() -> None:
    listed = [
        StageSettings(start=0, unfreeze_blocks=4, unfreeze_every=2, unfreeze_lr_factor=0.5),
        StageSettings(start=3, multi_scale=False),
    ]
    assert released(plan_stages(listed, epochs=5)) == [(0, 2, 1, 0.5), (2, 3, 2, 0.5), (3, 5, 2, 0.5)]
    assert released(plan_stages(listed, epochs=2)) == [(0, 2, 1, 0.5)]


def test_a_release_goes_with_the_shorthands() -> None:
    listed = [StageSettings(start=0), StageSettings(start=2, unfreeze_blocks=2, unfreeze_every=2)]
    late = plan_stages(listed, epochs=6, freeze_epochs=3)
    assert released(late) == [(0, 2, "frozen", 1.0), (2, 3, "frozen", 0.1), (3, 4, 1, 0.1), (4, 6, 2, 0.1)]
    never = plan_stages(listed, epochs=6, freeze_backbone=True)
    assert {s.backbone for s in never} == {"frozen"}


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"unfreeze_blocks": 4, "backbone": "all"}, r"stages\.1 \(start: 2\).*remove backbone,"),
        (
            {"unfreeze_blocks": 4, "backbone": 2, "backbone_lr_factor": 0.1},
            "remove backbone and backbone_lr_factor,",
        ),
        ({"unfreeze_every": 2}, r"stages\.1 \(start: 2\): unfreeze_every without unfreeze_blocks"),
        ({"unfreeze_lr_factor": 1.0, "backbone": 4}, "unfreeze_lr_factor without unfreeze_blocks"),
        ({"unfreeze_blocks": 13}, r"stages\.1 \(start: 2\): 13 blocks shall train, but the ViT has 12"),
        ({"backbone": 13}, "13 blocks shall train, but the ViT has 12"),
    ],
)
def test_a_release_that_cannot_be_is_refused(stage: dict[str, object], said: str) -> None:
    listed = [StageSettings(start=0, backbone="frozen"), StageSettings(start=2, **stage)]  # type: ignore[arg-type]
    for epochs in (9, 1):  # a stage after the end too
        with pytest.raises(ValueError, match=said):
            plan_stages(listed, epochs=epochs)


@pytest.mark.parametrize("before", ["all", 4, None])
def test_blocks_that_trained_are_not_released_again(before: object) -> None:
    listed = [StageSettings(start=0, backbone=before), StageSettings(start=2, unfreeze_blocks=2)]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"stages\.1.*releases a frozen ViT.*write `backbone: frozen` there"):
        plan_stages(listed, epochs=9)


@pytest.mark.parametrize("fields", [{"backbone": "frozen"}, {"backbone": 1}, {"unfreeze_blocks": 1}])
def test_a_backbone_without_blocks_trains_as_a_whole(fields: dict[str, object]) -> None:
    assert plan_stages([StageSettings(start=0, backbone="all")], epochs=2, num_blocks=0)
    with pytest.raises(ValueError, match=r"stages\.0 .*always trains as a whole; write `backbone: all`"):
        plan_stages([StageSettings(start=0, **fields)], epochs=2, num_blocks=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("starts", [[1], [0, 0], [0, 5, 3], [0, -9]])
def test_wrong_starts_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="must start at 0 and ascend"):
        plan_stages([StageSettings(start=s) for s in starts], epochs=9)


@given(
    epochs=st.integers(1, 30),
    inner=st.sets(st.integers(1, 40), max_size=4),
    freeze_epochs=st.integers(0, 40),
)
def test_stages_cover_every_epoch_once(epochs: int, inner: set[int], freeze_epochs: int) -> None:
    stages = plan_stages(
        [StageSettings(start=s) for s in [0, *sorted(inner)]], epochs=epochs, freeze_epochs=freeze_epochs
    )
    assert [e for s in stages for e in range(s.start, s.end)] == list(range(epochs))
    for stage in stages:
        for epoch in range(stage.start, stage.end):
            assert (stage.backbone == "frozen") == (epoch < freeze_epochs)


def test_table_has_a_line_for_each_stage() -> None:
    stages = plan_stages(
        [StageSettings(start=0), StageSettings(start=2, backbone=4, ema_restart_decay=0.9)], epochs=4
    )
    lines = stages_table(stages).splitlines()
    assert len(lines) == 3
    assert "last 4 blocks" in lines[2]
    assert "decay 0.9" in lines[2]


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)


def test_a_factor_needs_a_group_that_is_the_backbones_alone() -> None:
    model = Toy()
    apart = torch.optim.SGD([{"params": model.head.parameters()}, {"params": model.backbone.parameters()}])
    mixed = torch.optim.SGD(model.parameters())
    slow = [Stage(0, 2), Stage(2, 4, backbone_lr_factor=0.1)]
    assert backbone_groups(model, slow, apart) == [1]
    assert backbone_groups(model, slow[:1], mixed) == []
    with pytest.raises(ValueError, match=r"unfreeze_lr_factor\) 0.1 at epoch 2.*add one"):
        backbone_groups(model, slow, mixed)
