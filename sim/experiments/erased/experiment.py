"""The experiment: everything that could keep an erased envelope is searched, and each twin must be found out."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

from client.errors import Unknown
from relay.store.protocol import CHECKPOINT_COMMITS
from relay.store.sqlite import SqliteStore
from sim.experiments.erased.brokers import BROKERS, is_there, kept_by
from sim.experiments.erased.homes import (
    WAYS,
    KeptLog,
    KeptLogOfDevice,
    NotSecure,
    after_kill,
    commits_until_erased,
    device_steps_until_erased,
    erased_by,
    left_by_idle_device,
)
from sim.experiments.erased.process import MOMENTS
from sim.experiments.erased.raw import RUN_BYTES
from sim.experiments.erased.waiting import Lingers, NeverCame
from sim.experiments.result import Control, Figure, Result

__all__ = ["DEVICE_STEPS", "Progress", "run"]

Progress = Callable[[str, int, int], None]
DEVICE_STEPS: Final = 64
"""The stated bound of a device's home, in steps (client/store.py)."""
_COMMITS: Final = ("commits of the relay", CHECKPOINT_COMMITS)
_STEPS: Final = ("steps of a device", DEVICE_STEPS)
_IN_VAIN: Final = (NeverCame, Lingers, Unknown, TimeoutExpired)
"""What a step raises whose end did not come."""
_TWINS: Final = (
    ("secure_delete off", NotSecure, "deletes rows and does not overwrite them"),
    ("log kept", KeptLog, "never empties its write-ahead log"),
)


def run(progress: Progress | None = None, brokers: tuple[str, ...] = BROKERS) -> Result:
    """Search the files of relay, device and brokers.

    Args:
        progress: called with what is done, how many steps have ended, and how many there are.
        brokers: those to run, of `BROKERS`; one that is not installed is told as a limit.
    """
    present = [name for name in brokers if is_there(name)]
    total, done = 4 + len(_TWINS) + 2 * len(MOMENTS) + len(present), 0

    def ended(what: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, total)

    def step(what: str, job: Callable[[], None]) -> None:
        """Take one step; what it waits for in vain is evidence, and the next one is taken."""
        try:
            job()
        except _IN_VAIN as error:
            evidence.append(f"{what}: {error}")
        ended(what)

    evidence: list[str] = []
    figures: list[Figure] = []
    controls: list[Control] = []
    with tempfile.TemporaryDirectory(prefix="blindpost-erased-") as name:
        folder = Path(name)

        def fresh(what: str) -> Path:
            made = folder / what.replace(" ", "-")
            made.mkdir()
            return made

        step("the relay at work", lambda: _of_relay(fresh("relay"), figures, evidence))
        for twin, store, cheat in _TWINS:
            controls.append(_of_twin(fresh(twin), twin, store, cheat))
            ended(twin)
        step(
            "commits of the relay",
            lambda: _by_count(commits_until_erased(fresh("commits")), *_COMMITS, figures, evidence),
        )
        step(
            "steps of a device",
            lambda: _by_count(device_steps_until_erased(fresh("steps")), *_STEPS, figures, evidence),
        )
        step("an idle device", lambda: _of_idle_device(fresh("idle"), fresh("idle twin"), figures, evidence, controls))
        for what in ("relay", "device"):
            for moment in MOMENTS:
                killed = f"{what}, killed {moment}"
                step(killed, partial(_after_kill, what, moment, fresh(f"{what} {moment}"), figures, evidence, controls))
        for broker in present:
            step(broker, partial(_of_broker, broker, fresh(broker), figures, evidence, controls))
    return Result(
        experiment="erased",
        claim="C3",
        statement=(
            f"After ack, withdrawal or expiry no run of {RUN_BYTES} bytes of an envelope is left in the relay's home "
            f"within 1 second or {CHECKPOINT_COMMITS} commits, nor of an erased row in a device's within "
            f"{DEVICE_STEPS} steps, or 1 second while it runs, nor once either is open again after kill -9; "
            "and no broker keeps a packet."
        ),
        held=not evidence,
        parameters={"brokers": ", ".join(present) or "none"},
        figures=tuple(figures),
        controls=tuple(controls),
        limits=(
            "below the file system: what a flash disk, a snapshot or a swap area keeps",
            f"runs shorter than {RUN_BYTES} bytes; the audit counts such page residue and bounds it",
            "memory of the processes, and copies that somebody made before the erasure, disclosures among them",
            "a device's home that is open while its loop does not run: until 64 steps, or its close",
            "a database that somebody else is reading, a copy under way for one: until they have done",
            "what a broker writes down of who is connected: the NATS server a session for each device, with its topic",
            *(f"{name}: is not installed here" for name in brokers if name not in present),
        ),
        evidence=tuple(evidence),
    )


def _of_relay(folder: Path, figures: list[Figure], evidence: list[str]) -> None:
    left = erased_by(folder)
    for way in WAYS:
        figures.append(Figure(f"windows of an envelope left once {way}", sum(left[way].values())))
        evidence += [f"{way}: {count} windows in {file}" for file, count in left[way].items()]


def _of_twin(folder: Path, name: str, store: type[SqliteStore], cheat: str) -> Control:
    try:
        left = erased_by(folder, store)
    except _IN_VAIN as error:
        # A twin that does not come to its end was not found out, and shows nothing.
        return Control(name, cheat, caught=False, how=str(error))
    found = {file for way in WAYS for file in left[way]}
    return Control(name, cheat, all(left[way] for way in WAYS), f"found in {', '.join(sorted(found)) or 'no file'}")


def _by_count(count: int, kind: str, bound: int, figures: list[Figure], evidence: list[str]) -> None:
    figures.append(Figure(f"{kind} until erased, at most {bound}", count))
    if count > bound:
        evidence.append(f"{count} {kind} until erased, the bound is {bound}")


def _of_idle_device(
    folder: Path, twin: Path, figures: list[Figure], evidence: list[str], controls: list[Control]
) -> None:
    left = left_by_idle_device(folder)
    figures.append(Figure("windows of a row left by a device that erased it and is idle", sum(left.values())))
    evidence += [f"idle device: {count} windows in {file}" for file, count in left.items()]
    of_twin = left_by_idle_device(twin, KeptLogOfDevice)
    how = f"found in {', '.join(sorted(of_twin)) or 'no file'}"
    controls.append(Control("device's log kept", "leaves its write-ahead log as it is", bool(of_twin), how))


def _after_kill(
    what: str, moment: str, folder: Path, figures: list[Figure], evidence: list[str], controls: list[Control]
) -> None:
    killed, opened = after_kill(what, moment, folder)
    if moment == MOMENTS[0]:
        # Nothing was erased: the same search finds it, which is what makes the other two say something.
        how = "what was not erased is found" if opened else "the search is blind"
        controls.append(Control(f"{what}, killed {moment}", "is killed before the erasure is durable", opened > 0, how))
        return
    figures.append(Figure(f"windows left by a {what} killed {moment}, once open again", opened))
    if opened:
        evidence.append(f"{what} killed {moment}: {opened} windows left once it is open again")
    if not killed:
        evidence.append(f"{what} killed {moment}: nothing was left by the kill, so that this shows nothing")


def _of_broker(broker: str, folder: Path, figures: list[Figure], evidence: list[str], controls: list[Control]) -> None:
    kept = kept_by(broker, folder)
    figures.append(Figure(f"windows of packets in the directory of {broker}", sum(kept.left.values())))
    evidence += [f"{broker}: {count} windows of packets in {file}" for file, count in kept.left.items()]
    if not kept.packets:
        evidence.append(f"{broker}: no packet was seen, so that this shows nothing")
    how = f"found in {', '.join(sorted(kept.twin))}" if kept.twin else "not found"
    cheat = "remembers a session at QoS 1, and keeps a copy for the device that is away"
    controls.append(Control(f"{broker}, QoS 1", cheat, bool(kept.twin), how))
