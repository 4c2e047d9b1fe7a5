"""The gateway's process: puts home, gateway, way to the broker and socket together, and takes them apart.

`serve` is what `python -m client.gateway run` does. The process loads no module of keys/ and nothing of a device
(import-linter and a test see to it), and logs nothing of who says what to whom. SIGUSR1 prints its figures: how
many, and never who.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Final

from client.gateway.home import GatewayHome
from client.gateway.limits import GatewayLimits
from client.gateway.server import GatewayServer, ServerLimits
from client.gateway.service import Gateway
from client.gateway.upstream import Upstream

__all__ = ["serve"]

# Links, the lock, the loop, and what the libraries hold.
_OTHER_FILES: Final = 256


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
        GatewayServer(gateway, home.config.listen, tls, _server_limits()) as server,
    ):
        loop.add_signal_handler(signal.SIGUSR1, _tell_figures, gateway, server)
        ready()
        ends = [asyncio.create_task(stopping.wait()), asyncio.create_task(gateway.failed.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()


def _server_limits() -> ServerLimits:
    """As many connections as usual, or as the system allows this process open files."""
    limits = ServerLimits()
    wanted = limits.connections_max + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return replace(limits, connections_max=max(1, allowed - _OTHER_FILES))


def _tell_figures(gateway: Gateway, server: GatewayServer) -> None:
    up = sum(lane.link.up for lane in gateway.lanes)
    figures = {"devices": len(gateway.members), "links": len(gateway.lanes), "links_up": up} | asdict(server.counters)
    print("figures", *(f"{name}={value}" for name, value in figures.items()), flush=True)


def _tell_fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The usual handler prints what tasks hold; of a connection that failed nothing is told but the kind of fault."""
    kind = type(context.get("exception")).__name__
    print(f"gateway: {kind} in the background; the device concerned connects again", file=sys.stderr)
