"""Whole runs under guidance: they learn, go on after a stop, and leave checkpoints that need no teacher."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from guidance_cases import DISTILLATION, TEACHER_DIM, tiny_teacher
from ranks import on_ranks

from benchmarks.faults import differences, same
from src import assembly, runs
from src.core import ConfigError
from src.data.collate import collate
from src.door import Interrupted
from src.nn.backbone.vit import ViTShape
from src.nn.deploy import to_deploy
from src.solver import guides
from src.solver.bad_step import bad_gradients, read_bad_step, replay
from src.solver.batch_size import BatchPlan
from src.solver.checkpoint import Checkpoint, read_checkpoint
from src.solver.precision import Precision
from src.solver.resume import stored_state
from src.solver.trainer import Trainer
from src.teachers import DinoV3Teacher, FeatureKind, FeatureWriter

Config = Callable[..., Path]
CPU = torch.device("cpu")
GRAM = {"weight": 10.0}
PLAN: dict[str, Any] = {
    "epochs": 3,
    "print_freq": 3,
    "checkpoint_step_freq": 0,
    "eval_every": 3,
    "distillation": {**DISTILLATION, "restart_weight": 7.0, "share": 0.4},
    "gram_anchoring": GRAM,
    "stages": [
        {"start": 0, "backbone": "frozen"},
        {"start": 1, "backbone": "all", "strong_augmentation": False},
        {"start": 2, "ema_restart_decay": 0.5},
    ],
}
STEPS_PER_EPOCH = 4


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "build_teacher", tiny_teacher)


def train(config: Path, output: Path, *overrides: str, **start: str | None) -> Path:
    runs.train(assembly.load(config, [f"output_dir={output}", *overrides]), CPU, **start)
    return output


def lines(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    every = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in every if line["kind"] == kind]


def test_the_cosine_falls_and_the_losses_stay_finite(tiny_config: Config, tmp_path: Path) -> None:
    rate = ["optimizer.lr=3e-3", "optimizer.params=[]", "clip_max_norm=1.0"]
    config = tiny_config(epochs=5, eval_every=5, print_freq=4, distillation={**DISTILLATION, "weight": 10.0})
    told = lines(train(config, tmp_path / "run", *rate))
    assert all(math.isfinite(value) for line in told for value in line.values() if value != "train")
    cosines = [line["distill_cosine"] for line in told]
    assert sum(cosines[-3:]) / 3 < 0.7 * cosines[0]
    for line in told:
        assert line["loss_distill"] == pytest.approx(line["distill_weight"] * line["distill_cosine"])
        assert line["loss"] == pytest.approx(sum(v for k, v in line.items() if k.startswith("loss_")))


@pytest.fixture(scope="session")
def finished() -> dict[str, Path]:
    return {}


@pytest.fixture
def guided(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory, finished: dict[str, Path]) -> Path:
    """The run of PLAN that nothing disturbs, made once."""
    if "guided" not in finished:
        finished["guided"] = train(tiny_config(**PLAN), tmp_path_factory.mktemp("guided"))
    return finished["guided"]


def test_the_weight_changes_after_an_epoch_alone_and_is_reset_at_the_restart(guided: Path) -> None:
    told = lines(guided)  # of steps 3 and 4 of each epoch, the first one a mean of three
    weights = [line["distill_weight"] for line in told]
    assert weights[0] == weights[1] and weights[2] == weights[3] and weights[4] == weights[5]
    mean = (3 * told[0]["distill_share"] + told[1]["distill_share"]) / STEPS_PER_EPOCH
    wanted = 2.0 * min((0.41 / 0.59) / (mean / (1 - mean)), 10.0)
    assert weights[::2] == pytest.approx([2.0, wanted, 7.0], rel=1e-5)


def test_gram_counts_once_the_vit_learns(guided: Path) -> None:
    told = lines(guided)
    assert ["loss_gram" in line for line in told] == [False] * 2 + [True] * 4
    assert all(0 <= line["gram_share"] < 1 for line in told[2:]) and told[-1]["loss_gram"] > 0


@pytest.mark.parametrize("step", [4, 6])  # the last of an epoch, and one between two lines of the log
def test_a_guided_run_that_is_stopped_ends_as_an_undisturbed_one(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guided: Path, step: int
) -> None:
    config, cut = tiny_config(**PLAN), tmp_path / "cut"

    def stop(self: Trainer, *_: Any) -> None:
        if self.global_step == step:
            self._save(last=True)
            raise Interrupted(15)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Trainer, "_save_or_stop", stop)
        train(config, cut)
    train(config, cut, resume="auto")
    assert differences(cut, guided) == []
    assert same(*(read_checkpoint(folder / "last.pth")["guidance"] for folder in (cut, guided)))


def test_the_anchor_is_the_first_run_s_vit(tiny_config: Config, guided: Path) -> None:
    stored = read_checkpoint(guided / "last.pth")
    experiment = assembly.load(tiny_config(**PLAN), ["seed=1"])
    torch.manual_seed(1)
    trainer = assembly.build_trainer(experiment, CPU, resume=Checkpoint(guided / "last.pth", stored))
    guidance = trainer.step.guidance
    assert guidance is not None and guidance.anchor is not None
    anchor, vit = guidance.anchor.vit.state_dict(), trainer.model.backbone.vit.state_dict()
    assert same({f"vit.{name}": value for name, value in anchor.items()}, stored["guidance"]["anchor"])
    assert not same(dict(anchor), dict(vit))


def test_a_skipped_step_is_repeated_with_its_guidance(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(**PLAN, max_bad_steps=1)
    enter = Trainer._enter

    def spoil(self: Trainer, *rest: Any) -> Any:
        model, guidance = enter(self, *rest), self.step.guidance
        assert guidance is not None and guidance.guided.projector is not None
        with torch.no_grad():
            guidance.guided.projector.bias[0] = float("nan")
        return model

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="loss_distill nan"):
        patch.setattr(Trainer, "_enter", spoil)
        train(config, tmp_path / "run")
    bad = read_bad_step(tmp_path / "run" / "bad_step_0.pth")
    experiment = assembly.load(config)
    model, criterion = assembly.build_model(experiment), assembly.build_criterion(experiment)
    guidance = guides.build_guidance(experiment, model, CPU)
    again = replay(bad, model, criterion, Precision("cpu", None), CPU, guidance)
    assert not again.finite and bad_gradients(model) == bad.gradients
    told = torch.tensor(list(bad.losses.values()))
    torch.testing.assert_close(again.losses, told, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ValueError, match="holds nothing of its distillation"):
        replay(bad._replace(guidance=None), model, criterion, Precision("cpu", None), CPU, guidance)


def test_off_is_off(tiny_config: Config, guided: Path) -> None:
    experiment = assembly.load(tiny_config())
    assert experiment.distillation is None and experiment.gram_anchoring is None
    trainer = assembly.build_trainer(experiment, CPU)
    assert trainer.step.guidance is None and trainer.step.callee is trainer.model
    plain = stored_state(trainer.model, trainer.step, trainer.run, STEPS_PER_EPOCH)
    stored = read_checkpoint(guided / "last.pth")
    assert "guidance" in stored and not any("guid" in key for key in plain)
    assert plain.keys() < stored.keys()
    for model in ("model", "ema"):
        keys = [(s[model] if model == "model" else s[model]["module"]).keys() for s in (plain, stored)]
        assert keys[0] == keys[1]


def test_a_guided_checkpoint_needs_no_teacher(
    tiny_config: Config, tmp_path: Path, guided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guides, "build_teacher", None)
    file = guided / "last.pth"
    metrics = runs.test(assembly.load(tiny_config(**PLAN)), CPU, checkpoint=str(file))
    assert metrics.numbers() == {k: v for k, v in lines(guided, "eval")[-1].items() if k in metrics.numbers()}
    plain = tiny_config()
    model, *_ = assembly.load_detector(plain, file)
    assert not [name for name in to_deploy(model).state_dict() if "project" in name and "sta" not in name]
    train(plain, tmp_path / "tuned", "epochs=1", tune=str(file))
    with pytest.raises(
        ValueError, match=r"with distillation or gram_anchoring, and this .* has neither.* or use -t"
    ):
        train(plain, tmp_path / "on", "epochs=4", resume=str(file))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distillation": None}, "is another, of which the projector and weight tells"),
        ({"gram_anchoring": None}, "is another, of which the anchor tells"),
    ],
)
def test_a_run_goes_on_with_its_own_guidance_alone(
    tiny_config: Config, tmp_path: Path, guided: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config(**{**PLAN, **changes}), tmp_path / "on", resume=str(guided / "last.pth"))


def test_a_run_goes_on_with_a_teacher_of_its_own_width_alone(
    tiny_config: Config, tmp_path: Path, guided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wider(knobs: Any) -> DinoV3Teacher:
        return DinoV3Teacher(ViTShape(2 * TEACHER_DIM, depth=1, num_heads=2), **knobs)

    monkeypatch.setattr(guides, "build_teacher", wider)
    said = f"its teacher is {TEACHER_DIM} wide, this one {2 * TEACHER_DIM}"
    with pytest.raises(ValueError, match=rf"does not fit this experiment: {said}\. Resume"):
        train(tiny_config(**PLAN), tmp_path / "on", resume=str(guided / "last.pth"))


def save_features(config: Path, folder: Path) -> None:
    """What the tiny teacher says of each training picture, as tools/extract_features.py would save it."""
    experiment = assembly.load(config)
    dataset = assembly.build_loader(experiment, CPU, assembly.build_model(experiment)).dataset
    batch = collate([dataset[i] for i in range(len(dataset))])
    tokens = tiny_teacher({"extract_cls_token": False})(batch.images / 255)["patch_tokens"]
    writer = FeatureWriter(
        folder, FeatureKind("vit_base", "0" * 16, (64, 64), "float16", {"patch_tokens": TEACHER_DIM})
    )
    names = dataset.annotations.file_names()
    writer.write(list(batch.targets.image_ids), names, {"patch_tokens": tokens.half()})
    writer.finish()


def test_saved_features_teach_what_the_teacher_would(tiny_config: Config, tmp_path: Path) -> None:
    transforms = "train_dataloader.dataset.transforms"
    still = [f"{transforms}.ops=[{{type: Resize}}]", f"{transforms}.policy=null", "epochs=1", "print_freq=1"]
    teacher = {"model_type": "vit_base", "input_scale": 1.0}
    online = {"distillation": {**DISTILLATION, "teacher": teacher}}
    asked = lines(train(tiny_config(**online), tmp_path / "online", *still))
    plain = tmp_path / "plain.yml"
    plain.write_text(assembly.dump(assembly.load(tiny_config(), still)))
    save_features(plain, tmp_path / "features")
    saved = {"distillation": {"features": str(tmp_path / "features"), "weight": 2.0}}
    read = lines(train(tiny_config(**saved), tmp_path / "saved", *still))
    cosines = [[line["distill_cosine"] for line in run] for run in (asked, read)]
    assert cosines[1][0] == pytest.approx(cosines[0][0], abs=1e-3)  # float16; then the runs grow apart
    assert cosines[1] == pytest.approx(cosines[0], abs=0.05)
    with pytest.raises(ValueError, match="RandomHorizontalFlip moves or mixes"):
        train(tiny_config(**saved), tmp_path / "moved")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"distillation": {**DISTILLATION, "wieght": 1}}, "did you mean 'weight'"),
        ({"distillation": {"teacher": {"model_type": "vit_bse"}}}, "vit_base"),
        ({"distillation": {"teacher": {"model_type": "vit_base", "path": "x"}}}, "checkpoint_path"),
        ({"distillation": {"weight": 1.0}}, "needs one of the two"),
        ({"distillation": {**DISTILLATION, "features": "folder"}}, "needs one of the two"),
        ({"distillation": {**DISTILLATION, "share": 0.02, "share_tolerance": 0.03}}, "between 0 and 1"),
        ({"distillation": {**DISTILLATION, "share": 1.5}}, "below 1"),
        ({"gram_anchoring": {}}, "gram_anchoring.weight"),
        ({"gram_anchoring": {"weight": -1}}, "above 0"),
        ({"gram_anchoring": {"weight": 1, "start": 3}}, "gram_anchoring.start"),
        ({"gram_anchor": {"weight": 1}}, "gram_anchoring"),
    ],
)
def test_a_typo_in_a_section_is_refused(tiny_config: Config, section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        assembly.load(tiny_config(**section))
    assert "tiny.yml:" in str(error.value)


HGNETV2 = {
    "DFINE": {"backbone": "HGNetv2", "encoder": "HybridEncoder", "decoder": "DFINETransformer"},
    "HGNetv2": {"name": "B0", "pretrained": False, "freeze_at": -1, "freeze_norm": False},
    "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-4},
}


def hgnetv2(tiny_config: Config, **changes: Any) -> Path:
    config = tiny_config(**HGNETV2, **changes)
    text = config.read_text()
    start = text.index("DINOv3Backbone:\n")
    end = next(i for i in range(start + 1, len(text)) if text[i - 1] == "\n" and text[i] not in " -")
    config.write_text(text[:start] + text[end:])
    return config


def test_any_backbone_can_be_taught_and_only_a_dinov3_vit_anchored(
    tiny_config: Config, tmp_path: Path
) -> None:
    folder = train(hgnetv2(tiny_config, distillation=DISTILLATION), tmp_path / "run", "epochs=1")
    assert 0 < lines(folder)[-1]["distill_cosine"] < 2
    with pytest.raises(ValueError, match="holds the ViT of a DINOv3Backbone, and the backbone is a HGNetv2"):
        train(hgnetv2(tiny_config, gram_anchoring=GRAM), tmp_path / "no")


def test_an_anchor_and_a_compiled_backbone_are_refused(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set compile to False or remove gram_anchoring"):
        train(tiny_config(gram_anchoring=GRAM, compile=True), tmp_path / "run")


def test_a_measured_batch_leaves_the_teacher_out_and_says_so(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs, "probe", lambda *_, **__: BatchPlan(4, 1))
    auto = ["train_dataloader.total_batch_size=auto"]
    for section, said in (({}, False), ({"distillation": DISTILLATION}, True)):
        runs._sized(assembly.load(tiny_config(**section), auto), CPU, None)
        assert ("measures the student alone" in caplog.text) is said


def train_on_a_rank(rank: int, config: Path, output: Path) -> dict[str, Any]:
    guides.build_teacher = tiny_teacher  # type: ignore[assignment]
    weights: list[float] = []
    step_of = Trainer._save_or_stop

    def noted(self: Trainer, *rest: Any) -> None:
        weight = self.step.guidance.weight if self.step.guidance else None
        assert weight is not None
        weights.append(weight.weight)
        step_of(self, *rest)

    Trainer._save_or_stop = noted  # type: ignore[method-assign]
    overrides = [f"output_dir={output}"]
    experiment = assembly.load(config, overrides)
    trainer = assembly.build_trainer(experiment, CPU)
    trainer.fit()
    guidance = trainer.step.guidance
    assert guidance is not None and guidance.guided.projector is not None
    return {
        "weights": weights,
        "projector": guidance.guided.projector.state_dict(),
        "model": trainer.model.state_dict(),
        "rank": rank,
        "world": dist.get_world_size(),
    }


@pytest.mark.dist
def test_two_ranks_hold_the_same_weight_at_every_step(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(**PLAN)
    ranks = tmp_path / "ranks"
    ranks.mkdir()
    one, two = on_ranks(train_on_a_rank, 2, ranks, config, tmp_path / "run")
    assert (one["world"], two["rank"]) == (2, 1)
    assert one["weights"] == two["weights"] and len(one["weights"]) == 12
    assert len(set(one["weights"])) == 3 and one["weights"][-1] == 7.0
    assert same(one["projector"], two["projector"]) and same(one["model"], two["model"])
