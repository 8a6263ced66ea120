"""One step under guidance: its losses, its shares, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from guidance_cases import TEACHER_DIM, tiny_teacher
from ledger import Ledger, watch_copies
from step_cases import FLOAT32, NUM_CLASSES, make_batch, make_detector, snapshot, split
from torch import Tensor

from src import assembly
from src.core.guidance_settings import TeacherSettings
from src.data import build_pipeline
from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.nn.dfine import DFINE
from src.nn.guided import Guided, InitialViT
from src.ops.similarity import cosine_distance, gram_distance
from src.optim import ModelEMA, build_schedule, parameter_groups
from src.optim.gradient_share import SteeredWeight
from src.solver.guidance import Guidance
from src.solver.precision import Precision
from src.solver.stages import Stage
from src.solver.step import TrainingStep
from src.teachers import FeatureKind, FeatureStore
from src.teachers.dinov3_teacher import ModelType
from src.teachers.sources import OnlineTeacher, SavedTeacher

O1 = Precision("cpu", torch.bfloat16)
O2 = Precision("cpu", torch.bfloat16, casts_weights=True)


def make_guidance(model: DFINE, *, distils: bool = True, anchored: bool = True) -> Guidance:
    torch.manual_seed(3)
    anchor = InitialViT(model.backbone) if anchored else None
    if not distils:
        return Guidance(Guided(model, None, anchored=True), anchor=anchor, gram_weight=100.0)
    teacher = OnlineTeacher(tiny_teacher({"extract_cls_token": False}), 0.5)
    return Guidance(
        Guided(model, TEACHER_DIM, anchored=anchored),
        teacher=teacher,
        weight=SteeredWeight(2.0, restart_weight=None, aim=0.11, tolerance=0.01),
        anchor=anchor,
        gram_weight=100.0,
    )


def make_step(
    model: DFINE, guidance: Guidance | None, precision: Precision = FLOAT32, lr: float = 0.01
) -> TrainingStep:
    groups = parameter_groups(model, [], lr=lr, weight_decay=0.0)
    if guidance is not None:
        groups += guidance.parameter_group(lr=lr, weight_decay=0.0)
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    schedule = build_schedule(optimizer, total_steps=1000, steps_per_epoch=100)
    criterion = DFINECriterion(HungarianMatcher(), NUM_CLASSES)
    ema = ModelEMA(model, decay=0.5, warmups=0)
    return TrainingStep(
        model, criterion, optimizer, schedule, ema, precision, clip_max_norm=1.0, guidance=guidance
    )


def stir(model: DFINE) -> None:
    """The ViT leaves its place, so that it has something to be held back from."""
    with torch.no_grad():
        for parameter in model.backbone.vit.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_losses_are_added_to_the_student_s_own() -> None:
    model, alone = make_detector(), make_detector()
    guidance, batch = make_guidance(model), make_batch((2, 0, 1))
    wanted = make_step(alone, None)(alone, [batch])
    step = make_step(model, guidance)
    result = step(step.callee, [batch])
    assert result.names == (*wanted.names, "loss_distill", "loss_gram")
    assert torch.equal(result.losses[:-2], wanted.losses)
    assert result.losses[-1] == 0 and result.losses[-2] == 2 * result.notes["distill_cosine"]
    assert result.told.tolist() == [*result.losses.tolist(), *(float(v) for v in result.notes.values())]
    assert wanted.notes == {} and wanted.told is wanted.losses


def test_the_cosine_is_that_of_the_teacher_s_patches_on_the_student_s_grid() -> None:
    model = make_detector()
    guidance, (images, targets) = make_guidance(model), make_batch((1, 1))
    images = torch.rand(
        2, 3, 40, 90
    )  # padded to 64 x 96: 2 x 3 cells of 32 pixels, 2 x 3 patches at half size
    output = guidance.guided(images, targets)
    aims = guidance.aims(output, targets)
    assert output.projected is not None and aims.teacher is not None
    assert aims.teacher.shape == output.projected.shape == (2, TEACHER_DIM, 2, 3)
    found = guidance.losses(output, aims)["loss_distill"]
    torch.testing.assert_close(found, 2 * cosine_distance(output.projected, aims.teacher))
    guidance.teacher = OnlineTeacher(tiny_teacher({"extract_cls_token": False}), 1.0)
    assert guidance.aims(output, targets).teacher is not None
    assert guidance.aims(output, targets).teacher.shape == (2, TEACHER_DIM, 2, 3)


def gradients(model: DFINE) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_the_distillation_s_share_is_the_attention_s_part_of_all_gradients() -> None:
    model = make_detector()
    guidance = make_guidance(model)
    step = make_step(model, guidance)
    result = step(step.callee, [make_batch((2, 1))])
    found = gradients(model)
    part = sum(g.abs().sum() for name, g in found.items() if name.startswith("encoder.encoder."))
    projector = guidance.guided.projector
    assert projector is not None and projector.weight.grad is not None and projector.bias.grad is not None
    total = sum(g.abs().sum() for g in found.values())
    total += projector.weight.grad.abs().sum() + projector.bias.grad.abs().sum()
    torch.testing.assert_close(result.notes["distill_share"], part / total)
    assert 0 < result.notes["distill_share"] < 1 and result.notes["distill_weight"] == 2


def test_gram_s_share_is_its_gradient_beside_the_whole_one_at_the_tokens() -> None:
    model = make_detector()
    guidance = make_guidance(model)
    stir(model)
    batch = make_batch((2, 1))
    step = make_step(model, guidance)
    state = torch.get_rng_state()
    output = guidance.guided(*batch)
    aims = guidance.aims(output, batch[1])
    assert output.tokens is not None and aims.anchor is not None
    gram = 100 * gram_distance(output.tokens, aims.anchor)
    whole = sum(step.criterion(output.detected, batch[1]).values()) + 2 * cosine_distance(
        output.projected, aims.teacher
    )
    norms = [
        torch.autograd.grad(loss, output.tokens, retain_graph=True)[0].norm() for loss in (gram, whole + gram)
    ]
    torch.set_rng_state(state)
    result = step(step.callee, [batch])
    torch.testing.assert_close(result.losses[-1], gram.detach())
    torch.testing.assert_close(result.notes["gram_share"], norms[0] / norms[1], rtol=1e-4, atol=0)
    assert gram > 0


def test_gram_pulls_the_tokens_back() -> None:
    model = make_detector()
    guidance = make_guidance(model, distils=False)
    stir(model)
    images, targets = make_batch((1, 1))
    optimizer = torch.optim.SGD(model.backbone.vit.parameters(), lr=1e-3)
    found = []
    for _ in range(20):
        output = guidance.guided(images, targets)
        loss = guidance.losses(output, guidance.aims(output, targets))["loss_gram"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.7 * found[0]


def test_a_frozen_vit_asks_no_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_detector()
    guidance = make_guidance(model)
    model.backbone.set_trainable_blocks(0)
    asked = []
    monkeypatch.setattr(guidance.anchor, "forward", asked.append)
    step = make_step(model, guidance)
    result = step(step.callee, [make_batch((1, 1))])
    assert not asked and "loss_gram" not in result.names and "gram_share" not in result.notes


@pytest.mark.parametrize("blocks", [1, None])
def test_released_blocks_are_held(blocks: int | None) -> None:
    model = make_detector()
    guidance = make_guidance(model, distils=False)
    model.backbone.set_trainable_blocks(blocks)
    step = make_step(model, guidance)
    batch = make_batch((2, 1))
    results = [step(step.callee, [batch]) for _ in range(3)]
    assert results[0].losses[-1] == 0 and results[2].losses[-1] > 0
    assert set(results[2].notes) == {"gram_share"}


def test_micro_batches_are_one_large_batch() -> None:
    found = []
    torch.manual_seed(1)
    batch = make_batch((2, 0, 3, 1))
    for micro_batches in ([batch], split(batch, 2)):
        model = make_detector()
        guidance = make_guidance(model)
        torch.manual_seed(9)
        stir(model)
        step = make_step(model, guidance)
        losses = step(step.callee, micro_batches).losses
        assert guidance.guided.projector is not None
        found.append((losses, gradients(model), snapshot(guidance.guided.projector)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", [O1, O2])
@pytest.mark.parametrize("size", [2, 4])
def test_in_half_precision_projector_and_student_learn(precision: Precision, size: int) -> None:
    model = make_detector()
    guidance = make_guidance(model)
    stir(model)
    step = make_step(model, guidance, precision)
    assert guidance.guided.projector is not None
    before = snapshot(guidance.guided.projector)
    batches = split(make_batch((2, 0, 3, 1)), size)
    results = [step(step.callee, batches) for _ in range(3)]
    assert all(result.finite and result.losses.dtype == torch.float32 for result in results)
    after = guidance.guided.projector.state_dict()
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    assert all(p.dtype == torch.float32 for p in guidance.guided.parameters())


def test_o2_gives_o1_s_guided_losses() -> None:
    found = []
    for precision in (O1, O2):
        model = make_detector()
        guidance = make_guidance(model)
        torch.manual_seed(9)
        stir(model)
        step = make_step(model, guidance, precision)
        torch.manual_seed(1)
        found.append(step(step.callee, [make_batch((2, 1))]).told)
    torch.testing.assert_close(found[0][:-3], found[1][:-3], rtol=1e-6, atol=1e-6)


def test_a_step_that_is_skipped_does_not_count_for_the_weight() -> None:
    model = make_detector()
    guidance = make_guidance(model)
    step = make_step(model, guidance)
    images, targets = make_batch((2, 1))
    assert guidance.weight is not None
    assert step(step.callee, [(images, targets)]).finite
    mean = guidance.weight.mean_share()
    result = step(step.callee, [(images * float("nan"), targets)])
    assert not result.finite and mean is not None and guidance.weight.mean_share() == mean
    assert result.told.shape == step(step.callee, [(images, targets)]).told.shape


def test_guidance_lets_the_host_wait_no_oftener(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_detector(num_denoising=20)
    step = make_step(model, make_guidance(model))
    batch = make_batch((3, 0, 5))
    step(step.callee, [batch])
    copies = watch_copies(monkeypatch)
    with Ledger() as ledger:
        assert step(step.callee, [batch]).finite
    assert copies == ["cpu", "__bool__"]  # as test_step_ledger.py has it without guidance
    assert ledger.waits() == ["_local_scalar_dense"]


def dataset(
    moving: Sequence[str] = (), strong: Sequence[str] = (), ids: Sequence[int] = (1, 2), folder: str = ""
) -> Any:
    transforms = SimpleNamespace(ops=(), moves_frame=tuple(moving), strong_ops=frozenset(strong))
    names = [f"{folder}{i}.png" for i in ids]
    annotations = SimpleNamespace(image_ids=torch.tensor(ids), file_names=lambda: names)
    return SimpleNamespace(transforms=transforms, annotations=annotations, ann_file=Path("train.json"))


def saved_guidance() -> Guidance:
    kind = FeatureKind("vit_base", "0" * 16, (64, 64), "float16", {"patch_tokens": TEACHER_DIM})
    store = FeatureStore(Path("features"), kind, {"a": {"1": "1.png", "2": "2.png"}})
    guidance = make_guidance(make_detector(), anchored=False)
    guidance.teacher = SavedTeacher(store)
    return guidance


PLAIN, STRONG = Stage(0, 1, strong_augmentation=False), Stage(1, 2)


@pytest.mark.parametrize(
    ("stages", "moving", "strong"),
    [
        ([PLAIN], ["RandomHorizontalFlip"], ["RandomZoomOut"]),
        ([PLAIN, STRONG], ["RandomZoomOut"], ["RandomZoomOut"]),
        ([STRONG._replace(mixup=0.5)], [], []),
        ([STRONG._replace(mosaic=0.5)], [], []),
    ],
)
def test_saved_features_need_pictures_that_stay_in_their_place(
    stages: list[Stage], moving: list[str], strong: list[str]
) -> None:
    name = moving[0] if moving else "(mixup|mosaic)"
    with pytest.raises(ValueError, match=rf"distillation.features: {name} moves or mixes .* name a teacher"):
        saved_guidance().check_plan(stages, dataset(moving, strong))
    make_guidance(make_detector()).check_plan(stages, dataset(moving, strong))  # a teacher looks itself


def test_saved_features_know_no_padding() -> None:
    pictures = dataset()
    pictures.transforms = build_pipeline([("Resize", {})], (), (64, 64), keep_ratio=True)
    with pytest.raises(ValueError, match=r"distillation.features: keep_ratio moves"):
        saved_guidance().check_plan([PLAIN], pictures)


def test_the_config_with_saved_features_moves_nothing(repo_root: Path) -> None:
    config = repo_root / "configs" / "dfine" / "distill" / "dfine_hgnetv2_n_saved_coco.yml"
    stated = assembly.load(config).train_dataloader.dataset.transforms
    pipeline = build_pipeline(
        [(op.type, op.knobs) for op in stated.ops],
        strong_ops=stated.policy.ops if stated.policy else (),
        size_hw=(64, 64),
    )
    saved_guidance().check_plan([STRONG], dataset(pipeline.moves_frame, tuple(pipeline.strong_ops)))


def test_strong_augmentation_that_never_runs_moves_nothing() -> None:
    saved_guidance().check_plan([PLAIN], dataset(["RandomZoomOut"], ["RandomZoomOut"]))


def test_saved_features_need_all_pictures() -> None:
    said = r"lacks 1 of the 3 pictures of train.json, 9 among them; .* holds 1 for .*--ann-file train.json"
    with pytest.raises(ValueError, match=said):
        saved_guidance().check_plan([PLAIN], dataset(ids=(1, 2, 9)))


def test_saved_features_of_other_pictures_under_the_same_ids_are_refused() -> None:
    said = r"features holds 1\.png as picture 1, which is val/1\.png in train\.json.*of its own"
    with pytest.raises(ValueError, match=said):
        saved_guidance().check_plan([PLAIN], dataset(folder="val/"))


def test_saved_features_need_pictures_that_are_not_padded() -> None:
    guidance = saved_guidance()
    images, targets = torch.rand(1, 3, 64, 60), make_batch((1,))[1]
    output = guidance.guided(images, targets)
    with pytest.raises(ValueError, match=r"pictures of \(64, 60\) \(height, width\) are padded"):
        guidance.aims(output, targets)


def test_an_anchor_needs_a_vit_that_learns() -> None:
    guidance = make_guidance(make_detector())
    frozen = Stage(0, 1, backbone="frozen")
    with pytest.raises(ValueError, match="gram_anchoring: no stage lets the ViT learn"):
        guidance.check_plan([frozen], dataset())
    guidance.check_plan([frozen, Stage(1, 2, backbone=1)], dataset())


def test_the_settings_know_the_teacher_s_models() -> None:
    assert get_args(get_type_hints(TeacherSettings)["model_type"]) == get_args(ModelType)
