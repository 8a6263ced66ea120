"""D-FINE against a peer that no one here wrote: the one in the library `transformers`, weight for weight."""

import importlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers_names import build_theirs, give_weights

from src import assembly
from src.structures import Denoising, LayerOutput, TrainOutput

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "dfine"
TOLERANCE = 1e-4


def load(size, *overrides):
    return assembly.load(CONFIGS / f"dfine_hgnetv2_{size}_coco.yml", overrides)


def twins(experiment, size, fill_by_name, **changes):
    ours = fill_by_name(assembly.build_model(experiment))
    theirs = build_theirs(size, **changes)
    give_weights(ours, theirs)
    return ours, theirs


def pictures(size_hw, count=2):
    return torch.rand(count, 3, *size_hw, generator=torch.Generator().manual_seed(1))


def farthest(ours, theirs):
    distance = (ours[:, None] - theirs[None]).abs().amax(-1)
    return max(distance.amin(0).max().item(), distance.amin(1).max().item())


@pytest.mark.parametrize(
    ("size", "size_hw"), [("n", (224, 320)), ("s", (256, 256)), ("m", (256, 256))], ids=["n", "s", "m"]
)
def test_the_same_weights_find_the_same(size, size_hw, fill_by_name):
    ours, theirs = twins(load(size), size, fill_by_name)
    images = pictures(size_hw)
    with torch.no_grad():
        found, golden = ours.eval()(images), theirs.eval()(pixel_values=images)
    assert golden.logits.std() > 0.1 and golden.pred_boxes.std() > 0.01
    for picture in range(len(images)):
        rows = torch.cat((found.logits[picture], found.boxes_cxcywh[picture]), -1)
        golden_rows = torch.cat((golden.logits[picture], golden.pred_boxes[picture]), -1)
        assert farthest(rows, golden_rows) < TOLERANCE


class Case:
    """One training step of theirs at size N: their outputs and losses, and ours given the same."""

    def __init__(self, fill_by_name, targets):
        experiment = load("n", "DFINETransformer.num_queries=40")
        self.ours, self.theirs = twins(experiment, "n", fill_by_name, num_queries=40, num_denoising=12)
        self.ours.train(), self.theirs.train()
        self.images, self.targets = pictures((160, 160), len(targets.counts)), targets
        parts = zip(
            targets.boxes_cxcywh.split(targets.counts), targets.labels.split(targets.counts), strict=True
        )
        self.labels = [{"boxes": boxes, "class_labels": labels} for boxes, labels in parts]
        torch.manual_seed(0)
        with torch.no_grad():
            self.golden = self.theirs(pixel_values=self.images, labels=self.labels)
            self.output = as_ours(self.golden, max(targets.counts), self.ours.decoder)
            self.losses = assembly.build_criterion(experiment)(self.output, targets)
        self.criterion = importlib.import_module("transformers.loss.loss_d_fine").DFineLoss(
            self.theirs.config
        )


def as_ours(golden, max_count, decoder):
    """Their output of a training step in our structures."""
    meta, boxes = golden.denoising_meta_values, golden.intermediate_reference_points
    assert 0 <= boxes.min() and boxes.max() <= 1  # their losses clamp boxes to this, ours do not
    noised = slice(0, meta["dn_num_split"][0])
    own = slice(noised.stop, None)

    def layers(queries):  # their logits and boxes start with those before refinement, their corners do not
        stages = [x[:, :, queries] for x in (golden.intermediate_logits, boxes)]
        edges = [
            x[:, :, queries] for x in (golden.intermediate_predicted_corners, golden.initial_reference_points)
        ]
        pre, *refined = (LayerOutput(*pair) for pair in zip(*(x.unbind(1) for x in stages), strict=True))
        corners = zip(*(x.unbind(1) for x in edges), strict=True)
        return pre, tuple(LayerOutput(*a[:2], *b) for a, b in zip(refined, corners, strict=True))

    pre, own_layers = layers(own)
    noised_pre, noised_layers = layers(noised)
    encoder = LayerOutput(golden.enc_topk_logits, golden.enc_topk_bboxes)
    denoising = Denoising(noised_layers, noised_pre, meta["dn_num_group"], max_count)
    return TrainOutput(own_layers, pre, encoder, denoising, decoder.bins, decoder.reg_scale)


@pytest.fixture
def case(fill_by_name, make_targets):
    return Case(fill_by_name, make_targets((3, 0, 2), num_classes=80))


def their_matches(case, stage):
    return case.criterion.matcher({"logits": stage.logits, "pred_boxes": stage.boxes_cxcywh}, case.labels)


def union(matches):
    """D-FINE's GO-LSD by counting: every query that some stage matched, with the object named most often."""
    merged = []
    for of_picture in zip(*matches, strict=True):
        votes = Counter(pair for pairs in of_picture for pair in map(tuple, torch.stack(pairs, 1).tolist()))
        chosen = {}
        for (query, target), _ in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
            chosen.setdefault(query, target)
        merged.append(torch.tensor(list(chosen.items()), dtype=torch.int64).reshape(-1, 2).unbind(1))
    return merged


def their_terms(case, stage, teacher, class_pairs, box_pairs, num_classed, num_boxed):
    """Their losses of one stage for the pairs of query and object that are given."""
    criterion, outputs = case.criterion, {"logits": stage.logits, "pred_boxes": stage.boxes_cxcywh}
    terms = criterion.get_loss("vfl", outputs, case.labels, class_pairs, num_classed)
    terms |= criterion.get_loss("boxes", outputs, case.labels, box_pairs, num_boxed)
    if stage.corners is not None:
        outputs |= {"pred_corners": stage.corners, "ref_points": stage.reference_boxes}
        outputs |= {"teacher_corners": teacher.corners, "teacher_logits": teacher.logits}
        terms |= criterion.get_loss("local", outputs, case.labels, box_pairs, num_boxed)
    return {name: value * criterion.weight_dict[name] for name, value in terms.items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name].float(), rtol=TOLERANCE, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_loss_is_theirs_for_the_same_pairs(case):
    output = case.output
    stages = {f"_aux_{i}": layer for i, layer in enumerate(output.layers[:-1])}
    stages |= {"": output.layers[-1], "_pre": output.pre, "_enc_0": output.encoder}
    matches = {suffix: their_matches(case, stage) for suffix, stage in stages.items()}
    together = union(matches.values())
    num_objects, num_together = sum(case.targets.counts), sum(len(rows) for rows, _ in together)
    assert num_together > 2 * num_objects  # the stages disagree, so that their union says something
    theirs = {}
    for suffix, stage in stages.items():
        counts = (num_objects, num_together)
        terms = their_terms(case, stage, output.layers[-1], matches[suffix], together, *counts)
        theirs |= {name + suffix: value for name, value in terms.items()}
    assert theirs.pop("loss_ddf") == 0  # the last layer is the teacher
    assert_same({name: value for name, value in case.losses.items() if "_dn_" not in name}, theirs)


def test_every_denoising_loss_is_theirs_but_for_the_balance_of_the_distillation(case):
    noised = case.output.denoising
    pairs = case.criterion.get_cdn_matched_indices(case.golden.denoising_meta_values, case.labels)
    counts = (sum(case.targets.counts) * noised.num_groups,) * 2
    teacher = noised.layers[-1]
    stages = {f"_dn_{i}": layer for i, layer in enumerate(noised.layers)} | {"_dn_pre": noised.pre}
    theirs, of_matched = {}, {}
    for suffix, stage in stages.items():
        terms = their_terms(case, stage, teacher, pairs, pairs, *counts)
        theirs |= {name + suffix: value for name, value in terms.items()}
        unsure = teacher._replace(logits=torch.full_like(teacher.logits, -1e4))  # leaves the matched queries
        terms = their_terms(case, stage, unsure, pairs, pairs, *counts)
        of_matched |= {name + suffix: value for name, value in terms.items()}

    # Upstream, and we, weigh matched and other queries in the distillation as in the matching part; they
    # take the square roots of the numbers of denoising queries.
    judged = (*case.output.layers, case.output.pre, case.output.encoder)
    num_matched = sum(len(rows) for rows, _ in union([their_matches(case, stage) for stage in judged]))
    own = share_of_matched(num_matched, case.output.pre.logits)
    of_noised = share_of_matched(counts[0], noised.pre.logits)
    for name in ("loss_ddf_dn_0", "loss_ddf_dn_1"):
        assert abs(case.losses[name] / theirs[name] - 1) > 0.01
        rest = theirs[name] - of_matched[name]
        theirs[name] = of_matched[name] * own / of_noised + rest * (1 - own) / (1 - of_noised)
    assert_same({name: value for name, value in case.losses.items() if "_dn_" in name}, theirs)


def share_of_matched(num_matched, logits):
    matched, rest = num_matched**0.5, (logits[..., 0].numel() - num_matched) ** 0.5
    return matched / (matched + rest)


def test_what_their_whole_criterion_does_otherwise(case):
    # Before 5.23 it may also judge the denoising queries as if they were its own (transformers' PR 48528).
    theirs, ours = case.golden.loss_dict, case.losses
    # Their logits and boxes start with those before refinement, their corners do not, and the two are laid
    # side by side: what they call stage i is the one before it. Two are never judged: the last layer but one,
    # and the last layer of the denoising queries.
    stages = {"": "", "_aux_0": "_pre", "_aux_1": "_aux_0", "_aux_2": "_enc_0"}
    stages |= {"_dn_0": "_dn_pre", "_dn_1": "_dn_0", "_dn_2": "_dn_1"}
    for name, known_as in stages.items():
        torch.testing.assert_close(
            theirs[f"loss_vfl{name}"], ours[f"loss_vfl{known_as}"], rtol=TOLERANCE, atol=0
        )
    judged = {f"loss_vfl{suffix}" for suffix in stages.values()}
    assert {name for name in ours if "vfl" in name} - judged == {"loss_vfl_aux_1", "loss_vfl_dn_2"}
    for name in ("_dn_0", "_dn_1", "_dn_2"):
        for loss in ("loss_bbox", "loss_giou"):
            torch.testing.assert_close(theirs[loss + name], ours[loss + stages[name]], rtol=TOLERANCE, atol=0)
    # A corner distribution is therefore weighed by the IoU of another layer's box.
    assert abs(theirs["loss_fgl_dn_1"] / ours["loss_fgl_dn_1"] - 1) > 0.01
    # The last layer's distributions, which the answer is made of, get no loss of their own.
    assert "loss_fgl" in ours and "loss_fgl" not in theirs
    # Box losses go to each stage's own matches (DETR), upstream's and ours to the union of all (GO-LSD).
    last, objects = case.output.layers[-1], sum(case.targets.counts)
    own = their_matches(case, last)
    terms = their_terms(case, last, last, own, own, objects, objects)
    for name in ("loss_bbox", "loss_giou"):
        torch.testing.assert_close(theirs[name], terms[name], rtol=TOLERANCE, atol=0)
        assert abs(theirs[name] / ours[name] - 1) > 0.01


def test_the_same_weights_train_on_the_same(fill_by_name):
    ours, theirs = twins(load("n"), "n", fill_by_name)
    images = pictures((224, 320))
    with torch.no_grad():
        found, golden = ours.train()(images), theirs.train()(pixel_values=images)
    assert len(found.layers) == 3 and found.denoising is None
    for picture in range(len(images)):
        rows = [
            x[picture] for layer in (found.pre, *found.layers) for x in (layer.logits, layer.boxes_cxcywh)
        ]
        rows += [x[picture] for layer in found.layers for x in (layer.corners, layer.reference_boxes)]
        rows += [found.encoder.logits[picture], found.encoder.boxes_cxcywh[picture]]
        them = golden.intermediate_logits, golden.intermediate_reference_points
        golden_rows = [x[picture, i] for i in range(4) for x in them]
        them = golden.intermediate_predicted_corners, golden.initial_reference_points
        golden_rows += [x[picture, i] for i in range(3) for x in them]
        golden_rows += [golden.enc_topk_logits[picture], golden.enc_topk_bboxes[picture]]
        assert farthest(torch.cat(rows, -1), torch.cat(golden_rows, -1)) < TOLERANCE
