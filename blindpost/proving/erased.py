"""`blindpost prove erased`: nothing of an erased envelope is left in files, and the twins that leave something."""

from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude

__all__ = ["add_command_to"]


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "erased",
        summary="search raw files for what was acknowledged, withdrawn or has expired",
        description=(
            "The relay works on its files, people send, withdraw and acknowledge, and its clock is put past an expiry; "
            "then every file of its home is searched, byte for byte, for runs of the envelope. The same for what a "
            "device keeps, after kill -9 at awkward moments, and for the directories of Mosquitto and of the NATS "
            "server, made to persist. Each twin, such as secure_delete off or a session at QoS 1, must be found out."
        ),
        examples=("blindpost prove erased", "blindpost prove erased --json erased.json"),
        run=_run,
    )
    add_json(parser)


def _run(options: Options) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sim.experiments.erased import run

    columns = (TextColumn("{task.description:36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("erased", total=None)
        result = run(lambda what, done, total: bar.update(task, description=what, completed=done, total=total))
    return conclude(result, options)
