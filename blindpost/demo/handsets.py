"""The devices of the historical mode, as a process of their own: `python -m blindpost.demo.handsets`.

Four handsets of sim/handset.py, which all hold the global PIN key, driven by the story over pipes (`pipes.py`).
Each verb is a function here and a record that it takes.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from blindpost.demo.canaries import Canary, draw, write_commitments
from blindpost.demo.pipes import serve
from blindpost.files import write_new
from client.content import Kind
from client.transport import MqttTransport
from sim.handset import Handset
from sim.historical import GLOBAL_PIN_KEY, PIN_SUITE
from wire.card import RelayCard
from wire.codec import Record, decode, encode
from wire.identity import Token

__all__ = ["Enrolment", "Give", "Handsets", "Promise", "Say", "main"]


class Enrolment(Record, frozen=True):
    """`enrol`: the relay's card, and a token for each account."""

    card: str
    tokens: tuple[tuple[str, Token], ...]


class Promise(Record, frozen=True):
    """`promise`: draw canaries for these people and write the commitments to them into this file."""

    people: tuple[str, ...]
    path: str


class Say(Record, frozen=True):
    """`say`: send the canary of that index to these accounts."""

    canary: int
    recipients: tuple[str, ...]


class Give(Record, frozen=True):
    """`volunteer`: one handset gives the verifier its key, its receipts, and the openings of its commitments."""

    account: str
    path: str


class Handsets:
    """All handsets of the story."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._handsets: dict[str, Handset] = {}
        self._connections: dict[str, contextlib.AsyncExitStack] = {}
        self._canaries: list[Canary] = []

    async def enrol(self, argument: bytes) -> int:
        """Make, connect, enrol and subscribe one handset for each token; returns how many."""
        asked = decode(Enrolment, argument, "enrol")
        card = RelayCard.from_toml(asked.card)
        await asyncio.gather(*(self._enrol(card, account, token) for account, token in asked.tokens))
        return len(self._handsets)

    async def _enrol(self, card: RelayCard, account: str, token: Token) -> None:
        handset = Handset(account, card)
        connection = await self._stack.enter_async_context(contextlib.AsyncExitStack())
        await connection.enter_async_context(handset.connected(MqttTransport(card.broker)))
        await handset.enrol(token)
        await handset.subscribe()
        self._handsets[account] = handset
        self._connections[account] = connection

    async def promise(self, argument: bytes) -> int:
        """Draw the canaries and hand out the commitments; returns how many."""
        asked = decode(Promise, argument, "promise")
        self._canaries = draw(asked.people, os.urandom)
        write_commitments(self._canaries, Path(asked.path))
        return len(self._canaries)

    async def disconnect(self, argument: bytes) -> str:
        """Switch one handset off; its mail waits at the relay from now on."""
        account = decode(str, argument, "disconnect")
        await self._connections[account].aclose()
        return account

    async def say(self, argument: bytes) -> int:
        """Send a canary as a chat; returns the number of receipts."""
        asked = decode(Say, argument, "say")
        canary = self._canaries[asked.canary]
        sender = self._handsets[canary.who]
        return len(await sender.send(asked.recipients, Kind.CHAT, canary.text.encode("utf-8")))

    async def volunteer(self, argument: bytes) -> int:
        """Give what one handset has: the key that is in all of them. Returns how many items."""
        asked = decode(Give, argument, "volunteer")
        items: list[list[object]] = [[5, PIN_SUITE, GLOBAL_PIN_KEY]]
        for receipt in self._handsets[asked.account].receipts:
            items.append([2, *receipt, b""])
        for canary in self._canaries:
            if canary.who == asked.account:
                items.append([4, canary.nonce, canary.text.encode("utf-8")])
        given = encode(["blindpost/v1/volunteered", asked.account, items])
        write_new(Path(asked.path), given, secret=True)
        return len(items)


async def main() -> None:
    """Serve the story until it closes the pipe."""
    async with contextlib.AsyncExitStack() as stack:
        handsets = Handsets(stack)
        await serve(
            {
                "enrol": handsets.enrol,
                "promise": handsets.promise,
                "disconnect": handsets.disconnect,
                "say": handsets.say,
                "volunteer": handsets.volunteer,
            }
        )


if __name__ == "__main__":
    asyncio.run(main())
