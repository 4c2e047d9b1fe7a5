"""`blindpost order capture`, and what the other commands say when an order is honoured by recording what passes."""

from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.parser import Options, Parser, Subparsers, add_command, add_home, home_of

if TYPE_CHECKING:
    from relay.core.docket import Entry

__all__ = ["add_capture", "record"]


def add_capture(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "capture",
        summary="go on recording what passes for an order, or finish it",
        description=(
            "Goes on with an order for interception or a pen register whose recording was interrupted: by a signal, or "
            "because the relay or this command ended. FILE is appended to, and says from when to when nothing was "
            "recorded; a half record at its end, which a crash leaves, is taken off. After the order's day, after its "
            "withdrawal and with --finish nothing more is recorded, and the order is answered with what FILE holds."
        ),
        examples=(
            "blindpost order capture 3 --home relay --out omar.capture",
            "blindpost order capture 3 --home relay --out omar.capture --finish",
        ),
        run=_capture,
    )
    parser.add_argument("number", type=int, metavar="N", help="the order's number on the docket")
    add_home(parser, "the relay's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the order's file, or a new one")
    parser.add_argument("--finish", action="store_true", help="record no more, and answer the order")


def _capture(options: Options) -> int:
    return _record(home_of(options), options.number, options.out, finish=options.finish)


def record(home: Path, entry: "Entry", index: int, out: Path) -> int:
    """Record for an order of which the log has just said so, and tell what came of it.

    Args:
        home: the relay's.
        entry: the order.
        index: its leaf.
        out: the file.
    """
    from datetime import UTC, datetime

    until = datetime.fromtimestamp(entry.deadline_s, UTC).strftime("%Y-%m-%d")
    print(f"order {entry.number}: recorded until {until}; leaf {index} of the log")
    return _record(home, entry.number, out, finish=False)


def _record(home: Path, number: int, out: Path, *, finish: bool) -> int:
    from blindpost.capturing import Stop, capture
    from blindpost.desk import now_s

    stop = Stop()
    if not finish:
        print(f"{out}: what passes is recorded there; Ctrl-C or SIGTERM is a pause", flush=True)
    with stop.on_signals():
        done = capture(home, number, out, stop, now_s, finish=finish)
    if done is None:
        print(f"order {number}: paused, and open; to go on, or to answer it with --finish:")
        print(f"next: blindpost order capture {number} --home {home} --out {out}")
        return 0
    sealed = ", sealed" if done.sealed else ""
    print(f"order {number}: {done.entry.state.value}; {out}: {out.stat().st_size} bytes")
    print(f"answer: {done.answer.outcome}; leaf {done.index} of {done.log_size}{sealed}\n{done.answer.text}")
    print(
        f"next: blindpost audit --capture {out} --relay-card {home / 'relay-card.toml'} --log {home / 'transparency'}"
    )
    return 0
