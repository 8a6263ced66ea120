import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.core import StageSettings
from src.solver.stages import plan_stages, stages_table


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


def test_negative_starts_count_from_the_end() -> None:
    stages = plan_stages([StageSettings(start=0), StageSettings(start=-2, multi_scale=False)], epochs=10)
    assert [(s.start, s.end) for s in stages] == [(0, 8), (8, 10)]


def test_stages_after_the_end_never_come() -> None:
    (stage,) = plan_stages([StageSettings(start=0), StageSettings(start=72, multi_scale=False)], epochs=3)
    assert (stage.start, stage.end, stage.multi_scale) == (0, 3, True)


def test_freeze_epochs_cut_a_stage_in_two() -> None:
    stages = plan_stages([StageSettings(start=0), StageSettings(start=7)], epochs=9, freeze_epochs=3)
    assert [(s.start, s.end, s.backbone) for s in stages] == [(0, 3, "frozen"), (3, 7, "all"), (7, 9, "all")]


def test_freeze_backbone_freezes_all_stages() -> None:
    stages = plan_stages([StageSettings(start=0), StageSettings(start=7)], epochs=9, freeze_backbone=True)
    assert [s.backbone for s in stages] == ["frozen", "frozen"]


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
