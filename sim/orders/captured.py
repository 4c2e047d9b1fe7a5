"""A file of what was captured, as a stranger reads it: counted, and searched for what can be read.

Decoded with the verifier's decoder and opened with its openers (audit/): under the keys that people volunteered, and
under those that a server of an older kind keeps beside the mail.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from audit import decoder
from audit.checks.historical import open_pin, open_sealed
from audit.errors import DecodeError

__all__ = ["Captured", "read_captured"]

_LENGTH_BYTES: Final = 4
_RECORD_BYTES_MAX: Final = 1_048_576
_HEADER: Final = 1
_COVERED: Final = 3
_EVENT: Final = 4
_LOST: Final = 5
_STORED: Final = 1
_PIN_KEY_BYTES: Final = 24


@dataclass(frozen=True)
class Captured:
    """What an order's capture came to.

    Attributes:
        path: the file.
        from_s: when it began, Unix time in seconds.
        to_s: when it ended.
        mailboxes: that were covered.
        events: that are recorded.
        envelopes: that were stored while it went on.
        body_bytes: of ciphertext that was recorded.
        lost: events that the relay had no room for.
        bodies: envelopes whose ciphertext is in it, however often.
        read: those of them that could be read.
        gaps: how often it was interrupted and begun again: the relay had been killed, or the order extended.
    """

    path: Path
    from_s: int
    to_s: int
    mailboxes: int
    events: int
    envelopes: int
    body_bytes: int
    lost: int
    bodies: int
    read: int
    gaps: int = 0


def read_captured(path: Path, volunteered: Sequence[bytes], kept_keys: Mapping[bytes, bytes] | None) -> Captured:
    """Read a file.

    Args:
        path: of it.
        volunteered: what people give the verifier.
        kept_keys: by mailbox, what a server has in its database.

    Raises:
        DecodeError: it holds something else than records.
    """
    keys = [key for data in volunteered for key in _keys_in(data)]
    times: list[int] = []
    mailboxes: set[bytes] = set()
    bodies: dict[tuple[bytes, int], bool] = {}
    events = envelopes = body_bytes = lost = 0
    for fields in _records(path.read_bytes()):
        if fields[0] == _HEADER:
            continue
        times.append(decoder.integer(fields[1], "time"))
        if fields[0] == _COVERED:
            mailboxes.add(decoder.binary(fields[2], "mailbox", 16))
        elif fields[0] == _LOST:
            lost += decoder.integer(fields[2], "events")
        elif fields[0] == _EVENT:
            decoder.array(fields, "event", 9)
            mailbox, body = decoder.binary(fields[5], "mailbox", 16), decoder.binary(fields[8], "body")
            events += 1
            envelopes += fields[3] == _STORED
            body_bytes += len(body)
            envelope = mailbox, decoder.integer(fields[6], "number")
            if body and envelope not in bodies:
                kept = (kept_keys or {}).get(mailbox)
                bodies[envelope] = any(_opens(key, body) for key in (*keys, *([kept] if kept is not None else ())))
    from_s, to_s = (times[0] // 1_000, times[-1] // 1_000) if times else (0, 0)
    read = sum(bodies.values())
    return Captured(path, from_s, to_s, len(mailboxes), events, envelopes, body_bytes, lost, len(bodies), read)


def _records(data: bytes) -> Iterator[list[Any]]:
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):
            raise DecodeError("capture", "ends within a record")
        yield decoder.array(decoder.decode(data[start:at], "capture record", _RECORD_BYTES_MAX), "capture record")


def _opens(key: bytes, body: bytes) -> bool:
    opener = open_pin if len(key) == _PIN_KEY_BYTES else open_sealed
    return opener(key, body) is not None


def _keys_in(volunteered: bytes) -> list[bytes]:
    """The keys of historical suites among what somebody volunteered (protocol.md section 12.2, item 5)."""
    fields = decoder.array(decoder.decode(volunteered, "volunteered", _RECORD_BYTES_MAX * 64), "volunteered", 3)
    return [item[2] for item in decoder.array(fields[2], "items", length_max=10**6) if item[:1] == [5]]
