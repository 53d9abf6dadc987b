"""What ends a command with a message, and no traceback."""

from __future__ import annotations

__all__ = ["DEAD", "USAGE", "CommandError"]

USAGE = 2
"""Exit code: the command could not begin."""

DEAD = 3
"""Exit code: it came to its end, and some tasks are dead."""


class CommandError(Exception):
    """The command can't go on; the message says why, and what to do."""
