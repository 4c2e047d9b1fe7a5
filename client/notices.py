"""What the person must be told: alarms and failures that nobody was waiting for, in rows until they have been told."""

from collections.abc import Iterable

from client.message import Notice
from client.records import NoticeRow
from client.store import Kind, Step, Store
from wire.codec import decode, encode
from wire.errors import BlindpostError

__all__ = ["Notices"]


class Notices:
    """The notices of a device, numbered in their order.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last = max((int.from_bytes(name, "big") for name, _ in store.items(Kind.NOTICE)), default=0)

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
        step.put(Kind.NOTICE, self._last.to_bytes(8, "big"), encode(row))

    def held(self) -> list[Notice]:
        """All that were not cleared, oldest first."""
        rows = sorted(self._store.items(Kind.NOTICE))
        notices = [(name, decode(NoticeRow, value, "notice")) for name, value in rows]
        return [Notice(name, row.kind, row.text, row.message_id, row.accounts, row.time_s) for name, row in notices]

    def clear(self, step: Step, notices: Iterable[Notice]) -> None:
        """The person has been told, within a step."""
        for notice in notices:
            step.delete(Kind.NOTICE, notice.name)
