"""TIDE's kinds of errors and their costs, on cases worked out by hand and against TIDE's own program."""

import numpy as np
import pytest
from report_cases import scored

from src.evaluation.errors import KINDS, error_costs, split_errors
from src.evaluation.matching import Found, assign
from src.evaluation.scored import Assigned, assign_objects
from src.structures import GroundTruth

BOX, SHIFTED, FAR = [0, 0, 10, 10], [5, 0, 10, 10], [50, 50, 10, 10]  # IoU of the first two: 1 / 3
CAT, DOG = 0, 1


def kinds_by_score(assigned, split):
    return {
        round(score, 2): list(KINDS)[kind] if kind >= 0 else "right"
        for score, kind in zip(assigned.found.scores.tolist(), split.kinds.tolist(), strict=True)
    }


def hand_made():
    objects = [(0, CAT, BOX), (1, CAT, BOX), (2, DOG, BOX), (2, CAT, FAR)]
    found = [
        (0, CAT, BOX, 0.9),
        (0, CAT, BOX, 0.8),
        (0, DOG, BOX, 0.7),
        (1, CAT, SHIFTED, 0.6),
        (1, DOG, SHIFTED, 0.5),
        (1, CAT, FAR, 0.95),
    ]
    return scored(objects, found, num_images=3)


def test_each_kind_is_told_apart():
    assigned = assign_objects(hand_made())
    split = split_errors(assigned)
    assert kinds_by_score(assigned, split) == {
        0.9: "right",
        0.8: "duplicate",
        0.7: "classification",
        0.6: "localisation",
        0.5: "both",
        0.95: "background",
    }
    truth = assigned.truth
    missed = sorted((int(truth.image_index[i]), int(truth.labels[i])) for i in np.flatnonzero(split.missed))
    assert missed == [(2, CAT), (2, DOG)]  # the cat of picture 1 has the box that is shifted
    by_score = dict(zip(assigned.found.scores.round(2).tolist(), split.mends.tolist(), strict=True))
    assert [score for score, mends in by_score.items() if mends] == [0.6]  # the cat of picture 0 is found


def test_what_each_kind_costs():
    case = hand_made()
    assigned = assign_objects(case)
    costs = error_costs(assigned, split_errors(assigned))
    # Three cats; the best detection is wrong, the second right, then two wrong ones: precision 1 / 2 up to
    # recall 1 / 3, 34 of 101 points. Of the dogs nothing is right, so that AP50 is half of the cats'.
    assert costs.AP50 == pytest.approx(34 / 2 / 101 / 2) == case.metrics.AP50
    gains = {name: cost * 2 * 101 for name, cost in costs.kinds.items()}
    assert gains == pytest.approx(
        {
            "classification": 0,  # its object is found: taken away, and the dogs have nothing right
            "localisation": 67 / 2 - 34 / 2,  # a second hit: precision 2 / 4 up to recall 2 / 3
            "both": 0,
            "duplicate": 0,  # it stands behind the only hit
            "background": 34 - 34 / 2,  # the hit is first then
            "missed": 51 / 2 - 34 / 2,  # one cat of two found; of dogs there is none to be found
        },
        abs=1e-9,
    )
    assert costs.false_positives * 2 * 101 == pytest.approx(34 - 34 / 2)
    assert costs.false_negatives * 2 * 101 == pytest.approx(101 / 2 - 34 / 2)


def test_a_wrong_class_mends_once_for_the_true_class():
    found = [(0, DOG, BOX, 0.9), (0, DOG, BOX, 0.8)]
    case = scored([(0, CAT, BOX)], found, num_images=1)
    assigned = assign_objects(case)
    split = split_errors(assigned)
    assert kinds_by_score(assigned, split) == {0.9: "classification", 0.8: "classification"}
    assert split.mends.tolist() == [True, False]
    assert not split.missed.any()
    costs = error_costs(assigned, split)
    assert costs.AP50 == 0 and costs.kinds["classification"] == pytest.approx(1)
    assert costs.kinds["missed"] == 0


def test_crowds_are_no_errors():
    objects, found = [(0, CAT, [0, 0, 100, 100]), (0, CAT, FAR)], [(0, CAT, BOX, 0.9), (0, DOG, BOX, 0.8)]
    case = scored(objects, found, num_images=1, crowds=(0,))
    assigned = assign_objects(case)
    split = split_errors(assigned)
    assert kinds_by_score(assigned, split) == {0.8: "background"}  # the cat is excused, the dog is not
    assert np.flatnonzero(split.missed).tolist() == np.flatnonzero(~assigned.truth.crowd).tolist()


@pytest.mark.parametrize("num_images", [0, 2])
def test_nothing_found_and_nothing_there(num_images):
    objects = [(0, CAT, BOX)] if num_images else []
    case = scored(objects, [], num_images=num_images)
    assigned = assign_objects(case)
    split = split_errors(assigned)
    costs = error_costs(assigned, split)
    assert costs.AP50 == case.metrics.AP50 == (0 if num_images else -1)
    assert split.missed.sum() == len(objects)
    assert set(costs.kinds.values()) == {0.0}


def random_case(seed):
    """Boxes, detections near them, of their class or another, and anywhere; 40 pictures, 4 classes."""
    random = np.random.default_rng(seed)
    count = int(random.integers(20, 200))
    images, labels = random.integers(0, 40, count), random.integers(0, 4, count)
    boxes = np.concatenate((random.random((count, 2)) * 200, 20 + random.random((count, 2)) * 100), 1)
    truth = GroundTruth(
        np.arange(40), images, labels, boxes, boxes[:, 2] * boxes[:, 3], np.zeros(count, np.bool_)
    )
    num_found = int(random.integers(100, 600))
    source = random.integers(0, count, num_found)
    near = boxes[source] + (random.random((num_found, 4)) - 0.5) * random.choice([4, 30, 80], (num_found, 1))
    near[:, 2:] = near[:, 2:].clip(5)
    others = random.integers(0, 4, num_found)
    found_labels = np.where(random.random(num_found) < 0.75, labels[source], others)
    elsewhere = random.integers(0, 40, num_found)
    found_images = np.where(random.random(num_found) < 0.9, images[source], elsewhere)
    return truth, Found(found_images, found_labels, near, random.random(num_found))


TIDE_SAYS = {
    "1": {
        "counts": [20, 66, 28, 52, 35, 19],
        "points": [28.0411, 3.744, 19.2851, 3.1792, 1.3877, 3.2283, 5.3621, 37.0579, 13.1953],
    },
    "2": {
        "counts": [24, 54, 22, 24, 21, 51],
        "points": [26.5006, 5.8897, 17.9581, 3.0496, 1.2233, 2.3322, 11.5739, 22.7568, 27.6687],
    },
    "6": {
        "counts": [60, 126, 34, 178, 85, 0],
        "points": [36.2821, 4.5401, 11.8594, 2.0434, 4.8357, 5.4251, 0.0, 56.7873, 2.2623],
    },
}


@pytest.mark.parametrize("seed", [1, 2, 6])
def test_the_program_of_tide_says_the_same(seed):
    # tidecv 1.0.1 asks for precision at k / 100, COCO at numbers that differ from that in their last bit
    assigned = Assigned(*assign(*random_case(seed)), 4)
    split = split_errors(assigned)
    costs = error_costs(assigned, split)
    expected = TIDE_SAYS[str(seed)]
    counts = [int((split.kinds == kind).sum()) for kind in range(5)] + [int(split.missed.sum())]
    assert counts == expected["counts"]
    points = [costs.AP50, *costs.kinds.values(), costs.false_positives, costs.false_negatives]
    assert [100 * value for value in points] == pytest.approx(expected["points"], abs=0.02)
