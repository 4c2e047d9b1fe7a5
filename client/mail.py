"""Email: a message's bytes without its Bcc fields, and mail files as they lie on a disk.

An email arrives byte for byte as it was given, but for Bcc. So nothing here parses a message in order to write it
again: `without_bcc` cuts the Bcc fields out of the raw bytes and touches no other byte. Mail that is malformed travels
all the same; only too long mail is refused. Addresses are read from header fields only where the caller asks
(`addressees`): who gets a message is decided by the command or the program, never by what the file says.

Which bytes are Bcc (RFC 5322 sections 2.2, 3.6.3, 3.6.6 and 4.5.3), where mail is malformed read so that nothing leaks:

* a line ends with LF, with CR LF, with several CR and one LF (as mangled by some gateways), or with a bare CR: parsers
  exist that read it so, Python's among them;
* the header section ends at the first empty line and nowhere else, although some parsers end it at the first line that
  is no field;
* a Bcc field is a line that starts with `Bcc` or `Resent-Bcc`, in any case, spaces or tabs and a colon, with all lines
  after it that start with a space or a tab, and after a bare CR in it also with lines that start no field.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.errors import MessageError
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from pathlib import Path
from typing import BinaryIO, Final

from wire.errors import FormatError
from wire.identity import check_account
from wire.limits import MESSAGE_BYTES_MAX

__all__ = ["Addressees", "MailFile", "addressees", "check_mail", "has_bcc", "read_mail", "without_bcc"]

_LINE: Final = re.compile(rb"[^\r\n]*(?:\r+\n|\n|\r|\Z)")
_BCC: Final = re.compile(rb"(?:resent-)?bcc[ \t]*:", re.IGNORECASE)
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_EMPTY: Final = re.compile(rb"\r*\n|\r")
_ENDS_IN_LF: Final = re.compile(rb"\r*\n")
# The postmark of an mbox: "From sender date". A date is asked for, because a body may hold a line that starts with
# "From " and that a careless program did not quote.
_POSTMARK: Final = re.compile(rb"From .*\d:\d\d.*\d{4}")
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class MailFile:
    """One message of a file.

    Attributes:
        name: the file's name, and for an mbox the message's number in it, for people to read.
        data: the bytes as in the file, unchanged: Bcc is still there, and `>From ` is not unquoted, as no reader can
            tell which of an mbox's `>` were written by the program that made it.
    """

    name: str
    data: bytes

    def __repr__(self) -> str:
        """Name and size: mail has no place in a log."""
        return f"MailFile(name={self.name!r}, data=<{len(self.data)} bytes>)"


@dataclass(frozen=True)
class Addressees:
    """Whom the header fields name, as accounts, in the order of the fields, without repetition."""

    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]


def check_mail(mail: bytes, name: str = "mail") -> bytes:
    """The mail itself, if it is not too long.

    Raises:
        FormatError: longer than 25 MiB, with the name given.
    """
    if len(mail) > MESSAGE_BYTES_MAX:
        raise FormatError(name, f"has {len(mail)} bytes", MESSAGE_BYTES_MAX)
    return mail


def has_bcc(mail: bytes) -> bool:
    """Whether `without_bcc` would change anything."""
    return next(_bcc_spans(mail), None) is not None


def without_bcc(mail: bytes) -> bytes:
    """The mail without its Bcc and Resent-Bcc fields; every other byte as it was.

    Takes any bytes and never raises. Doing it twice is doing it once.
    """
    kept = bytearray()
    position = 0
    for start, end in _bcc_spans(mail):
        kept += mail[position:start]
        # A bare CR before the field and a line feed after it would make one line end of two. The field's own line
        # feed then stays (it ends in one, or the line feed after it would be its own).
        if kept.endswith(b"\r") and _ENDS_IN_LF.match(mail, end):
            kept += b"\n"
        position = end
    kept += mail[position:]
    return bytes(kept)


def _bcc_spans(mail: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each Bcc field, its continuation lines included."""
    position = 0
    start = -1
    while position < len(mail) and not _EMPTY.match(mail, position):
        continues = mail[position] in b" \t" or (start >= 0 and _is_rest_after_cr(mail, position))
        if start >= 0 and not continues:
            yield start, position
            start = -1
        if start < 0 and not continues and _BCC.match(mail, position):
            start = position
        position = _line_end(mail, position)
    if start >= 0:
        yield start, position


def _is_rest_after_cr(mail: bytes, position: int) -> bool:
    """Whether what follows a bare CR is still the field for readers to whom a bare CR ends no line."""
    return mail[position - 1] == 0x0D and not _FIELD.match(mail, position)


def _line_end(mail: bytes, start: int) -> int:
    line = _LINE.match(mail, start)
    assert line is not None  # the pattern matches any bytes, none included
    return line.end()


def addressees(mail: bytes) -> Addressees:
    """The accounts in the To, Cc and Bcc fields, in lower case; what is no account is left out.

    For callers that were asked to read them ("reply to all", the demonstration's own samples). Never raises.
    """
    section = mail[: _header_end(mail)]
    try:
        headers = BytesHeaderParser().parsebytes(section)
        found = {
            field: tuple(dict.fromkeys(_accounts([str(value) for value in headers.get_all(field, [])])))
            for field in ("to", "cc", "bcc")
        }
    except (MessageError, ValueError, LookupError):
        # The standard library's parser is not total: unknown character sets and broken encodings end up here.
        return Addressees((), (), ())
    return Addressees(found["to"], found["cc"], found["bcc"])


def _header_end(mail: bytes) -> int:
    position = 0
    while position < len(mail) and not _EMPTY.match(mail, position):
        position = _line_end(mail, position)
    return position


def _accounts(fields: list[str]) -> Iterator[str]:
    for _, address in getaddresses(fields):
        try:
            yield check_account(address.lower())
        except FormatError:
            continue


Refused = Callable[[FormatError], None]


def read_mail(path: Path, refused: Refused | None = None) -> Iterator[MailFile]:
    """The messages of an .eml file, an mbox, or a folder of them (searched to its bottom, in the order of names).

    A file is an mbox if it begins with a postmark (`From `) and is not named .eml. In a folder, files named .eml,
    .mbox or .mbx are read. One message at a time is in memory.

    Args:
        path: what the caller named.
        refused: called for each message that is too long, which is then left out; without it, it is raised.

    Raises:
        FormatError: no message is there, or one is longer than 25 MiB.
        OSError: what cannot be read.
    """
    files = sorted(_mail_files(path)) if path.is_dir() else [path]
    if not files:
        raise FormatError("mail", f"folder {path.name!r} holds no .eml, .mbox or .mbx file")
    for file in files:
        with file.open("rb") as stream:
            is_mbox = file.suffix.lower() != ".eml" and stream.peek(5)[:5] == b"From "
            source = _split_mbox(stream, file.name) if is_mbox else _whole(stream, file.name)
            for item in source:
                if isinstance(item, MailFile):
                    yield item
                elif refused is None:
                    raise item
                else:
                    refused(item)


def _mail_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.suffix.lower() in {".eml", ".mbox", ".mbx"} and file.is_file():
            yield file


def _whole(stream: BinaryIO, name: str) -> Iterator[MailFile | FormatError]:
    data = stream.read(MESSAGE_BYTES_MAX + 1)
    if len(data) > MESSAGE_BYTES_MAX:
        yield FormatError(name, "is longer than a message may be", MESSAGE_BYTES_MAX)
    else:
        yield MailFile(name, data)


def _split_mbox(stream: BinaryIO, name: str) -> Iterator[MailFile | FormatError]:
    """The messages of an mbox (RFC 4155), without postmarks and without the empty line before each of them."""
    message = _MboxMessage(name, 0)
    blank = True
    line_starts = True
    while line := stream.readline(_READ_BYTES):
        if line_starts and blank and (_POSTMARK.match(line) or message.number == 0):
            if message.number:
                yield message.finish(more=True)
            message = _MboxMessage(name, message.number + 1)
            # What else stands on a postmark longer than the buffer belongs to it.
            while not line.endswith(b"\n") and (line := stream.readline(_READ_BYTES)):
                pass
            blank = False
        else:
            message.add(line)
            blank = line_starts and line in {b"\n", b"\r\n"}
        line_starts = line.endswith(b"\n")
    yield message.finish(more=False)


class _MboxMessage:
    """A message while its lines come in; past the limit it keeps count only."""

    def __init__(self, file_name: str, number: int) -> None:
        self.number = number
        self._name = f"{file_name} message {number}"
        self._data = bytearray()
        self._last_line = 0
        self._bytes = 0

    def add(self, line: bytes) -> None:
        self._bytes += len(line)
        self._last_line = len(line)
        # Two bytes more than a message may have: the empty line before the next postmark is not part of it.
        if self._bytes <= MESSAGE_BYTES_MAX + 2:
            self._data += line

    def finish(self, *, more: bool) -> MailFile | FormatError:
        # Before a postmark, or at the end, an empty line belongs to the mbox and not to the message.
        is_empty_line = more and len(self._data) == self._last_line <= 2 and self._data.endswith(b"\n")
        if is_empty_line or self._data.endswith((b"\n\n", b"\n\r\n")):
            ending = self._last_line
            if self._bytes <= MESSAGE_BYTES_MAX + 2:
                del self._data[-ending:]
            self._bytes -= ending
        if self._bytes > MESSAGE_BYTES_MAX:
            return FormatError(self._name, f"has {self._bytes} bytes", MESSAGE_BYTES_MAX)
        return MailFile(self._name, bytes(self._data))
