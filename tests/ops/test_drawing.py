import numpy as np
import pytest
import torch
from PIL import Image

from src.ops.drawing import GAP, class_colour, draw_boxes, grid, text_colour, to_pil

NAMES = tuple(f"class {k}" for k in range(80))
GREY = torch.full((3, 200, 300), 128, dtype=torch.uint8)


def drawn(boxes, labels, scores=None, image=GREY, **knobs):
    scores = None if scores is None else torch.tensor(scores)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return np.asarray(
        draw_boxes(image, boxes, torch.tensor(labels, dtype=torch.int64), scores, NAMES, **knobs)
    )


def test_frame_is_where_the_box_is():
    pixels = drawn([[50, 60, 150, 160]], [3], line_width=2)
    coloured = (pixels == class_colour(3)).all(-1)
    assert coloured[100, 50:52].all() and not coloured[100, 52]  # left side, 2 wide
    assert coloured[158:160, 100].all() and not coloured[160, 100]  # bottom: the box ends before 160
    assert (pixels[100, 100] == 128).all() and (pixels[190, 290] == 128).all()
    assert coloured[40:60, 50:90].any()  # label above the frame


def test_input_stays_as_it_was_and_pil_gives_the_same():
    image = GREY.clone()
    from_tensor = drawn([[50, 60, 150, 160]], [3], [0.5], image=image)
    assert torch.equal(image, GREY)
    picture = to_pil(GREY)
    assert (drawn([[50, 60, 150, 160]], [3], [0.5], image=picture) == from_tensor).all()
    assert picture.getpixel((50, 100)) == (128, 128, 128)
    grey = Image.new("L", (300, 200), 128)
    assert (drawn([[50, 60, 150, 160]], [3], [0.5], image=grey) == from_tensor).all()


def test_no_boxes_and_boxes_outside_change_nothing():
    assert (drawn([], []) == 128).all()
    outside = [[-50, -50, -10, -10], [400, 10, 500, 50], [30, 30, 20, 40], [float("nan")] * 4]
    assert (drawn(outside, [0, 1, 2, 3], [0.9] * 4) == 128).all()


@pytest.mark.parametrize(
    "box", [[-40, -40, 400, 300], [299.7, 199.8, 320, 220], [10, 10, 10, 10], [0, 0, 1, 1]]
)
def test_boxes_over_the_edge_and_of_no_size_are_drawn(box):
    assert (drawn([box], [5], [1.0]) == class_colour(5)).all(-1).any()


def test_best_score_lies_on_top():
    boxes = [[50, 60, 150, 160], [50, 60, 150, 160]]
    for scores, winner in (([0.9, 0.3], 1), ([0.3, 0.9], 2)):
        assert tuple(drawn(boxes, [1, 2], scores)[100, 50]) == class_colour(winner)


def test_size_knobs_and_their_defaults_follow_the_picture():
    box = [[50, 100, 150, 160]]
    count = {w: (drawn(box, [3], line_width=w) == class_colour(3)).all(-1).sum() for w in (1, 5)}
    assert count[5] > 2 * count[1]
    label = {f: (drawn(box, [3], font_size=f)[:99] != 128).any(-1).sum() for f in (10, 30)}
    assert label[30] > 3 * label[10]
    large = drawn([[500, 600, 1500, 1600]], [3], image=torch.full((3, 2000, 3000), 128, dtype=torch.uint8))
    side = (large[1100, 490:520] == class_colour(3)).all(-1).sum()
    assert side == 9  # 3000 / 320
    assert (drawn(box, [3])[130, 45:60] == class_colour(3)).all(-1).sum() == 1


def test_score_is_written():
    assert (drawn([[50, 60, 150, 160]], [3]) != drawn([[50, 60, 150, 160]], [3], [0.87])).any()


def test_colours_are_stable_different_and_readable():
    colours = [class_colour(k) for k in range(80)]
    assert colours == [class_colour(k) for k in range(80)] and len(set(colours)) == 80
    neighbours = [
        max(abs(a - b) for a, b in zip(x, y, strict=True)) for x, y in zip(colours, colours[1:], strict=False)
    ]
    assert min(neighbours) > 60
    assert text_colour((255, 255, 0)) == (0, 0, 0) and text_colour((0, 0, 160)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (1, 1)), (2, (1, 2)), (5, (2, 3)), (7, (3, 3)), (9, (3, 3))]
)
def test_a_grid_has_every_picture_whole_in_its_order(count, shape):
    pictures = [Image.new("RGB", (20 + k, 30 - k), (k, 0, 255)) for k in range(count)]
    sheet = np.asarray(grid(pictures))
    cell_h, cell_w = 30 + GAP, 19 + count + GAP
    assert sheet.shape == (shape[0] * cell_h - GAP, shape[1] * cell_w - GAP, 3)
    for k, picture in enumerate(pictures):
        y, x = k // shape[1] * cell_h, k % shape[1] * cell_w
        part = sheet[y : y + picture.height, x : x + picture.width]
        assert (part == np.asarray(picture)).all()
    assert (sheet[..., 2] == 255).all()


def test_faults_of_the_caller():
    with pytest.raises(ValueError, match=r"uint8 \[3, H, W\], not torch.float32"):
        draw_boxes(GREY.float(), torch.zeros(0, 4), torch.zeros(0), None, NAMES)
    with pytest.raises(ValueError, match="as many as each other"):
        drawn([[0, 0, 9, 9]], [1, 2])
    with pytest.raises(ValueError, match="80 names"):
        drawn([[0, 0, 9, 9]], [80])
