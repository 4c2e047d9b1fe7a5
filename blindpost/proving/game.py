"""`blindpost prove game`: a distinguishing game with error bars, and the leaky clients that must lose it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from blindpost.errors import CommandError
from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude

if TYPE_CHECKING:
    from sim.experiments.game import Plan
    from sim.experiments.result import Result

__all__ = ["add_command_to"]

_EPISODES: Final = 65_536
_VIEWS: Final = ("disclosure", "live")
_PAGE: Final = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Distinguishing game</title>\n'
    "<style>body{{font-family:sans-serif;color:#000;background:#fff;max-width:56rem;margin:2rem auto;padding:0 1rem;"
    "line-height:1.4}}</style>\n</head>\n<body>\n{section}\n</body>\n</html>\n"
)


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "game",
        summary="let adversaries guess, from all that a relay has, which of two worlds it served",
        description=(
            "Each episode is a relay of its own that serves one of two worlds, drawn by a fair coin. They differ in "
            "content alone: short chats, or mail that fills its padding step and repeats itself. Adversaries written "
            "by hand and learned ones get the disclosure or the live view, train on some episodes and guess others. "
            "The plan is hashed and printed before the run. The same adversaries must win against clients that leak, "
            "or the result is void. Needs scikit-learn: pip install 'blindpost[prove]'."
        ),
        examples=(
            "blindpost prove game",
            "blindpost prove game --view live --seed 7 --json game.json --html game.html",
        ),
        run=_run,
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of every episode (default: 1)")
    parser.add_argument(
        "--episodes", type=int, default=_EPISODES, metavar="N", help=f"held-out episodes (default: {_EPISODES:,})"
    )
    parser.add_argument(
        "--view", choices=_VIEWS, default=_VIEWS[0], help="what adversaries are given (default: disclosure)"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also draw the result on a page without scripts")
    add_json(parser)


def _run(options: Options) -> int:
    from sim.experiments.game import NotInstalled, Plan, View

    plan = Plan(seed=options.seed, episodes=options.episodes, view=View(options.view))
    if options.html is not None:
        check_absent(options.html)
    try:
        plan.check()
        result = _played(plan, options.workers)
    except NotInstalled as error:
        raise CommandError(str(error), error.hint) from None
    if options.html is not None:
        write_new(options.html, _page(result), secret=False)
    return conclude(result, options)


def _played(plan: "Plan", workers: int) -> "Result":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sim.experiments.game import run

    console = Console(stderr=True, highlight=False)
    console.print(
        f"plan {plan.digest()}\n  seed {plan.seed}, view {plan.view.value}, {plan.episodes:,} held-out and "
        f"{plan.training_episodes:,} training episodes, alpha {plan.alpha} for {len(plan.adversaries)} adversaries: "
        f"{', '.join(plan.adversaries)}\n  a blind relay fails this plan with probability "
        f"{plan.blind_failure():.4f} at most",
        markup=False,
        soft_wrap=True,
    )
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("game", total=None)
        return run(
            plan,
            workers,
            lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )


def _page(result: "Result") -> bytes:
    from sim.experiments.game import page_section

    return _PAGE.format(section=page_section(result)).encode()
