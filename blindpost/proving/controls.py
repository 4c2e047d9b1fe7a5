"""`blindpost prove controls`: every mutant against every check, and the cheats that no check can catch."""

from typing import TYPE_CHECKING

from blindpost.errors import CommandError
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from sim.experiments.controls import ControlsRun

__all__ = ["add_command_to", "show_matrix"]


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "controls",
        summary="run every relay and client that cheats, and print which check catches which",
        description=(
            "Each mutant is a relay or a client that cheats in one way. It counts as caught if its leak is really "
            "there, the check meant for it fails, and the honest twin passes that check. The cheats that nobody can "
            "see in a disclosure are run as well: they leak, and the verdict stays BLIND; these are the limits of the "
            "claim. docs/controls.md tells what each does and which real case it stands for."
        ),
        examples=("blindpost prove controls", "blindpost prove controls left-out dns-lookups --json controls.json"),
        run=_run,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run (default: all)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    add_json(parser)


def _run(options: Options) -> int:
    from rich.console import Console

    from sim.experiments.controls import run_controls
    from sim.mutants.catalogue import CATALOGUE
    from sim.mutants.unseen import UNSEEN

    known = {mutant.name for mutant in CATALOGUE} | {cheat.name for cheat in UNSEEN}
    if unknown := sorted(set(options.names) - known):
        raise CommandError(f"no mutant is named {unknown[0]!r}", f"there are {', '.join(sorted(known))}")
    with progress_bar("controls") as told:
        run = run_controls(max(1, options.workers), options.names or None, told)
    if options.json is None or str(options.json) != "-":
        show_matrix(run, Console(highlight=False, soft_wrap=True))
    return conclude(run.result, options, twins=False)


def show_matrix(run: "ControlsRun", console: "Console") -> None:
    """Print the matrix: a line a mutant, a column a check."""
    checks = run.checks
    width = max((len(name) for name in run.matrix), default=0)
    for number, check in enumerate(checks):
        console.print(f"{'':{width}}  {'│ ' * number}┌ {check}", markup=False)
    for result in run.caught:
        cells = "".join(_cell(check, result.expected, run.matrix[result.name]) for check in checks)
        console.print(f"{result.name:{width}}  {cells}{'' if result.caught else '  NOT CAUGHT'}", markup=False)
    console.print("● the check meant for it failed   ○ another failed as well   · passed\n", markup=False)
    if run.shown:
        console.print("Not seen by anybody who looks at a disclosure:", markup=False)
    for shown in run.shown:
        console.print(f"  {shown.unseen.name}: {shown.proof or shown.problem}", markup=False)
        console.print(f"    {shown.unseen.why}", markup=False)
    console.print()


def _cell(check: str, expected: str, failed: frozenset[str]) -> str:
    if check not in failed:
        return "· "
    return "● " if check == expected else "○ "
