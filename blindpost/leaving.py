"""Leaving a country in order: each step signed and logged, the companies there told, and nothing lost.

What ends is what is new. Envelopes that the relay has receipted wait for their devices until their expiry, as always,
and an acknowledgement erases them, as always; so a completed exit leaves nobody with a receipt for mail that is gone.
"""

import os
from pathlib import Path
from typing import Final

from blindpost.desk import now_s
from blindpost.files import check_absent, write_new
from blindpost.preserving import settle
from relay.asking import end_service, find_held
from relay.core.answers import date_of, time_of
from relay.core.docket import DocketError, Scope, ScopeKind
from relay.logkey import LOG_FOLDER
from relay.orders import Desk

__all__ = ["leave"]

_DAY_S: Final = 86_400

_STEPS: Final = {"announce": "announced", "extend": "extended", "cancel": "cancelled", "complete": "completed"}


def leave(
    home: Path, jurisdiction: str, step: str, ends_s: int, tenants: tuple[str, ...], notice: Path | None
) -> tuple[int, str]:
    """Take a step of leaving; return its leaf in the log, and the statement.

    Args:
        home: the relay's.
        jurisdiction: two capital letters.
        step: announce, extend, cancel or complete.
        ends_s: the last day, for the first two, Unix time in seconds.
        tenants: domains of the companies there, for announce and complete.
        notice: where the statement goes for them; None: nowhere.

    Raises:
        DocketError: the step does not follow, or the day has passed.
        CommandError: `notice` is there already.
        BlindpostError: a company is not admitted, or the relay refused.
        OSError: something could not be written.
    """
    if notice is not None:
        check_absent(notice)
    with Desk.at(home, now_s, os.urandom) as desk:
        settle(desk)
        if step in {"announce", "extend"} and ends_s <= desk.now_s():
            raise DocketError("the day, or the minute, that is announced must lie ahead")
        before = desk.last_exit(jurisdiction)
        ends_s = ends_s or (before.ends_at if before else 0)
        waiting = _waiting(home, tenants)
        desk.check_exit_step(jurisdiction, _STEPS[step], ends_s)
        if step == "complete":
            end_service(home, tenants)
            waiting = _waiting(home, tenants)
        text = _statement(jurisdiction, step, ends_s, len(tenants), waiting)
        index = desk.exit_step(jurisdiction, _STEPS[step], ends_s, text)
        if notice is not None:
            where = f"leaf {index} of the log {desk.log.key.name}; a mirror is made from {LOG_FOLDER}"
            write_new(notice, f"{text}\n\n{where}\n".encode(), secret=False)
    return index, text


def _waiting(home: Path, tenants: tuple[str, ...]) -> int:
    return sum(find_held(home, Scope(ScopeKind.TENANT, tenant)).envelopes for tenant in tenants)


def _companies(count: int) -> str:
    return "one company" if count == 1 else f"{count} companies"


def _statement(jurisdiction: str, step: str, ends_s: int, tenants: int, waiting: int) -> str:
    day = date_of(ends_s) if ends_s % _DAY_S == 0 else f"{date_of(ends_s)}, {time_of(ends_s)} UTC"
    if step == "announce":
        return (
            f"The service in {jurisdiction} ends on {day}, for {_companies(tenants)}. Until then nothing changes. From "
            "then on nothing new is taken to or from them; what waits is delivered until its expiry. Devices of other "
            "companies are not affected, wherever they are."
        )
    if step == "extend":
        return f"The service in {jurisdiction} ends on {day}, and not before. Until then nothing changes."
    if step == "cancel":
        return f"The service in {jurisdiction} does not end. What was announced is withdrawn."
    return (
        f"The service in {jurisdiction} has ended for {_companies(tenants)}: nothing new is taken to or from them. "
        f"{waiting} envelopes wait for their devices, which fetch them until their expiry, at most 30 days from now; "
        "nothing that was receipted is lost. Senders are told that the service has ended, by the company's name."
    )
