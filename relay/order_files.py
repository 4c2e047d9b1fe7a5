"""The private records of orders: whom an order is about, and what the log's commitments open with.

    DIR/orders/N.order  0600  order N: its leaf's text, the name in its scope, and the nonces of both commitments
    DIR/orders/N.answer 0600  the text of its answer and the nonce, where it is sealed
    DIR/orders/N.change 0600  the same of the beginning of a capture

Rules: a record is durable before the leaf that commits to it is given back, so that no leaf is ever one that nobody can
open. Whom an order names stands here and on the docket, and nowhere in the log.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from relay.core.docket import Order, OrderKind, Scope, ScopeKind
from relay.home import replace_file
from relay.logkey import bounded
from wire.codec import U64, SecretRecord, decode, encode
from wire.errors import BlindpostError
from wire.leaves import (
    NOBODY,
    NONCE_BYTES,
    AnswerLeaf,
    ChangeLeaf,
    Nonce,
    OpeningLeaf,
    OrderLeaf,
    SealedLeaf,
    commitment,
    read_leaf,
)
from wire.limits import ACCOUNT_BYTES_MAX
from wire.tiles import ENTRY_BYTES_MAX

__all__ = ["ORDERS_FOLDER", "NotFiled", "OrderFiles"]

ORDERS_FOLDER: Final = "orders"
_RECORD_BYTES_MAX: Final = 131_072


class NotFiled(BlindpostError):
    """The home has no private record of an order, or the log no such leaf."""


class _OrderRecord(SecretRecord, frozen=True):
    """N.order."""

    leaf: Annotated[bytes, Meta(max_length=ENTRY_BYTES_MAX)]
    name: Annotated[str, Meta(max_length=ACCOUNT_BYTES_MAX)]
    subject_nonce: Nonce
    seal_nonce: Nonce
    sealed: bool


class _SealedRecord(SecretRecord, frozen=True):
    """N.answer, N.change."""

    leaf: Annotated[bytes, Meta(max_length=ENTRY_BYTES_MAX)]
    seal_nonce: Nonce
    logged: U64


class OrderFiles:
    """The records of one home. Each method that reads raises as `open` does.

    Args:
        home: the home's folder.
        entropy: gives nonces.
    """

    def __init__(self, home: Path, entropy: Callable[[int], bytes]) -> None:
        self._folder = home / ORDERS_FOLDER
        self._entropy = entropy

    # ---- written

    def keep_order(self, number: int, now_s: int, order: Order, sealed: bool) -> OrderLeaf | SealedLeaf:
        """Keep an order's record; return what stands in the log: its text, or where it is sealed a commitment to it.

        Args:
            number: the order's, on the docket.
            now_s: Unix time in seconds of its leaf.
            order: what was received.
            sealed: whether the text is to be sealed.

        Raises:
            OSError: it could not be written.
        """
        subject_nonce, seal_nonce = self._entropy(NONCE_BYTES), self._entropy(NONCE_BYTES)
        subject = commitment(subject_nonce, order.scope.name.encode()) if order.scope.name else NOBODY
        leaf = OrderLeaf(
            now_s,
            number,
            order.kind.value,
            order.issuer,
            order.jurisdiction,
            order.legal_basis,
            order.received_s,
            order.deadline_s,
            order.scope.kind.value,
            subject,
            order.secret_until_s,
        )
        record = _OrderRecord(encode(leaf), order.scope.name, subject_nonce, seal_nonce, sealed)
        self._write(f"{number}.order", record)
        if not sealed:
            return leaf
        return SealedLeaf(now_s, number, "order", commitment(seal_nonce, record.leaf), order.secret_until_s)

    def keep_sealed(self, what: str, leaf: AnswerLeaf | ChangeLeaf, secret_until_s: int) -> SealedLeaf:
        """Keep a leaf as a private record; return what stands in the log in its place.

        Args:
            what: `answer` or `change`.
            leaf: the text.
            secret_until_s: as long as the order's own text is sealed; Unix time in seconds.

        Raises:
            OSError: it could not be written.
        """
        record = _SealedRecord(encode(leaf), self._entropy(NONCE_BYTES), leaf.logged_at)
        self._write(f"{leaf.number}.{what}", record)
        return SealedLeaf(leaf.logged_at, leaf.number, what, commitment(record.seal_nonce, record.leaf), secret_until_s)

    def _write(self, name: str, record: SecretRecord) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        replace_file(self._folder / name, encode(record), 0o600)

    # ---- read

    def order(self, number: int) -> Order:
        """An order as it was received."""
        record = self._record(number, "order")
        assert isinstance(record, _OrderRecord)
        leaf = read_leaf(record.leaf)
        assert isinstance(leaf, OrderLeaf)
        return Order(
            kind=OrderKind(leaf.kind),
            issuer=leaf.issuer,
            jurisdiction=leaf.jurisdiction,
            legal_basis=leaf.legal_basis,
            received_s=leaf.received_at,
            deadline_s=leaf.deadline,
            scope=Scope(ScopeKind(leaf.scope), record.name),
            secret_until_s=leaf.secret_until,
        )

    def answer(self, number: int) -> AnswerLeaf:
        """The text of an answer that is sealed in the log."""
        leaf = read_leaf(self._record(number, "answer").leaf)
        assert isinstance(leaf, AnswerLeaf)
        return leaf

    def change(self, number: int) -> ChangeLeaf:
        """The text of a change that is sealed in the log."""
        leaf = read_leaf(self._record(number, "change").leaf)
        assert isinstance(leaf, ChangeLeaf)
        return leaf

    def open(self, sealed: SealedLeaf, index: int, now_s: int) -> OpeningLeaf:
        """What opens a sealed leaf.

        Args:
            sealed: the leaf.
            index: its place in the log.
            now_s: Unix time in seconds of the opening.

        Raises:
            NotFiled: the record is missing.
            FormatError: it is damaged.
        """
        record = self._record(sealed.number, sealed.what)
        return OpeningLeaf(now_s, index, record.seal_nonce, record.leaf)

    def _record(self, number: int, what: str) -> _OrderRecord | _SealedRecord:
        path = self._folder / f"{number}.{what}"
        if not path.is_file():
            raise NotFiled(f"{path} is missing: without it the log's commitments of order {number} cannot be opened")
        data = bounded(path, path.name, _RECORD_BYTES_MAX)
        return decode(_OrderRecord, data, path.name) if what == "order" else decode(_SealedRecord, data, path.name)
