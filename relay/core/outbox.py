"""What waits to be said on one link, and how it is packed into frames: as few as the limits allow.

Commands of one kind that can be one are made one: `done` of all refs, receipts by commit, deliveries by mailbox. The
order is linked, receipts, done, refusals and directories, deliveries. Sealing and numbering are left to links.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from wire.codec import encode
from wire.commands import Delivered, Delivery, Directory, Done, Linked, Receipts, RecordPiece, Refusal, RelayCommand
from wire.limits import COMMANDS_PER_FRAME_MAX, FRAME_BYTES_MAX
from wire.link import FRAME_OVERHEAD_BYTES
from wire.receipt import ReceiptEntry

__all__ = ["Outbox"]

# The frame's own array header has at most 3 bytes.
_ROOM_BYTES: Final = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES - 3
# Upper bounds of what MessagePack adds: array headers, tags, integers of up to 9 bytes, lengths.
_DELIVERED_BYTES: Final = 1 + 9 + 18 + 9 + 5
_DELIVERY_BYTES: Final = 2 + 18 + 3
_RECEIPT_BYTES: Final = 1 + 5 + 3 + 9 + 5 + 5
_RECEIPTS_BYTES: Final = 2 + 3 + 256 + 66 + 3
_DONE_BYTES: Final = 2 + 5
_REF_BYTES: Final = 5


class Outbox:
    """Commands for one link."""

    __slots__ = ("_deliveries", "_delivery_bytes", "_done", "_linked", "_others", "_receipt_bytes", "_receipts")

    def __init__(self) -> None:
        self._linked: Linked | None = None
        self._done: list[int] = []
        self._others: list[Refusal | Directory | RecordPiece] = []
        self._receipts: dict[bytes, tuple[bytes, list[ReceiptEntry]]] = {}
        self._receipt_bytes = 0
        self._deliveries: dict[bytes, list[Delivered]] = {}
        self._delivery_bytes = 0

    def linked(self, command: Linked) -> None:
        """Confirm the link."""
        self._linked = command

    def done(self, ref: int) -> None:
        """A command is done, and durable."""
        self._done.append(ref)

    def other(self, command: Refusal | Directory | RecordPiece) -> None:
        """Refuse a command, answer a look-up, or give a piece of a record."""
        self._others.append(command)

    def receipt(self, header: bytes, signature: bytes, entry: ReceiptEntry) -> None:
        """Give a receipt."""
        kept = self._receipts.get(header)
        if kept is None:
            self._receipts[header] = (signature, [entry])
            self._receipt_bytes += _RECEIPTS_BYTES
        else:
            kept[1].append(entry)
        self._receipt_bytes += _RECEIPT_BYTES + len(entry.path)

    def delivery(self, mailbox: bytes, delivered: Delivered) -> None:
        """Deliver an envelope."""
        kept = self._deliveries.get(mailbox)
        if kept is None:
            self._deliveries[mailbox] = [delivered]
            self._delivery_bytes += _DELIVERY_BYTES
        else:
            kept.append(delivered)
        self._delivery_bytes += _DELIVERED_BYTES + len(delivered.body)

    def frames(self) -> list[list[RelayCommand]]:
        """Return all that waits, frame by frame; the outbox is empty then."""
        fits = (
            not self._others
            and self._linked is None
            and self._receipt_bytes + self._delivery_bytes + _DONE_BYTES + _REF_BYTES * len(self._done) <= _ROOM_BYTES
            and len(self._receipts) + len(self._deliveries) < COMMANDS_PER_FRAME_MAX
        )
        if fits:
            frame = self._whole()
            frames = [frame] if frame else []
        else:
            frames = self._packed()
            self._linked = None
            self._others = []
        if self._done:
            self._done = []
        if self._receipts:
            self._receipts = {}
            self._receipt_bytes = 0
        if self._deliveries:
            self._deliveries = {}
            self._delivery_bytes = 0
        return frames

    def _whole(self) -> list[RelayCommand]:
        """Return all that waits as one frame: the same as `_packed` where it fits, for less."""
        frame: list[RelayCommand] = [
            Receipts(header, signature, tuple(entries)) for header, (signature, entries) in self._receipts.items()
        ]
        if self._done:
            frame.append(Done(tuple(self._done)))
        for mailbox, envelopes in self._deliveries.items():
            if len(envelopes) > 1:
                envelopes.sort(key=_number)
            frame.append(Delivery(mailbox, tuple(envelopes)))
        return frame

    def _packed(self) -> list[list[RelayCommand]]:
        frames: list[list[RelayCommand]] = []
        room = 0
        for command, size in self._merged(_ROOM_BYTES):
            if size > room or len(frames[-1]) >= COMMANDS_PER_FRAME_MAX:
                frames.append([])
                room = _ROOM_BYTES
            frames[-1].append(command)
            room -= size
        return frames

    def _merged(self, most: int) -> Iterator[tuple[RelayCommand, int]]:
        """Yield each command with an upper bound of its size, which is at most `most`."""
        if self._linked is not None:
            yield self._linked, len(encode(self._linked))
        for header, (signature, entries) in self._receipts.items():
            for part, size in _split(
                [(entry, _RECEIPT_BYTES + len(entry.path)) for entry in entries], _RECEIPTS_BYTES, most
            ):
                yield Receipts(header, signature, part), size
        step = (most - _DONE_BYTES) // _REF_BYTES
        for start in range(0, len(self._done), step):
            refs = tuple(self._done[start : start + step])
            yield Done(refs), _DONE_BYTES + _REF_BYTES * len(refs)
        for other in self._others:
            yield other, len(encode(other))
        for mailbox, envelopes in self._deliveries.items():
            # A repeated delivery may have been queued behind a newer one; the command lists numbers ascending.
            envelopes.sort(key=_number)
            for batch, size in _split(
                [(item, _DELIVERED_BYTES + len(item.body)) for item in envelopes], _DELIVERY_BYTES, most
            ):
                yield Delivery(mailbox, batch), size


def _number(delivered: Delivered) -> int:
    return delivered.number


def _split(items: list[tuple[Any, int]], head: int, most: int) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield runs of items, each with its size, that fit into `most` bytes with a head."""
    run: list[Any] = []
    size = head
    for item, item_bytes in items:
        if run and size + item_bytes > most:
            yield tuple(run), size
            run, size = [], head
        run.append(item)
        size += item_bytes
    yield tuple(run), size
