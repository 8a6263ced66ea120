"""What the key `data` decides: the pictures of both loaders, and the number of classes."""

from collections.abc import Callable

from .problems import Place, Problems
from .yaml_tree import Entry, Node, Scalar, Section, merge

LOADERS = ("train_dataloader", "val_dataloader")
PATHS = ("img_folder", "ann_file")


def follow_data(tree: Section, count_classes: Callable[[str], int] | None, problems: Problems) -> Section:
    """The tree with what follows from `data`, where it is given.

    Paths of a loader that were written nearer to the user than `data`, or as near in the file of `-c` or by
    `-u`, stay; other paths give way. `num_classes` is counted unless the user wrote it.

    Args:
        tree: As the files and overrides give it.
        count_classes: Counts the classes of a dataset, by its path.
        problems: Takes the faults.
    """
    data = _value(tree, "data")
    if data is None or not isinstance(data.value, str):
        return tree
    for loader in LOADERS:
        written = [node for key in PATHS if (node := _value(tree, loader, "dataset", key)) is not None]
        nearest = max((_nearness(node.place) for node in written), default=0)
        if written and nearest < max(_nearness(data.place), 1):
            nothing = Section({key: Entry(data.place, Scalar(None, data.place)) for key in PATHS}, data.place)
            tree = _with(tree, _section(loader, _section("dataset", nothing)))
    classes = _value(tree, "num_classes")
    if count_classes is not None and (classes is None or not classes.place.own):
        try:
            count = count_classes(data.value)
        except ValueError as error:
            problems.add(data.place, f"data: {error}")
        else:
            tree = _with(tree, _section("num_classes", Scalar(count, data.place)))
    return tree


def _value(tree: Section, *keys: str) -> Scalar | None:
    """The value at a path, if one is written there that is not null."""
    node: Node = tree
    for key in keys:
        if not isinstance(node, Section) or key not in node.entries:
            return None
        node = node.entries[key].node
    return node if isinstance(node, Scalar) and node.value is not None else None


def _nearness(place: Place) -> int:
    """0 in an include, 1 in the file of `-c`, 2 by `-u`."""
    return 2 if place.line is None else int(place.own)


def _section(key: str, node: Node) -> Section:
    return Section({key: Entry(node.place, node)}, node.place)


def _with(tree: Section, change: Section) -> Section:
    changed = merge(tree, change)
    assert isinstance(changed, Section), "two mappings merge to one"
    return changed
