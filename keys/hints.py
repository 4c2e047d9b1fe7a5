"""Which session a body is of, among many (protocol.md sections 4.2 and 4.3).

The hint in front of an ordinary body is a function of the sender's header key and the message's number: the receiver
computes the next ones of every session beforehand, so that a body finds its session by one look-up, and the relay
learns nothing from it. The index is a cache over the sessions' states: never stored, and built again by `add`.

    index = HintIndex()
    index.add(ref, session)                     for each session, when it is made or loaded
    ref = index.find(body)                      None: not of a known session, so far as 64 and 8 hints tell
    ref = index.search(body, sessions)          on such a miss, further ahead, on a budget
    index.received(ref, session, body)          after each body that opened

First bodies have no hint: the EK of their handshake names the session, and `find` knows it too.

Promised are the next 64 hints of the current and 8 of the next header key. Kept ready are at least 8 of each; `find`
widens the sessions that have moved to 64 before it gives up, which gives the same answers, at an eighth of the cost for
two people who take turns.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from keys.chain import hint_block
from keys.message import HEADER_END, SLOT_END
from keys.ratchet import Ratchet
from keys.session import Session
from wire.limits import HINT_SEARCH_MAX, HINTS_CURRENT, HINTS_NEXT, KEY_BYTES, SKIPPED_KEYS_PER_GAP_MAX

__all__ = ["HintIndex"]

R = TypeVar("R", bound=Hashable)
_HINTS_PER_BLOCK = 4


class _Window:
    """What the index holds of one session."""

    __slots__ = ("blocks_end", "current", "ephemeral", "header", "kept", "next", "next_header")

    def __init__(self) -> None:
        self.header = b""
        self.next_header = b""
        self.blocks_end = 0  # blocks of the current header key that are in the index: below this one
        self.current: dict[bytes, None] = {}
        self.next: tuple[bytes, ...] = ()
        self.kept: set[bytes] = set()  # hints of skipped messages
        self.ephemeral = b""


class HintIndex(Generic[R]):
    """Hints to session references. `R` is whatever the caller names sessions by."""

    __slots__ = ("_by_ephemeral", "_by_hint", "_moved", "_windows")

    def __init__(self) -> None:
        self._by_hint: dict[bytes, R] = {}
        self._by_ephemeral: dict[bytes, R] = {}
        self._windows: dict[R, _Window] = {}
        self._moved: dict[R, Ratchet] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def __repr__(self) -> str:
        return f"HintIndex(sessions={len(self._windows)}, hints={len(self._by_hint)})"

    # ------------------------------------------------------------------ keeping

    def add(self, ref: R, session: Session) -> None:
        """Know a session, by a reference that names it in answers; replaces what was known under it."""
        self.remove(ref)
        window = self._windows[ref] = _Window()
        if session.accepted:
            window.ephemeral = session.ephemeral
            self._by_ephemeral[session.ephemeral] = ref
        self._rebuild(ref, window, session.ratchet)

    def remove(self, ref: R) -> None:
        """Forget a session; nothing happens if it is not known."""
        window = self._windows.pop(ref, None)
        if window is None:
            return
        self._moved.pop(ref, None)
        for hints in (window.current, window.next, window.kept):
            for slot in hints:
                self._by_hint.pop(slot, None)
        self._by_ephemeral.pop(window.ephemeral, None)

    def received(self, ref: R, session: Session, body: bytes) -> None:
        """After a body has opened: forget its hint, and move the window behind the session's new state."""
        window, ratchet = self._windows[ref], session.ratchet
        slot = body[:SLOT_END]
        self._by_hint.pop(slot, None)
        if window.header is not ratchet.header_receive and window.header != ratchet.header_receive:
            self._rebuild(ref, window, ratchet)
            return
        if slot in window.current:
            # Those before it in the chain were skipped: they stay in the index until they come or expire.
            while (passed := next(iter(window.current))) != slot:
                del window.current[passed]
                window.kept.add(passed)
            del window.current[slot]
        elif slot in window.kept:
            window.kept.discard(slot)
        else:
            self._rebuild(ref, window, ratchet)
            return
        if ratchet.n_receive + HINTS_NEXT > _HINTS_PER_BLOCK * window.blocks_end:
            self._extend(ref, window, ratchet.header_receive, ratchet.n_receive, HINTS_NEXT)
        self._moved[ref] = ratchet

    def _rebuild(self, ref: R, window: _Window, ratchet: Ratchet) -> None:
        """From the session's state alone; a new chain of the peer begins with hints that the index has already."""
        for stale in (window.current, window.next, window.kept):
            for slot in stale:
                self._by_hint.pop(slot, None)
        window.current, window.kept = {}, set(ratchet.skipped)
        for slot in window.kept:
            self._by_hint[slot] = ref
        window.header, window.blocks_end = ratchet.header_receive, ratchet.n_receive // _HINTS_PER_BLOCK
        if window.header:
            self._extend(ref, window, window.header, ratchet.n_receive, HINTS_NEXT)
        if window.next_header != ratchet.next_header_receive:
            window.next_header = ratchet.next_header_receive
            window.next = tuple(
                slot
                for block in range(-(-HINTS_NEXT // _HINTS_PER_BLOCK))
                for slot in _split(hint_block(window.next_header, block))
            )
        for slot in window.next:
            self._by_hint[slot] = ref
        self._moved[ref] = ratchet

    def _extend(self, ref: R, window: _Window, header: bytes, n: int, ahead: int) -> None:
        end = -(-(n + ahead) // _HINTS_PER_BLOCK)
        for block in range(window.blocks_end, end):
            for number, slot in enumerate(_split(hint_block(header, block)), _HINTS_PER_BLOCK * block):
                if number >= n:
                    window.current[slot] = None
                    self._by_hint[slot] = ref
        window.blocks_end = max(window.blocks_end, end)

    # ------------------------------------------------------------------ finding

    def find(self, body: bytes) -> R | None:
        """The session that this body is of, by its hint or, for first bodies, its EK; None if there is none."""
        slot = body[:SLOT_END]
        ref = self._by_hint.get(slot)
        if ref is not None:
            return ref
        ref = self._by_ephemeral.get(body[HEADER_END : HEADER_END + KEY_BYTES])
        if ref is not None or not self._moved:
            return ref
        for moved, ratchet in self._moved.items():
            if ratchet.header_receive:
                self._extend(moved, self._windows[moved], ratchet.header_receive, ratchet.n_receive, HINTS_CURRENT)
        self._moved.clear()
        return self._by_hint.get(slot)

    def search(self, body: bytes, sessions: Iterable[tuple[R, Session]], hints_max: int = HINT_SEARCH_MAX) -> R | None:
        """Look further ahead than the index does, after `find` gave None: nearest hints first, all sessions in turn.

        Nothing farther than 1,000 is tried, because no message beyond that gap is accepted. `Session.decrypt` does the
        rest. A junk body costs us at most `hints_max` / 4 hashes.

        Args:
            body: the body.
            sessions: references and sessions, the likeliest first.
            hints_max: the budget, in hints.
        """
        slot = body[:SLOT_END]
        lanes: list[tuple[R, bytes, int]] = []
        for ref, session in sessions:
            ratchet = session.ratchet
            if ratchet.header_receive:
                lanes.append((ref, ratchet.header_receive, (ratchet.n_receive + HINTS_CURRENT) // _HINTS_PER_BLOCK))
            lanes.append((ref, ratchet.next_header_receive, HINTS_NEXT // _HINTS_PER_BLOCK))
        budget = hints_max // _HINTS_PER_BLOCK
        for step in range(-(-SKIPPED_KEYS_PER_GAP_MAX // _HINTS_PER_BLOCK)):
            for ref, header, first_block in lanes:
                if budget <= 0:
                    return None
                budget -= 1
                hints = hint_block(header, first_block + step)
                if slot in hints and slot in _split(hints):
                    return ref
            if not lanes:
                return None
        return None


def _split(block: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    return block[:16], block[16:32], block[32:48], block[48:]
