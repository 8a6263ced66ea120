"""Our arrays against pycocotools, number by number, where ties, crowds and areas meet."""

import numpy as np
import pytest

from src.evaluation.libraries import pycocotools_curves
from src.evaluation.matching import Found, array_curves
from src.structures import GroundTruth

NUM_IMAGES = 12


def random_truth(random, num_objects, classes, corners):
    """Boxes on a coarse grid, so that overlaps, areas and scores are often equal."""
    sides = random.choice(np.array([8.0, 16.0, 32.0, 40.0, 96.0, 120.0]), (num_objects, 2))
    boxes = np.concatenate((random.choice(corners, (num_objects, 2)), sides), 1)
    areas = np.where(random.random(num_objects) < 0.5, sides.prod(1), sides.prod(1) * 0.6)
    return GroundTruth(
        np.arange(NUM_IMAGES) * 5,
        random.integers(0, NUM_IMAGES, num_objects),
        random.choice(classes, num_objects),
        boxes,
        areas,
        random.random(num_objects) < 0.15,
    )


def random_found(random, truth, num_found, classes):
    """Objects' own boxes, moved a little, and boxes anywhere; few different scores."""
    source = random.integers(0, max(len(truth.labels), 1), num_found)
    near = random.random(num_found) < (0.8 if len(truth.labels) else 0)
    step = random.choice(np.array([0.0, 0.0, 4.0, -4.0, 12.0]), (num_found, 4))
    boxes = np.concatenate((random.integers(0, 200, (num_found, 2)), np.full((num_found, 2), 24.0)), 1)
    image_index, labels = random.integers(0, NUM_IMAGES, num_found), random.choice(classes, num_found)
    boxes[near] = (truth.boxes_xywh_px[source[near]] + step[near]).clip(1)
    image_index[near], labels[near] = truth.image_index[source[near]], truth.labels[source[near]]
    return Found(image_index, labels, boxes, random.integers(0, 12, num_found) / 12)


@pytest.mark.parametrize("seed", range(20))
def test_every_number_is_pycocotools(seed):
    random = np.random.default_rng(seed)
    classes = [1, 4, 5][: 1 + seed % 3]
    corners = np.array([0.0, 8.0, 60.0, 100.0])[: 1 + seed % 4]
    truth = random_truth(random, int(random.integers(1, 80)), classes, corners)
    found = random_found(random, truth, int(random.integers(0, 600)), classes)
    ours, theirs = array_curves(truth, found, classes), pycocotools_curves(truth, found, classes)
    assert ours.precision.shape == (10, 101, len(classes), 4)
    assert ours.recall.shape == (10, len(classes), 4, 3)
    np.testing.assert_array_equal(ours.precision, theirs.precision)
    np.testing.assert_array_equal(ours.recall, theirs.recall)


def test_the_random_cases_reach_what_they_are_for():
    """Crowds, more than 100 detections of a picture and class, and detections with several candidates."""
    random = np.random.default_rng(0)
    truth = random_truth(random, 60, [1], np.array([0.0, 8.0]))
    found = random_found(random, truth, 3000, [1])
    assert truth.crowd.any() and np.bincount(found.image_index).max() > 100
    ours, theirs = array_curves(truth, found, [1]), pycocotools_curves(truth, found, [1])
    np.testing.assert_array_equal(ours.precision, theirs.precision)
    np.testing.assert_array_equal(ours.recall, theirs.recall)
    assert len(np.unique(ours.recall[:, 0, 0])) > 10


def test_of_equal_overlaps_the_later_object_is_taken_and_a_counting_one_goes_first():
    # A small and a large object lie equally far from the detection; a crowd region holds it whole.
    truth = GroundTruth(
        np.array([7]),
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
        np.array([[0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 300.0, 300.0]]),
        np.array([900.0, 5000.0, 90000.0]),
        np.array([False, False, True]),
    )
    box = np.array([[0.0, 0.0, 30.0, 30.0]])
    one = Found(np.zeros(1, np.int64), np.zeros(1, np.int64), box, np.ones(1))
    recall = array_curves(truth, one, [0]).recall[0, 0, :, 2]
    assert recall.tolist() == [0.5, 1.0, 1.0, -1.0]  # all, small, medium, large
    # a second and a third detection: the second object, then the crowd region, which is never used up
    three = Found(*(np.repeat(part, 4, 0) for part in one))
    curves = array_curves(truth, three, [0])
    assert curves.recall[0, 0, :, 2].tolist() == [1.0, 1.0, 1.0, -1.0]
    assert curves.precision[0, :, 0, 0] == pytest.approx(1.0)
