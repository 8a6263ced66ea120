import numpy as np
import pytest
import torch
from criterion_cases import GOLDEN, golden_case, leaves, make_output, make_targets
from torch import Tensor

from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.structures import Denoising, Targets, TrainOutput

NAMES = {
    *("loss_vfl", "loss_bbox", "loss_giou", "loss_fgl"),
    *(f"loss_{n}_aux_{i}" for n in ("vfl", "bbox", "giou", "fgl", "ddf") for i in range(2)),
    *(f"loss_{n}_dn_{i}" for n in ("vfl", "bbox", "giou", "fgl", "ddf") for i in range(3)),
    *(f"loss_{n}_{s}" for n in ("vfl", "bbox", "giou") for s in ("pre", "enc_0", "dn_pre")),
}


def make_criterion(num_classes: int = 5) -> DFINECriterion:
    return DFINECriterion(HungarianMatcher(), num_classes)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not here")
def test_golden_losses_and_matches() -> None:
    output, targets, arrays = golden_case()
    named = make_criterion(80)(output, targets)
    golden = {name[5:]: float(value) for name, value in arrays.items() if name.startswith("loss.")}
    assert set(named) == set(golden) == NAMES and len(golden) == 38
    for name, value in golden.items():
        # this one of the golden sums, itself made in float32, is 8.4e-7 away from the sum made in float64
        most = 2e-6 if name == "loss_ddf_dn_1" else 1e-6
        assert float(named[name]) == pytest.approx(value, rel=most), name

    last = output.layers[-1]
    matches = HungarianMatcher()(last.logits[None], last.boxes_cxcywh[None], targets)
    start = 0
    for picture, count in enumerate(targets.counts):
        rows, objects = matches.rows[0, start : start + count], matches.objects[0, start : start + count]
        order = np.argsort(rows)
        np.testing.assert_array_equal(rows[order] - picture * 300, arrays[f"match.{picture}.query"])
        np.testing.assert_array_equal(objects[order] - start, arrays[f"match.{picture}.target"])
        start += count


@pytest.mark.parametrize("counts", [(0, 0), (0,), (1,), (3, 0, 1), (20, 2)], ids=str)
def test_same_names_finite_losses_and_a_gradient_for_everything(counts: tuple[int, ...]) -> None:
    """No object at all, a batch of one, one object, empty pictures, more objects than the 12 queries."""
    torch.manual_seed(0)
    output = make_output(len(counts), max_count=max(counts))
    named = make_criterion()(output, make_targets(counts))
    assert set(named) == NAMES
    assert all(loss.dtype == torch.float32 and loss.shape == () for loss in named.values())
    assert all(loss.isfinite() and loss.requires_grad for loss in named.values())
    torch.stack(list(named.values())).sum().backward()
    for name, leaf in leaves(output).items():
        assert leaf.grad is not None and leaf.grad.isfinite().all(), name
    if not sum(counts):
        pairs = [value for name, value in named.items() if any(x in name for x in ("bbox", "giou", "fgl"))]
        assert len(pairs) == 24 and all(float(value) == 0 for value in pairs)
        assert float(named["loss_vfl"]) > 0 and float(named["loss_ddf_aux_0"]) > 0


def test_gradients_are_those_of_finite_differences() -> None:
    """In the direction of the gradient (matches do not change in such a small step).

    Losses of boxes only: the others hold something fixed (p^gamma, IoU, the teacher), see test_losses.py.
    """
    torch.manual_seed(1)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    criterion = DFINECriterion(HungarianMatcher(), 5, losses=("boxes",))
    boxes = output.layers[-1].boxes_cxcywh
    total = torch.stack(list(criterion(output, targets).values())).sum()
    (grad,) = torch.autograd.grad(total, boxes)
    step = 1e-3 * grad / grad.norm()
    with torch.no_grad():
        boxes += step
        more = torch.stack(list(criterion(output, targets).values())).sum()
        boxes -= 2 * step
        less = torch.stack(list(criterion(output, targets).values())).sum()
    assert float(more - less) / 2e-3 == pytest.approx(float(grad.norm()), rel=0.02)


def test_without_denoising_its_losses_are_absent_and_the_others_unchanged() -> None:
    torch.manual_seed(2)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    with_it, without = (
        make_criterion()(output, targets),
        make_criterion()(output._replace(denoising=None), targets),
    )
    assert set(without) == {name for name in NAMES if "_dn_" not in name}
    for name, value in without.items():
        torch.testing.assert_close(value, with_it[name])


def test_one_decoder_layer_has_nobody_to_teach() -> None:
    named = make_criterion()(make_output(2, layers=1, max_count=2), make_targets((2, 1)))
    assert [name for name in named if "ddf" in name] == ["loss_ddf_dn_0"]
    assert named["loss_ddf_dn_0"].item() == 0


def test_only_the_class_loss_uses_each_layers_own_match() -> None:
    """A layer whose boxes are far off keeps its own class matches but trains the union's boxes."""
    torch.manual_seed(3)
    output, targets = make_output(1, max_count=1, groups=None), make_targets((1,))
    for index, out in enumerate((*output.layers, output.pre, output.encoder)):
        with torch.no_grad():
            out.boxes_cxcywh.copy_(torch.tensor([0.1, 0.1, 0.05, 0.05]))
            out.boxes_cxcywh[0, 4 if index else 7] = targets.boxes_cxcywh[0]
            out.logits.fill_(-2.0)
    named = make_criterion()(output, targets)
    named["loss_bbox_aux_0"].backward()
    touched = output.layers[0].boxes_cxcywh.grad
    assert touched is not None
    # layer 0 matched query 7, where it is exact; the others matched 4: the union has both
    assert touched[0].abs().sum(-1).nonzero().flatten().tolist() == [4]
    named = make_criterion()(output, targets)
    named["loss_vfl_aux_0"].backward()
    assert output.layers[0].logits.grad is not None
    rising = output.layers[0].logits.grad[0] < 0
    assert rising.nonzero().tolist() == [[7, int(targets.labels[0])]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["logits", "boxes_cxcywh"])
def test_what_is_not_finite_is_shown(bad: float, field: str) -> None:
    torch.manual_seed(4)
    output = make_output(2, queries=3, max_count=3)
    with torch.no_grad():
        getattr(output.layers[1], field).fill_(bad)
    named = make_criterion()(output, make_targets((3, 3)))
    loss = "loss_vfl_aux_1" if field == "logits" else "loss_bbox_aux_1"
    assert not named[loss].isfinite()
    assert named["loss_vfl"].isfinite()


def test_degenerate_boxes_are_finite() -> None:
    torch.manual_seed(5)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    with torch.no_grad():
        for out in (*output.layers, output.pre, output.encoder):
            out.boxes_cxcywh[..., 2:] = 0
        output.layers[0].boxes_cxcywh[..., 2:] = -0.5
        assert output.layers[0].reference_boxes is not None
        output.layers[0].reference_boxes[..., 2:] = 0
        targets.boxes_cxcywh[0, 2:] = 0
    named = make_criterion()(output, targets)
    torch.stack(list(named.values())).sum().backward()
    assert all(loss.isfinite() for loss in named.values())
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(output).values())


def test_float32_whatever_autocast_says() -> None:
    torch.manual_seed(6)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    plain = make_criterion()(output, targets)
    with torch.autocast("cpu", torch.bfloat16):
        inside = make_criterion()(output, targets)
    for name, value in plain.items():
        assert inside[name].dtype == torch.float32
        torch.testing.assert_close(inside[name], value, rtol=0, atol=0)
    half = make_criterion()(output._replace(layers=tuple(_half(x) for x in output.layers)), targets)
    assert all(value.dtype == torch.float32 for value in half.values())


def _half(layer):
    return layer._replace(logits=layer.logits.bfloat16(), corners=layer.corners.bfloat16())


def test_nothing_that_came_in_is_changed() -> None:
    torch.manual_seed(7)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    before = {name: leaf.detach().clone() for name, leaf in leaves(output).items()}
    boxes = targets.boxes_cxcywh.clone()
    torch.stack(list(make_criterion()(output, targets).values())).sum().backward()
    assert all(torch.equal(before[name], leaf) for name, leaf in leaves(output).items())
    assert torch.equal(boxes, targets.boxes_cxcywh)


def test_two_ranks_of_one_picture_have_the_mean_loss_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank by rank with the means that an all-reduce would give, against one batch of both pictures."""
    torch.manual_seed(8)
    output, targets = make_output(2, max_count=2), make_targets((2, 1))
    whole = make_criterion()(output, targets)
    parts = [_picture(output, index) for index in range(2)]
    split = _targets_by_picture(targets)
    seen: list[Tensor] = []
    monkeypatch.setattr(
        "src.nn.criterion.normalisers.mean_over_ranks", lambda values: seen.append(values) or values
    )
    for part, target in zip(parts, split, strict=True):
        make_criterion()(part, target)
    mean = torch.stack(seen).mean(0)
    monkeypatch.setattr("src.nn.criterion.normalisers.mean_over_ranks", lambda _: mean)
    ranks = [make_criterion()(part, target) for part, target in zip(parts, split, strict=True)]
    for name, value in whole.items():
        torch.testing.assert_close((ranks[0][name] + ranks[1][name]) / 2, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counts", [(2, 0, 1, 3), (0, 0, 1, 0), (0, 0)], ids=str)
def test_micro_batches_with_their_counts_have_the_losses_of_the_whole_batch(counts: tuple[int, ...]) -> None:
    """Of one picture each, some empty; with fewer objects than micro-batches, and none at all."""
    torch.manual_seed(11)
    output, targets = make_output(len(counts), max_count=max(counts)), make_targets(counts)
    whole = make_criterion()(output, targets)
    split = [(_picture(output, i), part) for i, part in enumerate(_targets_by_picture(targets))]
    step_counts = torch.stack([make_criterion().count(*part) for part in split])
    parts = [make_criterion()(*part, step_counts) for part in split]
    for name, value in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean()
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6, msg=name)


def test_two_ranks_with_one_object_together_have_the_mean_loss_of_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mean over ranks is half an object; it must not be raised to one."""
    torch.manual_seed(12)
    output, targets = make_output(2, max_count=1), make_targets((1, 0))
    whole = make_criterion()(output, targets)
    split = [(_picture(output, i), part) for i, part in enumerate(_targets_by_picture(targets))]
    mean = torch.stack([make_criterion().count(*part) for part in split]).mean(0)
    monkeypatch.setattr("src.nn.criterion.normalisers.mean_over_ranks", lambda _: mean)
    monkeypatch.setattr("src.nn.criterion.normalisers.world_size", lambda: 2)
    ranks = [make_criterion()(*part) for part in split]
    for name, value in whole.items():
        torch.testing.assert_close((ranks[0][name] + ranks[1][name]) / 2, value, rtol=1e-5, atol=1e-6)


def _targets_by_picture(targets: Targets) -> list[Targets]:
    boxes, labels = targets.boxes_cxcywh.split(targets.counts), targets.labels.split(targets.counts)
    return [Targets(b, n, (len(n),), (0,), ((100, 100),)) for b, n in zip(boxes, labels, strict=True)]


def _picture(output: TrainOutput, index: int) -> TrainOutput:
    def cut(layer):
        return type(layer)(*(x if x is None else x[index : index + 1] for x in layer))

    assert output.denoising is not None
    noised = Denoising(
        tuple(cut(x) for x in output.denoising.layers), cut(output.denoising.pre), *output.denoising[2:]
    )
    layers = tuple(cut(x) for x in output.layers)
    return TrainOutput(layers, cut(output.pre), cut(output.encoder), noised, output.bins, output.reg_scale)


@pytest.mark.parametrize(
    ("knob", "changed"),
    [
        ({"alpha": 0.5}, "loss_vfl"),
        ({"gamma": 1.0}, "loss_vfl"),
        ({"temperature": 2.0}, "loss_ddf_aux_0"),
        ({"weight_dict": {f"loss_{n}": 3.0 for n in ("vfl", "bbox", "giou", "fgl", "ddf")}}, "loss_fgl"),
    ],
)
def test_every_knob_changes_its_loss(knob: dict[str, float], changed: str) -> None:
    torch.manual_seed(9)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    plain = make_criterion()(output, targets)
    other = DFINECriterion(HungarianMatcher(), 5, **knob)(output, targets)
    assert abs((plain[changed] - other[changed]).item()) > 1e-4
    if "weight_dict" in knob:
        assert float(other[changed]) == pytest.approx(float(plain[changed]) / 0.15 * 3, rel=1e-5)


@pytest.mark.parametrize("family", ["vfl", "boxes", "local"])
def test_losses_switches_families(family: str) -> None:
    torch.manual_seed(10)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    words = {"vfl": ("vfl",), "boxes": ("bbox", "giou"), "local": ("fgl", "ddf")}[family]
    named = DFINECriterion(HungarianMatcher(), 5, losses=(family,))(output, targets)
    assert set(named) == {name for name in NAMES if any(word in name for word in words)}
    every = DFINECriterion(HungarianMatcher(), 5)(output, targets)
    for name, value in named.items():
        torch.testing.assert_close(value, every[name], rtol=0, atol=0)


@pytest.mark.parametrize("counts", [(0, 0), (1,), (3, 0, 1)], ids=str)
def test_mal_takes_the_place_of_vfl_and_changes_no_other_loss(counts: tuple[int, ...]) -> None:
    torch.manual_seed(14)
    output, targets = make_output(len(counts), max_count=max(counts)), make_targets(counts)
    vfl = make_criterion()(output, targets)
    families = ("mal", "boxes", "local")
    mal = DFINECriterion(HungarianMatcher(), 5, losses=families)(output, targets)
    assert set(mal) == {name.replace("vfl", "mal") for name in NAMES}
    assert all(torch.equal(value, vfl[name]) for name, value in mal.items() if "mal" not in name)
    sharper = DFINECriterion(HungarianMatcher(), 5, losses=families, mal_gamma=2.0)(output, targets)
    for name in (name for name in mal if "mal" in name):
        assert mal[name].isfinite() and float(mal[name]) > float(sharper[name])
    torch.stack(list(mal.values())).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(output).values())


@pytest.mark.parametrize("losses", [("vfl",), ("mal",), ("boxes",), ("local",), ("vfl", "boxes")], ids=str)
def test_outputs_that_no_loss_reads_have_a_gradient_all_the_same(losses: tuple[str, ...]) -> None:
    """DDP stops at a parameter without one; edges reach the graph through the boxes that they make."""
    torch.manual_seed(13)
    output, targets = make_output(2, max_count=3), make_targets((3, 2))
    named = DFINECriterion(HungarianMatcher(), 5, losses=losses)(output, targets)
    torch.stack(list(named.values())).sum().backward()
    for name, leaf in leaves(output).items():
        assert name.endswith("corners") or leaf.grad is not None, name


def test_stated_bins_and_classes_are_compared() -> None:
    output, targets = make_output(1, reg_max=8), make_targets((1,))
    assert DFINECriterion(HungarianMatcher(), 5, reg_max=8)(output, targets)
    with pytest.raises(ValueError, match="stated as 32, but the decoder's is 8"):
        DFINECriterion(HungarianMatcher(), 5, reg_max=32)(output, targets)
    with pytest.raises(ValueError, match="6 classes, but the model gives 5"):
        make_criterion(6)(output, targets)


@pytest.mark.parametrize(
    ("knob", "word"),
    [
        ({"losses": ("vfl", "masks")}, "masks"),
        ({"losses": ()}, "at least one"),
        ({"weight_dict": {"loss_vfl": 1.0}}, "loss_bbox"),
        ({"losses": ("vfl",), "weight_dict": {"loss_vfl": 1.0, "loss_masks": 1.0}}, "loss_masks"),
        ({"losses": ("vfl", "mal", "boxes", "local")}, "vfl and mal both"),
        ({"mal_gamma": -1.0}, "mal_gamma"),
        ({"losses": ("vfl",), "weight_dict": {"loss_vfl": -1.0}}, ">= 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 2.0}, "alpha"),
    ],
)
def test_wrong_settings_are_named(knob: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DFINECriterion(HungarianMatcher(), 5, **knob)
