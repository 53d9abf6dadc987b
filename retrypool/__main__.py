"""The command line: `python -m retrypool`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from retrypool import __version__
from retrypool.cli.inspect import add_inspect
from retrypool.cli.run import add_run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's own) asks for; return its exit code."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrypool",
        description="A pool of workers that are not identical, and that fail.",
    )
    parser.add_argument("--version", action="version", version=f"retrypool {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_run(commands)
    add_inspect(commands)
    _add_demo(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="fetch a few hundred pages from an API that misbehaves",
        description=(
            "Start an HTTP API on loopback that misbehaves as real ones do (a revoked token, a"
            " slow one, a small quota, errors, pages that do not exist), fetch pages from it with one worker"
            " for each token, and account for every one."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--tasks", type=_positive, default=300, metavar="N", help="pages to fetch")
    demo.add_argument("--seed", type=int, default=1, metavar="N", help="what the API gets wrong, and where")
    demo.add_argument("--attempts", type=_positive, default=5, metavar="N", help="tries for each page")
    demo.add_argument(
        "--save", type=_picture, metavar="FILE", help="a picture of the run: .html, or .json for Perfetto"
    )
    demo.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    from retrypool import demo  # here, so that other commands need not pay for it

    return demo.main(
        tasks=arguments.tasks, seed=arguments.seed, attempts=arguments.attempts, save=arguments.save
    )


def _picture(text: str) -> str:
    if not text.lower().endswith((".html", ".htm", ".json")):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .html or .json")
    return text


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small: it must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
