import base64
import io
import json
from html.parser import HTMLParser

from PIL import Image
from report_cases import NASTY_NAMES, pictures, random_scored, scored

from src.evaluation import ClassMetrics, CocoMetrics, write_metrics, write_report
from src.evaluation.chapters import percent
from src.evaluation.errors import KINDS
from src.evaluation.findings import work_out

METRICS = CocoMetrics(*[k / 12 for k in range(12)], classes=(ClassMetrics("cat", 17, 0.5, 0.6, 0.7, 3),))


def test_write_metrics_is_json_and_replaces(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_metrics(METRICS, path)
    write_metrics(METRICS, path)
    assert json.loads(path.read_text()) == METRICS.to_dict()
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


CHARTS = ("precision_recall_50", "precision_recall", "precision_recall_thresholds", "scores", "classes")
FILES = {
    *(f"{name}.png" for name in (*CHARTS, "confusion", "errors", "predictions")),
    *(f"errors_{kind}.png" for kind in KINDS),
}


class Reader(HTMLParser):
    """What a browser would make of the page: its text, its tags, and where its pictures come from."""

    def __init__(self, path):
        super().__init__()
        self.words, self.tags, self.sources = "", set(), []
        self.feed(path.read_text(encoding="utf-8"))
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        assert values.get("href", "#").startswith("#")
        if tag == "img":
            assert int(values["width"]) > 0 and int(values["height"]) > 0 and values["alt"]
            self.sources.append(values["src"])

    def handle_data(self, data):
        self.words += data


def read_report(case, folder, pictures=pictures):
    """The report written to `folder`; every file is there and opens, and nothing comes from elsewhere."""
    page = write_report(case, pictures, folder, about="best.pth of <epoch> 3")
    assert {path.name for path in (folder / "report").iterdir()} == FILES
    for path in (folder / "report").iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
    assert page == folder / "report.html"
    found = Reader(page)
    assert not found.tags & {"script", "link", "iframe", "object", "base"}
    assert "http" not in page.read_text(encoding="utf-8").replace("http-equiv", "")
    for source in found.sources:
        head, data = source.split(",", 1)
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    assert "best.pth of <epoch> 3" in found.words
    return found


def test_the_report_says_the_evaluators_numbers(tmp_path):
    case = random_scored()
    (tmp_path / "run").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "run" / "curves.png")
    found = read_report(case, tmp_path / "run")
    for name, value in case.metrics.numbers().items():
        assert f"{percent(value)}{name}" in found.words
    for row in case.metrics.classes:
        cells = (row.name, str(row.num_objects), *(f"{100 * v:.1f}" for v in (row.AP, row.AP50, row.AR_100)))
        assert "".join(cells) in found.words
    assert "Training" in found.words
    assert len(found.sources) == 8 + 2 * 12 + 6 * 8 - missing_tiles(case)
    assert "20 pictures, 80 objects of 4 classes" in found.words


def missing_tiles(case):
    """Kinds of errors with less than 8 examples have fewer pictures."""
    split = work_out(case).split
    counts = [*((split.kinds == kind).sum() for kind in range(5)), split.missed.sum()]
    return sum(max(8 - int(count), 0) for count in counts)


def test_names_are_words_whatever_they_hold(tmp_path):
    found = read_report(random_scored(names=NASTY_NAMES), tmp_path / "a & <b>run")
    for word in (
        "<script>alert(1)</script>",
        "猫 & 狗",
        "$x_{$",
        'a "b" c',
        "? lone",
        "folder/<b>1",
        "a & <b>run",
    ):
        assert word in found.words, word
    assert "\u202e" not in found.words


def test_an_empty_set(tmp_path):
    found = read_report(scored([], [], num_images=0), tmp_path / "run")
    assert "0 pictures, 0 objects of 2 classes, 0 detections" in found.words
    assert "There are no pictures." in found.words
    assert len(found.sources) == 7


def test_nothing_found(tmp_path):
    case = scored([(0, 0, [5, 5, 30, 40])], [], num_images=2, names=("cat",))
    found = read_report(case, tmp_path / "run")
    assert "0.0AP" in found.words and "0 detections" in found.words
    assert "no detection is right here, and 0.500 is taken" in found.words
    assert len(found.sources) == 7 + 2 * 2 + 1


def test_nothing_to_find(tmp_path):
    case = scored([], [(0, 0, [5, 5, 30, 40], 0.9)], num_images=1, names=("cat",))
    found = read_report(case, tmp_path / "run")
    assert "–AP" in found.words
    assert "background00.0" not in found.words


def test_boxes_at_and_beyond_the_edge_of_a_tiny_picture(tmp_path):
    objects = [(0, 0, [0, 0, 1, 1]), (1, 0, [2, 2, 500, 500])]
    found = [(0, 0, [-50, -50, 20, 20], 0.9), (1, 0, [900, 900, 5, 5], 0.8), (1, 1, [0, 0, 3, 0.2], 0.7)]
    case = scored(objects, found, num_images=2)
    read_report(case, tmp_path / "run", lambda image_id: ("1.png", Image.new("L", (3 + image_id, 2))))


def test_many_pictures_and_classes(tmp_path):
    asked = []

    def counting(image_id):
        asked.append(image_id)
        return pictures(image_id)

    names = tuple(f"class {i}" for i in range(80))
    case = random_scored(num_images=1000, names=names)
    found = read_report(case, tmp_path / "run", counting)
    assert "1000 pictures, 4000 objects of 80 classes" in found.words
    assert len(asked) == 12 + 6 * 8  # what is shown is read, and nothing else
    assert (tmp_path / "run" / "report.html").stat().st_size < 4e6
