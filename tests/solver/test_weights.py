import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.assembly import build_model, load
from src.solver.weights import class_names, covers, load_model, model_state, tune_model
from src.structures import ClassNames

PATH = Path("runs/best.pth")


class Decoder(nn.Module):
    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.enc_score_head = nn.Linear(dim, num_classes)
        self.dec_score_head = nn.ModuleList([nn.Linear(dim, num_classes)])
        self.denoising_class_embed = nn.Embedding(num_classes + 1, dim)
        self.bbox_head = nn.Linear(dim, 4)


class Toy(nn.Module):
    def __init__(self, num_classes: int = 3, dim: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])
        self.norm = nn.BatchNorm1d(dim)
        self.decoder = Decoder(num_classes, dim)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def named(*names: str) -> ClassNames:
    return ClassNames(names, tuple(range(1, len(names) + 1)))


def checkpoint_of(model: nn.Module, classes: ClassNames | None = None) -> dict[str, Any]:
    stored: dict[str, Any] = {"model": weights(model), "ema": None}
    if classes is not None:
        stored["classes"] = {"names": list(classes.names), "ids": list(classes.ids)}
    return stored


def test_the_average_goes_before_the_model_in_every_style() -> None:
    a, b = weights(Toy()), weights(Toy())
    for checkpoint, expected, which in (
        ({"model": a, "ema": {"module": b, "updates": 3, "decay": 0.9}, "epoch": 1}, b, "ema"),
        ({"model": a, "ema": None}, a, "model"),
        ({"ema": {"module": b, "updates": 3}, "last_epoch": 3, "date": "2024"}, b, "ema"),
        ({"model": a}, a, "model"),
        (a, a, "model"),
    ):
        state, found = model_state(checkpoint)
        assert found == which
        assert state.keys() == expected.keys()
        assert all(state[name] is expected[name] for name in expected)


@pytest.mark.parametrize("content", [{}, {"epoch": 3, "optimizer": {}}, {"model": {}}, {"model": {"a": 1}}])
def test_a_file_without_weights_says_what_it_holds(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"this one holds {', '.join(content) or 'nothing'}$"):
        model_state(content)
    with pytest.raises(ValueError, match=r"^runs/best\.pth: "):
        load_model(Toy(), content, PATH)


def test_all_weights_are_loaded() -> None:
    source, target = Toy(), Toy()
    load_model(target, checkpoint_of(source), PATH)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_another_model_is_refused_in_one_paragraph_and_nothing_changes() -> None:
    source, target = Toy(num_classes=3, depth=5), Toy(num_classes=7, depth=4)
    target.extra = nn.Linear(2, 2)
    before = weights(target)
    checkpoint = checkpoint_of(source, named("cat", "dog", "cow"))
    checkpoint["config"] = "epochs: 3\nnum_classes: 3\noutput_dir: ./output/toy\n"
    with pytest.raises(ValueError, match="checkpoint of another model") as caught:
        load_model(target, checkpoint, PATH)
    said = str(caught.value)
    assert said.startswith("runs/best.pth: ")
    assert "2 tensors are missing from it: extra.weight, extra.bias;" in said
    assert "2 tensors are unknown to the model: backbone.4.weight, backbone.4.bias;" in said
    assert (
        "5 tensors are of another shape: decoder.enc_score_head.weight (3x4 in the file, 7x4 in the model)"
        in said
    )
    assert "its own says output_dir ./output/toy, num_classes 3, 3 classes: cat, dog, cow" in said
    assert "\n" not in said
    for name, value in before.items():
        assert torch.equal(target.state_dict()[name], value)


def test_long_lists_are_cut() -> None:
    with pytest.raises(
        ValueError,
        match=r"14 tensors are missing from it: (\S+, ){5}\.\.\.; 1 tensor is unknown to the model: w\.",
    ):
        load_model(nn.ModuleList([nn.Linear(2, 2) for _ in range(7)]), {"w": torch.ones(1)}, PATH)


def test_classes_are_read_where_they_stand() -> None:
    assert class_names({"model": {}}) is None
    assert class_names(checkpoint_of(Toy(), named("a", "b"))) == named("a", "b")


def test_tuning_keeps_all_where_the_classes_are_the_same() -> None:
    source, target = Toy(), Toy()
    table = tune_model(target, checkpoint_of(source, named("a", "b", "c")), PATH, named("a", "B ", "c"))
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)
    lines = table.splitlines()
    assert lines[0] == "fine-tuning from runs/best.pth"
    assert lines[2].split() == ["kept", "20", str(sum(t.numel() for t in source.state_dict().values()))]
    assert [line.split()[-2:] for line in lines[3:]] == [["0", "0"]] * 4


def test_class_rows_follow_their_names() -> None:
    source, target = Toy(num_classes=3), Toy(num_classes=4)
    fresh = weights(target)
    # "dog" was 1 and becomes 0, "cat" was 0 and becomes 3; two classes are new, "cow" is gone
    table = tune_model(
        target, checkpoint_of(source, named("cat", "dog", "cow")), PATH, named("dog", "ox", "emu", "cat")
    )
    old, new = source.state_dict(), target.state_dict()
    for name in (
        "decoder.enc_score_head.weight",
        "decoder.enc_score_head.bias",
        "decoder.dec_score_head.0.weight",
    ):
        mean = old[name].mean(0)  # of what the file knows: objects of any kind
        assert torch.equal(new[name], torch.stack([old[name][1], mean, mean, old[name][0]]))
    embed = "decoder.denoising_class_embed.weight"
    expected = [old[embed][1], fresh[embed][1], fresh[embed][2], old[embed][0], old[embed][3]]
    assert torch.equal(new[embed], torch.stack(expected))
    assert torch.equal(new["decoder.bbox_head.weight"], old["decoder.bbox_head.weight"])
    assert "mapped by class name        5" in table
    assert "re-initialised              0" in table


def test_as_many_classes_of_other_names_are_not_taken_for_the_same() -> None:
    source, target = Toy(), Toy()
    tune_model(target, checkpoint_of(source, named("a", "b", "c")), PATH, named("b", "x", "y"))
    name = "decoder.enc_score_head.bias"
    old = source.state_dict()[name]
    assert torch.equal(target.state_dict()[name], torch.stack([old[1], old.mean(), old.mean()]))


def test_classes_without_a_common_name_start_as_the_mean_of_the_old() -> None:
    source, target = Toy(), Toy()
    fresh = weights(target)
    table = tune_model(target, checkpoint_of(source, named("a", "b", "c")), PATH, named("x", "y", "z"))
    mean = source.decoder.enc_score_head.weight.mean(0)
    assert torch.equal(target.decoder.enc_score_head.weight, mean.expand(3, -1))
    embed = "decoder.denoising_class_embed.weight"
    assert torch.equal(target.state_dict()[embed], fresh[embed])
    assert torch.equal(target.decoder.bbox_head.weight, source.decoder.bbox_head.weight)
    assert "mean of its classes         4" in table and "re-initialised              1" in table
    assert "decoder.enc_score_head.weight, decoder.enc_score_head.bias" in table


def test_without_names_the_heads_are_kept_or_start_anew_by_their_number() -> None:
    source, same, other = Toy(3), Toy(3), Toy(5)
    fresh = weights(other)
    tune_model(same, checkpoint_of(source), PATH, named("a", "b", "c"))
    assert torch.equal(same.decoder.enc_score_head.weight, source.decoder.enc_score_head.weight)
    tune_model(other, checkpoint_of(source), PATH, named("a", "b", "c", "d", "e"))
    assert torch.equal(other.decoder.enc_score_head.weight, fresh["decoder.enc_score_head.weight"])
    assert torch.equal(
        other.decoder.denoising_class_embed.weight, fresh["decoder.denoising_class_embed.weight"]
    )
    assert torch.equal(other.backbone[0].weight, source.backbone[0].weight)


def test_what_the_model_does_not_have_is_dropped_and_said() -> None:
    target = Toy(depth=4)
    table = tune_model(target, checkpoint_of(Toy(depth=5)), PATH)
    assert table.splitlines()[-1].split() == ["dropped", "2", "20", "backbone.4.weight,", "backbone.4.bias"]


def test_too_little_that_fits_is_refused_and_nothing_changes() -> None:
    target = Toy(dim=4)
    before = weights(target)
    with pytest.raises(ValueError, match=r"only \d of the model's 20 tensors fit.*-c.*checkpoint_path"):
        tune_model(target, checkpoint_of(Toy(dim=6)), PATH)
    for name, value in before.items():
        assert torch.equal(target.state_dict()[name], value)


class UpstreamLike(Toy):
    """A model whose tensors a published D-FINE file holds under upstream's names."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.decoder.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.decoder.up = 0.5
        self.decoder.reg_scale = 4.0


def published(model: nn.Module, reg_scale: float = 4.0) -> dict[str, Any]:
    state = {k.replace("decoder.layers.", "decoder.decoder.layers."): v for k, v in weights(model).items()}
    frozen = {"decoder.up": torch.tensor([0.5]), "decoder.reg_scale": torch.tensor([reg_scale])}
    return {"ema": {"module": {**state, **frozen, "decoder.anchors": torch.zeros(1, 9, 4)}}, "last_epoch": 71}


def test_published_files_load_strictly_under_upstreams_names() -> None:
    for read in (load_model, tune_model):
        source, target = UpstreamLike(), UpstreamLike()
        read(target, published(source), PATH)
        for name, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[name], value)


def test_a_published_file_with_another_constant_names_the_file() -> None:
    with pytest.raises(ValueError, match=r"^runs/best\.pth: .*reg_scale 8.*reg_scale: 8$"):
        load_model(UpstreamLike(), published(UpstreamLike(), reg_scale=8.0), PATH)


def published_classifier(num_classes: int) -> dict[str, Any]:
    return published(UpstreamLike(num_classes))


def test_published_heads_follow_the_names_that_they_do_not_state() -> None:
    checkpoint = published_classifier(366)
    old = checkpoint["ema"]["module"]["decoder.enc_score_head.weight"]
    target = UpstreamLike(4)
    # Objects365's ids: 1 "Person", 38 "Moniter/TV", 57 "Wild Bird"; upstream's row is the id
    table = tune_model(target, checkpoint, PATH, named("tv", "gnome", "bird", "PERSON"))
    expected = torch.stack([old[38], old[1:].mean(0), old[57], old[1]])
    assert torch.equal(target.decoder.enc_score_head.weight, expected)
    assert "mapped by class name" in table


def test_published_objects365_files_fit_models_of_its_365_classes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    checkpoint, target = published_classifier(366), UpstreamLike(365)
    before = weights(target)
    load_model(target, checkpoint, PATH)
    stored = checkpoint["ema"]["module"]
    for name, value in target.state_dict().items():
        upstream = stored[name.replace("decoder.layers.", "decoder.decoder.layers.")]
        assert torch.equal(value, upstream if upstream.shape == before[name].shape else upstream[1:])
    assert len(stored["decoder.enc_score_head.bias"]) == 366, "the checkpoint itself is left alone"
    assert "left out row 0, which is no class" in caplog.text
    found = class_names(checkpoint)
    assert found is not None and found.ids == tuple(range(1, 366)) and found.names[0] == "Person"


def test_366_classes_that_are_not_published_objects365_keep_their_rows() -> None:
    names = tuple(f"class {i}" for i in range(366))
    stated = published_classifier(366) | {"classes": {"names": list(names), "ids": list(range(366))}}
    for checkpoint in (stated, {"model": weights(UpstreamLike(366))}):
        target = UpstreamLike(366)
        load_model(target, checkpoint, PATH)
        assert len(model_state(checkpoint)[0]["decoder.enc_score_head.bias"]) == 366
    with pytest.raises(ValueError, match=r"\(365x4 in the file, 366x4 in the model\).*365 classes: Person"):
        load_model(UpstreamLike(366), published_classifier(366), PATH)


def test_the_very_name_goes_before_a_kindred_one() -> None:
    source, target = Toy(2), Toy(2)
    tune_model(target, checkpoint_of(source, named("bird", "Wild Bird")), PATH, named("wild bird", "bird"))
    assert torch.equal(target.decoder.enc_score_head.bias, source.decoder.enc_score_head.bias[[1, 0]])


def test_only_published_files_are_given_names_by_their_number() -> None:
    found = class_names(published_classifier(80))
    assert found is not None and found.names[11] == "stop sign" and found.ids[11] == 13
    assert class_names(published_classifier(81)) is None
    assert class_names({"model": {"decoder.enc_score_head.bias": torch.zeros(80)}}) is None
    assert class_names(published_classifier(80) | {"classes": {"names": ["a"], "ids": [4]}}) == ClassNames(
        ("a",), (4,)
    )


@pytest.mark.parametrize("load", [load_model, tune_model])
def test_the_log_says_which_weights_were_taken(load: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    load(UpstreamLike(), published(UpstreamLike()), PATH)
    assert "runs/best.pth: took the EMA weights, a published D-FINE file" in caplog.text
    load(Toy(), checkpoint_of(Toy()), PATH)
    assert caplog.records[-1].getMessage() == "runs/best.pth: took the model weights"


def test_weights_without_lora_start_a_model_with_it_and_not_the_other_way(repo_root: Path) -> None:
    config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
    plain = build_model(load(config))
    with_lora = build_model(load(config, ["DINOv3Backbone.lora={rank: 4, alpha: 8}"]))
    checkpoint = {"model": plain.state_dict()}
    assert covers(checkpoint, Path("plain.pth"), with_lora, "backbone.")
    tune_model(with_lora, checkpoint, Path("plain.pth"))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image).logits, with_lora.eval()(image).logits)
    with pytest.raises(ValueError, match="lora_A"):
        load_model(with_lora, checkpoint, Path("plain.pth"))
    with pytest.raises(ValueError, match=r"lora\.pth: was trained with LoRA"):
        tune_model(plain, {"model": with_lora.state_dict()}, Path("lora.pth"))
