"""What the person must be told: alarms and failures that nobody was waiting for, in rows until they have been told."""

from collections.abc import Iterable
from typing import Final

from client.message import Notice
from client.records import NoticeRow
from client.store import Kind, Step, Store
from wire.codec import decode, encode
from wire.errors import BlindpostError

__all__ = ["Notices"]

# Of what a stranger can bring about, no more than this many of a kind wait to be told.
_SAME_KIND_MAX: Final = 64


class Notices:
    """The notices of a device, numbered in their order.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subjects: dict[bytes, tuple[str, tuple[str, ...]]] = {}
        for name, value in store.items(Kind.NOTICE):
            row = decode(NoticeRow, value, "notice")
            self._subjects[name] = (row.kind, row.accounts)
        self._last = max((int.from_bytes(name, "big") for name in self._subjects), default=0)

    def put(self, step: Step, error: BlindpostError, message_id: bytes, accounts: tuple[str, ...], now_s: int) -> None:
        """Keep an error, within a step.

        Args:
            step: the step.
            error: what went wrong.
            message_id: the message that it is about, or empty.
            accounts: the accounts that it is about.
            now_s: Unix seconds.
        """
        self._last += 1
        row = NoticeRow(type(error).__name__, str(error), message_id, accounts, now_s)
        name = self._last.to_bytes(8, "big")
        step.put(Kind.NOTICE, name, encode(row))
        self._subjects[name] = (row.kind, accounts)

    def put_once(self, step: Step, error: BlindpostError, accounts: tuple[str, ...], now_s: int) -> None:
        """Keep an error that a stranger can bring about at will, within a step.

        Once for these accounts until the person has been told, and at most 64 of a kind.
        """
        kind = type(error).__name__
        same = [held for held in self._subjects.values() if held[0] == kind]
        if len(same) < _SAME_KIND_MAX and (kind, accounts) not in same:
            self.put(step, error, b"", accounts, now_s)

    def held(self) -> list[Notice]:
        """All that were not cleared, oldest first."""
        rows = sorted(self._store.items(Kind.NOTICE))
        notices = [(name, decode(NoticeRow, value, "notice")) for name, value in rows]
        return [Notice(name, row.kind, row.text, row.message_id, row.accounts, row.time_s) for name, row in notices]

    def clear(self, step: Step, notices: Iterable[Notice]) -> None:
        """The person has been told, within a step."""
        for notice in notices:
            step.delete(Kind.NOTICE, notice.name)
            self._subjects.pop(notice.name, None)
