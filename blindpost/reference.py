"""docs/commands.md, made from the parsers: `python -m blindpost.reference > docs/commands.md`. A test compares them.

It is written from the parsers' own data and not from argparse's help text, whose layout changes with Python's version
and the width of the terminal.
"""

import argparse
import sys
from collections.abc import Iterator

from blindpost.__main__ import build_parser
from blindpost.exit_status import MEANINGS
from blindpost.parser import HOME_VARIABLE, Parser

__all__ = ["command_parsers", "render"]


def command_parsers(parser: Parser) -> Iterator[Parser]:
    """Every parser that runs a command, in the order of the help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from command_parsers(child)
            return
    yield parser


def render() -> str:
    """The whole page, as Markdown."""
    parts = [
        "# The commands",
        "Made by `python -m blindpost.reference` from the parsers, and compared with them by a test. `--help` says the "
        "same.",
        f"`{HOME_VARIABLE}` may name the home where `--home` is not given. Passphrases come from a prompt, a file or a "
        "file descriptor, never from arguments or the environment. No command overwrites a file.",
    ]
    parts += [_section(parser) for parser in command_parsers(build_parser())]
    parts += ["## Exit statuses", _statuses()]
    return "\n\n".join(parts) + "\n"


def _section(parser: Parser) -> str:
    rows = [row for action in parser._actions if (row := _row(action))]
    table = "\n".join(["| argument | meaning |", "| --- | --- |", *rows])
    examples = "\n".join(f"    {example}" for example in parser.examples)
    return f"## {parser.prog}\n\n{parser.description}\n\n{table}\n\n{examples}"


def _row(action: argparse.Action) -> str:
    if isinstance(action, argparse._HelpAction):
        return ""
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = "" if action.nargs == 0 else metavar + ("…" if action.nargs == "+" else "")
    names = [" ".join(filter(None, [option, value])) for option in action.option_strings] or [value]
    meaning = (action.help or "").replace("|", "\\|")
    required = " (required)" if action.required and action.option_strings else ""
    return f"| `{'`, `'.join(names)}` | {meaning}{required} |"


def _statuses() -> str:
    rows = [f"| {status.value} | {meaning} |" for status, meaning in MEANINGS.items()]
    return "\n".join(["| status | meaning |", "| --- | --- |", *rows])


if __name__ == "__main__":
    sys.stdout.write(render())
