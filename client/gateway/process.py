"""The gateway's process: puts home, gateway, way to the broker and socket together, and takes them apart.

`serve` is what `python -m client.gateway run` does. The process loads no module of keys/ and nothing of a device
(import-linter and a test see to it), and logs nothing of who says what to whom.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from client.gateway.home import GatewayHome
from client.gateway.limits import GatewayLimits
from client.gateway.server import GatewayServer
from client.gateway.service import Gateway
from client.gateway.upstream import Upstream

__all__ = ["serve"]


async def serve(home: GatewayHome, ready: Callable[[], None]) -> None:
    """Carry devices until SIGTERM or SIGINT.

    Args:
        home: the home; its lock is taken.
        ready: called when devices are taken.

    Raises:
        HomeInUse: another process serves this home.
        HomeInvalid: a certificate is missing or cannot be used.
        OSError: the address cannot be listened on.
    """
    with home.locked():
        await _serve_locked(home, ready)


async def _serve_locked(home: GatewayHome, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell_fault)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    home.write_card()
    limits = replace(GatewayLimits(), links_max=home.usable_links())
    upstream = Upstream(home.config.broker, home.links_path)
    tls = home.listen_context()
    async with (
        Gateway(home.relay_card, home.load_seed(), upstream, random=os.urandom, limits=limits) as gateway,
        GatewayServer(gateway, home.config.listen, tls),
    ):
        ready()
        ends = [asyncio.create_task(stopping.wait()), asyncio.create_task(gateway.failed.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()


def _tell_fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The usual handler prints what tasks hold; of a connection that failed nothing is told but the kind of fault."""
    kind = type(context.get("exception")).__name__
    print(f"gateway: {kind} in the background; the device concerned connects again", file=sys.stderr)
