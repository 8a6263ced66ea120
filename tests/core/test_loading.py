from pathlib import Path

import pytest
from config_fakes import BASE, load, write

from src.core import (
    ConfigError,
    GroupRule,
    OpSettings,
    OptimizerSettings,
    PolicySettings,
    SchedulerSettings,
    StageSettings,
)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, *overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_an_experiment_holds_what_was_written_and_defaults_for_the_rest(tmp_path: Path) -> None:
    exp = load(write(tmp_path))
    assert exp.optimizer == OptimizerSettings(lr=1e-3, params=(GroupRule(params="bias$", weight_decay=0.0),))
    assert exp.lr_scheduler == SchedulerSettings()
    assert exp.output_dir == "./output/run"
    assert exp.eval_spatial_size == (640, 640)
    assert exp.seed is None
    assert exp.val_dataloader.num_workers == 4
    assert exp.train_dataloader.dataset.transforms.ops == (
        OpSettings(type="Crop", knobs={"p": 1.0}),
        OpSettings(type="Resize", knobs={"size": (64, 32)}),
    )
    assert exp.train_dataloader.dataset.transforms.policy == PolicySettings(ops=("Crop",))


def test_components_are_bound_and_wired(tmp_path: Path) -> None:
    exp = load(write(tmp_path))
    assert exp.components == {
        "Net": {},
        "BackboneA": {"depth": 6},
        "Head": {"rate": 1e-4},
        "Losses": {},
        "Matcher": {"alpha": 1.0, "costs": {"x": 2.0}},
        "Post": {},
    }
    assert exp.wiring == {"Net": {"backbone": "BackboneA", "head": "Head"}, "Losses": {"matcher": "Matcher"}}


def test_overrides_come_last_and_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, "__include__: base.yml\nepochs: 3\nseed: 1\noutput_dir: ./here\n")
    exp = load(
        path, "epochs=4", "optimizer.params.0.lr=1e-5", "epochs=5", "Matcher.costs={y: 3}", "Post.top=7"
    )
    assert (exp.epochs, exp.seed, exp.output_dir) == (5, 1, "./here")
    assert exp.optimizer.params[0].lr == 1e-5
    assert exp.components["Matcher"] == {"alpha": 1.0, "costs": {"y": 3.0, "x": 2.0}}
    assert exp.components["Post"] == {"top": 7}


def test_a_reader_of_other_files_is_not_disturbed_by_what_was_read_before(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = load(path)
    load(path, "BackboneA.depth=9", "optimizer.lr=1.")
    assert load(path) == before


def test_all_faults_at_once_each_with_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "__include__: base.yml\n"
        "epoches: 72\n"
        "epochs: many\n"
        "seed: 1\n"
        "seed: 2\n"
        "optimizer: {lr: 0, weight_deacy: 1e-4}\n"
        "BackboneA:\n"
        "  dept: 3\n"
        "  channels: [1, 2.5]\n"
        "Haed: {rate: 1}\n"
        "Head: {num_classes: 4}\n"
        "train_dataloader: {dataset: {transforms: {ops: [{type: Crop, p: yes}, {type: Resise}, Crop]}}}\n",
    )
    assert faults(
        path, "Losses.nmaes=[a]", "clip_max_norm=-1", "val_dataloader.collate_fn.base_size=640"
    ) == (
        "run.yml:2: epoches is not a key here: write `epochs`",
        "run.yml:3: epochs must be a whole number, not the text 'many'",
        "run.yml:5: the key 'seed' stands twice, first at run.yml:4; delete one",
        "run.yml:6: optimizer.lr must be above 0, not 0.0",
        "run.yml:6: unknown key optimizer.weight_deacy; did you mean 'weight_decay'?",
        "run.yml:8: unknown key BackboneA.dept; did you mean 'depth'?",
        "run.yml:9: BackboneA.channels.1 must be a whole number, not 2.5",
        "run.yml:10: unknown key Haed; did you mean 'Head'?",
        "run.yml:11: Head.num_classes is set by the program, not by the YAML; delete the key",
        "run.yml:12: train_dataloader.dataset.transforms.ops.0.p must be a number, not the text 'yes'",
        "run.yml:12: train_dataloader.dataset.transforms.ops.1.type names no transform 'Resise'; "
        "did you mean 'Resize'?",
        "run.yml:12: train_dataloader.dataset.transforms.ops.2 must be a mapping with `type:` and the "
        "transform's knobs",
        "-u val_dataloader.collate_fn.base_size=640: val_dataloader.collate_fn is not a key here: write "
        "`multi_scale: {base_size_repeat: ...}` at the top level (base_size is eval_spatial_size), and "
        "stop_epoch and ema_restart_decay as a stage of `stages`; mixup and copyblend are stages' chances",
        "-u clip_max_norm=-1: clip_max_norm must be at least 0, not -1.0",
        "-u Losses.nmaes=[a]: unknown key Losses.nmaes; did you mean 'names'?",
    )


def test_missing_keys_are_named(tmp_path: Path) -> None:
    found = faults(write(tmp_path, "epochs: 3\ncriterion: Losses\nLosses: {matcher: Matcher}\n"))
    missing = ["model", "postprocessor", "num_classes", "optimizer", "train_dataloader", "val_dataloader"]
    assert sorted(found) == sorted(f"run.yml:1: {key} is required and not given" for key in missing)


def test_a_missing_file_stops_before_anything_else(tmp_path: Path) -> None:
    assert faults(write(tmp_path, "__include__: none.yml\nepochs: x\n"), "a=[") == (
        "run.yml:1: none.yml does not exist",
        "-u a=[: not valid YAML: expected the node content, but found '<stream end>'",
    )


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("scaler.enabled=True", "amp"),
        ("use_focal_loss=True", "DFINECriterion"),
        ("find_unused_parameters=True", "delete it"),
        ("remap_mscoco_category=True", "contiguous"),
        ("evaluator.iou_types=[bbox]", "delete it"),
        ("train_dataloader.dataset.return_masks=False", "delete it"),
        ("train_dataloader.dataset.transforms.policy.epoch=72", "stages"),
        ("train_dataloader.dataset.transforms.policy.name=stop_epoch", "stages"),
        ("train_dataloader.collate_fn.base_size_repeat=3", "multi_scale"),
        ("train_dataloader.batch_size=3", "total_batch_size"),
        ("ema.start=0", "first step"),
    ],
)
def test_keys_of_upstream_are_told_our_name(tmp_path: Path, override: str, advice: str) -> None:
    (found,) = faults(write(tmp_path), override)
    assert found.startswith(f"-u {override}: ")
    assert "is not a key here: " in found
    assert advice in found


STAGES = "__include__: base.yml\nmulti_scale: {base_size_repeat: 3}\nstages:\n"


def test_stages_may_count_from_the_end_and_inherit(tmp_path: Path) -> None:
    exp = load(write(tmp_path, STAGES + "  - {start: 0, backbone: frozen}\n  - {start: -2, backbone: 4}\n"))
    assert exp.stages == (StageSettings(start=0, backbone="frozen"), StageSettings(start=-2, backbone=4))


@pytest.mark.parametrize(
    ("stages", "fault"),
    [
        ("  - {start: 1}\n", "run.yml:4: stages.0.start must be 0, not 1"),
        (
            "  - {start: 0}\n  - {start: 4}\n  - {start: 4}\n",
            "run.yml:6: stages.2.start is epoch 4 of 10, not after",
        ),
        ("  - {start: 0}\n  - {start: -10}\n", "run.yml:5: stages.1.start is epoch 0 of 10, not after"),
        ("  - {start: 0, backbone: some}\n", "run.yml:4: stages.0.backbone must be frozen | all or"),
        ("  - {start: 0, backbone: 0}\n", "run.yml:4: stages.0.backbone must be at least 1, not 0"),
        (
            "  - {start: 0, ema_restart_decay: 1}\n",
            "run.yml:4: stages.0.ema_restart_decay must be at least 0 and",
        ),
    ],
)
def test_stages_that_make_no_plan(tmp_path: Path, stages: str, fault: str) -> None:
    (found,) = faults(write(tmp_path, STAGES + stages))
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stages: [{start: 0, multi_scale: True}]", "stages.0.multi_scale needs the sizes"),
        (
            "stages: [{start: 0, strong_augmentation: True}]\n"
            "train_dataloader: {dataset: {transforms: {policy: ~}}}",
            "stages.0.strong_augmentation needs the transforms' names",
        ),
        (
            "stages: [{start: 0, strong_augmentation: False}, {start: 1, mosaic: 0.5}]",
            "stages.1.mosaic needs strong_augmentation: True",
        ),
        (
            "train_dataloader: {dataset: {transforms: {ops: [{type: Mosaic}, {type: Crop}]}}}",
            "train_dataloader.dataset.transforms.ops.0.type names no transform 'Mosaic'; write its chance in "
            "a stage, `stages: [{start: 4, mosaic: 0.5}]`",
        ),
        ("stages: [{start: 0, mixup: 1.5}]", "stages.0.mixup must be at least 0 and at most 1"),
        (
            "optimizer: {params: [{params: '(', lr: 1}]}",
            "optimizer.params.0.params is not a regular expression",
        ),
        ("optimizer: {params: [{params: a}]}", "optimizer.params.0 changes nothing"),
        (
            "train_dataloader: {dataset: {transforms: {policy: {ops: [Crop, Zoom]}}}}",
            "train_dataloader.dataset.transforms.policy.ops.1 names Zoom, which is not among the transforms "
            "(Crop, Resize)",
        ),
        (
            "lr_scheduler: {type: CosineLR, milestones: [3]}",
            "lr_scheduler.milestones is a knob of MultiStepLR",
        ),
        ("lr_scheduler: {flat_epochs: 3}", "lr_scheduler.flat_epochs is a knob of FlatCosineLR"),
        ("val_dataloader: {drop_last: True}", "val_dataloader.drop_last must be false"),
        ("val_dataloader: {shuffle: True}", "val_dataloader.shuffle must be false"),
        ("eval_spatial_size: [640, 16]", "eval_spatial_size.1 must be at least 32, not 16"),
        ("eval_spatial_size: 640", "eval_spatial_size must be a list of a whole number, not 640"),
        ("task: segmentation", "task must be detection, not the text 'segmentation'"),
        ("best_metric: mAP", "best_metric must be AP |"),
        ("components: {}", "unknown key components"),
        ("model: Nett", "model names no component 'Nett'; did you mean 'Net'?"),
    ],
)
def test_values_that_do_not_go_together(tmp_path: Path, text: str, fault: str) -> None:
    (found,) = faults(write(tmp_path, f"__include__: base.yml\n{text}\n"))
    line = len(text.splitlines()) + 1 if "~" not in text else 2
    assert found.startswith(f"run.yml:{line}: {fault}")


def test_a_scheduler_of_another_type_starts_afresh(tmp_path: Path) -> None:
    base = BASE + "lr_scheduler: {type: MultiStepLR, milestones: [5], gamma: 0.2}\n"
    path = write(
        tmp_path, "__include__: base.yml\nlr_scheduler: {type: FlatCosineLR, flat_epochs: 3}\n", base
    )
    assert load(path).lr_scheduler == SchedulerSettings(type="FlatCosineLR", flat_epochs=3)


def test_an_include_circle_is_a_config_error(tmp_path: Path) -> None:
    (found,) = faults(write(tmp_path, "__include__: base.yml\n", "__include__: run.yml\n"))
    assert found == "base.yml:1: include circle: run.yml -> base.yml -> run.yml"
