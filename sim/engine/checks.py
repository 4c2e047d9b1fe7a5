"""The assertions of a scenario, judged on what a run gave. Each can fail: an assertion about nothing fails."""

from sim.engine.outcome import Checked, Outcome, ServedOrder
from sim.engine.traffic import HOUR_S
from sim.orders.reading import PublicLog
from sim.orders.service import state_on
from sim.scenario.timeline import (
    Answered,
    Arrived,
    Assertion,
    BacklogBelow,
    CapturedAtLeast,
    FaultsHappened,
    GhostRefused,
    LogComplete,
    NoneDeliveredTwice,
    NoneLost,
    NothingRead,
    SentAtLeast,
    Service,
    VerdictIs,
)

__all__ = ["judge"]


def judge(outcome: Outcome) -> list[Checked]:
    """Judge every assertion of the scenario."""
    return [_judged(outcome, check) for check in outcome.scenario.checks]


def _judged(outcome: Outcome, check: Assertion) -> Checked:
    name = str(type(check).__struct_config__.tag)
    about, held, found = _result(outcome, check)
    return Checked(name, about, held, found)


def _result(outcome: Outcome, check: Assertion) -> tuple[str, bool, str]:
    ledger = outcome.ledger
    match check:
        case NothingRead(order=order):
            return _nothing_read(outcome, order)
        case VerdictIs(order=order, is_=wanted):
            disclosed = _served(outcome, order).disclosed
            verdict = disclosed.verdict if disclosed is not None else "no disclosure"
            return f"{order} is {wanted}", verdict == wanted, verdict
        case Service(jurisdiction=place, on=on, is_=wanted):
            state = state_on(outcome.changes, place, on.unix_s)
            return f"{place} on {on} is {wanted}", state == wanted, state
        case NoneLost():
            receipted = ledger.total("receipted")
            return "receipted envelopes", receipted > 0 and not outcome.lost, f"{outcome.lost} of {receipted} lost"
        case NoneDeliveredTwice():
            twice, shown = ledger.total("shown_twice"), ledger.total("shown")
            return "messages shown", shown > 0 and not twice, f"{twice} of {shown} twice"
        case Arrived(at_least=share):
            return _arrived(outcome, share)
        case BacklogBelow():
            return _backlog(outcome, check)
        case Answered(order=order, as_=wanted):
            answer = _served(outcome, order).answer.value
            return f"{order} as {wanted}", answer == wanted, answer
        case GhostRefused(order=order):
            return _ghost(_served(outcome, order))
        case CapturedAtLeast(order=order, at_least=least):
            return _captured(_served(outcome, order), least)
        case LogComplete():
            return _log(outcome.log)
        case FaultsHappened(kind=kind, at_least=least):
            times = outcome.faults[kind]
            return f"{kind} at least {least}", times >= least, f"{times} times"
        case SentAtLeast(messages=least):
            return f"at least {least}", ledger.messages >= least, f"{ledger.messages} written"


def _served(outcome: Outcome, order_id: str) -> ServedOrder:
    return next(served for served in outcome.served if served.order.id == order_id)


def _nothing_read(outcome: Outcome, order_id: str) -> tuple[str, bool, str]:
    disclosures = [
        served.disclosed
        for served in outcome.served
        if served.disclosed is not None and order_id in ("", served.order.id)
    ]
    captures = [
        served.captured
        for served in outcome.served
        if served.captured is not None and order_id in ("", served.order.id)
    ]
    read = sum(disclosed.messages_read for disclosed in disclosures)
    leaked = sum(disclosed.verdict == "NOT BLIND" for disclosed in disclosures)
    passed = sum(captured.read for captured in captures)
    leaked_passing = sum(captured.verdict == "NOT BLIND" for captured in captures)
    found = f"{len(disclosures)} disclosures, {read} contents read, {leaked} not blind"
    if captures:
        found += f"; {len(captures)} captures, {passed} bodies read, {leaked_passing} not blind"
    is_tried = bool(disclosures) or any(captured.body_bytes for captured in captures)
    is_blind = not (read or leaked or passed or leaked_passing)
    return order_id or "all orders", is_tried and is_blind, found


def _captured(served: ServedOrder, least: int) -> tuple[str, bool, str]:
    about, captured = f"{served.order.id} at least {least}", served.captured
    if captured is None:
        return about, False, "nothing was captured for it"
    found = f"{captured.envelopes} envelopes, {captured.body_bytes} bytes, {captured.lost} events lost"
    return about, captured.envelopes >= least, found


def _arrived(outcome: Outcome, share: float) -> tuple[str, bool, str]:
    receipted = list(outcome.ledger.receipted())
    arrived = sum(sent.shown for sent in receipted)
    found = f"{arrived} of {len(receipted)}"
    return f"at least {share:g}", bool(receipted) and arrived >= share * len(receipted), found


def _backlog(outcome: Outcome, check: BacklogBelow) -> tuple[str, bool, str]:
    if check.on is None:
        most = outcome.ledger.backlog_most
        return f"always below {check.envelopes}", most < check.envelopes, f"at most {most}"
    on_s = check.on.unix_s
    rows = [hour for hour in outcome.ledger.hours if hour.begins_s <= on_s < hour.begins_s + HOUR_S]
    backlog = rows[0].backlog if rows else None
    held = backlog is not None and backlog < check.envelopes
    return f"below {check.envelopes} on {check.on}", held, "no such hour" if backlog is None else f"{backlog}"


def _log(log: PublicLog) -> tuple[str, bool, str]:
    wrong = [*log.findings, *log.gaps]
    found = (
        f"{log.served} orders, {log.answered} answers, {log.exits} steps of leaving; read {len(log.readings)} times, "
        f"{log.readings[-1].size} leaves at last"
    )
    # A log of nothing but its beginning shows nothing.
    return "the public log", bool(log.served) and not wrong, f"{found}: {wrong[0]}" if wrong else found


def _ghost(served: ServedOrder) -> tuple[str, bool, str]:
    order_id, encrypted = served.order.id, served.ghost_encrypted
    if encrypted is None:
        return order_id, False, "no such device was put on a list"
    alarms = served.ghost_alarms
    return order_id, not encrypted and alarms > 0, f"{alarms} devices refused it, {encrypted} envelopes encrypted to it"
