"""Calling what users passed in, where an error must not get out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from retrypool.ctrl_c import is_ctrl_c

__all__ = ["call_guarded"]

log = logging.getLogger("retrypool")


def call_guarded(what: str, function: Callable[..., Any], *args: object) -> Any:
    """Return `function(*args)`; log what it raises, whatever it is, and return None then.

    A Ctrl-C gets through: it is meant for the program, and only the main thread gets one.
    """
    try:
        return function(*args)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        log.exception("%s %r raised", what, function)
        return None
