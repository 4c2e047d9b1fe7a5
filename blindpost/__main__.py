"""The command line: `blindpost COMMAND …`, also `python -m blindpost`.

One module of blindpost/commands for each family of commands; each loads the rooms that it needs when it runs, so that
`blindpost audit` has not loaded a ratchet and `blindpost relay run` has not loaded a client. Errors go to stderr in one
manner, `blindpost: error: …` and a hint on its own line; each kind of ending has its exit status (exit_status.py).
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from blindpost.commands import FAMILIES
from blindpost.errors import CommandError
from blindpost.exit_status import MEANINGS, ExitStatus, status_of
from blindpost.parser import HOME_VARIABLE, Parser
from client.chat import printable
from wire.errors import BlindpostError

__all__ = ["build_parser", "main"]

_TRACEBACK_VARIABLE: Final = "BLINDPOST_TRACEBACK"


def build_parser() -> Parser:
    """The parser of every command."""
    statuses = "\n".join(f"  {status.value:3} {meaning}" for status, meaning in MEANINGS.items())
    parser = Parser(
        prog="blindpost",
        description="End-to-end encrypted mail and chat through a relay that has nothing to read, and a verifier.",
        epilog=f"exit statuses:\n{statuses}\n\nenvironment:\n  {HOME_VARIABLE}: the home where --home is not given",
    )
    parser.add_argument("--version", action="version", version=f"blindpost {_version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for add_commands in FAMILIES:
        add_commands(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the program's name; without it, those that the process was given.

    Returns:
        The exit status.
    """
    _print_anything()
    try:
        options = build_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
        return int(options.run(options))
    except CommandError as error:
        return _say(str(error), error.hint, error.status)
    except (BlindpostError, OSError) as error:
        return _say(_words_of(error), "", status_of(error))
    except KeyboardInterrupt:
        return _say(
            "interrupted", "what was receipted or kept stays so; the same command goes on", ExitStatus.INTERRUPTED
        )
    except Exception as error:
        return _crashed(error)


def _print_anything() -> None:
    """A terminal that cannot show a letter gets its number: a message must not end a command half way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _words_of(error: BlindpostError | OSError) -> str:
    """An error in one line; the system's own without its number and quotes."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}"
    return str(error)


def _say(problem: str, hint: str, status: ExitStatus) -> int:
    # A path or an address in it may hold anything.
    print(f"blindpost: error: {printable(problem)}", file=sys.stderr)
    if hint:
        print(f"blindpost: hint: {printable(hint)}", file=sys.stderr)
    return status


def _crashed(error: Exception) -> int:
    """Where it broke, never the exception's words: they may hold what was being handled."""
    if os.environ.get(_TRACEBACK_VARIABLE):
        traceback.print_exc()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name} line {frame.lineno}"
    hint = f"please report it; {_TRACEBACK_VARIABLE}=1 shows the whole way there, and may show secrets"
    return _say(f"this is a bug: {type(error).__name__} in {where}", hint, ExitStatus.CRASH)


def _version() -> str:
    try:
        return version("blindpost")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
