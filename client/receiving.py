"""Handing a program what has arrived, and what it says of it afterwards: taken, read.

Opening and keeping is client/inbox.py's; the rows, and reading them without the loop, are client/kept.py's.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress

from client import kept
from client.content import Kind as ContentKind
from client.errors import Unknown
from client.kept import kept_name, message_of, names_untaken
from client.message import Message
from client.running import Running

__all__ = ["mark_read", "mark_taken", "receive"]


async def receive(
    running: Running, wait_s: float, *, take: bool, messages_max: int, kinds: Collection[ContentKind]
) -> list[Message]:
    """Messages that have arrived and were not taken yet, in the order of their arrival.

    Args:
        running: the device.
        wait_s: how long to wait for the first one, in seconds.
        take: mark them as taken before they are returned.
        messages_max: how many at most.
        kinds: leave messages of other kinds where they are.
    """
    if wait_s > 0:
        with suppress(Unknown):
            await running.within(_arrival(running, kinds), "receive", wait_s)
    names = names_untaken(running.engine.inbox.untaken, kinds)
    found = (message_of(running.state, name) for name in names[:messages_max])
    messages = [message for message in found if message is not None]
    if take:
        mark_taken(running, messages)
    return messages


async def _arrival(running: Running, kinds: Collection[ContentKind]) -> None:
    while not names_untaken(running.engine.inbox.untaken, kinds):
        running.engine.arrived.clear()
        await running.engine.arrived.wait()


def mark_taken(running: Running, messages: Iterable[Message]) -> None:
    """These are safe with the program; `receive` returns them no more."""
    taken = tuple(messages)
    with running.store.step() as step:
        kept.mark_taken(step, running.store, taken)
    for message in taken:
        running.engine.inbox.untaken.pop(kept_name(message.account, message.message_id), None)


def mark_read(running: Running, messages: Iterable[Message]) -> None:
    """The person has read these: in the same step senders get an R notice, once."""
    with running.store.step() as step:
        for account, message_ids in kept.mark_read(step, running.state, messages).items():
            running.engine.inbox.notify(step, ContentKind.READ, account, message_ids)
    running.engine.wake()
