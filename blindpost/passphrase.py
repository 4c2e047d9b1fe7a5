"""Passphrases: from a prompt, from a file, or from an open file descriptor; never from argv or the environment.

Everybody on a machine can read a process's arguments, and its children inherit its environment; a prompt, a file with
permissions and an inherited descriptor are read by whom they are meant for. The first line counts, without its line
end. A passphrase is handed on as bytes in UTF-8, in Unicode's composed form (NFC), so that the same keys on another
keyboard driver give the same bytes.
"""

import argparse
import getpass
import os
import sys
import unicodedata
from pathlib import Path
from typing import BinaryIO, Final

from blindpost.errors import CommandError, UsageError
from blindpost.exit_status import ExitStatus

__all__ = ["PASSPHRASE_BYTES_MAX", "add_passphrase_options", "read_passphrase"]

PASSPHRASE_BYTES_MAX: Final = 1_024
_HINT: Final = "give --passphrase-file FILE or --passphrase-fd N, or run this in a terminal"


def add_passphrase_options(parser: argparse.ArgumentParser) -> None:
    """Add `--passphrase-file` and `--passphrase-fd`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="read the passphrase from the first line of a file"
    )
    group.add_argument(
        "--passphrase-fd", type=_descriptor, metavar="N", help="read it from an open file descriptor, 0 for stdin"
    )


def read_passphrase(options: argparse.Namespace, what: str, *, new: bool = False) -> bytes:
    """The passphrase that a command needs.

    Args:
        options: the parsed options, with those of `add_passphrase_options`.
        what: what it opens, for the prompt: 'ana's device'.
        new: it is being chosen: ask for it twice, and refuse an empty one.

    Raises:
        UsageError: no terminal to ask at, or a descriptor that is not open.
        CommandError: empty, too long, not UTF-8, or the two entries differ.
        OSError: the file cannot be read.
    """
    if options.passphrase_file is not None:
        with options.passphrase_file.open("rb") as file:
            return _checked(_first_line(file))
    if options.passphrase_fd is not None:
        return _checked(_from_descriptor(options.passphrase_fd))
    return _prompted(what, new=new)


def _descriptor(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no file descriptor")
    return int(text)


def _from_descriptor(descriptor: int) -> bytes:
    try:
        # A copy is closed, so that the caller's own descriptor (0 above all) stays open.
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return _first_line(file)
    except OSError:
        raise UsageError(f"file descriptor {descriptor} cannot be read", "open it in the shell: 3< FILE") from None


def _first_line(file: BinaryIO) -> bytes:
    # Beyond the limit nothing more is read; two bytes more than the limit are a line end.
    return file.readline(PASSPHRASE_BYTES_MAX + 2).rstrip(b"\r\n")


def _prompted(what: str, *, new: bool) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(f"a passphrase is needed for {what}, and there is no terminal to ask at", _HINT)
    first = _checked(getpass.getpass(f"passphrase for {what}: ").encode("utf-8", "surrogateescape"))
    if new:
        second = _checked(getpass.getpass("the same again: ").encode("utf-8", "surrogateescape"))
        if first != second:
            raise CommandError("the two passphrases differ", "", ExitStatus.DATA)
    return first


def _checked(passphrase: bytes) -> bytes:
    if len(passphrase) > PASSPHRASE_BYTES_MAX:
        raise CommandError(f"passphrase: longer than {PASSPHRASE_BYTES_MAX} bytes", "", ExitStatus.DATA)
    if not passphrase:
        raise CommandError("passphrase: empty", "", ExitStatus.DATA)
    try:
        text = passphrase.decode("utf-8")
    except UnicodeDecodeError:
        # `from None`: the decoder's exception carries the passphrase.
        raise CommandError("passphrase: not UTF-8", "", ExitStatus.DATA) from None
    return unicodedata.normalize("NFC", text).encode("utf-8")
