"""Files that include files: reads them all and merges them into one tree."""

import os
from pathlib import Path

from .problems import Place, Problems
from .yaml_tree import Items, Node, Scalar, Section, merge, read_file

INCLUDE = "__include__"
MAX_FILES = 100


def read_config(path: Path, problems: Problems) -> Section | None:
    """The tree of a file on top of what it includes.

    `__include__` is a path or a list of paths, relative to the file that says it; they merge in order, then
    the file itself. Each file may be reached over several ways, but not from itself.

    Args:
        path: The file that the user named.
        problems: Takes the faults.

    Returns:
        The tree; None where the file itself cannot be read.
    """
    return _Includes(problems).read(path, Place(display_name(path), None), ())


def display_name(path: Path) -> str:
    """How messages call a file: relative to the working directory, if it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


class _Includes:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._files = 0

    def read(self, path: Path, mention: Place, chain: tuple[Path, ...]) -> Section | None:
        """The merged tree of `path`, which `mention` includes by way of the files in `chain`."""
        name = display_name(path)
        resolved = path.resolve()
        if resolved in chain:
            circle = [*chain[chain.index(resolved) :], resolved]
            self._problems.block(mention, f"include circle: {' -> '.join(display_name(p) for p in circle)}")
            return None
        self._files += 1
        if self._files > MAX_FILES:
            self._problems.block(mention, f"more than {MAX_FILES} files are included")
            return None
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            self._problems.block(mention, f"{name} {what}" if chain else what)
            return None
        own = read_file(path, name, own=not chain, problems=self._problems)
        if own is None:
            return None
        entries = dict(own.entries)
        include = entries.pop(INCLUDE, None)
        merged: Node = Section({}, own.place)
        for mentioned in self._mentions(include.node) if include is not None else ():
            below = self.read(path.parent / str(mentioned.value), mentioned.place, (*chain, resolved))
            if below is not None:
                merged = merge(merged, below)
        result = merge(merged, Section(entries, own.place))
        assert isinstance(result, Section), "two mappings merge to a mapping"
        return result

    def _mentions(self, node: Node) -> tuple[Scalar, ...]:
        listed = node.items if isinstance(node, Items) else (node,)
        paths = tuple(item for item in listed if isinstance(item, Scalar) and isinstance(item.value, str))
        if len(paths) != len(listed):
            self._problems.add(node.place, f"{INCLUDE} takes a path or a list of paths")
        return paths
