"""Whom to ask the relay's directory about: accounts that write for the first time (protocol.md section 4.1).

Anybody enrolled can seal a device list of anybody's account under a key of their own, so a first message alone pins
nobody. Its account is looked up, and the tenant's activation stands behind the relay's answer; what the answer decides
is client/inbox.py's. Only a relay that lies itself can give a false first key then; safety numbers tell.

Whoever sends first messages makes this device ask, so there is a budget: each account once at a time, few under way,
and a token bucket. What is beyond it waits in its row; nothing is lost.
"""

from collections.abc import Iterable
from typing import Final

from client.link import Link
from wire.commands import LookUp

__all__ = ["LOOK_UPS_BURST", "LOOK_UPS_UNDER_WAY_MAX", "FirstContacts"]

LOOK_UPS_UNDER_WAY_MAX: Final = 16
LOOK_UPS_BURST: Final = 32
_LOOK_UPS_PER_S: Final = 1.0


class FirstContacts:
    """The look-ups of a device's incoming side.

    Args:
        link: where look-ups are asked.
        accounts: whose first messages wait already, the longest waiting first.
    """

    def __init__(self, link: Link, accounts: Iterable[str]) -> None:
        self._link = link
        self._wanted = dict.fromkeys(accounts)
        self._asked: dict[int, str] = {}
        self._left = float(LOOK_UPS_BURST)
        self._counted_s: float | None = None

    @property
    def is_asking(self) -> bool:
        """Whether a look-up is under way."""
        return bool(self._asked)

    def want(self, account: str) -> None:
        """A first message of this account waits; `ask_due` asks, as soon as the budget allows."""
        if account not in self._asked.values():
            self._wanted[account] = None

    def ask_due(self, now_s: float) -> None:
        """Ask for as many as the budget allows. `now_s` is monotonic."""
        if self._counted_s is not None:
            gained = max(0.0, now_s - self._counted_s) * _LOOK_UPS_PER_S
            self._left = min(float(LOOK_UPS_BURST), self._left + gained)
        self._counted_s = now_s
        while self._wanted and self._left >= 1 and len(self._asked) < LOOK_UPS_UNDER_WAY_MAX:
            account = next(iter(self._wanted))
            ref = self._link.ask(lambda ref, account=account: LookUp(ref, account, want_bundles=False))  # type: ignore[misc]
            del self._wanted[account]
            self._asked[ref] = account
            self._left -= 1

    def answered(self, ref: int) -> str | None:
        """The account that was asked for under this ref, once; None where it was not asked here."""
        return self._asked.pop(ref, None)

    def next_deadline_s(self) -> float | None:
        """When `ask_due` has something to do, in monotonic seconds."""
        if not self._wanted or self._counted_s is None or len(self._asked) >= LOOK_UPS_UNDER_WAY_MAX:
            return None
        # A millisecond more, so that the bucket is not found a rounding error short of full.
        return self._counted_s + max(0.0, 1 - self._left) / _LOOK_UPS_PER_S + 0.001
