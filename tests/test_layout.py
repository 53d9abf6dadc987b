"""Imports point one way, the core is pure, modules stay small."""

import ast
import graphlib
import importlib.util
import modulefinder
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# The one table, lowest first. A module imports only from the lines above its own here, which are
# the layers below it; those that share a line do not know each other. A name is a module or a
# folder of retrypool; the modules inside a folder may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "ctrl_c", "states"),
    ("clock", "callbacks", "checks"),
    ("policy",),
    ("model",),
    ("events",),
    ("core",),
    ("storage",),
    ("threads",),
    ("collect", "observe", "remote", "sources"),
    ("parts",),
    ("pool",),
    ("executor", "testing", "metrics", "tracing", "dask", "ray"),
    ("demo", "cli"),
    ("__main__",),
)

# These use the library as a user does: `from retrypool import Pool`. Nothing below may.
MAY_IMPORT_PUBLIC_NAMES = {"cli", "demo", "__main__"}

# Arrows the other way that are meant: imports inside of a function, on first use. A method that makes
# what stands above its own layer is for its caller's convenience; nothing in the layer needs it.
ON_FIRST_USE: set[tuple[str, str]] = set()

# What would let time, chance or another thread into a decision.
IMPURE = {
    "_thread",
    "asyncio",
    "contextvars",
    "logging",
    "multiprocessing",
    "os",
    "queue",
    "random",
    "secrets",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "uuid",
}

# What passes this is asking to be two. The façade alone may be longer: its lines are docstrings.
LINES_AT_MOST = 400
FACADE = "retrypool.pool"


def package_folder() -> Path:
    spec = importlib.util.find_spec("retrypool")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


PACKAGE = package_folder()
MODULES = sorted(PACKAGE.rglob("*.py"))
# The public names come from everywhere.
BELOW = [path for path in MODULES if path.name not in ("__init__.py", "_public.py") or path.parent != PACKAGE]
CORE = [path for path in MODULES if path.is_relative_to(PACKAGE / "core")]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def name_of(path: Path) -> str:
    """`retrypool.core.queue` for `core/queue.py`, `retrypool.core` for its `__init__.py`."""
    parts = ("retrypool", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The name in the table: `core` for `retrypool.core.queue`, empty for `retrypool` itself."""
    return module.partition(".")[2].partition(".")[0]


class Import(NamedTuple):
    line: int
    module: str


def exists(module: str) -> bool:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_in(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import: at the top, in a function, and for type checkers alone."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                # `from retrypool import errors` is an import of the module.
                inner = f"{origin}.{alias.name}"
                is_module = origin.partition(".")[0] == "retrypool" and exists(inner)
                yield Import(node.lineno, inner if is_module else origin)


def wrong_arrows(imports: Iterator[Import], module: str) -> list[str]:
    here = room_of(module)
    found = []
    for line, target in imports:
        if target.partition(".")[0] != "retrypool":
            continue
        there = room_of(target)
        if there == here:
            continue
        if not there:
            allowed = here in MAY_IMPORT_PUBLIC_NAMES
        else:
            allowed = LAYER_OF.get(there, len(LAYERS)) < LAYER_OF.get(here, -1)
        if not allowed:
            found.append(f"line {line}: {module} imports {target}")
    return found


def imports_of(path: Path) -> Iterator[Import]:
    source = path.read_text(encoding="utf-8")
    return imports_in(source, name_of(path), is_package=path.name == "__init__.py")


def test_every_module_has_a_place_in_the_table() -> None:
    rooms = {room_of(name_of(path)) for path in BELOW}
    assert rooms <= set(LAYER_OF), "give the new ones a line in LAYERS"


@pytest.mark.parametrize("path", BELOW, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = name_of(path)
    imports = (found for found in imports_of(path) if (here, found.module) not in ON_FIRST_USE)
    assert wrong_arrows(imports, here) == []


def test_modules_import_each_other_in_no_circle() -> None:
    """Also for types: who reads one of them would have to read all of them."""
    modules = {name_of(path) for path in BELOW}
    graph = {
        name_of(path): {found.module for found in imports_of(path) if found.module in modules}
        for path in BELOW
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_arrows_on_first_use_are_not_drawn_by_importing() -> None:
    """A module that is meant to be imported on first use is not imported with its user."""
    for here, there in ON_FIRST_USE:
        tree = ast.parse(Path(PACKAGE, *here.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8"))
        assert not any(isinstance(node, ast.ImportFrom) and node.module == there for node in tree.body)


@pytest.mark.skipif(not CORE, reason="there is no core yet")
@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_decides_without_threads_time_or_chance(path: Path) -> None:
    impure = [found for found in imports_of(path) if found.module.partition(".")[0] in IMPURE]
    assert impure == []


# What would run somebody's code, or wake a thread, in the middle of a decision: the user's callables, and
# what the threads have put into a slot.
ACTS = {"cost_of", "interrupt", "on_event", "on_failure", "run", "set_exception", "set_result", "wake"}


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_answers_and_does_not_act(path: Path) -> None:
    calls = [
        f"line {node.lineno}: {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ACTS
    ]
    assert calls == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_small(path: Path) -> None:
    if name_of(path) != FACADE:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_AT_MOST


def test_module_of_the_public_names_holds_nothing_else() -> None:
    """Imports and `__all__`."""
    tree = ast.parse((PACKAGE / "_public.py").read_text(encoding="utf-8"))
    others = []
    for node in tree.body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case _:
                others.append(ast.unparse(node))
    assert others == []


def test_package_imports_nothing_before_it_is_asked_for() -> None:
    found = _in_fresh_process("import retrypool, sys; print(*(m for m in sys.modules if 'retrypool.' in m))")
    assert found == ""


@pytest.mark.parametrize(
    "use",
    [
        "retrypool.Pool",
        "retrypool.PoolExecutor",
        "retrypool.events.TaskDead",
        "retrypool.__all__",
        "[retrypool.Pool for name in dir(retrypool) if name == 'Pool'][0]",
        "[hasattr(retrypool, name) for name in ('pools', '_public_', '__wrapped__')] == [False] * 3 or 1 / 0",
    ],
)
def test_first_use_of_the_package(use: str) -> None:
    _in_fresh_process(f"import retrypool; {use}")
    _in_fresh_process(f"from retrypool import *; import retrypool; {use}")


def test_tools_that_follow_imports_find_the_package() -> None:
    """Those that pack a program into one file, for instance."""
    finder = modulefinder.ModuleFinder(path=[str(PACKAGE.parent)])
    finder.load_file(str(PACKAGE / "__init__.py"))
    assert "retrypool.pool" in finder.modules


@pytest.mark.parametrize("start", [1, 2], ids=["odd", "even"])
def test_each_module_can_be_the_first_to_be_imported(start: int) -> None:
    """Whoever needs the executor only must not depend on somebody else having imported the pool."""
    modules = [name_of(path) for path in BELOW if path.stem != "__main__"]
    source = f"""
        import importlib, sys
        for module in {modules[start - 1 :: 2]}:
            importlib.import_module(module)
            for name in [name for name in sys.modules if name.partition(".")[0] == "retrypool"]:
                del sys.modules[name]
    """
    assert _in_fresh_process(textwrap.dedent(source)) == ""


def _in_fresh_process(source: str) -> str:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from retrypool.threads import pool", "retrypool.core.scheduler"),
        ("from ..threads.pool import Pool", "retrypool.core.scheduler"),
        ("from .. import threads", "retrypool.core.scheduler"),
        ("import retrypool.events", "retrypool.model.task"),
        ("def f():\n    from .task import Task", "retrypool.errors"),
        ("from retrypool import Pool", "retrypool.threads.worker_thread"),
        ("from ..threads import pool", "retrypool.storage.sqlite"),
        ("if TYPE_CHECKING:\n    from ..core import queue", "retrypool.model.task"),
    ],
)
def test_arrow_the_other_way_is_found(source: str, module: str) -> None:
    """The finder itself: it must not go blind to one way of writing an import."""
    assert len(wrong_arrows(imports_in(source, module), module)) == 1


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from ..errors import RetryPoolError", "retrypool.core.scheduler"),
        ("from .queue import Queue\nfrom . import queue", "retrypool.core.scheduler"),
        ("from retrypool import Pool", "retrypool.demo.client"),
        ("import time\nfrom threading import Lock", "retrypool.pool"),
    ],
)
def test_arrow_that_points_down_is_allowed(source: str, module: str) -> None:
    assert wrong_arrows(imports_in(source, module), module) == []
