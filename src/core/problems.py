"""What is wrong with a configuration, and where: collected first, raised all at once."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple


class Place(NamedTuple):
    """Where a key or a value was written.

    Attributes:
        source: The file, or `-u key=value`.
        line: Line in the file, from 1; None for an override.
        own: Whether the user wrote it for this run: in the file of `-c` or by `-u`, not in an include.
    """

    source: str
    line: int | None = None
    own: bool = True

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


class ConfigError(ValueError):
    """A configuration that cannot be used.

    Attributes:
        problems: One `file:line: message` for each fault.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Problems:
    """The faults found so far.

    Attributes:
        blocked: Whether a file is missing or unreadable, so that further faults would only follow from it.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str], None] = {}
        self.blocked = False

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, message: str) -> None:
        """Notes a fault; the same one at the same place counts once."""
        self._found[place, message] = None

    def block(self, place: Place, message: str) -> None:
        """Notes a fault that leaves a file unread."""
        self.add(place, message)
        self.blocked = True

    def raise_any(self) -> None:
        """Raises what was found, file by file and line by line.

        Raises:
            ConfigError: At least one fault was noted.
        """
        if self._found:
            sources = list(dict.fromkeys(place.source for place, _ in self._found))
            ordered = sorted(
                self._found, key=lambda fault: (sources.index(fault[0].source), fault[0].line or 0)
            )
            raise ConfigError([f"{place}: {message}" for place, message in ordered])


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest one that is, or all of them."""
    names = sorted(known)
    if not names:
        return "nothing is known here"
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean '{by_lower[close[0]]}'?" if close else f"known: {', '.join(names)}"
