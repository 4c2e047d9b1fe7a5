"""The preservations of a run: begun at the relay, ended by their day or taken back, and logged when nothing is kept.

    honoured ─▶ relay preserves ─ its day, or withdrawn ─▶ relay erases ─▶ `released` in the public log

What the log says has happened: the relay is asked whether it still keeps something, and the end is logged when it does
not. A relay that is down is asked again when it is up.
"""

from collections.abc import Sequence
from typing import Final

from relay.core.docket import Entry
from sim.engine.town import Town
from sim.orders.clerk import Clerk

__all__ = ["Keeping"]

_SOON_MS: Final = 60_000
_LATER_MS: Final = 3_600_000


class Keeping:
    """Keeps, and lets go.

    Args:
        town: whose relay keeps.
        clerk: logs the ends; it says when an order is taken back.
    """

    def __init__(self, town: Town, clerk: Clerk) -> None:
        self._town = town
        self._clerk = clerk
        clerk.on_taken_back = self.take_back
        clerk.on_opened = self.settle

    def begin(self, person: str, until_s: int, leaf: int) -> None:
        """Preserve somebody's mailboxes, as an order says.

        Args:
            person: whose.
            until_s: until when, Unix time in seconds.
            leaf: the order's in the public log.
        """
        machine, calendar = self._town.machine, self._town.calendar
        if not machine.is_up:
            calendar.after(_SOON_MS, self.begin, person, until_s, leaf)
            return
        machine.preserve(person, until_s, leaf)
        calendar.at(1_000 * until_s + _SOON_MS, self.settle)

    def take_back(self, leaf: int, standing: Sequence[tuple[Entry, int]]) -> None:
        """End what an order preserves before its day, where no other order stands.

        Args:
            leaf: the order's in the public log.
            standing: other orders that hold, each with its leaf.
        """
        machine, calendar = self._town.machine, self._town.calendar
        if not machine.is_up:
            calendar.after(_SOON_MS, self.take_back, leaf, standing)
            return
        machine.release(leaf, lambda mailbox, account: _latest(standing, mailbox, account))
        calendar.after(_SOON_MS, self.settle)

    def settle(self) -> None:
        """Log the ends of those of which nothing is kept any more."""
        machine, calendar = self._town.machine, self._town.calendar
        preserving = machine.preserving
        if preserving is None:
            calendar.after(_SOON_MS, self.settle)
        elif self._clerk.log_ends(preserving):
            calendar.after(_LATER_MS, self.settle)


def _latest(standing: Sequence[tuple[Entry, int]], mailbox: bytes, account: str) -> tuple[int, int] | None:
    """Until when, and by which leaf, a mailbox goes on to be preserved."""
    covering = [(entry.until_s, leaf) for entry, leaf in standing if entry.order.scope.covers(mailbox, account)]
    return max(covering, default=None)
