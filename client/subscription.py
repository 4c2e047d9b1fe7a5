"""How far delivery has come: the subscription of a link, and the cursor that outlives it (protocol.md section 6.3).

The relay delivers what stands above a number, as far as the credit goes. What is acked gives its credit back; what
cannot be acked (client/unresolved.py) would fill it, so delivery is asked to move past it. Two numbers:

    after     where this link's delivery begins; moves over gaps when nothing has come for a while
    floor     every number up to here was accounted for; the durable cursor moves to it, and never over a gap, since a
              gap may be mail that is still coming

Mail whose body was left to the relay is fetched again by moving both back.
"""

from typing import Final

from msgspec.structs import replace

from client.errors import NotEnrolled
from client.link import Link, RefusedEvent
from client.state import State
from client.store import Step
from client.unresolved import UnresolvedMail
from wire.commands import Subscribe

__all__ = ["Subscription"]

# Redeliveries come after 5 s: what is not here after this is not under way any more.
_IDLE_S: Final = 12.0


class Subscription:
    """The delivery of a device's mailbox.

    Args:
        state: the device's state.
        link: where subscriptions are asked.
        unresolved: what was delivered and cannot be acked.
    """

    def __init__(self, state: State, link: Link, unresolved: UnresolvedMail) -> None:
        self._state = state
        self._link = link
        self._unresolved = unresolved
        self._after = state.meta.cursor
        self._floor = state.meta.cursor
        self._numbers = unresolved.numbers()
        self._newest = 0
        self._ref: int | None = None
        self._refetch = False
        self._told_removed = False
        self._asked_s = float("-inf")
        self._arrived_s = float("-inf")

    # Asking

    def begin(self, now_s: float) -> None:
        """A new link stands: go on from the cursor."""
        self._after = self._state.meta.cursor
        self._arrived_s = now_s
        self.ask(now_s)

    def ask(self, now_s: float) -> None:
        """Ask for everything above the cursor; also the question whether the link still stands."""
        if self._ref is not None:
            self._link.settle(self._ref)
        mailbox, after, credit = self._state.keys.mailbox, self._after, self._state.settings.credit
        self._ref = self._link.ask(lambda ref: Subscribe(ref, mailbox, after, credit))
        self._asked_s = now_s

    @property
    def is_answered(self) -> bool:
        """Whether the relay has answered the subscription of this link."""
        return self._ref is not None and not self._link.is_asked(self._ref)

    @property
    def arrived_s(self) -> float:
        """When something was delivered last, or asked for, in monotonic seconds."""
        return self._arrived_s

    def on_refused(self, event: RefusedEvent) -> bool:
        """The subscription was refused: the account's list names this device no more. False if it was none of these."""
        if event.ref != self._ref:
            return False
        error = NotEnrolled(f"the relay does not deliver to this device any more ({event.code.name.lower()})")
        if not self._told_removed:
            self._told_removed = True
            with self._state.store.step() as step:
                self._state.put_notice(step, error)
        return True

    # Moving

    def note(self, number: int) -> None:
        """An envelope of that number was delivered."""
        self._newest = max(self._newest, number)
        self._numbers.add(number)

    def fetch_again(self, step: Step, number: int) -> None:
        """Go back, within a step, to an envelope whose body was left to the relay; `move_on` then asks for it."""
        self._after = min(self._after, number - 1)
        self._floor = min(self._floor, number - 1)
        self._numbers = {known for known in self._numbers if known < number}
        self._put_cursor(step, min(self._state.meta.cursor, number - 1))
        self._refetch = True

    def move_on(self, now_s: float) -> None:
        """After a delivery: let the next go past what cannot be acked, before it fills the credit."""
        self._arrived_s = now_s
        while self._floor + 1 in self._numbers:
            self._floor += 1
            self._numbers.discard(self._floor)
        stuck = self._unresolved.count_between(self._after, self._floor)
        if stuck and stuck >= self._state.settings.credit // 8:
            self._after = self._floor
            with self._state.store.step() as step:
                self._put_cursor(step, self._floor)
            self.ask(now_s)
        elif self._refetch:
            self.ask(now_s)
        self._refetch = False

    def tick(self, now_s: float) -> None:
        """Move past what is stuck when nothing has come for a while."""
        if self._unresolved.is_any_above(self._after) and now_s >= self._idle_at_s():
            # A gap in the numbers may be mail that is gone, or mail that is still coming: the cursor of this link
            # moves past it, the durable one does not.
            self._after = max(self._after, self._newest)
            self.ask(now_s)

    def next_deadline_s(self) -> float | None:
        """When `tick` has something to do, in monotonic seconds."""
        return self._idle_at_s() if self._unresolved.is_any_above(self._after) else None

    def _idle_at_s(self) -> float:
        return max(self._asked_s, self._arrived_s) + _IDLE_S

    def _put_cursor(self, step: Step, cursor: int) -> None:
        self._state.put_meta(step, replace(self._state.meta, cursor=cursor))
