"""Rows of text as a table, for a terminal or a page."""

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Lines of a table: its head, a rule, the others.

    Args:
        rows: Of as many cells each, the head first.
        left: Columns that are aligned to the left, all others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """The same as a table of Markdown."""
    head, *others = ("| " + " | ".join(row) + " |" for row in rows)
    rule = "|".join("---" if column in left else "---:" for column in range(len(rows[0])))
    return [head, f"|{rule}|", *others]
