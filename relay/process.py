"""The relay's process: puts home, keys, store, core, broker, transport and control together, and takes them apart.

`serve` is what `python -m relay run` does. `at_rest` opens the same parts without a broker, for a relay that
does not run: the operator's commands then work on its store directly, under the home's lock.
"""

import asyncio
import contextlib
import gc
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from relay.capturing import Capturing
from relay.control import (
    Answer,
    CapturedRequest,
    CaptureRequest,
    Connection,
    ContentRequest,
    ControlServer,
    DiscloseRequest,
    Done,
    EndCaptureRequest,
    EndRequest,
    FindRequest,
    NotRunning,
    Peer,
    PreserveRequest,
    PreservingRequest,
    ReleaseRequest,
    Request,
    SealRequest,
    Status,
    StatusRequest,
    StopRequest,
    TenantAddRequest,
    status_of,
)
from relay.core import RelayCore
from relay.core.docket import Scope, ScopeKind
from relay.disclosure import Discloser, end_order, serve_order
from relay.holdings import content, found, preserve
from relay.home import Home
from relay.log import RelayLog
from relay.releasing import preserving, release
from relay.service import RelayService, head_of
from relay.store.sqlite import SqliteStore
from relay.transport import RelayTransport
from relay.transport.loopback import Network
from relay.transport.loopback import Transport as LoopbackTransport
from wire.broker_tls import client_context

T = TypeVar("T")

# A batch allocates some ten thousand objects that all die with it: not worth a look in between.
_GC_OBJECTS = 50_000


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def now_s() -> int:
    """Unix time in seconds."""
    return time.time_ns() // 1_000_000_000


def assemble(home: Home, transport: RelayTransport) -> tuple[RelayService, Discloser]:
    """Open store and log of a home whose lock is held, and make the service.

    Raises:
        StoreError: the store cannot be opened, or is of another relay.
        FormatError: keys, or what the store holds, are damaged.
    """
    keys = home.load_keys()
    partition = home.config.partition
    store = SqliteStore(home.store_path, keys.relay_id, partition)
    try:
        snapshot = store.load()
        core = RelayCore(home.config.core, keys.identity(partition), snapshot, secrets.token_bytes)
        log = RelayLog(home.log_path, now_ms)
        # The clock may have been put back since the newest disclosure, whose date is in the log.
        core.not_before(log.time_s * 1_000)
        core.end_service(home.ended_tenants())
    except BaseException:
        store.close()
        raise
    service = RelayService(core, store, transport, log, now_ms, head_of(snapshot))
    return service, Discloser(home, keys, service, now_s, secrets.token_bytes)


def transport_of(home: Home) -> RelayTransport:
    """The transport that the home's broker asks for; only its library is loaded.

    Raises:
        TlsInvalid: the home's certificates for the broker cannot be used.
    """
    address = home.config.address
    # Seeds no key: it spreads the pauses between attempts to reach the broker.
    rng = random.Random(secrets.randbits(64))  # noqa: S311
    tls = client_context(home.path) if address.tls else None
    if address.nats:
        from relay.transport import nats  # noqa: PLC0415

        return nats.Transport(address, home.card.relay_id, rng, tls)
    from relay.transport import mqtt  # noqa: PLC0415

    return mqtt.Transport(address, home.card.relay_id, rng, tls)


async def serve(home: Home, ready: Callable[[], None]) -> None:
    """Serve links until SIGTERM or SIGINT, or until the control socket says stop.

    Args:
        home: the home; its lock is taken.
        ready: called when links are taken.

    Raises:
        HomeBusy: another process serves this home.
        ListenFailed: the broker's address is in use.
        StoreError, FormatError: the home is damaged.
    """
    with home.locked():
        await _serve_locked(home, ready)


async def _serve_locked(home: Home, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    address = home.config.address
    transport = transport_of(home)
    with _calm_collector():
        service, discloser = assemble(home, transport)
    capturing = Capturing(service, now_ms)
    service.log.started(os.getpid(), home.config.partition)
    broker = None
    if home.config.listen is not None:
        # Late: with another broker, amqtt is never loaded.
        from relay.transport.broker import EmbeddedBroker  # noqa: PLC0415

        broker = EmbeddedBroker(address)
    shutdown: asyncio.Task[None] | None = None

    def stop() -> None:
        nonlocal shutdown
        if shutdown is None:
            shutdown = loop.create_task(end())

    async def end() -> None:
        # First the socket: an order under way is abandoned, and lets go of the store.
        await control.close()
        service.stop()

    async def serve_request(peer: Peer, request: Request) -> Answer:
        if isinstance(request, StatusRequest):
            return status(service, transport)
        if isinstance(request, TenantAddRequest):
            await service.admit_tenant(request.domain, request.admin_key)
            return Done()
        if isinstance(request, DiscloseRequest | SealRequest):
            return await serve_order(discloser, peer, request)
        if isinstance(request, FindRequest):
            return await found(service, Scope(ScopeKind(request.scope), request.name))
        if isinstance(request, ContentRequest):
            return await content(service, Scope(ScopeKind(request.scope), request.name), request.after)
        if isinstance(request, EndRequest):
            service.core.end_service(request.domains)
            home.end_tenants(request.domains)
            return Done()
        if isinstance(request, PreserveRequest):
            scope = Scope(ScopeKind(request.scope), request.name)
            return await preserve(service, scope, request.until, request.leaf)
        if isinstance(request, PreservingRequest):
            return await preserving(service)
        if isinstance(request, ReleaseRequest):
            await release(service, request.leaf, request.standing)
            return Done()
        if isinstance(request, CaptureRequest | CapturedRequest | EndCaptureRequest):
            return await capturing.serve(peer, request)
        assert isinstance(request, StopRequest)
        loop.call_later(0.05, stop)
        return Done()

    async def ended(peer: Peer) -> None:
        capturing.ended(peer)
        await end_order(discloser, peer)

    control = ControlServer(home.socket_path, serve_request, ended)

    async def on_ready() -> None:
        ready()

    def fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The usual handler prints what tasks hold. A broker's task that fails while everything ends is no news.
        if shutdown is None:
            kind = type(context.get("exception")).__name__
            print(f"relay: {kind} in the background; what it concerned is repeated", file=sys.stderr)

    loop.set_exception_handler(fault)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        if broker is not None:
            await broker.start()
        await discloser.rotate_if_due()
        await control.start()
        await service.run(on_ready)
    finally:
        await control.close()
        await service.close()
        discloser.close()
        if broker is not None:
            await broker.stop()
        if shutdown is not None:
            await asyncio.gather(shutdown, return_exceptions=True)


@contextlib.contextmanager
def _calm_collector() -> Iterator[None]:
    """Let Python look for cycles seldom, and never among what is loaded meanwhile: a million envelopes have none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 100)


@contextlib.asynccontextmanager
async def at_rest(home: Home) -> AsyncIterator[tuple[RelayService, Discloser]]:
    """The parts of a relay that does not run, under the home's lock; closed at the end.

    Raises:
        HomeBusy: it runs after all, or another command works on it.
    """
    with home.locked():
        service, discloser = assemble(home, LoopbackTransport(Network()))
        try:
            await discloser.rotate_if_due()
            yield service, discloser
        finally:
            await service.close()
            discloser.close()


async def stepped(service: RelayService, work: Coroutine[object, object, T]) -> T:
    """Run a coroutine that waits for commits to its end at a relay that is not served."""
    task = asyncio.create_task(work)
    while not task.done():
        await asyncio.sleep(0.01)
        await service.step()
    return await task


def tenant_add(path: Path, domain: str, admin_key: bytes) -> None:
    """Admit a company to the relay of a home, running or not; durable on return.

    Raises:
        ControlError: the running relay refused.
        FormatError: the domain or key is malformed, or the domain has another key.
        HomeError: there is no relay's home.
    """
    home = Home.open(path)
    try:
        with Connection(home.socket_path) as connection:
            connection.request(TenantAddRequest(domain, admin_key))
    except NotRunning:
        run_apart(_tenant_add_at_rest(home, domain, admin_key))


async def _tenant_add_at_rest(home: Home, domain: str, admin_key: bytes) -> None:
    async with at_rest(home) as (service, _):
        admitted = asyncio.create_task(service.admit_tenant(domain, admin_key))
        await asyncio.sleep(0)
        await service.step()
        await admitted


def disclose_at_rest(path: Path, out: Path) -> int:
    """Hand over the store of a relay that does not run; returns how many files are on the manifest.

    Raises:
        HomeBusy: it runs.
        OrderRefused: `out` is not empty.
    """
    home, out = Home.open(path), out.absolute()

    async def disclose() -> int:
        async with at_rest(home) as (_, discloser):
            order = await discloser.begin(out, memory=False, tracer_pid=None)
            return (await discloser.seal(order)).files

    return run_apart(disclose())


def run_apart(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end in a loop of its own; also for callers that have a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def status(service: RelayService, transport: RelayTransport) -> Status:
    """The figures of a running relay, for the operator."""
    moved = transport.counters
    more = {f"transport_{name}": int(getattr(moved, name)) for name in moved.__dataclass_fields__}
    more["head_index"] = service.head[0]
    more["log_lines_lost"] = service.log.lost
    return status_of(service.counters, more)
