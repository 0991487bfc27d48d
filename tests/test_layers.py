"""Imports point down and never round, those inside functions and for type checkers alone included."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "reinforcegen_envs"
MOVED = {"agents", "wrappers"}  # top-level folders that are installed as parts of the package
ROOT_MODULE = "__init__"  # the package itself, which registers the ids
# Lowest first. Rooms of a row may not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    # Helpers that know nothing of robots; see `HELPERS`.
    (
        *"errors ids files typing caching poses statistics arguments modules shards workers ray_workers cli provenance".split(),
    ),
    ("models",),
    ("sim",),
    ("tasks",),
    ("observations",),
    ("planning",),
    ("policies",),
    ("perception",),
    ("engine",),
    ("env",),
    ("demos",),
    ("wrappers",),
    ("registration",),
    (ROOT_MODULE,),
    ("evaluation", "agents"),
    ("evaluate", "inventory", "doctor", "export", "merge", "robomimic"),
    ("commands",),
    ("__main__",),
)
HELPERS = LAYERS[0]  # they may import each other, as long as no circle arises
RANK = {room: rank for rank, row in enumerate(LAYERS) for room in row}


def modules() -> dict[str, Path]:
    """Dotted name inside the package ("sim.kernel") -> file."""
    found = {}
    for folder, prefix in ((ROOT / PACKAGE, ()), *((ROOT / name, (name,)) for name in sorted(MOVED))):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if not prefix and parts[0] in MOVED:
                continue  # the links
            name = ".".join([*prefix, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


MODULES = modules()


def imports(name: str) -> list[tuple[int, str]]:
    """(line, imported module of the package) of every import in a module, wherever it stands, relative ones too."""
    found = []
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [PACKAGE, *name.split(".")]
            if MODULES[name].name == "__init__.py" and name != ROOT_MODULE:
                base.append("__init__")
            base = base[: len(base) - node.level] if node.level else []
            # `from package import module` imports the module; `from module import thing` the module that holds it.
            targets = [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            if target.split(".")[0] != PACKAGE:
                continue
            inside = target.split(".")[1:]
            while inside and ".".join(inside) not in MODULES:
                inside.pop()
            found.append((node.lineno, ".".join(inside) or ROOT_MODULE))
    return found


IMPORTS = {name: imports(name) for name in MODULES}


def room(name: str) -> str:
    """The package or top-level module that a module belongs to."""
    return name.split(".")[0]


def where(name: str, line: int, target: str) -> str:
    return f"{MODULES[name].relative_to(ROOT)}:{line} imports {target}"


def test_every_room_has_its_place():
    assert {room(name) for name in MODULES} <= set(RANK), "name the room's place in LAYERS"


def test_imports_point_down():
    wrong = []
    for name, lines in IMPORTS.items():
        for line, target in lines:
            above, below = room(name), room(target)
            allowed = above == below or (above in HELPERS and below in HELPERS)
            if not allowed and RANK.get(below, 0) >= RANK.get(above, 0):
                wrong.append(where(name, line, target))
    assert not wrong, "\n" + "\n".join(sorted(set(wrong)))


def test_no_import_goes_round():
    """Imports that lead back to the module they stand in. A package's name stands for its ``__init__``."""
    reach = {name: {target for _, target in lines} for name, lines in IMPORTS.items()}
    wrong = []
    for name, lines in IMPORTS.items():
        for line, target in lines:
            seen, todo = set(), [target]
            while todo:
                if (current := todo.pop()) not in seen:
                    seen.add(current)
                    todo += reach[current]
            if name in seen:
                wrong.append(where(name, line, target))
    assert not wrong, "\n" + "\n".join(sorted(set(wrong)))
