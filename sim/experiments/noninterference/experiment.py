"""The experiment: one recorded run, replayed with its own bodies, with other contents, and with random bytes.

    record ─▶ inputs ─┬─ own bodies ─────▶ trace ─┐
                      ├─ other contents ─▶ trace ─┼─ equal, but for bodies and declared functions of them?
                      └─ random bytes ───▶ trace ─┘

The statement holds if both comparisons find nothing. The twins go through a smaller run of the same making, and each
must be found; so must a single bit that is turned in a field that is no function of bodies.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sim.experiments.noninterference.comparison import Compared, compare
from sim.experiments.noninterference.derived import DECLARED, World
from sim.experiments.noninterference.recording import Bodies, Recording, UnequalLength, record, replay
from sim.experiments.noninterference.script import Script, drawn_script
from sim.experiments.noninterference.stage import Parts
from sim.experiments.noninterference.trace import Observation, Trace
from sim.experiments.noninterference.twins import RELAY_TWINS, Proof, RelayTwin, folder_of, no_padding
from sim.experiments.result import Control, Figure, Result

__all__ = ["Replays", "STEPS", "replays_of", "run"]

TWIN_MESSAGES: Final = 120
"""Messages of the run that the twins go through."""
STEPS: Final = 6 + len(RELAY_TWINS) + 2
"""How often `run` reports progress."""

_STATEMENT: Final = (
    "With the same inputs but for the bodies of envelopes, the relay's behaviour is the same, but for bodies and "
    "declared functions of them."
)
_LIMITS: Final = (
    "inputs that were not played: it is one population of one seed, not all",
    "what lies outside of the service: timing of interpreter and system, threads, the client of the broker",
    "how long a real disk takes: its jobs take drawn times, by the clock of the service as well",
    "the bytes of the store's file: rows, their order and the file's size are compared, not its pages",
    "bodies of other lengths: the padded length is in L, and both worlds have the same",
    "acks that depend on content: tokens and the moments of acks are inputs, the same in both worlds",
    "rotation of the relay's key, disclosures and gateways: they are not among the inputs",
)

Told = Callable[[str], None]


@dataclass(frozen=True)
class Replays:
    """The comparisons of one recorded run.

    Attributes:
        recording: the inputs.
        own: what the relay did with the recorded bodies.
        compared: by what the bodies were replaced with.
    """

    recording: Recording
    own: Trace
    compared: dict[str, Compared]

    @property
    def held(self) -> bool:
        """Whether no comparison found a difference."""
        return all(compared.difference is None for compared in self.compared.values())


def replays_of(
    recording: Recording,
    base: Path,
    parts: Parts | Callable[[], Parts] | None = None,
    told: Told = lambda _what: None,
    outward: bool = False,
) -> Replays:
    """Replay a recorded run three times and compare.

    Args:
        recording: from `record`.
        base: a folder for the relays' files.
        parts: what the relay is made of, or what makes it anew for each replay.
        told: called as each replay begins.
        outward: leave the state of the relay's memory out of the comparison.
    """
    told("recorded bodies")
    own = _replayed(recording, recording.bodies(0), base, "recorded bodies", parts)
    compared = {}
    for name, bodies in (
        ("other contents", recording.bodies(1)),
        ("random bytes", recording.random_bodies(recording.script.seed)),
    ):
        told(name)
        trace = _replayed(recording, bodies, base, name, parts)
        told(f"comparing {name}")
        compared[name] = compare(own, _world(recording, recording.bodies(0)), trace, _world(recording, bodies), outward)
    return Replays(recording, own, compared)


def _replayed(
    recording: Recording, bodies: Bodies, base: Path, name: str, parts: Parts | Callable[[], Parts] | None
) -> Trace:
    made = parts() if callable(parts) else parts
    return replay(recording, bodies, folder_of(base, name), made)


def _world(recording: Recording, bodies: Bodies) -> World:
    return World(bodies, recording.link_keys, recording.signing_key)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="noninterference-") as name:
        yield Path(name)


def run(
    seed: int,
    messages: int,
    sqlite: bool = False,
    told: Told = lambda _what: None,
    twin_messages: int = TWIN_MESSAGES,
) -> Result:
    """Run the experiment and its twins.

    Args:
        seed: of population, schedule, faults and contents.
        messages: how many are written.
        sqlite: keep the relay's rows in SQLite instead of in memory.
        told: called with a few words as each step begins, `STEPS` times.
        twin_messages: how many are written in the run that the twins go through.

    Raises:
        BlindpostError: a client could not open what it was delivered: the recorded run is no run of this protocol.
    """
    with _folder() as base:
        told("recording")
        recording = record(drawn_script(seed, messages), folder_of(base, "record"), sqlite)
        replays = replays_of(recording, base, told=told)
    script = twin_script(seed, twin_messages)
    controls = (*_relay_controls(script, told), _client_control(script, told), _bit_control(replays, told))
    evidence = tuple(
        f"{name}: {compared.difference}"
        for name, compared in replays.compared.items()
        if compared.difference is not None
    )
    return Result(
        "noninterference",
        "C1",
        _STATEMENT,
        replays.held,
        {"seed": seed, "messages": messages, "store": "sqlite" if sqlite else "memory"},
        _figures(replays),
        controls,
        _LIMITS,
        evidence,
    )


def _figures(replays: Replays) -> tuple[Figure, ...]:
    recording, trace = replays.recording, replays.own
    other, noise = replays.compared["other contents"], replays.compared["random bytes"]
    refused: dict[int, int] = {}
    for observation in trace.observations:
        if observation.kind == "metrics":
            for code, count in observation.value[0]["refusals"].items():
                refused[code] = max(refused.get(code, 0), count)
    bodies = [one for variants in recording.said.values() for one in variants]
    return (
        Figure("people", recording.script.people),
        Figure("packets handed to the relay", len(recording.arrivals)),
        Figure("envelopes", len(recording.said)),
        Figure("bodies replaced", len(bodies)),
        Figure("large ones among them, 32 KiB or more", sum(len(one.bodies[0]) >= 32_768 for one in bodies)),
        Figure("bodies that their recipients opened, in both worlds", recording.opened),
        Figure("commits", trace.count("stored")),
        Figure("commits that the disk refused", trace.count("aborted")),
        Figure("starts of the relay", trace.count("log")),
        Figure("kinds of refusal met", len(refused)),
        Figure("observations compared, other contents", other.observations),
        Figure("observations compared, random bytes", noise.observations),
        Figure("fields compared, random bytes", noise.fields),
        Figure("of them declared functions of bodies", noise.declared),
        Figure("declared functions", len(DECLARED)),
        Figure("differences", sum(one.difference is not None for one in replays.compared.values())),
    )


# ---- the twins


def _relay_controls(script: Script, told: Told) -> Iterator[Control]:
    with _folder() as base:
        recording = record(script, folder_of(base, "record"))
        for twin in RELAY_TWINS:
            told(f"twin: {twin.name}")
            folder = folder_of(base, twin.name)
            yield relay_control(twin, recording, folder)


def twin_script(seed: int, messages: int = TWIN_MESSAGES) -> Script:
    """The script of the run that the twins go through."""
    return drawn_script(seed, messages)


def relay_control(twin: RelayTwin, recording: Recording, base: Path) -> Control:
    """Replay a run to a relay that cheats: is it found, and did its cheat work?"""
    proofs: list[Proof] = []

    def parts() -> Parts:
        proofs.append(Proof())
        return twin.make(proofs[-1])

    replays = replays_of(recording, base, parts, outward=not twin.silent)
    works = all(twin.works(proof.counts) for proof in proofs[:1])
    found = {name: compared.difference for name, compared in replays.compared.items()}
    # Where the first difference is depends on ciphertext, and a result has the same bytes for the same seed.
    how = ", ".join(
        f"{'the same' if difference is None else 'another behaviour'} with {name}" for name, difference in found.items()
    )
    how += ": looked for in its memory too" if twin.silent else ""
    caught = works and any(difference is not None for difference in found.values())
    return Control(twin.name, twin.cheat, caught, how if works else "its cheat did not work in this run")


def _client_control(script: Script, told: Told) -> Control:
    told("twin: no padding")
    return client_control(script)


def client_control(script: Script) -> Control:
    """Record a run with clients that do not pad: bodies of the two worlds have other lengths."""
    name, cheat = "a client without padding", "encrypts the text at its own length, so that the body's length tells it"
    with _folder() as base, no_padding():
        recording = record(script, folder_of(base, "record"))
        lengths = {len(said.bodies[0]) for variants in recording.said.values() for said in variants}
        try:
            replay(recording, recording.bodies(1), folder_of(base, "replay"))
        except UnequalLength:
            return Control(name, cheat, len(lengths) > 1, "the inputs differ in more than content: lengths of bodies")
    return Control(name, cheat, False, "the bodies of both worlds had the same lengths")


def _bit_control(replays: Replays, told: Told) -> Control:
    told("twin: one bit")
    return bit_control(replays.recording, replays.own)


def bit_control(recording: Recording, own: Trace) -> Control:
    """Turn one bit of one ack token in a tombstone of a trace, and compare it with the untouched one."""
    name, cheat = (
        "one bit",
        "the trace of the recorded bodies with one bit turned in a field that is no function of bodies",
    )
    turned = Trace()
    done = False
    for observation in own.observations:
        value = observation.value
        if not done and observation.kind == "rows" and value["tombstones"]:
            rows = dict(value)
            first = rows["tombstones"][0]
            key = bytes((first.key[0] ^ 1,)) + first.key[1:]
            rows["tombstones"] = [first._replace(key=key), *rows["tombstones"][1:]]
            value, done = rows, True
        turned.observations.append(Observation(observation.at_ms, observation.kind, value))
    bodies = recording.bodies(0)
    found = compare(own, _world(recording, bodies), turned, _world(recording, bodies)).difference
    right = found is not None and found.field == "rows.tombstones[].key"
    return Control(name, cheat, done and right, found.field if found is not None else "nothing was found")
