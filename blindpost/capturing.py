"""Takes what a relay records for an order, to the order's end: the day, a withdrawal, or the operator's word.

    desk: capturing ─▶ relay: capture ─▶ captured, captured, … ─▶ FILE ─▶ desk: answer, with the file's SHA-256

The desk is open only at the beginning and at the end, so that other orders are served meanwhile. The log says that the
order is captured before the relay records anything. A signal or the relay's end is a pause: the order stays open, the
file says from when to when nothing was recorded, and `blindpost order capture N --out FILE` goes on.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from relay.captured import CaptureFile
from relay.control import (
    Captured,
    CapturedRequest,
    CaptureRequest,
    Connection,
    ControlError,
    EndCaptureRequest,
    NotRunning,
)
from relay.core.answers import Facts, answer_to
from relay.core.docket import DocketError, Entry, OrderState
from relay.core.policy import Decision
from relay.home import Home, HomeBusy
from relay.orders import Desk
from wire.capture import CaptureHeader, records_of
from wire.leaves import AnswerLeaf

__all__ = ["Finished", "Stop", "capture", "check_running", "end_captured"]

POLL_S: Final = 0.25
DESK_WAIT_S: Final = 30.0
WITHDRAWN: Final = "withdrawn"
_PAUSED: Final = "paused"
_RELAY_STOPPED: Final = "relay stopped"
_UNTIL: Final = "until"


@dataclass
class Stop:
    """Whether a signal has asked to stop."""

    asked: bool = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to stop, meanwhile."""

        def ask(_number: int, _frame: FrameType | None) -> None:
            self.asked = True

        before = [(number, signal.signal(number, ask)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Finished:
    """A capture that has ended, and its answer.

    Args:
        entry: where the order stands.
        index: the answer's leaf.
        answer: what was answered.
        sealed: whether it is sealed in the log.
        log_size: leaves of the log now.
    """

    entry: Entry
    index: int
    answer: AnswerLeaf
    sealed: bool
    log_size: int


def check_running(home: Path) -> None:
    """Refuse to begin where there is no relay that could record.

    Raises:
        CommandError: it does not run.
    """
    try:
        with Connection(Home.open(home).socket_path):
            return
    except NotRunning:
        raise _not_running(home) from None


def _not_running(home: Path) -> CommandError:
    hint = f"blindpost relay run --home {home}"
    return CommandError("what passes is recorded by a relay that runs", hint, ExitStatus.TRY_AGAIN)


def end_captured(home: Path, number: int, reason: str) -> None:
    """Have a relay, if it runs, record no more for an order.

    Raises:
        ControlError: it refused.
    """
    try:
        with Connection(Home.open(home).socket_path) as connection:
            connection.request(EndCaptureRequest(number, reason))
    except NotRunning:
        return


def capture(
    home: Path, number: int, out: Path, stop: Stop, clock_s: Callable[[], int], *, finish: bool = False
) -> Finished | None:
    """Record for an order until it ends, and answer it; what is in the file already stays.

    Args:
        home: the relay's.
        number: the order's; the log says that it is captured.
        out: the file, new or of this order.
        stop: asks to pause.
        clock_s: Unix time in seconds.
        finish: record no more, and answer.

    Returns:
        the answer; None if it was paused.

    Raises:
        CommandError: the relay does not run, or ended meanwhile.
        DocketError: no capture of this order was begun, or it is answered.
        BlindpostError, OSError: relay, file or log cannot do it; the order stays open.
    """
    while True:
        with _desk(home, clock_s) as desk:
            entry = _capturing(desk, number)
            now_s = desk.now_s()
        order, until_s = entry.order, entry.deadline_s
        over = finish or entry.state is OrderState.WITHDRAWN or until_s <= now_s
        relay_id = Home.open(home).card.relay_id
        header = CaptureHeader(relay_id, number, order.kind.value, order.scope.kind.value, clock_s() * 1_000)
        with CaptureFile.at(out, header) as file:
            reason = _UNTIL if over else _record(home, entry, file, stop)
            if reason == _PAUSED:
                return None
            if reason == _RELAY_STOPPED:
                hint = f"when it runs again: blindpost order capture {number} --home {home} --out {out}"
                raise CommandError("the relay has stopped; the order stays open", hint, ExitStatus.TRY_AGAIN)
            with _desk(home, clock_s) as desk:
                entry = _capturing(desk, number)
                if not finish and entry.state is OrderState.CAPTURING and entry.deadline_s > desk.now_s():
                    # It was extended meanwhile, or the withdrawal that ended it was not logged after all.
                    continue
                facts = file.summary.facts()
                given = Facts(found=facts.mailboxes, evidence=file.digest(), captured=facts)
                done = desk.answer(number, answer_to(order, Decision.HONOUR, given), Decision.HONOUR)
                answer = desk.answer_text(number)
                assert answer is not None
                return Finished(done.entry, done.index, answer, done.sealed, desk.log.size)


def _capturing(desk: Desk, number: int) -> Entry:
    entry = desk.docket.entry(number)
    if not (entry.captured and entry.is_open):
        raise DocketError(f"order {number} is {entry.state.value}: no capture of it goes on")
    return entry


def _record(home: Path, entry: Entry, file: CaptureFile, stop: Stop) -> str:
    """Record until the capture ends; returns why it did."""
    order = entry.order
    through_ms = file.summary.last_ms
    try:
        with Connection(Home.open(home).socket_path) as relay:
            relay.request(
                CaptureRequest(
                    entry.number, order.kind.value, order.scope.kind.value, order.scope.name, entry.deadline_s
                )
            )
            while True:
                if stop.asked:
                    relay.request(EndCaptureRequest(entry.number, _PAUSED))
                taken = relay.request(CapturedRequest(entry.number))
                assert isinstance(taken, Captured)
                file.add(taken.data, records_of(taken.data))
                through_ms = taken.through_ms
                if taken.ended:
                    return taken.ended
                if not taken.more and not stop.asked:
                    time.sleep(POLL_S)
    except NotRunning:
        raise _not_running(home) from None
    except ControlError as error:
        if not _is_gone(error):
            raise
        file.end(through_ms, _RELAY_STOPPED)
        return _RELAY_STOPPED


def _is_gone(error: ControlError) -> bool:
    """Whether the connection broke, and not the request."""
    return error.kind in {"ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"}


@contextmanager
def _desk(home: Path, clock_s: Callable[[], int]) -> Iterator[Desk]:
    """The desk, waited for: another command may be at it."""
    with ExitStack() as stack:
        yield _opened(stack, home, clock_s)


def _opened(stack: ExitStack, home: Path, clock_s: Callable[[], int]) -> Desk:
    waited_s = 0.0
    while True:
        try:
            return stack.enter_context(Desk.at(home, clock_s, os.urandom))
        except HomeBusy:
            if waited_s >= DESK_WAIT_S:
                raise
            time.sleep(POLL_S)
            waited_s += POLL_S
