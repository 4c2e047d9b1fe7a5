"""The small world of sim/world.py in its historical mode: four handsets with the global PIN key on one honest relay."""

import asyncio
import contextlib
import os
from pathlib import Path

from client.content import Kind
from relay import home as relay_home
from sim.handset import Handset
from sim.world import ABSENT, PEOPLE, Evidence, LoopbackDevices, World, draw_canaries

__all__ = ["pin_world"]


async def pin_world(folder: Path) -> tuple[Path, Evidence]:
    """Let four people write to one another under the PIN key, one of them absent; returns the relay's home at rest."""
    folder.mkdir(parents=True)
    world = World(folder, relay_home.init(folder / "relay", os.urandom, broker="mqtt://127.0.0.1:9"))
    transport = LoopbackDevices(world.network)
    evidence = Evidence(canaries=draw_canaries())
    async with world.served(), contextlib.AsyncExitStack() as stack:
        handsets = {account: Handset(account, world.home.card) for account in PEOPLE}
        for account, handset in handsets.items():
            connection = contextlib.AsyncExitStack()
            await connection.enter_async_context(handset.connected(transport))
            await handset.enrol(world.token(account))
            if account == ABSENT:
                await connection.aclose()
            else:
                stack.push_async_exit(connection)
        for canary in evidence.canaries:
            await handsets[canary.who].send((ABSENT,), Kind.CHAT, canary.text.encode())
        evidence.receipts = {
            account: [[2, *receipt, b""] for receipt in handset.receipts] for account, handset in handsets.items()
        }
        await asyncio.sleep(0)
    return world.home.path, evidence
