"""Run the controls: let each cheat cheat, have the verifier look, and compare with the honest twin.

    results = run_controls(workers=2)
    for result in results:
        print(result.name, result.caught, result.caught_by, result.proof)

A laboratory (one for each worker) makes one honest world and copies its relay's home for each cheat of a relay; cheats
of clients get worlds of their own. Every disclosure is made by a relay's process, and audited by the verifier as it is.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import relay
from audit import Control, Report, Status
from audit.keysearch.trials import CHAIN_STEPS
from relay.disclosure import take_wholesale
from sim.historical import GLOBAL_PIN_KEY, PIN_SUITE
from sim.mutants import relay_side
from sim.mutants.catalogue import CATALOGUE, Mutant, Side
from sim.mutants.client_side import CLIENT_CHEATS
from sim.mutants.key_plants import TWIN_SEARCH, key_search_of, masked_keys, plants_of
from sim.mutants.outside import outside
from sim.mutants.proofs import CheatFailed, Scene
from sim.mutants.relay_keys import KEY_CHEATS, OUT_OF_REACH, PLACES
from sim.mutants.unseen import KEPT_ELSEWHERE, UNSEEN, UNSEEN_CLIENT_CHEATS, Unseen
from sim.pin_world import pin_world
from sim.world import Cheat, Evidence, Served, World
from wire.errors import BlindpostError

__all__ = ["ControlResult", "Laboratory", "run_controls"]

_ROOT: Final = Path(relay.__file__).resolve().parent.parent
_PROCESS_S_MAX: Final = 60.0
_KEPT_IN_MEMORY: Final = {
    "honest": (),
    "plaintext-in-memory": ("texts",),
    "device-key-in-memory": ("device_seed",),
}
_TWINS: Final = ("twin at rest", "twin with memory")
_CLIENT_CHEATS: Final = {**CLIENT_CHEATS, **UNSEEN_CLIENT_CHEATS}
_UNSEEN_OF_RELAYS: Final = {unseen.name for unseen in UNSEEN if unseen.side is Side.RELAY}


@dataclass(frozen=True)
class ControlResult:
    """What came of one control.

    Attributes:
        name: the mutant's.
        expected: the check that must catch it.
        caught_by: every check that failed on it.
        finding: what the expected check said first.
        proof: where the leak is, found without the verifier; empty if the cheat did not work.
        twin_passes: whether the honest twin passes the expected check.
        problem: what went wrong with the control itself; empty if nothing did.
        seconds: how long it took.
    """

    name: str
    expected: str
    caught_by: tuple[str, ...] = ()
    finding: str = ""
    proof: str = ""
    twin_passes: bool = False
    problem: str = ""
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        """Whether the check meant for it caught it, the cheat works, and the honest twin passes that check."""
        return bool(self.expected in self.caught_by and self.proof and self.twin_passes and not self.problem)

    @property
    def control(self) -> Control:
        """The same for the verifier's report."""
        return Control(self.name, self.expected, self.caught_by if self.caught else ())


@dataclass
class Laboratory:
    """One honest world, and what is made of it.

    Args:
        folder: empties at the end; worlds and disclosures lie in it.
    """

    folder: Path
    _evidence: Evidence | None = None
    _home: Path | None = None
    _planted: Scene | None = None
    _count: int = field(default=0)

    def honest(self) -> tuple[Path, Evidence]:
        """The honest relay's home, and what its people know; made at first use."""
        if self._home is None or self._evidence is None:
            world = asyncio.run(_talked(self.folder / "honest"))
            self._home, self._evidence = world.home.path, world.evidence
        return self._home, self._evidence

    def serve(self, mutant: "Mutant | Unseen") -> Scene:
        """Let a mutant cheat, and have its disclosure made.

        Raises:
            CheatFailed, OSError, BlindpostError: it could not be done.
        """
        folder = self._fresh(mutant.name)
        if mutant.side is Side.CLIENT:
            world = asyncio.run(_talked(folder / "world", _CLIENT_CHEATS[mutant.name]))
            return self._handed_over("honest", folder, world.home.path, world.evidence)
        if mutant.side is Side.HISTORICAL:
            home, evidence = asyncio.run(pin_world(folder / "world"))
            return self._handed_over("honest", folder, home, evidence)
        if mutant.name == OUT_OF_REACH:
            world = asyncio.run(_talked(folder / "world", withdrawn=CHAIN_STEPS))
            return self._handed_over(mutant.name, folder, world.home.path, world.evidence, memory=True)
        if mutant.name in PLACES and self._planted is not None:
            # One process carries all of them.
            return self._planted
        home, evidence = self.honest()
        twice = isinstance(mutant, Mutant) and mutant.twice
        memory = mutant.side is Side.MEMORY
        scene = self._handed_over(mutant.name, folder, home, evidence, memory=memory, twice=twice)
        if mutant.name in PLACES:
            self._planted = scene
        return scene

    def twin(self, *, memory: bool) -> Report:
        """The verdict on the honest relay, which holds the PIN key against it as well."""
        home, evidence = self.honest()
        folder = self._fresh("twin")
        # The one at rest is the twin of those as well that are asked twice.
        scene = self._handed_over("honest", folder, home, evidence, memory=memory, twice=not memory)
        return scene.served.audit(TWIN_SEARCH if memory else None)

    def _fresh(self, name: str) -> Path:
        self._count += 1
        folder = self.folder / f"{self._count:02}-{name}"
        folder.mkdir()
        return folder

    def _handed_over(
        self,
        cheat: str,
        folder: Path,
        home: Path,
        evidence: Evidence,
        *,
        memory: bool = False,
        twice: bool = False,
    ) -> Scene:
        """Copy the home, and have the relay, or the one that cheats, hand everything over."""
        own = shutil.copytree(home, folder / "relay")
        card = (own / "relay-card.toml").read_bytes()
        out = folder / "disclosure"
        spoils = folder / "spoils.json"
        earlier = take_wholesale(own, folder / "earlier").path if twice else None
        requested_at = int(time.time())
        spoils.write_text(json.dumps(_spoils(cheat, evidence)), encoding="utf-8")
        if memory:
            with _held(cheat, own, spoils):
                take_wholesale(own, out, memory=True)
            for beside in ("relay-card.toml", "order.toml"):
                (out / beside).unlink()
        else:
            out.mkdir(mode=0o700)
            command = [*_command(cheat), str(own), str(out), str(spoils)]
            with outside(folder) as port:
                spoils.write_text(json.dumps({**_spoils(cheat, evidence), "outside": port}), encoding="utf-8")
                done = subprocess.run(
                    command, env=_environment(), capture_output=True, check=False, text=True, timeout=_PROCESS_S_MAX
                )
            if done.returncode:
                raise CheatFailed(f"the relay's process ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        pin_key: list[object] = [5, PIN_SUITE, GLOBAL_PIN_KEY]
        order = f"requested_at = {requested_at}\nreceived_at = {int(time.time()) + 1}\n".encode()
        volunteered = evidence.volunteered([pin_key])
        return Scene(Served(out, card, evidence.commitments, volunteered, order, earlier), evidence)


def run_controls(
    workers: int = 2,
    names: Sequence[str] | None = None,
    on_result: Callable[[ControlResult], None] | None = None,
) -> list[ControlResult]:
    """Run all controls, or those named.

    Args:
        workers: processes; 1 runs them in this one.
        names: mutants of the catalogue.
        on_result: told of each result as it comes; the order is theirs.

    Returns:
        One result for each mutant, in the catalogue's order.
    """
    mutants = [mutant for mutant in CATALOGUE if names is None or mutant.name in names]
    twins = [twin for twin in _TWINS if any((mutant.side is Side.MEMORY) == (twin == _TWINS[1]) for mutant in mutants)]
    passing: dict[str, frozenset[str]] = {}
    waiting: list[ControlResult] = []
    results: dict[str, ControlResult] = {}

    def take(outcome: "_TwinOutcome | ControlResult") -> None:
        if isinstance(outcome, _TwinOutcome):
            passing[outcome.name] = outcome.passing
        else:
            waiting.append(outcome)
        for result in list(waiting):
            twin = _twin_of(result.name)
            if twin in passing:
                waiting.remove(result)
                settled = _with_twin(result, passing[twin])
                results[result.name] = settled
                if on_result is not None:
                    on_result(settled)

    tasks = [*twins, *(mutant.name for mutant in mutants)]
    with tempfile.TemporaryDirectory(prefix="blindpost-controls-") as name:
        if workers == 1:
            laboratory = Laboratory(Path(name))
            for task in tasks:
                take(_run_task(laboratory, task))
        else:
            with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (name,)) as pool:
                for future in as_completed([pool.submit(_work, task) for task in tasks]):
                    take(future.result())
    return [results[mutant.name] for mutant in mutants]


@dataclass(frozen=True)
class _TwinOutcome:
    name: str
    passing: frozenset[str]


_LABORATORIES: Final[list[Laboratory]] = []
"""The worker's own."""


def _start_worker(name: str) -> None:
    folder = Path(name) / f"worker-{os.getpid()}"
    folder.mkdir()
    _LABORATORIES.append(Laboratory(folder))


def _work(task: str) -> "_TwinOutcome | ControlResult":
    return _run_task(_LABORATORIES[0], task)


def _run_task(laboratory: Laboratory, task: str) -> "_TwinOutcome | ControlResult":
    if task in _TWINS:
        report = laboratory.twin(memory=task == _TWINS[1])
        passed = {outcome.about.check_id for outcome in report.outcomes if outcome.status is Status.PASSED}
        # A twin that is not BLIND as a whole is no honest twin.
        return _TwinOutcome(task, frozenset(passed if report.exit_status == 0 else ()))
    return _run_one(laboratory, next(mutant for mutant in CATALOGUE if mutant.name == task))


def _run_one(laboratory: Laboratory, mutant: Mutant) -> ControlResult:
    started_s = time.monotonic()
    try:
        scene = laboratory.serve(mutant)
        proof = mutant.proof(scene)
        report = scene.served.audit(key_search_of(scene, mutant.name))
        problem = plants_of(scene, mutant.name).missed(report) if mutant.name in PLACES else ""
    except (BlindpostError, OSError, subprocess.SubprocessError) as error:
        problem = f"{type(error).__name__}: {error}"
        return ControlResult(mutant.name, mutant.check, problem=problem, seconds=time.monotonic() - started_s)
    outcome = next(outcome for outcome in report.outcomes if outcome.about.check_id == mutant.check)
    finding = str(outcome.findings[0]) if outcome.findings else ""
    seconds = time.monotonic() - started_s
    return ControlResult(mutant.name, mutant.check, report.failed, finding, proof, problem=problem, seconds=seconds)


def _with_twin(result: ControlResult, passing: frozenset[str]) -> ControlResult:
    return ControlResult(
        result.name,
        result.expected,
        result.caught_by,
        result.finding,
        result.proof,
        result.expected in passing,
        result.problem,
        result.seconds,
    )


def _twin_of(name: str) -> str:
    mutant = next(mutant for mutant in CATALOGUE if mutant.name == name)
    return _TWINS[1] if mutant.side is Side.MEMORY else _TWINS[0]


async def _talked(folder: Path, cheat: Cheat | None = None, withdrawn: int = 0) -> World:
    async with World.start(folder) as world:
        await world.talk(cheat, withdrawn)
    return world


def _spoils(cheat: str, evidence: Evidence) -> dict[str, object]:
    """What colluding devices hand to a cheating relay; one that cheats in memory gets only what it keeps there."""
    spoils: dict[str, object] = {
        "texts": [canary.text for canary in evidence.canaries],
        "sender": evidence.canaries[0].who,
        "elsewhere": KEPT_ELSEWHERE,
        "device_seed": next(iter(evidence.secrets.values()), [("", b"")])[0][1].hex(),
        "message_keys": [opening[3].hex() for opening in evidence.openings if isinstance(opening[3], bytes)],
    }
    if cheat in KEY_CHEATS:
        return masked_keys(evidence, cheat)
    wanted = _KEPT_IN_MEMORY.get(cheat)
    return {name: value for name, value in spoils.items() if wanted is None or name in wanted}


def _command(cheat: str) -> list[str]:
    script = Path(relay_side.__file__).resolve()
    if cheat in _UNSEEN_OF_RELAYS:
        script = script.with_name("relay_unseen.py")
    elif cheat in KEY_CHEATS:
        script = script.with_name("relay_keys.py")
    return [sys.executable, "-P", str(script), cheat]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))}


@contextmanager
def _held(cheat: str, home: Path, spoils: Path) -> Iterator[None]:
    """A relay's process that serves orders until the block ends."""
    with subprocess.Popen(
        [*_command(cheat), "--hold", str(home), str(spoils)],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise CheatFailed("the relay's process does not get ready")
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_PROCESS_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
