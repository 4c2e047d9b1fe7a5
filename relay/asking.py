"""The operator's side of orders that are no disclosure: ask a relay that runs, or open the store of one that does not.

Each function does the same either way; what is asked of a running relay goes over its control socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relay.control import (
    Connection,
    Content,
    ContentRequest,
    EndRequest,
    FindRequest,
    Found,
    NotRunning,
    PreserveRequest,
    Preserving,
    PreservingRequest,
    ReleaseRequest,
    Standing,
)
from relay.core.docket import Scope
from relay.holdings import content, found, preserve
from relay.home import Home
from relay.process import at_rest, stepped
from relay.process import run_apart as _run
from relay.releasing import preserving, release

__all__ = ["end_service", "find_held", "held_content", "preserve_held", "preserving_still", "release_held"]


def find_held(path: Path, scope: Scope) -> Found:
    """What the relay of a home, running or not, holds about a scope.

    Raises:
        ControlError: the running relay refused.
        HomeError: there is no relay's home.
    """
    home = Home.open(path)
    try:
        with Connection(home.socket_path) as connection:
            answer = connection.request(FindRequest(scope.kind.value, scope.name))
    except NotRunning:
        return _run(_found_at_rest(home, scope))
    assert isinstance(answer, Found)
    return answer


def held_content(path: Path, scope: Scope) -> Iterator[Content]:
    """All undelivered envelopes of a scope at the relay of a home, running or not, in pieces.

    Raises:
        ControlError: the running relay refused.
        HomeError: there is no relay's home.
    """
    home, after = Home.open(path), 0
    while True:
        try:
            with Connection(home.socket_path) as connection:
                piece = connection.request(ContentRequest(scope.kind.value, scope.name, after))
        except NotRunning:
            piece = _run(_content_at_rest(home, scope, after))
        assert isinstance(piece, Content)
        if not piece.envelopes:
            return
        yield piece
        after = piece.envelopes[-1][0]


async def _content_at_rest(home: Home, scope: Scope, after: int) -> Content:
    async with at_rest(home) as (service, _):
        return await content(service, scope, after)


def preserve_held(path: Path, scope: Scope, until_s: int, leaf: int) -> Found:
    """Preserve the mailboxes of a scope at the relay of a home, running or not.

    Raises:
        ControlError: the running relay refused.
        HomeError: there is no relay's home.
    """
    home = Home.open(path)
    try:
        with Connection(home.socket_path) as connection:
            answer = connection.request(PreserveRequest(scope.kind.value, scope.name, until_s, leaf))
    except NotRunning:
        return _run(_preserve_at_rest(home, scope, until_s, leaf))
    assert isinstance(answer, Found)
    return answer


def preserving_still(path: Path) -> frozenset[int]:
    """The leaves of the orders for which the relay of a home, running or not, preserves something.

    Raises:
        ControlError: the running relay refused.
        HomeError: there is no relay's home.
    """
    home = Home.open(path)
    try:
        with Connection(home.socket_path) as connection:
            answer = connection.request(PreservingRequest())
    except NotRunning:
        answer = _run(_still_at_rest(home))
    assert isinstance(answer, Preserving)
    return frozenset(answer.leaves)


def release_held(path: Path, leaf: int, standing: tuple[Standing, ...]) -> None:
    """End what an order preserves at the relay of a home, running or not; on return what it alone kept is erased.

    Raises:
        ControlError, StoreError: the relay refused, or could not store it.
        HomeError: there is no relay's home.
    """
    home = Home.open(path)
    try:
        with Connection(home.socket_path) as connection:
            connection.request(ReleaseRequest(leaf, standing))
    except NotRunning:
        _run(_release_at_rest(home, leaf, standing))


def end_service(path: Path, domains: tuple[str, ...]) -> None:
    """End the service for companies at the relay of a home, running or not; durable on return.

    Raises:
        ControlError: the running relay refused.
        FormatError: one of them is not admitted there.
        HomeError: there is no relay's home.
    """
    home = Home.open(path)
    try:
        with Connection(home.socket_path) as connection:
            connection.request(EndRequest(domains))
    except NotRunning:
        _run(_end_at_rest(home, domains))


async def _end_at_rest(home: Home, domains: tuple[str, ...]) -> None:
    async with at_rest(home) as (service, _):
        service.core.end_service(domains)
        home.end_tenants(domains)


async def _preserve_at_rest(home: Home, scope: Scope, until_s: int, leaf: int) -> Found:
    async with at_rest(home) as (service, _):
        return await stepped(service, preserve(service, scope, until_s, leaf))


async def _still_at_rest(home: Home) -> Preserving:
    async with at_rest(home) as (service, _):
        # What became due while nobody served is erased first, some with each step.
        await service.step()
        while service.core.has_work():
            await service.step()
        return await preserving(service)


async def _release_at_rest(home: Home, leaf: int, standing: tuple[Standing, ...]) -> None:
    async with at_rest(home) as (service, _):
        await stepped(service, release(service, leaf, standing))


async def _found_at_rest(home: Home, scope: Scope) -> Found:
    async with at_rest(home) as (service, _):
        return await found(service, scope)
