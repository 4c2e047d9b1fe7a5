"""The end of a preservation: by its day, or because the authority takes the order back; the log says so either way.

What the log says has happened: the leaf `released` comes after the relay has erased what it kept. Where another order
about the same mailbox stands, it goes on under that one, and the first has ended all the same.
"""

import os
from pathlib import Path

from relay.asking import preserving_still, release_held
from relay.control import Standing
from relay.core.docket import OrderState
from relay.orders import Desk, Filed
from relay.process import now_s

__all__ = ["release", "settle"]


def settle(desk: Desk) -> list[Filed]:
    """Log the end of each preservation that has ended since somebody was last at the desk.

    The relay is asked only where there is one. What it has not erased yet is left to the next command, and so is a
    sealed order until it is opened: the leaf would tell what it had asked for.

    Raises:
        BlindpostError: the relay refused, or the log cannot be written.
        OSError: the same.
    """
    withdrawn = OrderState.WITHDRAWN
    ended = [entry for entry in desk.ended() if entry.state is withdrawn or not desk.is_closed(entry.number)]
    if not ended:
        return []
    path = desk.home.path
    still = set(preserving_still(path))
    for entry in ended:
        if entry.state is withdrawn and (leaf := desk.order_index(entry.number)) in still:
            # A crash came between its leaf and the relay.
            release_held(path, leaf, _standing(desk))
            still.discard(leaf)
    over = [entry.number for entry in ended if desk.order_index(entry.number) not in still]
    return [desk.release(number) for number in over if not desk.is_closed(number)]


def release(home: Path, number: int) -> tuple[Filed, Filed | None]:
    """The authority takes a preservation back before its day: log it, have the relay erase, log that it did.

    Returns:
        the withdrawal, and the end; None while the order is sealed.

    Raises:
        DocketError: it is no preservation that holds.
        BlindpostError: the relay refused; the withdrawal stands, and the next command at the desk goes on from there.
        OSError: the log could not be written.
    """
    with Desk.at(home, now_s, os.urandom) as desk:
        settle(desk)
        taken_back = desk.take_back(number)
        release_held(home, desk.order_index(number), _standing(desk))
        return taken_back, None if desk.is_closed(number) else desk.release(number)


def _standing(desk: Desk) -> tuple[Standing, ...]:
    return tuple(
        Standing(entry.order.scope.kind.value, entry.order.scope.name, entry.until_s, desk.order_index(entry.number))
        for entry in desk.standing()
    )
