"""What honoured orders for interception, and pen registers, have recorded as it passes: in virtual time, a file each.

    served ─▶ relay captures ─ every five minutes ─▶ OUT/orders/ID/capture.bin ─ deadline, withdrawal, end ─▶ audit/

The relay's own code captures (relay/core/capture.py) and writes the file (relay/captured.py); what is here stands in
for the operator's process that takes what is captured. A relay that is killed forgets what was not taken, and begins
again when it is up: the file says where.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.captured import CaptureFile
from relay.core.answers import Facts
from relay.core.docket import CAPTURED_KINDS, Order
from relay.core.policy import Decision
from relay.home import Home
from sim.engine.town import Town
from sim.orders.captured import Captured, audit_captured
from sim.orders.clerk import Clerk, Received
from wire.capture import CaptureHeader, records_of

__all__ = ["Capturing"]

_EVERY_MS: Final = 300_000
_INTERRUPTED: Final = "interrupted"
_LATE_S: Final = 3_600
_FILE: Final = "capture.bin"


@dataclass
class _Capture:
    """One order's."""

    received: Received
    filed: Order
    path: Path
    file: CaptureFile
    ends_s: int
    started: int = -1
    """At which start of the relay it was begun; -1: it has not been."""
    through_ms: int = 0
    is_over: bool = False


class Capturing:
    """All captures of a run.

    Args:
        town: whose relay captures.
        clerk: logs that one begins, and the answer when it ends.
        home: the relay's: the files are audited against its card and its public log.
        folder: of the orders.
    """

    def __init__(self, town: Town, clerk: Clerk, home: Home, folder: Path) -> None:
        self._town = town
        self._clerk = clerk
        self._home = home
        self._folder = folder
        self._captures: dict[str, _Capture] = {}
        self._files = ExitStack()
        clerk.on_extended = self._extend

    def begin(self, received: Received) -> Received | None:
        """Capture from now on, if that is what an order asks, and it is honoured; None: it is not.

        Without a deadline it goes on to the end of the run.
        """
        filed, order, calendar = received.filed, received.order, self._town.calendar
        if filed is None or filed.kind not in CAPTURED_KINDS or received.decision is not Decision.HONOUR:
            return None
        path = self._folder / order.id / _FILE
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        ends_s = max((order.deadline or self._town.scenario.end).unix_s, filed.received_s + 1)
        begun = self._clerk.capture(received, ends_s)
        header = CaptureHeader(
            self._town.relay_id, received.number, filed.kind.value, filed.scope.kind.value, self._clock_ms()
        )
        file = self._files.enter_context(CaptureFile.at(path, header))
        one = self._captures[order.id] = _Capture(begun, filed, path, file, ends_s)
        calendar.at(1_000 * ends_s + 1, self._end, one)
        if order.withdrawn is not None:
            # The clerk logs the withdrawal at this moment too, and first.
            calendar.at(1_000 * order.withdrawn.unix_s + 1, self._end, one, "withdrawn")
        self._go_on(one)
        return begun

    def _clock_ms(self) -> int:
        return self._town.calendar.now_ms + self._town.machine.clock_offset_ms

    def _go_on(self, one: _Capture) -> None:
        """Take what there is, and come again."""
        if not one.is_over:
            self._take(one)
            self._town.calendar.after(_EVERY_MS, self._go_on, one)

    def _take(self, one: _Capture) -> None:
        machine, filed, number = self._town.machine, one.filed, one.received.number
        core = machine.core
        if core is None:
            return
        if one.started != machine.starts:
            # The relay was killed since: what it had not given is lost.
            one.file.end(one.through_ms, _INTERRUPTED)
            # Its end is said from here: the relay's own is there for an operator who does not come back.
            core.capture(number, filed.kind, filed.scope, one.ends_s + _LATE_S, self._clock_ms())
            one.started = machine.starts
        while True:
            taken = core.take_captured(number, self._clock_ms())
            one.file.add(taken.data, records_of(taken.data))
            one.through_ms = taken.through_ms
            if not taken.more:
                break

    def _extend(self, order_id: str, ends_s: int) -> None:
        one = self._captures.get(order_id)
        if one is not None and not one.is_over:
            self._stop(one, "extended")
            one.ends_s, one.started = ends_s, -1
            self._take(one)
            self._town.calendar.at(1_000 * ends_s + 1, self._end, one)

    def _end(self, one: _Capture, reason: str = "until") -> None:
        """Its day has come, or it was withdrawn: the answer says what there was."""
        if one.is_over or (reason == "until" and self._town.calendar.now_ms // 1_000 < one.ends_s):
            return
        self._stop(one, reason)
        one.is_over = True
        facts = Facts(found=1, evidence=one.file.digest(), captured=one.file.summary.facts())
        one.received = self._clerk.answer(one.received, facts)

    def _stop(self, one: _Capture, reason: str) -> None:
        machine = self._town.machine
        if machine.core is not None and one.started == machine.starts:
            machine.core.end_capture(one.received.number, reason, self._clock_ms())
            self._take(one)
        else:
            one.file.end(one.through_ms, _INTERRUPTED)

    def _audit(self, one: _Capture) -> Captured:
        bodies = self._town.bodies
        return audit_captured(one.path, self._home, bodies.volunteered, bodies.kept_keys)

    def finished(self) -> dict[str, tuple[Received, Captured]]:
        """Each order as it was answered in the end, and its file's audit; by its id. What goes on is stopped."""
        for one in self._captures.values():
            if not one.is_over:
                self._stop(one, "run ended")
                one.is_over = True
        self._files.close()
        return {order_id: (one.received, self._audit(one)) for order_id, one in self._captures.items()}
