"""`blindpost order`: play the authority. Each kind of order is served, answered, and written to the public log."""

import argparse
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blindpost.commands.order_capture import add_capture, record
from blindpost.commands.order_kinds import KINDS, Kind
from blindpost.errors import CommandError, UsageError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, account, add_command, add_family, add_home, domain, home_of

if TYPE_CHECKING:
    from blindpost.desk import Served
    from relay.core.docket import Entry, Scope
    from relay.orders import Desk

__all__ = ["add_commands", "day"]

_UNNAMED: Final = "an authority that was not named"
_NO_BASIS: Final = "none named"
_NO_COUNTRY: Final = "XX"
_OUT_HELP: Final = {"FILE": "also write what is given there", "RECORDS": "where what passes is recorded"}


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "order", "play the authority: serve an order on a relay")
    for kind in KINDS:
        _add_kind(family, kind)
    parser = add_command(
        family,
        "list",
        summary="the docket: every order, and where it stands",
        description="Lists the orders on a relay in the order of their numbers.",
        examples=("blindpost order list --home relay",),
        run=_list,
    )
    add_home(parser, "the relay's folder")
    parser = add_command(
        family,
        "show",
        summary="one order and its answer",
        description="Shows an order, also where its text is sealed in the log: the operator has it.",
        examples=("blindpost order show 0 --home relay",),
        run=_show,
    )
    _add_number(parser)
    parser = add_command(
        family,
        "extend",
        summary="the authority moves an order's deadline",
        description="Moves the deadline and logs it. A refused order stays refused.",
        examples=("blindpost order extend 0 --home relay --deadline 2015-12-30",),
        run=_extend,
    )
    _add_number(parser)
    parser.add_argument("--deadline", type=day, metavar="DATE", required=True, help="the new one, YYYY-MM-DD")
    parser = add_command(
        family,
        "decide",
        summary="answer an order that was contested",
        description=(
            "What the policy contests waits for its answer. When that is decided, --honour gives what is held and "
            "--refuse gives nothing; either is answered and logged as always."
        ),
        examples=(
            "blindpost order decide 0 --home relay --refuse",
            "blindpost order decide 0 --home relay --honour --out omar.held",
        ),
        run=_decide,
    )
    _add_number(parser)
    decision = parser.add_mutually_exclusive_group(required=True)
    decision.add_argument("--honour", action="store_true", help="the order stands")
    decision.add_argument("--refuse", action="store_true", help="it does not")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where a record, or what passes, is written")
    parser.add_argument(
        "--until",
        type=day,
        metavar="DATE",
        default=0,
        help="until when a preservation holds, or what passes is recorded",
    )
    add_capture(family)
    parser = add_command(
        family,
        "withdraw",
        summary="the authority takes an order back",
        description="Withdraws an open or refused order and logs it.",
        examples=("blindpost order withdraw 0 --home relay",),
        run=_withdraw,
    )
    _add_number(parser)
    parser = add_command(
        family,
        "release",
        summary="the authority takes a preservation back before its day: it ends",
        description=(
            "Logs that the order was withdrawn, has the relay erase what it alone had kept, and logs that it ended. "
            "A mailbox for which another preservation holds goes on under that one. A preservation whose day has "
            "passed needs no command: whichever next one writes the log says first that it ended."
        ),
        examples=("blindpost order release 3 --home relay",),
        run=_release,
    )
    _add_number(parser)
    parser = add_command(
        family,
        "open",
        summary="open what is sealed of an order in the log",
        description=(
            "Writes the nonce and text of a sealed order and of its answer to the log, so that everybody can check "
            "that this text was sealed. Refused before the seal ends, unless a court has lifted it."
        ),
        examples=("blindpost order open 3 --home relay", "blindpost order open 3 --home relay --lifted"),
        run=_open,
    )
    _add_number(parser)
    parser.add_argument("--lifted", action="store_true", help="a court has lifted the seal before its end")
    _add_exit(family)


def _add_exit(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "exit",
        summary="the relay leaves a country: announced, moved, taken back or completed, each step signed",
        description=(
            "The operator's answer, not an authority's order. --announce names the last day; --extend moves it; "
            "--cancel takes it back; --complete, on that day or later, ends the service for the companies named: "
            "nothing new is taken to or from them and nobody of theirs is admitted, while what waits is delivered "
            "until its expiry, so nothing that was receipted is lost. Other companies and their devices are not "
            "touched, wherever they are. Each step is signed by the relay's key, stands in the public log, and is "
            "written to --notice FILE for the companies. How many companies is in the log, which ones is not."
        ),
        examples=(
            "blindpost order exit PK --home relay --announce 2030-11-30 --tenant karachi.example --notice notice.txt",
            "blindpost order exit PK --home relay --extend 2030-12-30",
            "blindpost order exit PK --home relay --cancel",
            "blindpost order exit PK --home relay --complete --tenant karachi.example",
        ),
        run=_exit,
    )
    parser.add_argument("jurisdiction", metavar="CC", help="the country, two capital letters of ISO 3166")
    add_home(parser, "the relay's folder")
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--announce", type=moment, metavar="DATE", help="the service ends then: YYYY-MM-DD, or …T17:30")
    step.add_argument("--extend", type=moment, metavar="DATE", help="it ends then instead, later")
    step.add_argument("--cancel", action="store_true", help="it does not end")
    step.add_argument("--complete", action="store_true", help="it ends now")
    parser.add_argument(
        "--tenant", type=domain, action="append", default=[], metavar="DOMAIN", help="a company there; may be repeated"
    )
    parser.add_argument("--notice", type=Path, metavar="FILE", help="also write the statement there, for the companies")


def _add_kind(family: "Subparsers[Parser]", kind: Kind) -> None:
    who = {"person": " --account omar@karachi.example", "somebody": " --account omar@karachi.example"}.get(
        kind.about, ""
    )
    out = {"DIR": " --out disclosure", "FILE": " --out omar.bin"}.get(kind.out, "")
    recorded = " --until 2030-10-22 --out omar.capture" if kind.out == "RECORDS" else ""
    plain = f"blindpost order {kind.name} --home relay{who}{out}"
    plain += recorded
    plain += {"secrecy": " --secret-until 2031-01-01", "preservation": " --until 2030-10-22"}.get(kind.name, "")
    named = f'{plain} --issuer "High Court" --jurisdiction PK --legal-basis "order of 24 July" --deadline 2030-11-30'
    parser = add_command(
        family,
        kind.name,
        summary=kind.summary,
        description=kind.description,
        examples=(plain, f"{plain} --memory", named) if kind.out == "DIR" else (plain, named),
        run=_serve,
    )
    parser.set_defaults(kind=kind.name)
    add_home(parser, "the relay's folder")
    if kind.about in {"person", "somebody", "anybody"}:
        scope = parser.add_mutually_exclusive_group(required=kind.about != "anybody")
        scope.add_argument("--account", type=account, metavar="ADDRESS", help="the person it is about")
        scope.add_argument("--mailbox", metavar="HEX", help="the mailbox it is about, 32 hexadecimal digits")
        if kind.about != "person":
            scope.add_argument("--tenant", type=domain, metavar="DOMAIN", help="the company it is about")
    if kind.out == "DIR":
        parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the directory, which is made")
        parser.add_argument("--memory", action="store_true", help="also the memory image of the running relay")
    elif kind.out:
        parser.add_argument("--out", type=Path, metavar="FILE", help=_OUT_HELP[kind.out])
    if kind.name == "preservation" or kind.out == "RECORDS":
        required = kind.name == "preservation"
        parser.add_argument(
            "--until", type=day, metavar="DATE", default=0, required=required, help="until when, YYYY-MM-DD"
        )
    parser.add_argument("--issuer", default=_UNNAMED, metavar="NAME", help=f"who issued it (default: {_UNNAMED})")
    parser.add_argument(
        "--jurisdiction",
        default=_NO_COUNTRY,
        metavar="CC",
        help="two capital letters of ISO 3166 (default: XX, for none)",
    )
    parser.add_argument(
        "--legal-basis", default=_NO_BASIS, metavar="LAW", help=f"the law that it names (default: {_NO_BASIS})"
    )
    parser.add_argument("--deadline", type=day, metavar="DATE", default=0, help="until when, YYYY-MM-DD")
    parser.add_argument(
        "--secret-until",
        type=day,
        metavar="DATE",
        default=0,
        required=kind.name == "secrecy",
        help="until when its text may not be published: it is sealed in the log, YYYY-MM-DD",
    )


def _add_number(parser: Parser) -> None:
    parser.add_argument("number", type=int, metavar="N", help="the order's number on the docket")
    add_home(parser, "the relay's folder")


def day(text: str) -> int:
    """The type of an argument that is a day: Unix time in seconds of its beginning, UTC."""
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no day such as 2015-11-30") from None


def moment(text: str) -> int:
    """The type of an argument that is a day, or a minute of one: Unix time in seconds, UTC."""
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return day(text)


def _serve(options: Options) -> int:
    from blindpost.desk import check_until, serve
    from relay.core.docket import Order, OrderKind
    from wire.held import held_text, read_held

    home = home_of(options)
    kind = OrderKind(options.kind)
    out: Path | None = getattr(options, "out", None)
    if out is not None and kind.value in {"wholesale", "seizure"}:
        _check_out(out)
    received_s = int(time.time())
    if kind is OrderKind.PRESERVATION:
        check_until(options.until)
    order = Order(
        kind=kind,
        issuer=options.issuer,
        jurisdiction=options.jurisdiction,
        legal_basis=options.legal_basis,
        received_s=received_s,
        deadline_s=options.deadline,
        scope=_scope(options),
        secret_until_s=options.secret_until,
    )
    served = serve(home, order, out, memory=getattr(options, "memory", False), until_s=getattr(options, "until", 0))
    if served.entry.captured:
        return record(home_of(options), served.entry, served.order_index, options.out)
    if served.disclosure is not None:
        _tell_disclosure(served, options.out)
    elif out is not None and out.exists():
        what = "ciphertext" if kind is OrderKind.CONTENT else "the record, the same as `blindpost mydata` gives"
        print(f"{out}: {what}, {out.stat().st_size} bytes")
    _tell(served)
    if served.record and out is None:
        print("\n" + held_text(read_held(served.record)), end="")
    return 0


def _scope(options: Options) -> "Scope":
    from relay.core.docket import Scope, ScopeKind

    for kind in (ScopeKind.ACCOUNT, ScopeKind.MAILBOX, ScopeKind.TENANT):
        if name := getattr(options, kind.value, None):
            return Scope(kind, name)
    return Scope()


def _tell_disclosure(served: "Served", out: Path) -> None:
    disclosure = served.disclosure
    assert disclosure is not None
    card = out / "relay-card.toml"
    print(f"{out}: {disclosure.files} files and their signed manifest")
    if disclosure.memory is not None:
        image = disclosure.memory
        print(
            f"{out / 'memory'}: {image.image_bytes} bytes of memory in {image.ranges} ranges, "
            f"{image.unreadable} unreadable; the relay has changed its signing key"
        )
    print(f"{card}, {out / 'order.toml'}: the relay's card and the times of the order, yours, not part of it")
    print(f"next: blindpost audit {out} --relay-card {card} --order {out / 'order.toml'}")


def _tell(served: "Served") -> None:
    number = served.entry.number
    sealed = ", sealed" if served.sealed else ""
    print(f"order {number}: {served.entry.state.value}; leaf {served.order_index} of the log{sealed}")
    if served.answer is None:
        print(f"order {number} is contested: it is answered when that is decided")
    else:
        print(f"answer: {served.answer.outcome}; leaf {served.answer_index} of {served.log_size}{sealed}")
        print(served.answer.text)


def _list(options: Options) -> int:
    with _desk(options) as desk:
        for entry in desk.docket.entries:
            print(_line(entry))
        if not desk.docket.entries:
            print("no order has been served on this relay")
    return 0


def _line(entry: "Entry") -> str:
    order = entry.order
    deadline = f", by {_date(entry.deadline_s)}" if entry.deadline_s else ""
    return (
        f"{entry.number}: {order.kind.value} of {_date(order.received_s)}, {order.jurisdiction}, {order.issuer}"
        f"{deadline}: {_state(entry)}"
    )


def _state(entry: "Entry") -> str:
    if entry.until_s and entry.state.value == "honoured":
        return f"honoured until {_date(entry.until_s)}"
    if entry.state.value == "capturing":
        return f"recorded until {_date(entry.deadline_s)}"
    if entry.captured and entry.is_open:
        return "withdrawn, and what was recorded not answered yet"
    return f"released {_date(entry.changed_s)}" if entry.state.value == "released" else entry.state.value


def _show(options: Options) -> int:
    with _desk(options) as desk:
        entry = desk.docket.entry(options.number)
        order = entry.order
        print(_line(entry))
        print(f"legal basis: {order.legal_basis}")
        print(f"about: {order.scope}")
        if desk.is_sealed(entry.number):
            print(f"sealed in the log until {_date(order.secret_until_s)}")
        answer = desk.answer_text(entry.number)
        print(f"answer: {answer.outcome}\n{answer.text}" if answer else "not answered yet")
    return 0


def _extend(options: Options) -> int:
    from blindpost.preserving import settle

    with _desk(options) as desk:
        settle(desk)
        filed = desk.extend(options.number, options.deadline)
    print(f"order {options.number}: by {_date(filed.entry.deadline_s)}; leaf {filed.index}")
    return 0


def _decide(options: Options) -> int:
    from blindpost.desk import decide

    served = decide(home_of(options), options.number, honour=options.honour, out=options.out, until_s=options.until)
    if served.entry.captured:
        return record(home_of(options), served.entry, served.order_index, options.out)
    _tell(served)
    return 0


def _withdraw(options: Options) -> int:
    from blindpost.capturing import WITHDRAWN, end_captured
    from blindpost.preserving import settle

    with _desk(options) as desk:
        settle(desk)
        entry = desk.docket.entry(options.number)
        if entry.until_s and entry.state.value == "honoured":
            raise CommandError(
                f"order {options.number} was honoured, and is kept until {_date(entry.until_s)}",
                f"blindpost order release {options.number}",
            )
        if entry.state.value == "capturing":
            # First the relay: from the withdrawal on nothing is recorded.
            end_captured(home_of(options), options.number, WITHDRAWN)
        filed = desk.withdraw(options.number)
    print(f"order {options.number}: withdrawn; leaf {filed.index}")
    if filed.entry.is_open:
        print(
            f"what was recorded is answered by the command that records it, or blindpost order capture {options.number}"
        )
    return 0


def _release(options: Options) -> int:
    from blindpost.preserving import release

    withdrawn, ended = release(home_of(options), options.number)
    print(f"order {options.number}: withdrawn; leaf {withdrawn.index}")
    if ended is None:
        print("the relay has erased what it kept; the log says so once the order is opened, since it is sealed")
    else:
        print(f"order {options.number}: released, what was kept is erased; leaf {ended.index}")
    return 0


def _open(options: Options) -> int:
    from blindpost.preserving import settle

    with _desk(options) as desk:
        until = desk.docket.entry(options.number).order.secret_until_s
        if not options.lifted and time.time() < until:
            raise CommandError(
                f"order {options.number} is sealed until {_date(until)}", "--lifted, if a court has lifted the seal"
            )
        indexes = desk.open_sealed(options.number)
        settle(desk)
    print(f"order {options.number}: opened; leaves {', '.join(map(str, indexes))}")
    return 0


def _exit(options: Options) -> int:
    from blindpost.leaving import leave
    from relay.core.docket import check_jurisdiction

    check_jurisdiction(options.jurisdiction)
    if (options.announce or options.complete) and not options.tenant:
        raise UsageError("no company is named", "give --tenant DOMAIN for each company there")
    step = next(
        word
        for word in ("announce", "extend", "cancel", "complete")
        if getattr(options, word) is not None and getattr(options, word) is not False
    )
    ends_s = options.announce or options.extend or 0
    index, text = leave(home_of(options), options.jurisdiction, step, ends_s, tuple(options.tenant), options.notice)
    print(f"{options.jurisdiction}: leaf {index} of the log\n{text}")
    return 0


def _desk(options: Options) -> "AbstractContextManager[Desk]":
    import os

    from blindpost.desk import now_s
    from relay.orders import Desk

    return Desk.at(home_of(options), now_s, os.urandom)


def _date(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")


def _check_out(out: Path) -> None:
    """Refuse before the relay is asked for anything."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise CommandError(f"{out} is not empty", "name a folder that is not there yet", ExitStatus.CANNOT_CREATE)
