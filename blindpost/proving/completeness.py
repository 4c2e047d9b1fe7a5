"""`blindpost prove completeness`: judge a disclosure by receipts, and write evidence that others can check."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.errors import CommandError, UsageError
from blindpost.exit_status import ExitStatus
from blindpost.files import write_new
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude

if TYPE_CHECKING:
    from audit.evidence import Completeness

__all__ = ["add_command_to"]


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "completeness",
        summary="check that a disclosure hides nothing, and write evidence for third parties if it does",
        description=(
            "With a disclosure: each volunteered receipt is judged, and for each way in which the relay broke its word "
            "a file of evidence is written, which anybody can check with the relay's card alone ('blindpost prove "
            "evidence'); a store of more than 16 MiB is not carried along, its reader needs the disclosure. Exit "
            "status 0 if nothing was found, 1 if the relay is convicted, 2 if something "
            "speaks against it that a third party cannot check. Without a disclosure: the experiment behind C5, an "
            "honest relay, every false accusation, and the relays that cheat."
        ),
        examples=(
            "blindpost prove completeness disclosure --relay-card relay-card.toml --volunteered ana.bin --out evidence",
            "blindpost prove completeness disclosure-2 --relay-card relay-card.toml --earlier disclosure-1",
            "blindpost prove completeness",
        ),
        run=_run,
    )
    parser.add_argument(
        "disclosure", nargs="?", type=Path, metavar="DIR", help="the directory that the relay handed over"
    )
    parser.add_argument("--relay-card", type=Path, metavar="FILE", help="the relay's card, as you had it before")
    parser.add_argument(
        "--volunteered",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="what participants gave (blindpost volunteer --receipts); may be repeated",
    )
    parser.add_argument("--earlier", type=Path, metavar="DIR", help="another disclosure of this relay, made before")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where evidence is written: a directory, made if needed"
    )
    add_json(parser)


def _run(options: Options) -> int:
    if options.disclosure is None:
        if options.relay_card or options.volunteered or options.earlier or options.out:
            raise UsageError("these options judge a disclosure: name its directory")
        return _experiment(options)
    if options.relay_card is None:
        raise UsageError("--relay-card is needed: without it nobody knows whose signature to expect")
    if options.json is not None:
        raise UsageError("--json is for the experiment; evidence is written with --out")
    from audit.errors import AuditError

    try:
        found = _judge(options)
    except AuditError as error:
        raise CommandError(
            str(error), "blindpost audit says what is wrong with a disclosure", ExitStatus.DATA
        ) from None
    _show(found)
    if options.out is not None and found.accusations:
        options.out.mkdir(parents=True, exist_ok=True)
        for accusation in found.accusations:
            path = options.out / accusation.name
            if not path.exists():
                # The name is that of the content: what is there already is the same.
                write_new(path, accusation.bundle, secret=False)
            print(f"{path}: {len(accusation.bundle):,} bytes")
    if found.complete:
        return ExitStatus.OK
    return ExitStatus.NOT_BLIND if found.accusations else ExitStatus.INCOMPLETE


def _judge(options: Options) -> "Completeness":
    from audit.case import open_case
    from audit.disclosure import Disclosure
    from audit.errors import EvidenceError
    from audit.evidence import gather
    from audit.material import load, read_card, read_material

    card = read_card(load(options.relay_card, "relay card"), options.relay_card.name)
    material = read_material(options.volunteered, [], [])
    if material.problems:
        raise EvidenceError("volunteered", material.problems[0])
    with ExitStack() as stack:
        case = open_case(stack.enter_context(Disclosure(options.disclosure)), card, material)
        before = None
        if options.earlier is not None:
            opened = stack.enter_context(Disclosure(options.earlier))
            before = open_case(opened, card, read_material([], [], []))
        return gather(case, before)


def _show(found: "Completeness") -> None:
    from audit.evidence.__main__ import render

    how = ", ".join(f"{count} {word}" for word, count in sorted(found.honoured.items()))
    print(f"{found.receipts} receipts that the relay signed: {how or 'none that could be judged'}")
    if found.earlier_rows:
        print(f"{found.earlier_rows} rows of the earlier disclosure followed")
    for reason in found.refused:
        print(f"no evidence: {reason}")
    for suspicion in found.suspicions:
        print(f"suspected, and not to be shown to a third party: {suspicion}")
    for accusation in found.accusations:
        print(f"\n{accusation.where}\n{render(accusation.conviction)}")
    if found.complete:
        print("COMPLETE as far as these receipts go: nothing that they name is hidden, swapped or rewritten")
    else:
        print(f"\nNOT COMPLETE: {found.contradictions} contradictions, {len(found.accusations)} files of evidence")


def _experiment(options: Options) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sim.experiments.completeness import run

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("completeness", total=None)
        result = run(lambda what, done, total: bar.update(task, description=what, completed=done, total=total))
    return conclude(result, options)
