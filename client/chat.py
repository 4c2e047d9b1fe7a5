"""Chat: text, PING, and the D and R notices, as payloads; and a chat line that is safe to print.

D (delivered) and R (read) are what BBM showed beside a message: a notice names messages by id, and proves nothing to
anybody else. A text answers another message by the content's `reply_to`, which is not this module's business.

What a person reads in a terminal was written by somebody else. `printable` therefore makes visible, and so harmless,
what could move the cursor, change the title, paste a command, or show the text in another order than it is written in
(Boucher and Anderson, *Trojan Source*, 2021), while Arabic, Urdu and emoji stay as they are. It changes what is
printed, never what is kept.
"""

import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from client.content import NO_REPLY, RECEIPT_IDS_MAX, Content, Kind
from wire.errors import FormatError
from wire.limits import ID_BYTES, MESSAGE_BYTES_MAX

__all__ = [
    "PING_PAYLOAD",
    "notice_ids",
    "notice_payloads",
    "printable",
    "render",
    "text_of",
    "text_payload",
]

PING_PAYLOAD: Final = b""
"""A PING has nothing in it; that it comes is its meaning."""

_TAB: Final = "    "
# A line of a message never starts where a line of ours starts, so no message can look like two.
_INDENT: Final = "\n    | "
_SHORT_ID_DIGITS: Final = 8
# Format characters that Arabic, Urdu, Persian and emoji need, and that reorder nothing beyond themselves: joiners,
# direction marks, the soft hyphen. Arabic's own (number sign, end of ayah …) lie between 0x600 and 0x8FF.
_FORMATS_KEPT: Final = frozenset("\u200c\u200d\u200e\u200f\u061c\u00ad")
_ISOLATE: Final = "\u2068"
_POP_ISOLATE: Final = "\u2069"


def text_payload(text: str) -> bytes:
    """The payload of a chat text.

    Raises:
        FormatError: empty, longer than 25 MiB, or not Unicode text (a lone surrogate).
    """
    if not text:
        raise FormatError("text", "is empty")
    try:
        payload = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("text", f"is not Unicode text at character {error.start}") from None
    if len(payload) > MESSAGE_BYTES_MAX:
        raise FormatError("text", f"has {len(payload)} bytes", MESSAGE_BYTES_MAX)
    return payload


def text_of(content: Content) -> str:
    """The text of a chat content.

    Raises:
        FormatError: the content is no chat text, or not UTF-8.
    """
    if content.kind is not Kind.CHAT:
        raise FormatError("kind", f"is {content.kind.name.lower()}, not chat")
    try:
        return content.payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("payload", f"of kind chat is not UTF-8 at byte {error.start}") from None


def notice_payloads(message_ids: Iterable[bytes]) -> list[bytes]:
    """Payloads of D or R notices that name these messages, each once, at most 1,024 in one payload.

    Raises:
        FormatError: a message id has not 16 bytes.
    """
    ids = list(dict.fromkeys(message_ids))
    for message_id in ids:
        if len(message_id) != ID_BYTES:
            raise FormatError("message_id", f"has {len(message_id)} bytes, not {ID_BYTES}", ID_BYTES)
    return [b"".join(ids[start : start + RECEIPT_IDS_MAX]) for start in range(0, len(ids), RECEIPT_IDS_MAX)]


def notice_ids(content: Content) -> tuple[bytes, ...]:
    """The messages that a D or R notice names.

    Raises:
        FormatError: the content is no such notice, or not whole message ids.
    """
    if content.kind not in {Kind.DELIVERED, Kind.READ}:
        raise FormatError("kind", f"is {content.kind.name.lower()}, not delivered or read")
    payload = content.payload
    if not payload or len(payload) % ID_BYTES:
        raise FormatError("payload", f"has {len(payload)} bytes, which are not whole message ids", ID_BYTES)
    return tuple(payload[start : start + ID_BYTES] for start in range(0, len(payload), ID_BYTES))


def render(content: Content, sender: str, *, show_reply: bool = True) -> str:
    """One chat event as a line for a terminal, without a line end; a text of several lines is indented.

    Args:
        content: a text, PING, D or R.
        sender: the account, as verified by the session, not as the message says.
        show_reply: whether a reply names the message that it answers.

    Raises:
        FormatError: the content is of another kind.
    """
    said = _said(content)
    replies = show_reply and content.reply_to != NO_REPLY
    answer = f" [re {_short(content.reply_to)}]" if replies else ""
    return f"{_time(content.sent_ms)} {_short(content.message_id)} {printable(sender)}{answer}: {said}"


def _said(content: Content) -> str:
    match content.kind:
        case Kind.CHAT:
            return printable(text_of(content))
        case Kind.PING:
            return "PING!!!"
        case Kind.DELIVERED | Kind.READ:
            mark = "D" if content.kind is Kind.DELIVERED else "R"
            return f"{mark} {' '.join(_short(message_id) for message_id in notice_ids(content))}"
        case _:
            raise FormatError("kind", f"is {content.kind.name.lower()}, which is no chat")


def printable(text: str) -> str:
    """The text with everything visible that could act on a terminal or change the order of what is read.

    Control characters become their pictures or `<U+009B>`, bidirectional overrides, embeddings and isolates and other
    invisible format characters `<U+202E>`; a line end starts an indented line. Text from right to left is put into an
    isolate of ours, so that it orders itself and nothing around it.
    """
    shown = "".join(_shown(character) for character in text.replace("\r\n", "\n"))
    if any(unicodedata.bidirectional(character) in {"R", "AL", "AN"} for character in shown):
        # An isolate ends with its paragraph, so each line gets one.
        return _INDENT.join(f"{_ISOLATE}{line}{_POP_ISOLATE}" for line in shown.split(_INDENT))
    return shown


def _shown(character: str) -> str:
    if " " <= character <= "~":
        return character
    if character == "\n":
        return _INDENT
    if character == "\t":
        return _TAB
    category = unicodedata.category(character)
    if category == "Cc" and character < " ":
        return chr(0x2400 + ord(character))  # the picture of that control character
    if category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and not _is_kept_format(character)):
        return f"<U+{ord(character):04X}>"
    return character


def _is_kept_format(character: str) -> bool:
    return character in _FORMATS_KEPT or 0x600 <= ord(character) <= 0x8FF


def _short(message_id: bytes) -> str:
    return message_id.hex()[:_SHORT_ID_DIGITS]


def _time(sent_ms: int) -> str:
    try:
        return datetime.fromtimestamp(sent_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
    except (OverflowError, ValueError, OSError):
        # The time is the sender's word; one that no calendar has is shown as a number.
        return f"@{sent_ms}ms"
