"""The account of a load: what was sent, what was receipted, what arrived. A run whose account does not close fails.

Rules:
- every receipt is verified as it arrives: the header's signature once for each commit, and the inclusion path of
  every envelope up to the root (protocol.md section 5.2), with the hash of the body that was sent;
- an envelope that arrives must be one that was sent, for that mailbox, with that very body;
- the same envelope under two numbers, or two envelopes of a mailbox under one number, is a doubled one; the same
  delivery twice is the protocol's repetition (section 6.4), and is counted;
- at the end everything that was sent has one receipt and was delivered under the receipt's number.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256

from benchmarks.load.link import LoadLink
from benchmarks.load.parties import Mail
from wire.commands import Delivery, Receipts
from wire.errors import BlindpostError, FormatError, SignatureError
from wire.receipt import CommitHeader, leaf_hash, verify_header

__all__ = ["Ledger", "LostOrDoubled"]

_COMMITS_KEPT = 64


class LostOrDoubled(Exception):
    """An envelope was lost, doubled or changed, or a receipt is false: the run has no figures."""


class _Commit:
    """One commit whose header is verified, and the subtrees that were proven to lie under its root."""

    def __init__(self, header: CommitHeader) -> None:
        self.header = header
        self.proven: set[tuple[int, int, bytes, bytes]] = set()

    def prove(self, leaf: bytes, index: int, path: bytes) -> None:
        """Verify an inclusion path (RFC 9162 section 2.1.3.2), without hashing again what an earlier path has proven.

        A node is proven with all that follows it: the rest of the path must be the very bytes that led to the root.

        Raises:
            FormatError, SignatureError: as `wire.merkle.verify_path`.
        """
        node, last = index, self.header.leaf_count - 1
        if not 0 <= node <= last or len(path) % 32:
            raise FormatError("inclusion path", "has a place or a length that cannot be")
        result, position, passed = leaf, 0, []
        while True:
            key = node, last, result, path[position:]
            if key in self.proven:
                break
            passed.append(key)
            if position == len(path):
                if last:
                    raise FormatError("inclusion path", "is shorter than the tree is high")
                if result != self.header.root:
                    raise SignatureError("inclusion path")
                break
            if not last:
                raise FormatError("inclusion path", "is longer than the tree is high")
            sibling = path[position : position + 32]
            position += 32
            if node & 1 or node == last:
                result = sha256(b"\x01" + sibling + result).digest()
                while not node & 1 and node:
                    node >>= 1
                    last >>= 1
            else:
                result = sha256(b"\x01" + result + sibling).digest()
            node >>= 1
            last >>= 1
        self.proven.update(passed)


class Ledger:
    """What one load process sent and heard.

    Args:
        relay_key: signs the receipts.
        acknowledge: whether deliveries are acknowledged at once.
    """

    def __init__(self, relay_key: bytes, acknowledge: bool = True) -> None:
        self._relay_key = relay_key
        self.acknowledge = acknowledge
        self.mails: list[Mail] = []
        self.sent = 0
        self.receipted_count = 0
        self.delivered_count = 0
        self.redelivered = 0
        self.receipted_ns: list[int] = []
        self.delivered_ns: list[int] = []
        self.on_receipted: Callable[[int], None] | None = None
        self.on_delivered: Callable[[], None] | None = None
        self._numbers: list[int] = []
        self._arrived_as: list[int] = []
        self._by_id: dict[bytes, int] = {}
        self._of_ref: dict[tuple[int, int], Sequence[int]] = {}
        self._open: dict[tuple[int, int], int] = {}
        self._commits: OrderedDict[bytes, _Commit] = OrderedDict()
        self._taken: set[tuple[bytes, int]] = set()

    def add(self, mail: Mail) -> int:
        """Write down an envelope that will be sent; returns its place."""
        place = len(self.mails)
        self.mails.append(mail)
        self.receipted_ns.append(0)
        self.delivered_ns.append(0)
        self._numbers.append(0)
        self._arrived_as.append(0)
        self._by_id[mail.envelope.envelope_id] = place
        return place

    def submitting(self, link: LoadLink, ref: int, places: Sequence[int]) -> None:
        """These envelopes are in the submit of that ref."""
        self._of_ref[id(link), ref] = places
        self._open[id(link), ref] = len(places)

    # ---- Observer

    def receipted(self, link: LoadLink, receipts: Receipts) -> None:
        """Verify receipts and write them down.

        Raises:
            LostOrDoubled: one is false, or of nothing that was sent.
        """
        commit = self._commit(receipts)
        now_ns = time.monotonic_ns()
        for entry in receipts.entries:
            key = id(link), entry.ref
            places = self._of_ref.get(key)
            if places is None or entry.position >= len(places):
                raise LostOrDoubled("a receipt of something that was not sent")
            place = places[entry.position]
            envelope, body_hash = self.mails[place].envelope, self.mails[place].body_hash
            leaf = leaf_hash(envelope.mailbox, envelope.envelope_id, envelope.expiry, entry.number, body_hash)
            try:
                commit.prove(leaf, entry.leaf, entry.path)
            except BlindpostError as error:
                raise LostOrDoubled(f"a receipt is false: {error}") from error
            if self._numbers[place]:
                if self._numbers[place] != entry.number:
                    raise LostOrDoubled("an envelope has two receipts under two numbers")
                link.answered(entry.ref)
                continue
            self._numbers[place] = entry.number
            self.receipted_ns[place] = now_ns
            self.receipted_count += 1
            self._open[key] -= 1
            if not self._open[key]:
                link.answered(entry.ref)
            if self.on_receipted is not None:
                self.on_receipted(place)

    def delivered(self, link: LoadLink, delivery: Delivery) -> list[bytes]:
        """Write down deliveries; returns what to acknowledge.

        Raises:
            LostOrDoubled: an envelope that was not sent, to another mailbox, with another body, or twice.
        """
        now_ns = time.monotonic_ns()
        tokens = []
        for one in delivery.envelopes:
            place = self._by_id.get(one.envelope_id)
            if place is None:
                raise LostOrDoubled("an envelope that was not sent arrived")
            mail = self.mails[place]
            if mail.envelope.mailbox != delivery.mailbox or mail.envelope.expiry != one.expiry:
                raise LostOrDoubled("an envelope arrived in another mailbox, or with another expiry")
            if sha256(one.body).digest() != mail.body_hash:
                raise LostOrDoubled("an envelope arrived with another body")
            if self._arrived_as[place]:
                if self._arrived_as[place] != one.number:
                    raise LostOrDoubled("an envelope arrived under two numbers: it was stored twice")
                self.redelivered += 1
            else:
                if (delivery.mailbox, one.number) in self._taken:
                    raise LostOrDoubled("two envelopes arrived under one number")
                self._taken.add((delivery.mailbox, one.number))
                self._arrived_as[place] = one.number
                self.delivered_ns[place] = now_ns
                self.delivered_count += 1
            tokens.append(mail.token)
        if self.on_delivered is not None:
            self.on_delivered()
        return tokens if self.acknowledge else []

    def _commit(self, receipts: Receipts) -> _Commit:
        known = self._commits.get(receipts.signature + receipts.header)
        if known is None:
            try:
                known = _Commit(verify_header(self._relay_key, receipts.header, receipts.signature))
            except BlindpostError as error:
                raise LostOrDoubled(f"a commit's header is false: {error}") from error
            self._commits[receipts.signature + receipts.header] = known
            if len(self._commits) > _COMMITS_KEPT:
                self._commits.popitem(last=False)
        return known

    # ---- the end

    def close(self, delivered: bool = True) -> None:
        """Check that the account closes.

        Args:
            delivered: whether everything was to arrive in this run.

        Raises:
            LostOrDoubled: it does not.
        """
        sent = self.sent
        if self.receipted_count != sent:
            raise LostOrDoubled(f"{self.receipted_count} receipts for {sent} envelopes")
        if not delivered:
            return
        if self.delivered_count != sent:
            raise LostOrDoubled(f"{self.delivered_count} of {sent} envelopes arrived")
        for place in range(sent):
            if self._numbers[place] != self._arrived_as[place]:
                raise LostOrDoubled("an envelope arrived under another number than its receipt's")
