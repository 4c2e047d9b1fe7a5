"""A person's own record: what is held about an account, asked for by a device of it, in pieces (protocol.md 6.3, 6.4).

    ask ─▶ WANTED ─take─▶ being made (the service reads the rows of one moment) ─made─▶ KEPT ─▶ a piece for each ask
                                                                                          └── whole, or idle ─▶ gone

Bounds: one record at a time for each link, and one is made at a time; after it the next one waits as many times as long
as it took (`records_rest`), so that commits never wait for records one after the other; an account gets a new one every
`records_every_ms`; all that are kept have `records_bytes_max` bytes. What is beyond is refused for now.

Rules: whether the link may ask is decided in commands.py, and once more when a record has been made; a record is given
to devices of its own account only, also where a link speaks for several; what closes with its link is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Final

from relay.core.batch import Refused
from relay.core.belongings import Belongings
from relay.core.events import CoreConfig, RecordRead
from relay.core.links import Link, Links
from wire.commands import AskRecord, RecordPiece
from wire.errors import RefusalCode
from wire.limits import HELD_BYTES_MAX, HELD_PIECE_BYTES_MAX

__all__ = ["Records"]

Refuse = Callable[[Link, int, Refused], None]
_STEP_BACK_MS: Final = 1_000


@dataclass(slots=True, eq=False)
class _Record:
    """One record of a link; `bytes_held` is what it has, or at most will have. `asked` is what it was made for."""

    link: Link
    asked: AskRecord
    account: str
    since_ms: int
    used_ms: int
    bytes_held: int
    data: bytes = b""
    digest: bytes = b""
    whole: bool = False


class Records:
    """All records that are wanted, being made, or kept.

    Args:
        config: the bounds.
        links: where answers go.
        belongings: which rows are whose.
        may_ask: tells whether a link speaks for the device of a mailbox, as the directory stands.
        refuse: tells a link that a command is refused.
    """

    def __init__(
        self,
        config: CoreConfig,
        links: Links,
        belongings: Belongings,
        may_ask: Callable[[Link, bytes], bool],
        refuse: Refuse,
    ) -> None:
        self._config = config
        self._links = links
        self._belongings = belongings
        self._may_ask = may_ask
        self._refuse = refuse
        self._of_link: dict[Link, _Record] = {}
        # Those that are made; the one that was used longest ago comes first.
        self._kept: OrderedDict[Link, _Record] = OrderedDict()
        self._wanted: deque[_Record] = deque()
        self._making: RecordRead | None = None
        self._making_since_ms = 0
        self._rest_until_ms = 0
        self._rest_ms = 0
        # When an account may have its next one, in the order of time.
        self._next_ms: OrderedDict[str, int] = OrderedDict()
        self.bytes_held = 0

    # ---- asking

    def ask(self, link: Link, command: AskRecord, account: str, now_ms: int) -> None:
        """Give the next piece of a record, or let a new one be made, whose first piece follows.

        Raises:
            Refused: `link_quota` or `overloaded`, to be repeated; `malformed` for an offset beyond the end.
        """
        record = self._of_link.get(link)
        if record is not None and self._is_over(record, now_ms):
            self._drop(record)
            record = None
        if record is not None and record.account == account:
            if not record.data and record.asked.ref == command.ref:
                # It was repeated while the record is being made, and is answered by that.
                return
            if record.data and command.record == record.digest:
                self._give(record, command.ref, command.offset, now_ms)
                return
            if record.data and record.asked.ref == command.ref:
                self._give_first(record, now_ms)
                return
        if record is not None and not record.whole:
            raise Refused(RefusalCode.LINK_QUOTA, "records", 1, self._config.retry_after_ms)
        self._begin(link, command, account, now_ms)

    def _begin(self, link: Link, command: AskRecord, account: str, now_ms: int) -> None:
        config = self._config
        self._forget_times(now_ms)
        wait_ms = self._next_ms.get(account, now_ms) - now_ms
        if wait_ms > 0:
            raise Refused(RefusalCode.LINK_QUOTA, "records", 1, wait_ms)
        size = self._belongings.record_bytes_most(account)
        if self.bytes_held + size > config.records_bytes_max:
            raise Refused(RefusalCode.OVERLOADED, "records", config.records_bytes_max, config.retry_after_ms)
        before = self._of_link.get(link)
        if before is not None:
            self._drop(before)
        record = _Record(link, command, account, now_ms, now_ms, size)
        self._of_link[link] = record
        self.bytes_held += size
        self._wanted.append(record)
        self._next_ms[account] = now_ms + config.records_every_ms
        self._next_ms.move_to_end(account)

    def _forget_times(self, now_ms: int) -> None:
        times, every_ms = self._next_ms, self._config.records_every_ms
        # A time that lies too far ahead is one of a clock that went back.
        while times and not now_ms < next(iter(times.values())) <= now_ms + every_ms:
            times.popitem(last=False)

    def _give_first(self, record: _Record, now_ms: int) -> None:
        """Answer what the record was made for: its beginning, or what was missing of one that was forgotten, and that
        has the same bytes as this one.
        """
        asked = record.asked
        is_same = asked.record == record.digest and asked.offset < len(record.data)
        self._give(record, asked.ref, asked.offset if is_same else 0, now_ms)

    def _give(self, record: _Record, ref: int, offset: int, now_ms: int) -> None:
        data = record.data
        if offset >= len(data):
            raise Refused(RefusalCode.MALFORMED, "offset", len(data))
        record.used_ms = now_ms
        self._kept[record.link] = record
        self._kept.move_to_end(record.link)
        piece = data[offset : offset + HELD_PIECE_BYTES_MAX]
        record.whole = record.whole or offset + len(piece) == len(data)
        self._links.talk(record.link).other(RecordPiece(ref, record.digest, len(data), offset, piece))
        self._links.outgoing_bytes += len(piece)

    # ---- making

    def is_wanted(self, now_ms: int) -> bool:
        """Tell whether `take` has something to give."""
        return bool(self._wanted) and self._making is None and not self._rests(now_ms)

    def _rests(self, now_ms: int) -> bool:
        # A clock that went back ends the rest.
        return self._rest_until_ms - self._rest_ms - _STEP_BACK_MS <= now_ms < self._rest_until_ms

    def take(self, now_ms: int) -> RecordRead | None:
        """Return the rows to read for the next record; memory and store must hold the same (belongings.py)."""
        while self.is_wanted(now_ms):
            record = self._wanted.popleft()
            if self._of_link.get(record.link) is not record:
                continue
            if not self._may_ask(record.link, record.asked.mailbox):
                self._drop(record)
                self._refuse(record.link, record.asked.ref, Refused(RefusalCode.NOT_ENTITLED, "mailbox"))
                continue
            self._making = RecordRead(record.account, self._belongings.rows_of(record.account), record)
            self._making_since_ms = now_ms
            return self._making
        return None

    def made(self, read: RecordRead, data: bytes | None, now_ms: int) -> None:
        """Take the record that was asked for; None: it could not be read."""
        assert self._making is read, "not the record that is being made"
        self._making = None
        self._rest_ms = self._config.records_rest * max(0, now_ms - self._making_since_ms)
        self._rest_until_ms = now_ms + self._rest_ms
        record = read.handle
        assert isinstance(record, _Record)
        link, ref = record.link, record.asked.ref
        if self._of_link.get(link) is not record:
            return
        if data is None:
            self._drop(record)
            self._next_ms.pop(record.account, None)
            again = Refused(RefusalCode.STORAGE_FAILED, "record", 0, self._config.retry_after_ms)
            self._refuse(link, ref, again)
        elif not self._may_ask(link, record.asked.mailbox):
            self._drop(record)
            self._refuse(link, ref, Refused(RefusalCode.NOT_ENTITLED, "mailbox"))
        elif len(data) > HELD_BYTES_MAX:
            self._drop(record)
            self._refuse(link, ref, Refused(RefusalCode.NOT_ENTITLED, "record bytes", HELD_BYTES_MAX))
        else:
            self.bytes_held += len(data) - record.bytes_held
            record.bytes_held = len(data)
            record.data, record.digest, record.since_ms = data, sha256(data).digest(), now_ms
            self._give_first(record, now_ms)

    # ---- ending

    def _is_over(self, record: _Record, now_ms: int) -> bool:
        if not record.data:
            return False
        config = self._config
        return not (
            0 <= now_ms - record.used_ms < config.records_idle_ms
            and 0 <= now_ms - record.since_ms < config.records_whole_ms
        )

    def _drop(self, record: _Record) -> None:
        del self._of_link[record.link]
        self._kept.pop(record.link, None)
        self.bytes_held -= record.bytes_held

    def forget(self, link: Link) -> None:
        """A link has ended, or speaks no more for the device that asked."""
        record = self._of_link.get(link)
        if record is not None and (link.closed or not self._may_ask(link, record.asked.mailbox)):
            self._drop(record)

    def tick(self, now_ms: int) -> None:
        """Forget what nobody asks for any more."""
        while self._kept and self._is_over(record := next(iter(self._kept.values())), now_ms):
            self._drop(record)

    def next_deadline(self) -> int | None:
        """Return when `tick` or `take` has something to do."""
        deadlines = [record.used_ms + self._config.records_idle_ms for record in islice(self._kept.values(), 1)]
        if self._wanted and self._making is None:
            deadlines.append(self._rest_until_ms)
        return min(deadlines, default=None)

    def stop(self) -> None:
        """The relay is shutting down: what has not been made is not made any more."""
        for record in [one for one in self._of_link.values() if not one.data]:
            self._drop(record)
            self._refuse(
                record.link,
                record.asked.ref,
                Refused(RefusalCode.STOPPING, "relay", 0, self._config.retry_after_ms),
            )
        self._wanted.clear()
