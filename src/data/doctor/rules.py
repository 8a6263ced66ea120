"""What the doctor can find: the name, weight, meaning and remedy of every finding."""

from typing import Literal, NamedTuple

from ..formats.source import FAULTS, HARMLESS

Severity = Literal["error", "repaired", "warning"]


class Rule(NamedTuple):
    """One kind of finding.

    Attributes:
        severity: `error` stops a run before its first step, `repaired` is put right in memory, `warning` is
            said.
        meaning: What is found, as a noun.
        remedy: What a person does about it, or what was done in memory.
    """

    severity: Severity
    meaning: str
    remedy: str


DROP = "leave them out with -u train_dataloader.dataset.drop_empty_boxes=True (or val_dataloader's)"

DOCUMENT: dict[str, Rule] = {
    "json-missing": Rule("error", "annotation file does not exist", "correct ann_file, or prepare the data"),
    "json-unreadable": Rule("error", "annotation file cannot be read", "correct its permissions or path"),
    "json-invalid": Rule(
        "error", "not valid JSON: truncated or of another format", "copy or download the file again"
    ),
    "json-duplicate-key": Rule(
        "error", "keys that one JSON object has twice, so that one value is lost", "leave one of them"
    ),
    "json-other-kind": Rule(
        "error",
        "JSON of another kind than COCO's detection format",
        "give the 'instances' file: an object with the lists 'images', 'annotations' and 'categories'",
    ),
    "no-pictures": Rule("error", "file that lists no picture", "give a file with at least one"),
    "no-categories": Rule("error", "'categories' is empty: at least one category is needed", "list them"),
    "category-broken": Rule(
        "error", "categories without an integer 'id' and a 'name'", "give each category both"
    ),
    "category-id-repeated": Rule(
        "error", "category ids that stand there more than once", "give each category an id of its own"
    ),
    "category-name-repeated": Rule(
        "warning",
        "categories of the same name",
        "they are learned as different classes; join them if not meant",
    ),
    "category-names-alike": Rule(
        "warning",
        "category names that differ only by case or white space",
        "they are learned as different classes; join them if not meant",
    ),
    "category-without-boxes": Rule(
        "warning", "categories without any box", "they cannot be learned or measured; remove or label them"
    ),
    "picture-broken": Rule("error", "pictures without an integer 'id'", "give each picture one"),
    "picture-size-missing": Rule(
        "error",
        "pictures that have no 'width' and 'height' (positive whole pixels)",
        "write the size of each picture into the JSON",
    ),
    "picture-id-repeated": Rule(
        "error", "picture ids that stand there more than once", "give each picture an id of its own"
    ),
    "picture-name-unsafe": Rule(
        "error",
        "file names that are empty, absolute or lead out of the picture folder",
        "write them relative to img_folder, without '..'",
    ),
    "picture-listed-twice": Rule(
        "warning",
        "files that the JSON lists as several pictures",
        "the objects of one entry are background in the other; list each file once, with all its objects",
    ),
    "annotation-broken": Rule("error", "annotations that are not JSON objects", "delete them"),
    "annotation-picture-unknown": Rule(
        "error",
        "annotations of pictures that 'images' does not list",
        "add these pictures or delete the annotations",
    ),
    "annotation-category-unknown": Rule(
        "error",
        "annotations of a category that 'categories' does not list",
        "add the categories or correct the ids",
    ),
    "annotation-id-missing": Rule(
        "warning", "annotations without an integer 'id'", "not needed here; COCO's own tools need it"
    ),
    "annotation-id-repeated": Rule(
        "warning",
        "annotation ids that stand there more than once",
        "not used here; COCO's own tools lose boxes",
    ),
    "annotation-id-zero": Rule(
        "warning",
        "annotation with id 0",
        "harmless here: ids are numbered anew; pycocotools counts a match with it as a miss; start at 1",
    ),
    "crowd-flag-broken": Rule("error", "'iscrowd' that is neither 0 nor 1", "write 0 or 1"),
    "crowd-flag-odd": Rule("repaired", "'iscrowd' written otherwise than as 0 or 1", "read as 0 or 1"),
    "area-broken": Rule(
        "repaired",
        "'area' that is no number from 0 on",
        "width x height of the box is used; evaluation needs it",
    ),
}

BOXES: dict[str, Rule] = {
    "box-broken": Rule(
        "error",
        "'bbox' is not four finite numbers [left, top, width, height]",
        "correct or delete these annotations",
    ),
    "box-from-polygon": Rule(
        "repaired", "annotations with polygons and no 'bbox'", "the box around the polygons is used"
    ),
    "box-swapped": Rule(
        "repaired", "boxes of negative width or height", "taken as the box between the same two corners"
    ),
    "box-empty": Rule("error", "boxes are empty (no width or height)", f"correct the JSON, or {DROP}"),
    "box-outside": Rule("error", "boxes lie wholly outside their picture", f"correct the JSON, or {DROP}"),
    "box-partly-outside": Rule(
        "repaired",
        "boxes that leave their picture by more than a pixel",
        "clipped to the picture for training",
    ),
    "box-duplicated": Rule(
        "repaired", "boxes that repeat another of the same picture and category", "trained on once"
    ),
    "box-tiny": Rule(
        "warning", "boxes thinner than a pixel", "they teach nothing; check the unit, or delete them"
    ),
    "boxes-tiny": Rule(
        "error",
        "boxes thinner than a pixel: most of the set's",
        "check the unit, COCO's boxes are in pixels; or delete them",
    ),
    "boxes-normalised": Rule(
        "error",
        "boxes that lie, but for a few, between 0 and 1, as shares of the picture",
        "multiply them by the picture's width and height: COCO's boxes are in pixels",
    ),
    "boxes-as-corners": Rule(
        "error",
        "boxes read as [left, top, right, bottom], and as [left, top, width, height] leave their pictures",
        "write [left, top, width, height]",
    ),
}

PICTURES: dict[str, Rule] = {
    "folder-missing": Rule("error", "picture folder does not exist", "correct img_folder"),
    "picture-missing": Rule(
        "error", "pictures that are not in the folder", "correct img_folder, or restore the files"
    ),
    "picture-name-case": Rule(
        "error",
        "names that the folder spells otherwise: by case, or by an accent's form",
        "write them as it does",
    ),
    "picture-outside": Rule(
        "error",
        "links that lead out of the picture folder",
        "copy the files into the folder, or set img_folder to where they lie",
    ),
    "picture-unreadable": Rule(
        "error", "files that are no picture of a known kind", "replace them, or take them out of the dataset"
    ),
    "picture-truncated": Rule(
        "error",
        "pictures that cannot be decoded to their end",
        "replace them, or take them out of the dataset",
    ),
    "picture-oversized": Rule(
        "error", "pictures of more pixels than are decoded (a guard against bombs)", "store them smaller"
    ),
    "picture-32-bit": Rule(
        "error", "pictures of 32-bit values, for which there is no agreed white", "store 8 or 16 bits"
    ),
    "picture-size-differs": Rule(
        "error",
        "pictures of another size than their annotations say",
        "correct the JSON's width and height, or restore the pictures that were annotated",
    ),
    "picture-turned": Rule(
        "repaired",
        "pictures whose size fits their annotations once turned as EXIF says",
        "turned, since whoever annotated them saw them so",
    ),
    "picture-exif-ignored": Rule(
        "warning",
        "pictures with an EXIF orientation whose stored size fits their annotations",
        "taken as stored, as COCO's are; if the boxes were drawn on the turned picture, they lie elsewhere",
    ),
    "picture-cmyk": Rule("repaired", "CMYK pictures", "converted to RGB without a colour profile"),
    "picture-16-bit": Rule("repaired", "pictures of 16 bits", "scaled to 8 bits"),
    "picture-alpha": Rule("repaired", "pictures with transparency", "transparency is dropped"),
    "picture-frames": Rule("warning", "files of several pictures", "the first one is used"),
}

SPLITS: dict[str, Rule] = {
    "dataset-unreadable": Rule(
        "error",
        "dataset that cannot be read",
        "correct it as the message says; docs/doctor.md has the layouts that are read",
    ),
    "split-missing": Rule(
        "error",
        "dataset without a set to train on, or to validate with",
        "tools/dataset/split.py makes a train and a val split",
    ),
    "no-training-boxes": Rule("error", "training set without any box", "there is nothing to learn; label it"),
    "no-validation-boxes": Rule(
        "error",
        "validation set without any box",
        "nothing can be measured, nor a best checkpoint chosen; label it",
    ),
    "categories-differ": Rule(
        "error",
        "categories of the validation set that are not those of the training set",
        "use the same ids and names in both files",
    ),
    "categories-missing": Rule(
        "warning",
        "categories of the training set that the validation set does not list",
        "they are not measured; use the same list in both files",
    ),
    "split-same-file": Rule(
        "warning",
        "files that are in training and validation",
        "validation then measures memory; take them out of one",
    ),
    "split-same-bytes": Rule(
        "warning",
        "pictures of validation that are, byte for byte, also in training",
        "validation then measures memory; take them out of one",
    ),
    "split-look-alike": Rule(
        "warning",
        "pictures of validation that look like one in training",
        "look at them: copies, crops of a film or a series should be in one set only",
    ),
}

# what the readers of other formats could not take
FORMATS: dict[str, Rule] = {
    kind: Rule(
        "warning" if kind in HARMLESS else "error",
        meaning,
        "nothing reads them" if kind in HARMLESS else "correct them, or take these files out",
    )
    for kind, meaning in FAULTS.items()
}

RULES: dict[str, Rule] = {**FORMATS, **DOCUMENT, **BOXES, **PICTURES, **SPLITS}
