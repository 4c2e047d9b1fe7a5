"""Prepared envelopes on their way to the relay, and its answers (protocol.md sections 5.2, 6.3 and 6.5).

Envelopes for devices of one account go together, up to 64 of them, under the hash of the list that they were encrypted
to. A bounded number of bytes waits for receipts at a time; the rest stays in sealed rows. Rules:

* a receipt counts only when it has verified for the very envelope (client/evidence.py); a forged one is an alarm, and
  the submit is repeated as if nothing had come;
* `stale_list` brings the new list: it is checked like any other, and the outbox plans again;
* other definite refusals end the message, typed; `again` is repeated by the link itself.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from client.errors import Alarm, Refused, ServiceEnded, refused
from client.link import AgainEvent, Link, ReceiptsEvent, RefusedEvent
from client.outbox import Outbox
from client.records import HeldReceipt, Prepared
from client.state import State
from client.store import Kind, Step
from wire.codec import decode
from wire.commands import Submit
from wire.errors import BlindpostError, RefusalCode
from wire.identity import SignedList
from wire.limits import ENVELOPES_PER_SUBMIT_MAX, ID_BYTES
from wire.receipt import ReceiptEntry

__all__ = ["Submits"]

# Room in a frame for bodies: the rest is for hashes, ids, headers and the account's name.
_SUBMIT_BYTES_MAX: Final = 240_000
_ENVELOPE_OVERHEAD_BYTES: Final = 64


@dataclass(slots=True)
class _Item:
    """One envelope of a submit: the key of its row, and the chunk's number for chunks."""

    key: bytes
    prepared: Prepared
    chunk: int | None


@dataclass(slots=True)
class _UnderWay:
    """A submit that waits for receipts."""

    account: str
    items: list[_Item]
    open: set[int] = field(default_factory=set)


class Submits:
    """What is under way.

    Args:
        state: the device's state.
        link: where submits are asked.
        outbox: whose envelopes these are.
    """

    def __init__(self, state: State, link: Link, outbox: Outbox) -> None:
        self._state = state
        self._link = link
        self._outbox = outbox
        self._ready: dict[str, deque[bytes]] = {}
        self._under_way: dict[int, _UnderWay] = {}

    def pump(self) -> None:
        """Submit what is ready, as far as the window allows."""
        fresh, self._outbox.fresh = self._outbox.fresh, []
        for key in fresh:
            if key in self._outbox.prepared:
                self._ready.setdefault(self._outbox.prepared[key], deque()).append(key)
        window = self._state.settings.window_bytes
        for account in list(self._ready):
            queue = self._ready[account]
            while queue and self._link.asked_bytes < window and self._outbox.blocked(account) is None:
                self._submit(account, self._batch(queue))
            if not queue:
                del self._ready[account]
        while self._link.asked_bytes < window:
            chunk = self._outbox.uploads.next_chunk()
            if chunk is None:
                break
            key, index, prepared = chunk
            self._submit(prepared.account, [_Item(key, prepared, index)])

    def _batch(self, queue: deque[bytes]) -> list[_Item]:
        items: list[_Item] = []
        room = _SUBMIT_BYTES_MAX
        while queue and len(items) < ENVELOPES_PER_SUBMIT_MAX:
            key = queue[0]
            value = self._state.store.get(Kind.PREPARED, key) if key in self._outbox.prepared else None
            if value is None:
                queue.popleft()  # dropped since it was queued: its device left the list, or its message ended
                continue
            prepared = decode(Prepared, value, "prepared")
            size = len(prepared.envelope.body) + _ENVELOPE_OVERHEAD_BYTES
            if items and size > room:
                break
            room -= size
            queue.popleft()
            items.append(_Item(key, prepared, None))
        return items

    def _submit(self, account: str, items: list[_Item]) -> None:
        known = self._state.pins.get(account)
        if not items or known is None:
            return
        envelopes = tuple(item.prepared.envelope for item in items)
        ref = self._link.ask(lambda ref: Submit(ref, account, known.list_hash, envelopes))
        self._under_way[ref] = _UnderWay(account, items, set(range(len(items))))

    # Answers

    def on_receipts(self, event: ReceiptsEvent) -> list[HeldReceipt]:
        """Verify receipts and make them durable; returns those that are new.

        Raises:
            StoreFailed: nothing was kept; the relay will be asked again.
        """
        held = []
        with self._state.store.step() as step:
            for entry in event.entries:
                receipt = self._check(step, event, entry)
                if receipt is not None:
                    held.append(receipt)
        for entry in event.entries:
            under_way = self._under_way.get(entry.ref)
            if under_way is not None and not under_way.open:
                del self._under_way[entry.ref]
                self._link.settle(entry.ref)
        return held

    def _check(self, step: Step, event: ReceiptsEvent, entry: ReceiptEntry) -> HeldReceipt | None:
        under_way = self._under_way.get(entry.ref)
        if under_way is None or entry.position not in under_way.open:
            return None
        item = under_way.items[entry.position]
        row = self._outbox.outgoing.get(item.key[:ID_BYTES])
        message_id = row.message_id if row else bytes(ID_BYTES)
        try:
            held = self._state.evidence.check(item.prepared, message_id, event.header, event.signature, entry)
        except Alarm as alarm:
            self._state.put_notice(step, alarm, message_id, (under_way.account,))
            return None
        under_way.open.discard(entry.position)
        if item.chunk is None:
            self._outbox.receipted(step, item.key, held)
        else:
            self._state.evidence.keep(step, held)
            if self._outbox.uploads.receipted(step, item.key, item.chunk, item.prepared.token):
                self._outbox.touch_name(item.key[:ID_BYTES])
        return held

    def on_refused(self, event: RefusedEvent) -> bool:
        """A submit was refused definitely; False if it was not one of these."""
        under_way = self._under_way.pop(event.ref, None)
        if under_way is None:
            return False
        if event.code is RefusalCode.STALE_LIST:
            self._on_stale(under_way, event.attachment)
        elif event.code is RefusalCode.CONFLICT:
            with self._state.store.step() as step:
                for item in self._open_items(under_way):
                    self._on_conflict(step, item)
        else:
            error = refused(f"submit to {under_way.account}", event.code, event.field, event.limit)
            with self._state.store.step() as step:
                items = self._open_items(under_way)
                for name in {item.key[:ID_BYTES] for item in items}:
                    if name not in self._outbox.outgoing:
                        continue
                    if isinstance(error, ServiceEnded):
                        # It is about this company: people of others still get it.
                        for item in items:
                            if item.key[:ID_BYTES] == name:
                                self._outbox.unprepare(step, item.key)
                        self._outbox.fail_account(step, name, under_way.account, error)
                    else:
                        self._outbox.fail(step, name, error)
        return True

    def on_again(self, event: AgainEvent) -> None:
        """A submit does not fit into a mailbox now: go in halves, so that what fits goes now.

        A submit is stored whole or not at all, so one that is larger than what is left would wait for ever.
        """
        under_way = self._under_way.get(event.ref)
        if under_way is None or event.code is not RefusalCode.MAILBOX_FULL or len(under_way.open) < 2:
            return
        del self._under_way[event.ref]
        self._link.settle(event.ref)
        items = self._open_items(under_way)
        half = len(items) // 2
        self._submit(under_way.account, items[:half])
        self._submit(under_way.account, items[half:])

    def withdraw(self, names: set[bytes]) -> list[tuple[bytes, bytes]]:
        """Stop repeating what belongs to these outgoing rows; mailbox and ack token of each that may have arrived.

        A withdrawal that follows on the same link is read after the submit or instead of it: frames only go forward.
        """
        tokens = []
        for ref, under_way in list(self._under_way.items()):
            items = self._open_items(under_way)
            if not any(item.key[:ID_BYTES] in names for item in items):
                continue
            del self._under_way[ref]
            self._link.settle(ref)
            for item in items:
                if item.key[:ID_BYTES] in names:
                    tokens.append((item.prepared.envelope.mailbox, item.prepared.token))
                else:
                    self._requeue(item)
        return tokens

    def _requeue(self, item: _Item) -> None:
        if item.chunk is not None:
            self._outbox.uploads.again(item.key, item.chunk)
        elif item.key in self._outbox.prepared:
            self._outbox.fresh.append(item.key)

    def _on_stale(self, under_way: _UnderWay, attachment: bytes) -> None:
        try:
            signed = decode(SignedList, attachment, "stale_list attachment")
        except BlindpostError as error:
            self._outbox.block(under_way.account, error)
            return
        before = self._state.pins.get(under_way.account)
        believed = self._outbox.on_list(under_way.account, signed)
        after = self._state.pins.get(under_way.account)
        if believed and before is not None and after is not None and before.list_hash == after.list_hash:
            # The relay calls the list stale that it shows as current: asking again would go round for ever.
            self._outbox.block(under_way.account, Refused(f"submit to {under_way.account}", RefusalCode.STALE_LIST))
        for item in self._open_items(under_way):
            self._requeue(item)

    def _on_conflict(self, step: Step, item: _Item) -> None:
        name = item.key[:ID_BYTES]
        if name not in self._outbox.outgoing:
            return
        if item.chunk is None:
            self._outbox.reprepare(step, item.key)
        else:
            self._outbox.uploads.restart(step, item.key)
            self._outbox.touch_name(name)

    def _open_items(self, under_way: _UnderWay) -> list[_Item]:
        return [under_way.items[position] for position in sorted(under_way.open)]
