"""The parser of the command line: argparse, with errors of ours, examples that are tested, and lists of addresses.

A command is added with `add_command`, which keeps its examples beside its parser: the help text, docs/commands.md and
the tests read them there, so an example that no longer parses fails a test.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from blindpost.errors import UsageError
from wire.errors import FormatError
from wire.identity import check_account, check_domain

__all__ = [
    "HOME_VARIABLE",
    "Options",
    "Parser",
    "Subparsers",
    "account",
    "add_command",
    "add_family",
    "add_home",
    "add_recipients",
    "domain",
    "home_of",
    "seconds",
]

Options = argparse.Namespace
Run = Callable[[Options], int]
HOME_VARIABLE: Final = "BLINDPOST_HOME"
_ADDRESS_OPTIONS: Final = frozenset({"--to", "--cc", "--bcc"})


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` and knows its examples.

    `--to ana@acme.example omar@karachi.example FILE` is read as `--to … --to … FILE`: an option of addresses takes
    every address that follows it, and the first word that is none ends the list. (`nargs="+"` would swallow FILE.)
    """

    examples: tuple[str, ...] = ()
    summary: str = ""
    takes_addresses: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # Abbreviations would make every new option a change of what old scripts mean.
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, in our words' manner.

        Raises:
            UsageError: always.
        """
        raise UsageError(message, f"see '{self.prog} --help'")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base class, with lists of addresses taken apart first."""
        if self.takes_addresses and args is not None:
            args = _one_address_each(args)
        return super().parse_known_args(args, namespace)


Subparsers = argparse._SubParsersAction


def _one_address_each(words: Sequence[str]) -> list[str]:
    """Repeat an option of addresses before each further address that follows it."""
    result: list[str] = []
    option = ""
    for position, word in enumerate(words):
        if word == "--":
            return result + list(words[position:])
        if word in _ADDRESS_OPTIONS:
            option = word
        elif option and result[-1] != option:
            # The option has its first address: a further one needs the option again, anything else ends the list.
            if _is_account(word):
                result.append(option)
            else:
                option = ""
        result.append(word)
    return result


def _is_account(word: str) -> bool:
    try:
        check_account(word.lower())
    except FormatError:
        return False
    return True


def account(text: str) -> str:
    """The type of an argument that is an account address."""
    try:
        return check_account(text.lower())
    except FormatError as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no address: {error.problem}") from None


def domain(text: str) -> str:
    """The type of an argument that is a tenant's domain."""
    try:
        return check_domain(text.lower())
    except FormatError as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no domain: {error.problem}") from None


def seconds(text: str) -> float:
    """The type of an argument that is a time in seconds, up to a day."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of seconds from 0 to 86400")
    return value


def add_family(subparsers: "Subparsers[Parser]", name: str, summary: str) -> "Subparsers[Parser]":
    """Add a command that has commands of its own, and return where they are added."""
    parser = subparsers.add_parser(name, help=summary, description=summary + ".")
    parser.summary = summary
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest=f"{name}_command")


def add_command(
    subparsers: "Subparsers[Parser]",
    name: str,
    *,
    summary: str,
    description: str,
    examples: Sequence[str],
    run: Run,
) -> Parser:
    """Add one command.

    Args:
        subparsers: where.
        name: its word.
        summary: one line for the list of commands: lower case, no period.
        description: what it does, for its own help.
        examples: command lines that parse, each starting with `blindpost`.
        run: called with the parsed options; returns the exit status.
    """
    shown = "examples:\n" + "\n".join(f"  {example}" for example in examples)
    parser = subparsers.add_parser(name, help=summary, description=description, epilog=shown)
    parser.summary = summary
    parser.examples = tuple(examples)
    parser.set_defaults(run=run)
    return parser


def add_home(parser: Parser, whose: str) -> None:
    """Add `--home DIR`."""
    parser.add_argument("--home", type=Path, metavar="DIR", help=f"{whose} (default: what {HOME_VARIABLE} names)")


def home_of(options: Options) -> Path:
    """The home that the command line or the environment names.

    Raises:
        UsageError: neither does.
    """
    if options.home is not None:
        return Path(options.home)
    named = os.environ.get(HOME_VARIABLE)
    if not named:
        raise UsageError("no home is named", f"give --home DIR, or set {HOME_VARIABLE}")
    return Path(named)


def add_recipients(parser: Parser, *, copies: bool) -> None:
    """Add `--to`, and with `copies` also `--cc` and `--bcc`; each takes one address or several, and may be repeated."""
    parser.takes_addresses = True
    lists = [("--to", "recipients: one address, or several one after the other")]
    if copies:
        lists += [("--cc", "recipients of a copy"), ("--bcc", "recipients of a copy whom nobody else gets to know")]
    for option, whom in lists:
        parser.add_argument(
            option, type=account, action="append", default=[], required=option == "--to", metavar="ADDRESS", help=whom
        )
