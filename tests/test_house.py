"""The house rules: imports run downwards, doors stay thin, and no module is imported in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "core": 1, "ops": 1, "optim": 1, "structures": 1, "distributed": 1, "door": 1, "files": 1,
    "data": 2, "nn": 2, "evaluation": 2, "teachers": 2,
    "solver": 3, "deploy": 3, "setup": 3, "serving": 3, "assembly": 3, "runs": 3,
}  # fmt: skip
MODULES = sorted((ROOT / "src").rglob("*.py"))
DOORS = [ROOT / "train.py", *sorted((ROOT / "tools").rglob("*.py"))]


def module_name(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_modules(path: Path) -> list[tuple[str, ...]]:
    """Modules of src that `path` imports, as tuples that begin with "src"."""
    package = path.relative_to(ROOT).parts[:-1]
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = base + tuple((node.module or "").split(".")) if node.module else base
            found += [(*target, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "src":
            found += [(*node.module.split("."), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [tuple(a.name.split(".")) for a in node.names if a.name.split(".")[0] == "src"]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    own = module_name(path)
    if len(own) == 1:
        assert imported_modules(path) == [], "src/__init__.py imports nothing"
        return
    floor = FLOORS[own[1]]
    for target in imported_modules(path):
        room = target[1]
        assert FLOORS[room] <= floor, f"{'.'.join(own)} imports upwards: {'.'.join(target)}"
        if floor == 2 and FLOORS[room] == 2:
            # a teacher is a backbone without a detector; nobody of its floor knows teachers
            allowed = room == own[1] or (own[1] == "teachers" and target[1:3] == ("nn", "backbone"))
            assert allowed, f"{'.'.join(own)} and {room} are neighbours and may not know each other"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_src_imports_relatively(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] != "src", f"{path}: the word src is for doors and tests"


def test_no_import_circle() -> None:
    names = {module_name(p) for p in MODULES}
    edges = {
        module_name(p): {t[:n] for t in imported_modules(p) for n in (len(t), len(t) - 1) if t[:n] in names}
        for p in MODULES
    }
    done: set[tuple[str, ...]] = set()

    def visit(name: tuple[str, ...], trail: tuple[tuple[str, ...], ...]) -> None:
        assert name not in trail, "import circle: " + " -> ".join(".".join(n) for n in (*trail, name))
        if name not in done:
            for target in edges[name] - {name[:i] for i in range(1, len(name))}:
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


@pytest.mark.parametrize("path", DOORS, ids=lambda p: str(p.relative_to(ROOT)))
def test_doors_parse_call_and_exit(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 80, f"{path} is a door: at most 80 lines"
    loops = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.For | ast.While)]
    assert not loops, f"{path} is a door: its loop belongs into src"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300, f"{path} has over 300 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, (
                f"{path}:{node.lineno} {node.name} is over 60 lines"
            )
