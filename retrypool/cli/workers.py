"""From `MODULE:WORKERS` to workers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retrypool import WorkerSpec
from retrypool.cli.errors import CommandError

__all__ = ["workers_from"]


def workers_from(where: str, number: int | None) -> list[Any]:
    """Return the workers that `where` names: `package.module:name`, or `path/to/file.py:name`.

    The name is a list of workers, or a function that returns one; with a `number`, a function of an item, or
    a class without arguments, of which so many are made. Raises `CommandError`.
    """
    module_name, _, name = where.rpartition(":")
    if not module_name or not name:
        raise CommandError(f"{where!r} names no workers: write MODULE:NAME, such as shop.pages:workers")
    found: Any = _module(module_name)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CommandError(f"{module_name} has no {name!r}") from None
    return _several(where, found, number) if number is not None else _all(where, found)


def _module(name: str) -> Any:
    # As with `python -m`: the folder that the command was given in comes first.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        if name.endswith(".py"):
            path = Path(name).resolve()
            if not path.is_file():
                raise CommandError(f"there is no file {name}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module  # so that what it defines can be pickled
            spec.loader.exec_module(module)
            return module
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CommandError(f"there is no module {error.name!r} here (sys.path is searched)") from None
        raise


def _several(where: str, found: Any, number: int) -> list[Any]:
    if inspect.isclass(found):
        try:
            return [found() for _ in range(number)]
        except TypeError as error:
            raise CommandError(
                f"{where} is a class, and could not be made without arguments ({error}):"
                " name a list of workers, or a function that returns one"
            ) from error
    if isinstance(found, (list, tuple)) or not (callable(found) or callable(getattr(found, "run", None))):
        raise CommandError(f"{where} is {_kind(found)}: --workers is for a function of an item, or a class")
    return [found] * number


def _all(where: str, found: Any) -> list[Any]:
    if inspect.isclass(found) or (callable(found) and _wants_an_item(found)):
        raise CommandError(
            f"{where} is {_kind(found)}: say how many are to call it with --workers N"
            " (or name a list of workers, or a function without arguments that returns one)"
        )
    if callable(found) and not hasattr(found, "run"):
        found = found()
    if callable(getattr(found, "run", None)) or isinstance(found, WorkerSpec):
        return [found]
    if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
        raise CommandError(f"{where} gives {_kind(found)}, which is no list of workers")
    workers = list(found)
    if not workers:
        raise CommandError(f"{where} gives no workers at all")
    return workers


def _wants_an_item(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # something built in: most take an item
        return True
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters
    )


def _kind(found: object) -> str:
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    return f"{type(found).__name__} {getattr(found, '__name__', '')}".strip()
