"""`blindpost prove all` and `prove verify`: every experiment behind the claims, stated under a signature.

The order: audit the disclosure with a search for keys, then the experiments that need no disclosure, then the controls;
last the page and the statement. Each part's result is also written by itself. What stands in the statement repeats to
the byte (statement.py); how long each part took is told in the terminal only.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import progress_bar, status_of_verdict, verdict_markup

if TYPE_CHECKING:
    from rich.console import Console

    from audit import Report
    from blindpost.proving.statement import SigningKey
    from sim.experiments.generations import GenerationsRun
    from sim.experiments.result import Result

__all__ = ["add_all_to", "add_verify_to"]

_EPISODES: Final = 65_536
_MESSAGES: Final = 2_000
_QUICK_EPISODES: Final = 8_192
_QUICK_ADVANTAGE: Final = 0.1
_QUICK_MESSAGES: Final = 200
_MIB: Final = 1_048_576
Told = Callable[[str, int, int], None]


def add_all_to(family: "Subparsers[Parser]") -> None:
    """Add `prove all`."""
    parser = add_command(
        family,
        "all",
        summary="run every experiment on a disclosure, and state what came of it under a signature",
        description=(
            "Runs the whole proof: the audit with a search for keys, non-interference, the distinguishing game, "
            "completeness, erasure, seizure, harvest, the five generations, and every mutant. Writes a page with "
            "pictures and a statement: in-toto, in a DSSE envelope, with digests of the disclosure, the verifier and "
            "every input. The same inputs give the same statement: two people compare the one line that is printed "
            "last. Takes some minutes; --quick plays fewer episodes and messages, and says so in the statement."
        ),
        examples=(
            "blindpost prove all",
            "blindpost prove all story --out proof --key mine.key",
            "blindpost prove all story --out proof --quick",
        ),
        run=_run,
    )
    parser.add_argument(
        "story", nargs="?", type=Path, metavar="DIR", help="what 'blindpost demo --out DIR' wrote (default: a new one)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("proof"), help="a new folder (default: proof)")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="whose statement it is: a signing key, made if it is not there"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the experiments that draw (default: 1)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--quick", action="store_true", help="fewer episodes and messages: a trial, not the proof")


def add_verify_to(family: "Subparsers[Parser]") -> None:
    """Add `prove verify`."""
    parser = add_command(
        family,
        "verify",
        summary="check the signature of a statement, and read it",
        description=(
            "Checks a statement of 'blindpost prove all' with the public key of whoever made it, and prints what it "
            "says and its digest. With --disclosure it also checks that the statement is of that very disclosure."
        ),
        examples=(
            "blindpost prove verify proof/statement.json --key proof/statement.key.pub",
            "blindpost prove verify proof/statement.json --key mine.key.pub --disclosure story/disclosure",
        ),
        run=_verify,
    )
    parser.add_argument("statement", type=Path, metavar="FILE", help="the statement")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the public key: FILE.pub")
    parser.add_argument("--disclosure", type=Path, metavar="DIR", help="what it must be of")


@dataclass(frozen=True)
class _Story:
    """What the demo wrote: the disclosure, and what people had and gave."""

    folder: Path

    @property
    def disclosure(self) -> Path:
        return self.folder / "disclosure"

    @property
    def card(self) -> Path:
        return self.folder / "relay-card.toml"

    @property
    def commitments(self) -> Path:
        return self.folder / "commitments.msgpack"

    @property
    def volunteered(self) -> list[Path]:
        return sorted((self.folder / "volunteered").glob("*.msgpack"))

    @property
    def order(self) -> Path:
        return self.disclosure / "order.toml"

    def check(self) -> None:
        """Refuse a folder that is none."""
        for path in (self.disclosure, self.card, self.commitments):
            if not path.exists():
                hint = "give the folder that 'blindpost demo --out DIR' wrote, or none"
                raise CommandError(f"{path} is not there", hint, ExitStatus.NO_INPUT)

    @property
    def inputs(self) -> list[tuple[str, Path]]:
        """Name and place of what the verdict depends on beside the disclosure."""
        named = [("relay-card.toml", self.card), ("commitments.msgpack", self.commitments)]
        if self.order.exists():
            named.append(("order.toml", self.order))
        return named + [(f"volunteered/{path.name}", path) for path in self.volunteered]


@dataclass
class _Proof:
    """The run of the whole proof."""

    options: Options
    story: _Story
    console: "Console"
    results: list["Result"] = field(default_factory=list)
    generations: "GenerationsRun | None" = None
    report: "Report | None" = None

    @contextmanager
    def part(self, name: str) -> Iterator[Told]:
        """Show that a part runs, and how long it took."""
        started_s = time.monotonic()
        with progress_bar(name) as told:
            yield told
        verdict = verdict_markup(self.results[-1].verdict.value) if name != "audit" else self._audit_word()
        self.console.print(f"  {name:16} {time.monotonic() - started_s:6.1f} s  {verdict}")

    def _audit_word(self) -> str:
        assert self.report is not None
        return f"[bold]{self.report.verdict.value}[/]"

    def run(self) -> None:
        """Run all parts."""
        self._audit()
        self._experiments()
        with self.part("controls") as told:
            from sim.experiments.controls import run_controls

            self.results.append(run_controls(self.options.workers, None, told).result)

    def _audit(self) -> None:
        from audit import run
        from sim.experiments import keysearch

        settings = keysearch.settings_of(alignment=8, full=True, workers=self.options.workers, thorough=False)
        with self.part("audit") as told:
            self.report = run(
                self.story.disclosure,
                card=self.story.card,
                volunteered=self.story.volunteered,
                commitments=self.story.commitments,
                order=self.story.order if self.story.order.exists() else None,
                key_search=settings,
                progress=told,
            )
        with self.part("keysearch") as told:
            self.results.append(keysearch.judge(self.report, settings, told))

    def _experiments(self) -> None:
        from sim.experiments import completeness, erased, game, harvest, seizure
        from sim.experiments.generations import run_generations
        from sim.experiments.noninterference import experiment as noninterference

        quick, seed = self.options.quick, self.options.seed
        with self.part("noninterference") as told:
            steps = iter(range(noninterference.STEPS + 1))
            messages = _QUICK_MESSAGES if quick else _MESSAGES
            self.results.append(
                noninterference.run(seed, messages, False, lambda what: told(what, next(steps), noninterference.STEPS))
            )
        with self.part("game") as told:
            # Fewer episodes give wider intervals: a quick game asks less of them, and its plan in the document says so.
            plan = (
                game.Plan(seed=seed, episodes=_QUICK_EPISODES, advantage_max=_QUICK_ADVANTAGE)
                if quick
                else (game.Plan(seed=seed, episodes=_EPISODES))
            )
            self.results.append(game.run(plan, self.options.workers, told))
        with self.part("completeness") as told:
            self.results.append(completeness.run(told))
        with self.part("erased") as told:
            self.results.append(erased.run(told))
        for experiment in (seizure, harvest):
            name = experiment.__name__.rpartition(".")[2]
            with self.part(name) as told, TemporaryDirectory(prefix=f"blindpost-{name}-") as folder:
                self.results.append(experiment.run(Path(folder), progress=told))
        with self.part("generations") as told, TemporaryDirectory(prefix="blindpost-generations-") as folder:
            self.generations = run_generations(Path(folder), told)
            self.results.append(self.generations.result)


def _run(options: Options) -> int:
    from rich.console import Console

    check_absent(options.out)
    options.out.mkdir()
    console = Console(highlight=False, soft_wrap=True)
    story = _Story(options.story) if options.story is not None else _told(options.out / "story")
    story.check()
    proof = _Proof(options, story, console)
    console.print(f"The proof, on {story.disclosure}", markup=False)
    try:
        proof.run()
    except ImportError as error:
        raise CommandError(f"{error.name} is not installed", "pip install 'blindpost[prove]'") from None
    return _conclude(proof)


def _told(folder: Path) -> _Story:
    """Tell the demo's story first."""
    print(f"No story was named: 'blindpost demo --out {folder}' tells one", flush=True)
    command = [sys.executable, "-m", "blindpost", "demo", "--out", str(folder)]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise CommandError("the demo did not come out as it should", f"see {folder / 'transcript.txt'}")
    return _Story(folder)


def _conclude(proof: _Proof) -> int:
    from audit.report_json import report_object
    from blindpost.proving.proof_page import proof_page
    from blindpost.proving.statement import Statement, directory_digest, file_digest, overall

    assert proof.report is not None
    out: Path = proof.options.out
    audit = report_object(proof.report)
    for result in proof.results:
        text = json.dumps(result.document(), ensure_ascii=False, indent=2) + "\n"
        write_new(out / f"{result.experiment}.json", text.encode(), secret=False)
    statement = Statement(
        [("disclosure", {"dirHash": directory_digest(proof.story.disclosure)})],
        [(name, file_digest(path)) for name, path in proof.story.inputs],
        audit,
        proof.results,
    )
    verdict = overall(audit, proof.results)
    page = proof_page(proof.report, proof.results, proof.generations, verdict.value, statement.digest)
    write_new(out / "proof.html", page.encode(), secret=False)
    key = _signing_key(proof.options)
    write_new(out / "statement.json", statement.signed(key), secret=False)
    console = proof.console
    console.print(f"\n{verdict_markup(verdict.value)}")
    console.print(f"{out / 'proof.html'}: the whole proof, with its pictures and limits", markup=False)
    console.print(f"{out / 'statement.json'}: what came of it, signed; 'blindpost prove verify' reads it", markup=False)
    console.print(f"statement sha256 {statement.digest}", markup=False)
    return status_of_verdict(verdict.value)


def _signing_key(options: Options) -> "SigningKey":
    from blindpost.proving.statement import load_signing_key, new_signing_key

    path = options.key if options.key is not None else options.out / "statement.key"
    return load_signing_key(path) if path.exists() else new_signing_key(path)


def _verify(options: Options) -> int:
    import hashlib

    from blindpost.proving.statement import directory_digest, read_public_key, read_statement

    payload, statement = read_statement(options.statement, read_public_key(options.key))
    predicate = statement["predicate"]
    print(f"{'relay':16} {predicate['audit']['relay_id']}")
    print(f"{'audit':16} {predicate['audit']['verdict']}")
    for experiment in predicate["experiments"]:
        caught = sum(control["caught"] for control in experiment["controls"])
        print(f"{experiment['experiment']:16} {experiment['verdict']}, {caught} of {len(experiment['controls'])} twins")
    print(f"{'all':16} {predicate['verdict']}")
    if options.disclosure is not None:
        (subject,) = statement["subject"]
        if subject["digest"].get("dirHash") != directory_digest(options.disclosure):
            raise CommandError(f"{options.disclosure} is another disclosure than the statement's", "", ExitStatus.DATA)
        print(f"{'disclosure':16} is the one that was examined")
    print(f"statement sha256 {hashlib.sha256(payload).hexdigest()}")
    return status_of_verdict(predicate["verdict"])
