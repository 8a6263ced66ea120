from report_cases import random_scored, scored

from src.evaluation.confusion import confusion_matrix, most_confused
from src.evaluation.scored import assign_objects, best_threshold, class_counts

BOX, NEAR, FAR = [0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 10, 10]  # IoU of the first two: 9 / 11
CAT, DOG, COW = 0, 1, 2
NAMES = ("cat", "dog", "cow")


def matrix_of(objects, found, threshold=0.5, **kind):
    case = scored(objects, found, names=NAMES, **kind)
    return confusion_matrix(assign_objects(case), threshold).tolist()


def test_right_confused_missed_and_nothing_there():
    objects = [(0, CAT, BOX), (1, CAT, BOX), (1, DOG, FAR), (2, COW, BOX)]
    found = [(0, CAT, BOX, 0.9), (1, COW, NEAR, 0.8), (2, DOG, FAR, 0.7), (2, COW, BOX, 0.4)]
    assert matrix_of(objects, found, num_images=3) == [
        [1, 0, 1, 0],  # one cat found, one taken for a cow
        [0, 0, 0, 1],  # the dog is missed
        [0, 0, 0, 1],  # the cow's detection has too low a score
        [0, 1, 0, 0],  # a dog where nothing is
    ]


def test_the_own_class_goes_before_a_better_box_of_another():
    found = [(0, DOG, BOX, 0.9), (0, CAT, NEAR, 0.6)]
    expected = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert matrix_of([(0, CAT, BOX)], found, num_images=1) == expected


def test_an_object_is_taken_once_by_the_box_that_fits_best():
    found = [(0, DOG, NEAR, 0.9), (0, COW, BOX, 0.6)]
    expected = [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert matrix_of([(0, CAT, BOX)], found, num_images=1) == expected


def test_boxes_of_another_picture_are_no_match():
    expected = [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert matrix_of([(0, CAT, BOX)], [(1, DOG, BOX, 0.9)], num_images=2) == expected


def test_crowds_and_what_they_excuse_count_nowhere():
    objects, found = [(0, CAT, [0, 0, 100, 100])], [(0, CAT, BOX, 0.9)]
    assert sum(map(sum, matrix_of(objects, found, num_images=1, crowds=(0,)))) == 0


def test_nothing_at_all():
    assert matrix_of([], [], num_images=0) == [[0] * 4] * 4


def test_the_diagonal_is_the_evaluations_own():
    case = random_scored(seed=5)
    assigned = assign_objects(case)
    for threshold in (0.0, 0.5, 1.1):
        matrix = confusion_matrix(assigned, threshold)
        counts = class_counts(assigned, threshold)
        assert matrix.diagonal()[:-1].tolist() == counts.right.tolist()
        assert matrix[:-1].sum(1).tolist() == [row.num_objects for row in case.metrics.classes]
        assert matrix[:, :-1].sum(0).tolist() == (counts.right + counts.wrong).tolist()
    assert matrix[:, :-1].sum() == 0  # no score reaches 1.1
    counts = class_counts(assigned, 0.0)
    recall_50 = case.curves.recall[0, :, 0, 2]  # COCO's, at IoU 0.50 with 100 detections
    assert (counts.right / (counts.right + counts.missed)).tolist() == recall_50.tolist()


def test_the_most_frequent_confusions_first():
    objects = [(i, CAT, BOX) for i in range(5)]
    found = [(i, DOG if i < 3 else COW, BOX, 0.9) for i in range(5)] + [(0, DOG, FAR, 0.9)]
    case = scored(objects, found, num_images=5, names=NAMES)
    matrix = confusion_matrix(assign_objects(case), 0.5)
    assert most_confused(matrix, 9) == [(CAT, DOG, 3), (CAT, COW, 2)]
    assert most_confused(matrix, 1) == [(CAT, DOG, 3)]


def test_the_threshold_is_where_f1_is_highest():
    objects = [(0, CAT, BOX), (1, CAT, BOX)]
    found = [(0, CAT, BOX, 0.9), (1, CAT, BOX, 0.3), (0, CAT, FAR, 0.3), (1, CAT, FAR, 0.2)]
    case = scored(objects, found, num_images=2, names=NAMES)
    # F1 is 2 / 3 from 0.9 on, 4 / 5 from 0.3 on (a right and a wrong one together), 4 / 6 from 0.2 on
    assert best_threshold(assign_objects(case)) == 0.3
    assert best_threshold(assign_objects(scored([], [], num_images=1))) == 0.5
