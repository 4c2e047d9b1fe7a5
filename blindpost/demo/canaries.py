"""Canaries: texts that nobody has ever written before, and the commitments to them (protocol.md section 12.1).

A canary is drawn after the relay was started, in the process of the devices, and handed to the verifier as a hash of 32
random bytes and the text. When the commitment is opened later, after the disclosure, everybody can see that this text
was meant from the start; and since no file of this project holds it, it can be in the disclosure only if a message
brought it there.
"""

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from wire.codec import Hash, Record, encode
from wire.hashing import label

__all__ = ["SENTENCES_COUNT", "Canary", "draw", "write_commitments"]

# Each with a number that was drawn: 16 digits, 53 bits, so that no two runs and no two people share a text.
_SENTENCES: Final = (
    "The spare shuttles are behind the blue door in hall 3; the lock opens with {}.",
    "If the minister calls, we never ordered forty. The true count stands under {}.",
    "Dinner on Friday at eight, at the place by the Vieux-Port. Say table {}.",
    "The cat came out of crate 17 and is named Sultan. Her papers have number {}.",
    "Our offer goes to 2.4 million, not a rupee more. The sealed copy is {}.",
    "I am not at the office this week. Reach me at the other place, extension {}.",
    "They asked me for the messages. I said what is true, that I cannot. Minutes: {}.",
    "قل لدوود إن القطة بخير، والرقم هو {}.",
)


SENTENCES_COUNT: Final = len(_SENTENCES)


class Canary(Record, frozen=True):
    """A text, who will send it, and the nonce of its commitment; secret until it is opened."""

    who: str
    nonce: Hash
    text: str

    def __repr__(self) -> str:
        return f"Canary(who={self.who!r}, nonce=<redacted>, text=<redacted>)"

    @property
    def commitment(self) -> bytes:
        """SHA-256(L("canary") ‖ nonce ‖ text)."""
        return sha256(label("canary") + self.nonce + self.text.encode("utf-8")).digest()


def draw(people: Sequence[str], entropy: Callable[[int], bytes] = os.urandom) -> list[Canary]:
    """One fresh canary for each sentence, written by these people in turn."""
    return [
        Canary(people[index % len(people)], entropy(32), sentence.format(_number(entropy)))
        for index, sentence in enumerate(_SENTENCES)
    ]


def write_commitments(canaries: Sequence[Canary], path: Path) -> None:
    """Write the file that the verifier gets before the first message."""
    items = [[canary.commitment, canary.who] for canary in canaries]
    path.write_bytes(encode(["blindpost/v1/commitments", items]))


def _number(entropy: Callable[[int], bytes]) -> str:
    digits = f"{int.from_bytes(entropy(8), 'big') % 10**16:016d}"
    return " ".join(digits[start : start + 4] for start in range(0, 16, 4))
