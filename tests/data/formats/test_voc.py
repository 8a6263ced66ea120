"""Pascal VOC's folders and XML files, PASCAL's own and those of labelling tools."""

from pathlib import Path

import pytest
from four_formats import voc_xml
from PIL import Image

from src.data.formats import Source, recognise

W, H = 80, 40


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H)).save(path)


def xml(
    name: str, *objects: tuple[str, list[float]], database: str = "Unknown", size: tuple[int, int] = (W, H)
) -> str:
    image = {"file_name": name, "width": size[0], "height": size[1]}
    return voc_xml(image, list(objects), database)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def made(root: Path, **files: str) -> Path:
    """A dataset of one XML file and picture for each keyword."""
    for stem, text in files.items():
        write(root / "Annotations" / f"{stem}.xml", text)
        picture(root / "JPEGImages" / f"{stem}.jpg")
    return root


def faults(source: Source) -> list[tuple[str, str]]:
    return [(fault.place, fault.kind) for fault in source.faults]


def boxes(source: Source) -> list[list[float]]:
    return [annotation["bbox"] for annotation in source.document["annotations"]]


CAT = ("cat", [10.0, 5.0, 20.0, 8.0])


def test_corners_are_taken_as_labelling_tools_write_them(tmp_path: Path) -> None:
    assert boxes(recognise(made(tmp_path, a=xml("a.jpg", CAT))).read("all")) == [[10, 5, 20, 8]]


def test_pascals_own_files_count_pixels_from_1_and_name_the_last_one(tmp_path: Path) -> None:
    # a box over the whole picture is 1, 1, 80, 40 there
    whole = xml("a.jpg", ("cat", [1, 1, W - 1, H - 1]), database="The VOC2007 Database")
    assert boxes(recognise(made(tmp_path, a=whole)).read("all")) == [[0, 0, W, H]]


def test_splits_of_image_sets(tmp_path: Path) -> None:
    made(tmp_path, **{stem: xml(f"{stem}.jpg", CAT) for stem in ("a", "b", "my cat 1", "c")})
    lists = tmp_path / "ImageSets" / "Main"
    write(lists / "train.txt", "a\nmy cat 1\n\n")
    write(lists / "val.txt", "b  1\nc.jpg -1\n".replace(".jpg -1", ".jpg"))
    write(lists / "cat_train.txt", "a  1\n")
    layout = recognise(tmp_path)
    assert (layout.format, list(layout.readers)) == ("voc", ["train", "val"])
    names = {s: [i["file_name"] for i in layout.read(s).document["images"]] for s in layout.readers}
    assert names == {
        "train": ["JPEGImages/a.jpg", "JPEGImages/my cat 1.jpg"],
        "val": ["JPEGImages/b.jpg", "JPEGImages/c.jpg"],
    }


@pytest.mark.parametrize(
    ("xml_folder", "img_folder"),
    [
        ("{split}", "{split}"),
        ("{split}/Annotations", "{split}/JPEGImages"),
        ("annotations/{split}", "images/{split}"),
        ("annotations/{split}", "images"),
    ],
)
def test_folders_for_each_split(tmp_path: Path, xml_folder: str, img_folder: str) -> None:
    for split in ("train", "valid"):
        write(tmp_path / xml_folder.format(split=split) / f"{split}_1.xml", xml("x.jpg", CAT))
        picture(tmp_path / img_folder.format(split=split) / f"{split}_1.PNG")
    layout = recognise(tmp_path)
    assert (layout.format, list(layout.readers)) == ("voc", ["train", "val"])
    for split, folder in (("train", "train"), ("val", "valid")):
        source = layout.read(split)
        expected = f"{img_folder.format(split=folder)}/{folder}_1.PNG"
        assert [image["file_name"] for image in source.document["images"]] == [expected]
        assert (boxes(source), source.faults) == ([CAT[1]], ())


def test_classes_are_those_in_use_by_name_unless_a_list_gives_their_order(tmp_path: Path) -> None:
    made(tmp_path, a=xml("a.jpg", ("dog", CAT[1]), CAT), b=xml("b.jpg", ("ant", CAT[1])))
    lists = tmp_path / "ImageSets" / "Main"
    write(lists / "train.txt", "a")
    write(lists / "val.txt", "b")
    in_use = recognise(tmp_path).categories()
    assert in_use == [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
    assert recognise(tmp_path).read("val").document["categories"] == in_use  # both splits share one list
    write(
        tmp_path / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\ncat:4,5,6::\n",
    )
    layout = recognise(tmp_path)
    assert layout.categories() == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert faults(layout.read("val")) == [("Annotations/b.xml:5", "class-unknown")]


def test_difficult_objects_are_objects(tmp_path: Path) -> None:
    text = xml("a.jpg", CAT).replace("<difficult>0", "<difficult>1")
    annotation = recognise(made(tmp_path, a=text)).read("all").document["annotations"][0]
    assert (annotation["difficult"], annotation["iscrowd"]) == (1, 0)


def test_the_size_is_the_files_own_or_else_the_pictures(tmp_path: Path) -> None:
    stated = xml("a.jpg", CAT, size=(300, 200))
    unknown = xml("b.jpg", CAT, size=(0, 0))
    images = recognise(made(tmp_path, a=stated, b=unknown)).read("all").document["images"]
    assert [(i["width"], i["height"]) for i in images] == [(300, 200), (W, H)]


def test_the_picture_may_be_called_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "Annotations" / "0001.xml", xml("C:\\photos\\Cat.JPG", CAT))
    picture(tmp_path / "JPEGImages" / "Cat.JPG")
    images = recognise(tmp_path).read("all").document["images"]
    assert [image["file_name"] for image in images] == ["JPEGImages/Cat.JPG"]


def test_of_several_pictures_of_a_name_the_file_says_which(tmp_path: Path) -> None:
    made(tmp_path, a=xml("a.png", CAT), b=xml("b.gif", CAT))
    picture(tmp_path / "JPEGImages" / "a.png")
    picture(tmp_path / "JPEGImages" / "b.png")
    source = recognise(tmp_path).read("all")
    assert [image["file_name"] for image in source.document["images"]] == ["JPEGImages/a.png"]
    assert faults(source) == [
        ("Annotations/b.xml", "picture-missing"),
        ("JPEGImages/a.jpg", "picture-without-label"),
    ]
    assert "2 pictures are called b" in source.faults[0].text


def test_all_faults_are_told_with_their_places_and_the_rest_is_read(tmp_path: Path) -> None:
    good = xml("a.jpg", CAT)
    made(
        tmp_path,
        a=good.replace("<name>cat</name>", "<name> </name>") + "",
        b=good.replace("<xmin>10</xmin>", ""),
        c=good.replace("<xmin>10</xmin>", "<xmin>nan</xmin>"),
        d=good[:150],
        e="<html></html>",
        f='<!DOCTYPE x [<!ENTITY y "z">]>' + good,
        g=xml("g.jpg", CAT, CAT).replace(
            "<ymax>13</ymax></bndbox>\n  </object>\n</", "</bndbox>\n  </object>\n</"
        ),
        h=good,
    )
    (tmp_path / "JPEGImages" / "h.jpg").unlink()
    lists = tmp_path / "ImageSets" / "Main"
    write(lists / "train.txt", "\n".join([*"abcdefg", "x" * 300, "h"]))
    source = recognise(tmp_path).read("train")
    assert faults(source) == [
        ("Annotations/a.xml:5", "object-malformed"),
        ("Annotations/b.xml:5", "object-malformed"),
        ("Annotations/c.xml:5", "object-malformed"),
        ("Annotations/d.xml", "file-unreadable"),
        ("Annotations/e.xml", "file-unreadable"),
        ("Annotations/f.xml", "file-unreadable"),
        ("Annotations/g.xml:10", "object-malformed"),
        ("ImageSets/Main/train.txt:8", "file-missing"),
        ("Annotations/h.xml", "picture-missing"),
    ]
    assert source.places == ("Annotations/g.xml:5",)
    with pytest.raises(ValueError, match="9 faults"):
        source.require_readable()


def test_hidden_files_are_none(tmp_path: Path) -> None:
    made(tmp_path, a=xml("a.jpg", CAT))
    (tmp_path / "Annotations" / "._a.xml").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves them
    assert recognise(tmp_path).read("all").faults == ()


def test_subfolders_are_read_and_their_pictures_are_those_of_the_same_subfolder(tmp_path: Path) -> None:
    for film in ("one", "two"):
        write(tmp_path / "Annotations" / film / "0.xml", xml("0.jpg", CAT))
        picture(tmp_path / "JPEGImages" / film / "0.jpg")
    write(tmp_path / "Annotations" / "two" / "1.xml", xml("1.jpg", CAT))
    picture(tmp_path / "JPEGImages" / "1.jpg")  # the only one of that name
    source = recognise(tmp_path).read("all")
    names = [image["file_name"] for image in source.document["images"]]
    assert names == ["JPEGImages/one/0.jpg", "JPEGImages/two/0.jpg", "JPEGImages/1.jpg"]
    assert source.faults == ()


def test_two_files_for_one_picture(tmp_path: Path) -> None:
    for film in ("one", "two"):
        write(tmp_path / "Annotations" / film / "0.xml", xml("0.jpg", CAT))
    picture(tmp_path / "JPEGImages" / "0.jpg")
    source = recognise(tmp_path).read("all")
    assert faults(source) == [("Annotations/two/0.xml", "picture-missing")]
    assert "0.jpg is that of Annotations/one/0.xml" in source.faults[0].text


def test_a_picture_without_xml_is_told_and_left_out(tmp_path: Path) -> None:
    made(tmp_path, a=xml("a.jpg", CAT), broken="<annotation>")
    picture(tmp_path / "JPEGImages" / "b.jpg")
    source = recognise(tmp_path).read("all")
    assert faults(source) == [
        ("Annotations/broken.xml", "file-unreadable"),
        ("JPEGImages/b.jpg", "picture-without-label"),
    ]
    (tmp_path / "Annotations" / "broken.xml").unlink()
    recognise(tmp_path).read("all").require_readable()
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a")  # a choice: nothing is forgotten
    assert recognise(tmp_path).read("train").faults == ()


def test_a_list_does_not_lead_out_of_the_dataset(tmp_path: Path) -> None:
    root = made(tmp_path / "mine", a=xml("a.jpg", CAT))
    write(tmp_path / "x.xml", xml("a.jpg", ("dog", CAT[1])))
    write(root / "ImageSets" / "Main" / "train.txt", f"a\n../../x\n{tmp_path}/x\n")
    source = recognise(root).read("train")
    place = "ImageSets/Main/train.txt"
    assert faults(source) == [(f"{place}:2", "path-outside"), (f"{place}:3", "path-outside")]
    assert [category["name"] for category in source.document["categories"]] == ["cat"]
