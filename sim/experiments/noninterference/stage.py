"""The relay of one run: the real service, core, log and store, under virtual time, with all that it does written down.

    arrive ─▶ loopback network ─▶ service ─▶ core, log, store          the relay's code, unchanged
                     │                         │      │
                     └── sent packets ─▶ trace ◀── rows, reads, answers, deadlines, counters, log lines

What is put in the machine's place: the clock (sim/virtual_time.py), randomness (a seeded generator for each start), the
broker (relay/transport/loopback.py), and the disk's time: a job of the store takes a drawn time, half of it before its
effect and half after, so that commands gather meanwhile, and a relay that is killed may have stored what it has told
nobody.

Rules: nothing here looks into a body; what the disk and the network do depends on the seed and on the count of the job,
never on bytes. A relay that is killed ends without a trace: from that moment on nothing that it does is stored, sent,
logged or written down.
"""

import asyncio
import contextlib
import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar

import relay.service
from relay.core import CoreConfig, RelayCore, RelayIdentity
from relay.log import RelayLog
from relay.service import RelayService, head_of
from relay.store.memory import MemoryStore
from relay.store.protocol import Store, StoreError
from relay.store.sqlite import SqliteStore
from relay.transport.loopback import Transport as LoopbackTransport
from sim.experiments.noninterference.memory import memory_of, rows_of
from sim.experiments.noninterference.observed import Measured, ObservedBroker, ObservedCore, ObservedDisk
from sim.experiments.noninterference.script import Script
from sim.experiments.noninterference.trace import START_MS, Trace
from sim.world import replaced
from wire.rotation import relay_id_of
from wire.signing import SigningKey

__all__ = ["Parts", "Stage", "StagedService"]

T = TypeVar("T")

_ADMIT_AGAIN_S: Final = 2.0
_METRICS_EVERY_MS: Final = 1_000
_JOB_MS: Final = (1.0, 25.0)
_TIGHT: Final = CoreConfig(
    mailbox_envelopes_max=150, mailbox_bytes_max=3_000_000, link_commands_max=48, commits_pruned_max=16
)


class StagedService(RelayService):
    """The real service; a job of the store takes virtual time instead of a thread."""

    stage: "Stage"

    async def in_thread(self, job: Callable[..., T], *arguments: object) -> T:
        """Do a job in the middle of the time that it takes."""
        half_s = self.stage.job_s() / 2
        await asyncio.sleep(half_s)
        result = job(*arguments)
        await asyncio.sleep(half_s)
        return result


@dataclass(frozen=True)
class Parts:
    """What a relay is made of; a twin replaces one of them.

    Attributes:
        core: the core's class.
        service: the service's class.
        memory_store: the class of the store in memory.
        log: the log's class.
    """

    core: type[RelayCore] = RelayCore
    service: type[StagedService] = StagedService
    memory_store: type[MemoryStore] = MemoryStore
    log: type[RelayLog] = RelayLog


@dataclass
class _Life:
    """One start of the relay, until it ends."""

    service: StagedService
    task: "asyncio.Task[None]"


class Stage:
    """Where one relay runs, from its first start to its last end.

    Args:
        script: seeds, faults and quotas.
        folder: empty; log and store lie in it.
        parts: what the relay is made of.
        sqlite: keep the rows in SQLite instead of in memory.
        on_down: what becomes of a packet that the relay has sent.
    """

    def __init__(
        self,
        script: Script,
        folder: Path,
        parts: Parts,
        sqlite: bool,
        on_down: Callable[[bytes, bytes], None],
    ) -> None:
        self.script = script
        self.trace = Trace()
        self.signing_key = SigningKey(random.Random(f"{script.seed}/relay").randbytes(32))  # a run is to be repeatable
        self.relay_id = relay_id_of(self.signing_key.public)
        self.starts = 0
        self._folder = folder
        self._parts = parts
        self._on_down = on_down
        self._sqlite = sqlite
        self._store: Store = self._open_store()
        self._broker = ObservedBroker(self._down)
        self._life: _Life | None = None
        self._counts: dict[str, int] = {}
        self._metrics_due_ms = 0
        self.measured = Measured()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While it holds, the relay's service sees no clock of the machine."""
        with replaced(relay.service, "time", self.measured):
            yield

    def _open_store(self) -> Store:
        if self._sqlite:
            return SqliteStore(self._folder / "store.sqlite", self.relay_id)
        return self._parts.memory_store(self.relay_id)

    # ---- what the relay's surroundings do

    @staticmethod
    def now_ms() -> int:
        """Unix time in virtual milliseconds."""
        # A timer fires at its moment give or take a rounding error, and must not find that it is too early.
        return START_MS + int(asyncio.get_running_loop().time() * 1_000 + 1e-6)

    def drawn(self, what: str) -> random.Random:
        """A generator of its own for the next job of a kind."""
        count = self._counts[what] = self._counts.get(what, 0) + 1
        return random.Random(f"{self.script.seed}/{what}/{count}")  # depends on the count of the job alone

    def job_s(self) -> float:
        """How long the next job of the disk takes."""
        return self.drawn("job").uniform(*_JOB_MS) / 1_000

    def fails(self, what: str, rate: float) -> bool:
        """Whether the next job of that kind fails."""
        return self.drawn(what).random() < rate

    def note(self, kind: str, value: Any) -> None:
        """Write down what the relay did."""
        self.trace.note(self.now_ms(), kind, value)

    def note_metrics(self) -> None:
        """Write down all counters, at most once a virtual second."""
        if self._life is not None and self.now_ms() >= self._metrics_due_ms:
            self._metrics_due_ms = self.now_ms() + _METRICS_EVERY_MS
            self._note_metrics_now(self._life)

    def _note_metrics_now(self, life: _Life) -> None:
        service = life.service
        self.note(
            "metrics", (dict(_counted(service.counters)), dict(_counted(service.transport.counters)), service.log.lost)
        )

    def _down(self, tag: bytes, packet: bytes) -> None:
        if self.trace.on:
            self.note("sent", (tag, packet))
            self._on_down(tag, packet)

    def arrive(self, tag: bytes, packet: bytes) -> None:
        """A packet reaches the relay's connection to its broker."""
        self._broker.up(tag, packet)

    # ---- the relay's life

    async def start(self, tenants: Sequence[tuple[str, bytes]] = ()) -> None:
        """Start the relay on what its store holds, and admit companies."""
        self.starts += 1
        store = self._store
        snapshot = store.load()
        head = head_of(snapshot)
        config = _TIGHT if self.script.tight else CoreConfig()
        entropy = random.Random(f"{self.script.seed}/entropy/{self.starts}").randbytes
        core = self._parts.core(config, RelayIdentity(self.relay_id, self.signing_key.seed), snapshot, entropy)
        log = self._parts.log(self._folder / "relay.log", self.now_ms)
        log.started(self.starts, 0)
        service = self._parts.service(
            ObservedCore(core, self),  # type: ignore[arg-type]  # it is a core in all but its class
            ObservedDisk(store, self, lambda: self.trace.on),
            LoopbackTransport(self._broker),
            log,
            self.now_ms,
            head,
        )
        service.stage = self
        ready = asyncio.Event()

        async def on_ready() -> None:
            ready.set()

        self._life = _Life(service, asyncio.create_task(service.run(on_ready)))
        await ready.wait()
        for domain, key in tenants:
            await self._admit(service, domain, key)

    @staticmethod
    async def _admit(service: StagedService, domain: str, key: bytes) -> None:
        """Admit a company as its operator would: again when the disk fails."""
        while True:
            try:
                await service.admit_tenant(domain, key)
            except StoreError:
                await asyncio.sleep(_ADMIT_AGAIN_S)
            else:
                return

    async def stop(self) -> None:
        """Stop the relay in order."""
        life = self._life
        assert life is not None, "it runs"
        self.look()
        life.service.stop()
        await life.task
        self._note_metrics_now(life)
        self._life = None
        self._note_what_is_left()

    async def kill(self) -> None:
        """End the relay as a power cut would: nothing more is stored, sent or logged."""
        life = self._life
        assert life is not None, "it runs"
        self.look()
        path = self._folder / "relay.log"
        size = path.stat().st_size
        self.trace.on = False
        life.service.stop()
        # A relay that cannot store what waits says so as it ends; it is dead, and nobody hears it.
        await asyncio.wait({life.task})
        if (error := life.task.exception()) is not None and not isinstance(error, StoreError):
            raise error
        os.truncate(path, size)
        self.trace.on = True
        self._life = None
        self._note_what_is_left()

    def _note_what_is_left(self) -> None:
        """Log and rows, as they lie on the disk; then the store is opened anew."""
        self.note("log", (self._folder / "relay.log").read_bytes().splitlines(keepends=True))
        self.note("rows", rows_of(self._store, self._folder / "store.sqlite" if self._sqlite else None))
        self.note(
            "store bytes",
            self._store.file_bytes() if not self._sqlite else (self._folder / "store.sqlite").stat().st_size,
        )
        if self._sqlite:
            self._store = self._open_store()
        elif isinstance(self._store, MemoryStore):
            # Its rows stay when it is closed, as a disk's do; another relay opens it again.
            self._store._closed = False

    def look(self) -> None:
        """Write down the whole state of the core, as it lies in memory, and what the service around it has gathered."""
        if self._life is not None:
            service = self._life.service
            core: Any = service.core
            self.note("memory", memory_of(core._core))
            # The head is a function of bodies, and compared as that in the core.
            gathered = {name: held for name, held in vars(service).items() if name != "head" and _is_data(held)}
            self.note("service", memory_of(gathered))


def _is_data(held: Any) -> bool:
    """Numbers, texts, bytes, and collections of them: the rest of a service are its parts and its tasks."""
    if isinstance(held, Mapping):
        return all(map(_is_data, held.keys())) and all(map(_is_data, held.values()))
    if isinstance(held, (list, tuple, set, frozenset, deque)):
        return all(map(_is_data, held))
    # What the processor's clock measured differs between any two runs.
    return isinstance(held, (bool, int, str, bytes, bytearray, NoneType))


def _counted(counters: Any) -> Iterator[tuple[str, Any]]:
    """Every field of counters, those of a subclass too."""
    for column in fields(counters):
        value = getattr(counters, column.name)
        yield column.name, dict(value) if isinstance(value, dict) else value
