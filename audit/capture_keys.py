"""Keys of older suites, tried on the bodies of a capture: whoever holds one reads what passed (protocol.md section 13).

The same keys and the same openings as in a disclosure (checks/historical.py), on bodies as capture.py hands them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from audit.checks.historical import OPENERS, Opener
from audit.crypto import body_kinds
from audit.material import HistoricalKey
from audit.outcome import About, Outcome

__all__ = ["KEYS", "OlderKeys"]

KEYS: Final = About(
    "capture.keys",
    "no key of an older suite that was volunteered opens a body",
    "The historical keys that were volunteered open none of the bodies that passed: no one person's key reads them.",
    "Keys that nobody volunteered: shared ones, and those that a server keeps beside the mail: "
    "they are not in the file.",
    "13, 15.6",
)


class OlderKeys:
    """Tries keys on bodies, each envelope once.

    Args:
        keys: that were volunteered.
        outcome: takes what they open.
    """

    def __init__(self, keys: Sequence[HistoricalKey], outcome: Outcome) -> None:
        self.read = 0
        """Envelopes that any of them opens."""
        self._outcome = outcome
        self._keys: list[tuple[HistoricalKey, Opener]] = []
        self._tried: set[tuple[bytes, int]] = set()
        self._opened: Counter[tuple[str, int]] = Counter()
        for item in keys:
            opener, size = OPENERS.get(item.suite, (None, 0))
            if opener is None or len(item.key) != size:
                outcome.miss(f"a suite that is known: {item.suite:#06x} with a key of {len(item.key)} bytes is not")
            else:
                self._keys.append((item, opener))

    def take(self, envelope: tuple[bytes, int], body: bytes) -> None:
        """Try all keys on a body.

        Args:
            envelope: its mailbox, and its number there.
            body: as it passed, of any length.
        """
        if envelope in self._tried or "ordinary" not in body_kinds(len(body)):
            return
        self._tried.add(envelope)
        openers = [item for item, opener in self._keys if opener(item.key, body) is not None]
        self._opened.update({(item.who, item.suite) for item in openers})
        self.read += bool(openers)

    def conclude(self) -> None:
        """Say what was opened, when all bodies were taken."""
        tried, outcome = len(self._tried), self._outcome
        for (who, suite), opened in self._opened.items():
            outcome.fail(
                "the bodies", f"a key of suite {suite:#06x} from {who} opens {opened:,} of {tried:,} envelopes"
            )
        if not self._keys:
            outcome.nothing_to_do("no key of an older suite was volunteered")
            return
        outcome.figures.update({"keys": len(self._keys), "envelopes tried": tried, "envelopes read": self.read})
        outcome.evidence = f"{self.read:,} of {tried:,} envelopes read with {len(self._keys):,} volunteered keys"
