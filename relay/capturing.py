"""What the running relay does for an order that records what passes: begin, hand out, end; nothing is written down.

Each capture belongs to the connection that began it. When that ends, so does the capture, and what was not taken is
forgotten: nobody is recorded for whom nobody takes it. An end may be asked on any connection, since it is the desk
that learns of a withdrawal.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.control import Captured, CapturedRequest, CaptureRequest, Done, EndCaptureRequest, Peer
from relay.core.docket import CAPTURED_KINDS, OrderKind, Scope, ScopeKind
from relay.service import RelayService
from wire.errors import BlindpostError, FormatError

__all__ = ["CaptureBusy", "Capturing"]


class CaptureBusy(BlindpostError):
    """Another process takes what is captured for this order."""


class Capturing:
    """The captures of a running relay, and whose they are.

    Args:
        service: the relay.
        clock_ms: Unix time in milliseconds.
    """

    def __init__(self, service: RelayService, clock_ms: Callable[[], int]) -> None:
        self._service = service
        self._clock_ms = clock_ms
        self._owners: dict[int, Peer] = {}

    async def serve(self, peer: Peer, request: CaptureRequest | CapturedRequest | EndCaptureRequest) -> Done | Captured:
        """Serve one request.

        Raises:
            CaptureBusy: another connection has this order's capture.
            FormatError: it cannot be captured, or this connection has no such capture.
            RelayStopping: the relay is closed.
        """
        if isinstance(request, CaptureRequest):
            await self._begin(peer, request)
        elif isinstance(request, CapturedRequest):
            return self._take(peer, request.number)
        else:
            self._service.core.end_capture(request.number, request.reason, self._clock_ms())
        return Done()

    async def _begin(self, peer: Peer, request: CaptureRequest) -> None:
        """Between two commits, so that the first event is of one that came after."""
        number, scope = request.number, Scope(ScopeKind(request.scope), request.name)
        if request.kind not in CAPTURED_KINDS:
            raise FormatError("capture kind", f"{request.kind!r} is not about what passes")
        async with self._service.held():
            if self._owners.get(number, peer) is not peer:
                raise CaptureBusy(f"what passes for order {number} is taken by another process")
            self._service.core.capture(number, OrderKind(request.kind), scope, request.until, self._clock_ms())
            self._owners[number] = peer

    def _take(self, peer: Peer, number: int) -> Captured:
        if self._owners.get(number) is not peer:
            raise FormatError("capture", f"this connection has none for order {number}")
        taken = self._service.core.take_captured(number, self._clock_ms())
        if taken.ended:
            del self._owners[number]
        return Captured(taken.data, taken.through_ms, int(taken.more), taken.ended)

    def ended(self, peer: Peer) -> None:
        """A connection has ended: its captures are forgotten."""
        for number in [number for number, owner in self._owners.items() if owner is peer]:
            del self._owners[number]
            self._service.core.forget_capture(number)
