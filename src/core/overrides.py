"""What `-u a.b=c` changes in a tree."""

from .problems import Place, Problems
from .yaml_tree import Entry, Items, Node, Scalar, Section, merge, read_text


def apply_override(tree: Section, text: str, problems: Problems) -> Section:
    """The tree with one override applied.

    The value is read as YAML and merges like an included file: a mapping key by key, else it replaces.
    Numbers in the path are indices of lists: `optimizer.params.0.lr=1e-5`.

    Args:
        tree: The tree as the files give it.
        text: `key=value`, without the `-u`.
        problems: Takes the faults; a faulty override changes nothing.
    """
    place = Place(f"-u {text}")
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        problems.add(
            place, "an override is written key=value, with dots between nested keys: optimizer.lr=1e-4"
        )
        return tree
    value = read_text(value_text, place, problems)
    if value is None:
        return tree
    changed = _put(tree, keys, 0, value, problems)
    return changed if isinstance(changed, Section) else tree


def _put(node: Node | None, keys: list[str], depth: int, value: Node, problems: Problems) -> Node | None:
    """`node` with `value` merged in at keys[depth:]; None, and a note, where the path leads nowhere."""
    if depth == len(keys):
        return merge(node, value)
    key = keys[depth]
    if isinstance(node, Items):
        if not key.isdecimal() or int(key) >= len(node.items):
            where = ".".join(keys[:depth])
            problems.add(
                value.place, f"{where} is a list of {len(node.items)}; write its index, from 0, not '{key}'"
            )
            return None
        index = int(key)
        item = _put(node.items[index], keys, depth + 1, value, problems)
        return (
            None if item is None else Items((*node.items[:index], item, *node.items[index + 1 :]), node.place)
        )
    if isinstance(node, Scalar) and node.value is not None:
        problems.add(
            value.place, f"{'.'.join(keys[:depth])} is the value '{node.value}'; it has no key '{key}'"
        )
        return None
    below = node.entries[key].node if isinstance(node, Section) and key in node.entries else None
    child = _put(below, keys, depth + 1, value, problems)
    return None if child is None else merge(node, Section({key: Entry(value.place, child)}, value.place))
