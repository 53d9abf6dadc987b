"""Striking a call with a Ctrl-C at one bytecode after the other."""

import dis
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import retrypool

PACKAGE = str(Path(retrypool.__file__).parent)

_names: dict[CodeType, dict[int, str]] = {}


def _name_at(frame: FrameType) -> str:
    code = frame.f_code
    if code not in _names:
        _names[code] = {each.offset: each.opname for each in dis.get_instructions(code)}
    return _names[code].get(frame.f_lasti, "")


class Strike:
    """Sends this process a SIGINT at the n-th bytecode of the package's at which CPython looks for signals.

    That is at the beginning of a function, after a call, and where a loop jumps back. The handler is called
    at once, and what it raises is raised there. Between two other bytecodes, such as those after the body of
    `with lock`, nothing can strike in truth.
    """

    def __init__(self, number: int) -> None:
        self.left = number
        self.struck_at = ""
        self._last: dict[int, str] = {}

    def __call__(self, function: Callable[..., Any]) -> bool:
        """Call `function()`; return whether it was struck before it had come to its end."""
        sys.settrace(self._enter)
        try:
            function()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        return self.left <= 0

    def _enter(self, frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode":
            name = _name_at(frame)
            last = self._last.get(id(frame), "")
            self._last[id(frame)] = name
            after_a_call = last.startswith("CALL") and name != "PUSH_EXC_INFO"  # that is one that raised
            if after_a_call or name in ("RESUME", "JUMP_BACKWARD"):
                self.left -= 1
                if self.left == 0:
                    self.struck_at = f"{frame.f_code.co_qualname}:{frame.f_lineno} {last} {name}"
                    sys.settrace(None)
                    frame.f_trace = None
                    signal.raise_signal(signal.SIGINT)
        return self._step
