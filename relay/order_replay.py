"""The docket as the public log has it: each leaf about an order, done again in its order.

    leaves (tlog.py) ─┬─ a text ──────────────▶ docket
                      └─ sealed ─ OrderFiles ─▶ docket

Rules: the log is what counts. A record without a leaf is as if it had not been, and a sealed leaf says what its record
says.
"""

from collections.abc import Iterable

from relay.core.docket import Docket, Order, OrderKind, OrderState
from relay.order_files import OrderFiles
from wire.leaves import AnswerLeaf, ChangeLeaf, Leaf, OrderLeaf, SealedLeaf, preserved_until

__all__ = ["docket_of", "kept_until_s"]


def docket_of(leaves: Iterable[Leaf], files: OrderFiles) -> Docket:
    """The docket that a log's leaves make.

    Raises:
        DocketError: they do not follow from one another.
        NotFiled, FormatError: a private record is missing or damaged.
    """
    docket = Docket()
    for leaf in leaves:
        if isinstance(leaf, OrderLeaf) or (isinstance(leaf, SealedLeaf) and leaf.what == "order"):
            docket.receive(files.order(leaf.number))
        elif isinstance(leaf, AnswerLeaf) or (isinstance(leaf, SealedLeaf) and leaf.what == "answer"):
            text = leaf if isinstance(leaf, AnswerLeaf) else files.answer(leaf.number)
            until_s = kept_until_s(docket.entry(leaf.number).order, text)
            docket.answer(leaf.number, text.state == OrderState.HONOURED.value, leaf.logged_at, until_s)
        elif isinstance(leaf, SealedLeaf):
            _change(docket, files.change(leaf.number))
        elif isinstance(leaf, ChangeLeaf):
            _change(docket, leaf)
    return docket


def _change(docket: Docket, leaf: ChangeLeaf) -> None:
    if leaf.change == "extended":
        docket.extend(leaf.number, leaf.deadline, leaf.logged_at)
    elif leaf.change == "appealed":
        docket.appeal(leaf.number, leaf.logged_at)
    elif leaf.change == "capturing":
        docket.capture(leaf.number, leaf.deadline, leaf.logged_at)
    elif leaf.change == "withdrawn":
        take = docket.take_back if docket.entry(leaf.number).until_s else docket.withdraw
        take(leaf.number, leaf.logged_at)
    elif leaf.change == "released":
        docket.release(leaf.number, leaf.logged_at)


def kept_until_s(order: Order, answer: AnswerLeaf) -> int:
    """Until when an answer to a preservation keeps what it names, Unix time in seconds; 0: it is none, or refused."""
    return preserved_until(answer) if order.kind is OrderKind.PRESERVATION else 0
