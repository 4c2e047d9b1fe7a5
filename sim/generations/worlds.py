"""The same four people, the same mail and the same order, on one relay under each historical generation.

    served = await historical(folder, protection, database)      handsets, as in sim/pin_world.py
    served = await blindpost(folder)                             the real client

Every text reaches its reader and is acknowledged, or waits for the one who is off. All bodies are recorded, since
a seized device is asked for what is long erased at the relay.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import relay
from client.content import Kind
from relay import home as relay_home
from sim.experiments.recorded import Recorded, recording
from sim.handset import Handset, Protection
from sim.mutants import relay_side
from sim.world import ABSENT, PEOPLE, Canary, Evidence, LoopbackDevices, Served, World, draw_canaries
from wire.codec import encode

__all__ = ["Written", "blindpost", "historical", "serve"]

_ROOT: Final = Path(relay.__file__).resolve().parent.parent
_WAIT_S: Final = 20.0
_PROCESS_S_MAX: Final = 60.0
SEIZED: Final = "bilal@acme.example"
"""Whose device is seized afterwards."""


@dataclass(repr=False)
class Written:
    """A world at rest.

    Attributes:
        home: the relay's.
        evidence: commitments, receipts.
        recorded: every body that was ever stored, with whose mailbox it went to.
        read_before: texts that were delivered to the seized device and acknowledged.
        private: of each account, what is found on its device: the handset's keys.
    """

    home: Path
    evidence: Evidence
    recorded: list[tuple[str, Recorded]] = field(default_factory=list)
    read_before: list[bytes] = field(default_factory=list)
    handsets: dict[str, Handset] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Written(recorded={len(self.recorded)}, read_before={len(self.read_before)})"


def past_texts() -> list[bytes]:
    """What is written to the device that will be seized, and read there, before the order."""
    return [f"what was said and read before, number {number}".encode() for number in range(3)]


async def historical(folder: Path, protection: Protection) -> Written:
    """Four handsets with one protection."""
    folder.mkdir(parents=True)
    world = World(folder, relay_home.init(folder / "relay", os.urandom, broker="mqtt://127.0.0.1:9"))
    transport = LoopbackDevices(world.network)
    written = Written(world.home.path, Evidence(canaries=draw_canaries()))
    with recording() as kept:
        async with world.served(), contextlib.AsyncExitStack() as stack:
            for account in PEOPLE:
                handset = written.handsets[account] = Handset(account, world.home.card, protection=protection)
                connection = contextlib.AsyncExitStack()
                await connection.enter_async_context(handset.connected(transport))
                await handset.enrol(world.token(account))
                if account == ABSENT:
                    await connection.aclose()
                else:
                    stack.push_async_exit(connection)
            await written.handsets[SEIZED].subscribe()
            for text in past_texts():
                await written.handsets["ana@acme.example"].send((SEIZED,), Kind.CHAT, text)
            await asyncio.wait_for(written.handsets[SEIZED].wait_received(len(past_texts())), _WAIT_S)
            written.read_before = [message.payload for message in written.handsets[SEIZED].received]
            for canary in written.evidence.canaries:
                await written.handsets[canary.who].send((ABSENT,), Kind.CHAT, canary.text.encode())
            await _acknowledged(kept.acknowledged, len(past_texts()))
        written.evidence.receipts = {
            account: [[2, *receipt, b""] for receipt in handset.receipts]
            for account, handset in written.handsets.items()
        }
        boxes = {handset.device.mailbox: account for account, handset in written.handsets.items()}
        written.recorded = [(boxes[recorded.mailbox], recorded) for recorded in kept.bodies]
    return written


async def _acknowledged(acknowledged: set[bytes], count: int) -> None:
    async with asyncio.timeout(_WAIT_S):
        # The store tells nobody that it has erased something.
        while len(acknowledged) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def blindpost(folder: Path) -> tuple[Written, Path]:
    """The real client; also a copy of the seized device's home."""
    with recording() as kept:
        async with World.start(folder) as world:
            written = Written(world.home.path, world.evidence)
            boxes = kept.mailboxes(world)
            for text in past_texts():
                await world.say("ana@acme.example", (SEIZED,), text.decode())
                (message,) = await world.devices[SEIZED].receive(_WAIT_S, kinds={Kind.CHAT})
                written.read_before.append(message.payload)
            await asyncio.gather(*(device.idle(_WAIT_S) for device in world.devices.values()))
            await world.talk()
            await world.switch_off(SEIZED)
            seized = shutil.copytree(folder / "bilal", folder / "seized")
            await world.switch_on(SEIZED)
        written.recorded = [(boxes[recorded.mailbox], recorded) for recorded in kept.bodies]
    return written, seized


def serve(written: Written, out: Path, database: Mapping[bytes, bytes] | None = None) -> Served:
    """The order, served by a relay's process of its own on a copy of the home.

    Args:
        written: the world.
        out: the folder of the answer, which is made.
        database: keys by mailbox that a hosted server keeps beside the mail.
    """
    home = shutil.copytree(written.home, out.with_name(out.name + "-home"))
    spoils = out.with_name(out.name + "-spoils.json")
    keys = [(mailbox.hex(), key.hex()) for mailbox, key in sorted((database or {}).items())]
    spoils.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    out.mkdir(mode=0o700)
    requested_at = int(time.time())
    script = Path(__file__).with_name("relay_hosted.py") if database else Path(relay_side.__file__)
    cheat = "keys-in-database" if database else "honest"
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    subprocess.run(
        [sys.executable, "-P", str(script.resolve()), cheat, str(home), str(out), str(spoils)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        timeout=_PROCESS_S_MAX,
    )
    order = f"requested_at = {requested_at}\nreceived_at = {int(time.time()) + 1}\n".encode()
    card = (written.home / "relay-card.toml").read_bytes()
    return Served(out, card, written.evidence.commitments, volunteered(written.evidence), order)


def volunteered(evidence: Evidence, more: list[object] | None = None) -> list[bytes]:
    """What people give: receipts and the openings of commitments; `more` is one item of the absent one."""
    files = []
    for who in PEOPLE:
        items: list[object] = [*evidence.receipts.get(who, [])]
        items += [[4, canary.nonce, canary.text.encode()] for canary in _of(evidence.canaries, who)]
        if who == ABSENT:
            items += [*evidence.openings, *([more] if more else [])]
        files.append(encode(["blindpost/v1/volunteered", who, items]))
    return files


def _of(canaries: list[Canary], who: str) -> list[Canary]:
    return [canary for canary in canaries if canary.who == who]
