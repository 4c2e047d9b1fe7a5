"""`blindpost prove noninterference`: is the relay's behaviour the same, whatever is in the bodies?"""

from typing import Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude, progress_bar

__all__ = ["add_command_to"]

_MESSAGES: Final = 2_000
_MESSAGES_MAX: Final = 100_000


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "noninterference",
        summary="replay the relay's inputs with other bodies: does it do anything else?",
        description=(
            "Plays a population with real end-to-end cryptography against the real relay under virtual time: loss, "
            "duplicates, delays, spoilt packets, a failing disk, crashes, refusals, expiry. Then hands the recorded "
            "inputs to the relay three times: with the recorded bodies, with encryptions of other contents of the same "
            "padded lengths, and with random bytes. All that the relay does is compared, field by field: what it sends "
            "and when, rows, deletions, log lines, counters, refusals, and the state of its memory. Only bodies and "
            "declared functions of them may differ, and those are computed once more. Relays that do depend on content "
            "go through the same, and must be found."
        ),
        examples=(
            "blindpost prove noninterference",
            "blindpost prove noninterference --seed 7 --messages 500",
            "blindpost prove noninterference --store sqlite --json noninterference.json",
        ),
        run=_run,
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws population, schedule and faults (1)")
    parser.add_argument(
        "--messages", type=int, default=_MESSAGES, metavar="M", help=f"how many are written ({_MESSAGES:,})"
    )
    parser.add_argument(
        "--store", choices=("memory", "sqlite"), default="memory", help="where the relay keeps its rows (memory)"
    )
    add_json(parser)


def _run(options: Options) -> int:
    from sim.experiments.noninterference.experiment import STEPS, run

    if not 1 <= options.messages <= _MESSAGES_MAX:
        raise CommandError(f"--messages {options.messages}: must be 1 to {_MESSAGES_MAX:,}", "", ExitStatus.USAGE)
    done = 0
    with progress_bar("noninterference") as show:

        def told(what: str) -> None:
            nonlocal done
            show(what, done, STEPS)
            done += 1

        result = run(options.seed, options.messages, options.store == "sqlite", told)
    return conclude(result, options)
