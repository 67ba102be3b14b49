"""The arrows between rooms: which part of the project may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("matcher", "quadmatch", "conf", "data", "eval")
PROGRAMS = ("match", "train")
MOST_MODULES = 9
"""Directly in `matcher/`: the ground floor has to stay a page that one can read."""


def room_of(module: str) -> str:
    """The room of a dotted name: ``matcher.<name>``, or one of the other packages and programs."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "matcher" and len(parts) > 1 else parts[0]


def imported(source: str) -> Iterator[str]:
    """Dotted names that a source imports, also inside of functions and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows_of(source: str, room: str, modules: set[str]) -> set[str]:
    """Other rooms that a source in `room` imports; `modules` are those there are."""
    out = set()
    for name in imported(source):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name and room_of(name) != room:
            out.add(room_of(name))
    return out


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def sources() -> dict[str, Path]:
    """Every module of the project and its file."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    files += [ROOT / f"{program}.py" for program in PROGRAMS]
    return {dotted(path): path for path in files}


def arrows() -> dict[str, set[str]]:
    """Each room and those it imports."""
    modules = sources()
    out: dict[str, set[str]] = {}
    for name, path in modules.items():
        room = room_of(name)
        found = arrows_of(path.read_text(encoding="utf-8"), room, set(modules))
        out.setdefault(room, set()).update(found)
    return out


FLOORS = (
    ("matcher.errors",),
    ("matcher.structures", "matcher.validation", "matcher.files", "matcher.terminal"),
    ("matcher.config",),
    ("matcher.runtime", "matcher.geometry", "conf"),
    ("matcher.images", "matcher.results", "matcher.attention"),
    ("matcher.network", "matcher.options"),
    ("matcher.weights",),
    ("matcher.predictor",),
    ("matcher.drawing", "matcher.interop", "matcher.training", "matcher"),
    ("matcher.batch", "matcher.pair"),
    ("matcher.tasks", "matcher.web"),
    ("matcher.program",),
    ("quadmatch", "data"),
    ("eval",),
    PROGRAMS,
)
"""The house from the ground up: a room imports rooms of lower floors only."""
LIGHTNING = ("matcher.training", "matcher.tasks", "data", "eval", "train")
"""Where Lightning may be imported."""


def allowed(room: str, other: str, floors: tuple[tuple[str, ...], ...] = FLOORS) -> bool:
    """Whether `room` may import `other`."""
    height = {name: level for level, names in enumerate(floors) for name in names}
    if room.startswith("matcher") and not other.startswith("matcher"):
        return False
    if other in ("matcher.training", "matcher.tasks") and room.startswith("matcher"):
        return (room, other) == ("matcher.tasks", "matcher.training")
    return height[other] < height[room]


def test_every_room_has_a_floor() -> None:
    assert set(arrows()) <= {room for names in FLOORS for room in names}


def test_every_arrow_leads_down() -> None:
    wrong = [
        f"{room} -> {other}"
        for room, others in arrows().items()
        for other in others
        if not allowed(room, other)
    ]
    assert wrong == []


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The rooms of a circle of arrows; empty where there is none."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_there_is_no_circle() -> None:
    assert circle(arrows()) == []


def test_a_circle_is_found() -> None:
    assert circle({**arrows(), "matcher.errors": {"matcher.weights"}})


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("matcher.geometry", "from matcher.network.model import FeatureMatcher"),
        ("matcher.images", "from matcher.weights import hub"),
        ("matcher.results", "def write():\n    import matcher.predictor"),
        ("matcher.attention", "from matcher.network.block import QuadTreeBlock"),
        ("matcher.network", "from matcher.training.module import MatcherModule"),
        ("matcher.predictor", "from matcher.drawing.matches import draw_matches"),
        ("matcher.batch", "from matcher.training.config import RunConfig"),
        ("matcher.batch", "from conf import compose"),
        ("matcher.training", "from data.datamodule import build_datamodule"),
        ("data", "from eval.metrics import error_auc"),
        ("eval", "import train"),
    ],
)
def test_an_arrow_that_leads_up_is_found(room: str, source: str) -> None:
    modules = {*sources(), "matcher.network.block"}
    found = arrows_of(source, room, modules)
    assert [other for other in found if not allowed(room, other)]


def test_lightning_stays_in_the_rooms_that_train() -> None:
    used = {
        room_of(name)
        for name, path in sources().items()
        for module in imported(path.read_text(encoding="utf-8"))
        if module.split(".")[0] == "pytorch_lightning"
    }
    assert used <= set(LIGHTNING)


def test_the_ground_floor_of_the_library_fits_a_glance() -> None:
    assert len(list((ROOT / "matcher").glob("*.py"))) <= MOST_MODULES
