"""The whole demonstration, from the first line to the exit status."""

import asyncio
import io
import os
import shlex
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from blindpost.demo import words
from blindpost.demo.chapters import BlindStory
from blindpost.demo.historical import PinStory
from blindpost.demo.letters import LETTERS_MAX, Letter, own_letters, sample_letters
from blindpost.demo.processes import Verdict, controls
from blindpost.demo.stage import PEOPLE, Stage, clock
from blindpost.demo.transcript import Transcript
from blindpost.errors import UsageError
from blindpost.exit_status import ExitStatus
from wire.errors import FormatError

__all__ = ["DemoOptions", "run_demo"]

# The order in which a person's own mail goes round: the one who will be offline comes early among the recipients.
_ROUND = ("ana", "chloe", "bilal", "dawud")


class DemoOptions(Protocol):
    """What the command line hands over."""

    mail: list[Path]
    broker: str | None
    out: Path | None


@dataclass(frozen=True)
class _Result:
    blind: Verdict
    historical: Verdict
    mutants: int
    caught: int


def run_demo(options: DemoOptions, screen: IO[str] | None = None) -> int:
    """Tell the story on the screen and in the folder; returns the exit status: 0 only if all came out as it should.

    Args:
        options: own mail, own broker, own folder, each optional.
        screen: where to tell it; standard output without it.

    Raises:
        UsageError: the folder holds something already, or no mail is at a path.
        BlindpostError, OSError: a program of the story failed.
    """
    screen = screen or sys.stdout
    if isinstance(screen, io.TextIOWrapper):
        # Urdu and Arabic on a terminal that cannot show them must not end the story.
        screen.reconfigure(errors="replace")
    letters, left_out = _letters(options.mail)
    out = _fresh_folder(options.out)
    with tempfile.TemporaryDirectory(prefix="blindpost-") as work, Transcript(screen, out / "transcript.txt") as shown:
        stage = Stage(shown, out, Path(work), options.broker)
        return asyncio.run(_tell(stage, letters, left_out))


def _letters(paths: list[Path]) -> tuple[list[Letter], int]:
    if not paths:
        return sample_letters(), 0
    people = tuple(PEOPLE[name] for name in _ROUND)
    letters: list[Letter] = []
    left_out = 0
    for path in paths:
        try:
            found, too_many = own_letters(path, people, start=len(letters))
        except FormatError as error:
            raise UsageError(str(error), "--mail takes .eml files, folders of them, and mbox files") from None
        letters += found
        left_out += too_many
    if not letters:
        raise UsageError("no mail was found that could be sent", "a mail has at most 25 MiB")
    return letters, left_out


def _fresh_folder(wanted: Path | None) -> Path:
    if wanted is None:
        wanted = Path.cwd() / f"blindpost-demo-{time.strftime('%Y%m%d-%H%M%S')}"
    wanted = wanted.absolute()
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise UsageError(f"{wanted} holds something already", "give a folder that is new or empty: --out DIR")
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    return wanted


async def _tell(stage: Stage, letters: list[Letter], left_out: int) -> int:
    show = stage.transcript
    started_s = time.monotonic()
    show.title("Blindpost: an order for everything, and nothing to read")
    show.say(words.INTRO)
    show.fact(f"what is written: {stage.out}")
    if left_out:
        show.fact(f"{left_out} mails are left out: at most {LETTERS_MAX} are sent, each of at most 25 MiB")
    async with AsyncExitStack() as stack:
        results = await stack.enter_async_context(controls(stage.work))
        story, verdict = await _blind(stage, letters, results)
        mutants, caught = story.controls()
        historical = await _historical(stage)
    show.chapter("What the relay did see")
    show.say(words.SEEN)
    stage.leakage_table(verdict.report)
    _end(stage, _Result(verdict, historical, mutants, caught), time.monotonic() - started_s)
    return ExitStatus.OK if not stage.failures else ExitStatus.NOT_BLIND


async def _blind(
    stage: Stage, letters: list[Letter], results: "asyncio.Queue[dict[str, Any] | None]"
) -> tuple[BlindStory, Verdict]:
    show = stage.transcript
    show.chapter("The relay")
    async with AsyncExitStack() as stack:
        with show.step("the relay starts") as step:
            home, relay = await stack.enter_async_context(stage.relay("relay"))
            where = "a broker that somebody else runs" if stage.broker else "a broker of its own"
            step.done(
                f"the relay is process {relay.pid}, started at {clock(relay.started)} UTC; {where}: {relay.broker}"
            )
        show.fact(f"this story is process {os.getpid()}; no message and no canary exists yet")
        devices = await stack.enter_async_context(stage.program("the devices", "blindpost.demo.devices"))
        story = BlindStory(stage, home, relay, devices, letters)
        await story.people(await asyncio.to_thread(stage.admit, home))
        await story.promises()
        await story.messages()
        await story.order()
        return story, await story.verdict(results)


async def _historical(stage: Stage) -> Verdict:
    async with AsyncExitStack() as stack:
        home, _ = await stack.enter_async_context(stage.relay("relay-2"))
        handsets = await stack.enter_async_context(stage.program("the handsets", "blindpost.demo.handsets"))
        return await PinStory(stage, home, handsets).tell(await asyncio.to_thread(stage.admit, home))


def _end(stage: Stage, result: _Result, seconds: float) -> None:
    show, out = stage.transcript, stage.out
    show.chapter("What came out")
    show.verdict(result.blind.exit_status == 0, f"{result.blind.word}: keys on the devices only")
    show.fact(f"{result.mutants} mutants, {result.caught} caught")
    show.verdict(result.historical.exit_status == 1, f"{result.historical.word}: one key in every handset")
    show.say("What this does not show:")
    show.table(("", ""), words.NOT_CLAIMED)
    show.say("What was written:")
    show.table(
        ("file", "what it is"),
        (
            (show.path.name, "this page"),
            ("disclosure/", "everything that the relay handed over"),
            ("report.html, report.json", "the verdict, for people and for programs"),
            ("controls.jsonl", "what came of each cheat"),
            ("volunteered/, commitments.msgpack, relay-card.toml", "what people gave the verifier"),
            ("historical/", "the same of the story with one key"),
        ),
    )
    folder = shlex.quote(str(out))
    show.say("Go on yourself:")
    for line in (
        f"cd {folder}",
        "blindpost audit disclosure --relay-card relay-card.toml \\",
        "    --order disclosure/order.toml --commitments commitments.msgpack --volunteered volunteered/*",
        "blindpost demo --mail YOUR.mbox        your own mail, which stays on this machine",
        "blindpost relay init --help            a relay for real use",
    ):
        show.fact(line)
    show.blank()
    if stage.failures:
        show.verdict(False, f"{len(stage.failures)} things did not come out as they should ({seconds:.1f} s):")
        for failure in stage.failures:
            show.bad(failure)
    else:
        show.verdict(True, f"all came out as it should, in {seconds:.1f} seconds")
