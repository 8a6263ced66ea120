import pytest
import torch

from src.solver.published_classes import (
    COCO,
    OBJECTS365,
    SAME_CLASS,
    has_row_of_no_class,
    published_classes,
)

# D-FINE's own table: the Objects365 category, counted from 0, of each of COCO's classes
OBJECTS365_OF_COCO = (
    [0, 46, 5, 58, 114, 55, 116, 65, 21, 40, 176, 127, 249, 24, 56, 139, 92, 78, 99, 96]
    + [144, 295, 178, 180, 38, 39, 13, 43, 120, 219, 148, 173, 165, 154, 137, 113, 145, 146]
    + [204, 8, 35, 10, 88, 84, 93, 26, 112, 82, 265, 104, 141, 152, 234, 143, 150, 97, 2]
    + [50, 25, 75, 98, 153, 37, 73, 115, 132, 106, 61, 163, 134, 277, 81, 133, 18, 94, 30]
    + [169, 70, 328, 226]
)


def test_lists_are_whole():
    for classes, count in ((COCO, 80), (OBJECTS365, 365)):
        assert len(classes.names) == len(classes.ids) == len(set(classes.ids)) == count
        assert len({name.strip().casefold() for name in classes.names}) == count
    assert (COCO.ids[0], COCO.ids[11], COCO.ids[-1]) == (1, 13, 90)
    assert dict(zip(COCO.ids, COCO.names, strict=True))[13] == "stop sign"
    assert (OBJECTS365.ids[0], OBJECTS365.ids[-1]) == (1, 365) and OBJECTS365.names[0] == "Person"


def test_the_order_agrees_with_the_authors_own_table():
    differing = {}
    for name, index in zip(COCO.names, OBJECTS365_OF_COCO, strict=True):
        found = OBJECTS365.names[index].strip().casefold()
        if SAME_CLASS.get(found, found) != name:
            differing[name] = found
    # here the authors chose kin although Objects365 has "Skiboard" and "Other Balls"
    assert differing == {"skis": "skating and skiing shoes", "sports ball": "baseball"}


def test_other_spellings_name_classes_that_exist():
    known = {name.strip().casefold() for name in OBJECTS365.names}
    assert SAME_CLASS.keys() <= known
    assert set(SAME_CLASS.values()) <= set(COCO.names)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_known_by_the_number_of_rows(prefix):
    for count, expected in ((80, COCO), (365, OBJECTS365), (366, None), (79, None), (91, None)):
        state = {f"{prefix}decoder.enc_score_head.bias": torch.zeros(count)}
        assert published_classes(state) == expected
        assert has_row_of_no_class(state) == (count == 366)
    assert published_classes({"decoder.other": torch.zeros(80)}) is None
    assert not has_row_of_no_class({"decoder.other": torch.zeros(366)})
