"""Core, disk, broker and clock as the service meets them: the real ones, with what they do written down.

Each hands on what it is asked, to the relay's own core, to a real store, to the loopback network; the disk fails when
the script says so. What they answer goes into the trace of the stage, but for inputs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from relay.core import Batch, RelayCore, Snapshot
from relay.core.events import RowNumbers
from relay.store.protocol import Store, StoreError
from relay.transport.loopback import Network

if TYPE_CHECKING:
    from sim.experiments.noninterference.stage import Stage

__all__ = ["Measured", "ObservedBroker", "ObservedCore", "ObservedDisk"]

_COMMIT_S: Final = (0.000_2, 0.006)
"""What a commit is said to take where the service measures it: some are quick enough to be done without a thread."""
_ASKED: Final = frozenset(
    {"take_packets", "take_batch", "take_reads", "has_work", "has_reads", "has_backlog", "next_deadline"}
)
"""What the service asks the core."""
_TOLD: Final = frozenset({"tick", "committed", "aborted", "loaded", "stop"})
"""What it tells it."""


class ObservedCore:
    """A core whose answers are written down. Everything else is the core's own."""

    def __init__(self, core: RelayCore, stage: "Stage") -> None:
        self._core = core
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._core, name)
        if name in _ASKED:
            value = self._asked(name, value)
        elif name in _TOLD:
            value = self._told(name, value)
        else:
            return value
        setattr(self, name, value)
        return value

    def _asked(self, name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any) -> Any:
            answer = ask(*arguments)
            seen = answer
            if name == "take_reads":
                seen = [(read.seqs, read.mailbox) for read in answer]
            elif name == "take_packets":
                seen = [(tag, len(packet)) for tag, packet in answer]
            self._stage.note(name, seen)
            return answer

        return asked

    def _told(self, name: str, tell: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any) -> Any:
            tell(*arguments)
            self._stage.note(name, None)
            self._stage.note_metrics()

        return told


class ObservedDisk:
    """A store whose jobs fail when the script says so, and are written down."""

    def __init__(self, inner: Store, stage: "Stage", alive: Callable[[], bool]) -> None:
        self.inner = inner
        self._stage = stage
        self._alive = alive
        self._begun: Batch | None = None

    def load(self) -> Snapshot:
        """All that is held but the bodies."""
        return self.inner.load()

    def rows(self, numbers: RowNumbers) -> Snapshot:
        """As the store."""
        return self.inner.rows(numbers)

    def begin(self, batch: Batch) -> None:
        """Begin a batch, or fail."""
        self._check_commit()
        self.inner.begin(batch)
        self._begun = batch

    def commit(self, batch: Batch) -> None:
        """Commit a batch, or fail; what is stored is written down."""
        self._stage.measured.disk_s += self._stage.drawn("commit takes").uniform(*_COMMIT_S)
        begun, self._begun = self._begun, None
        if begun is not batch:
            self._check_commit()
        elif not self._alive():
            raise StoreError("commit: the relay was killed")
        self.inner.commit(batch)
        self._stage.note("stored", batch.commit.idx if batch.commit is not None else None)

    def _check_commit(self) -> None:
        if not self._alive():
            raise StoreError("commit: the relay was killed")
        if self._stage.fails("commit", self._stage.script.faults.commit_fails):
            raise StoreError("commit: the disk is full")

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Read bodies, or fail; they are written down."""
        if not self._alive() or self._stage.fails("read", self._stage.script.faults.read_fails):
            raise StoreError("read: the disk does not answer")
        bodies = self.inner.read(seqs)
        self._stage.note("read", list(zip(seqs, bodies, strict=True)))
        return bodies

    def checkpoint(self) -> int:
        """As the store."""
        return self.inner.checkpoint()

    def paths(self) -> list[Path]:
        """As the store."""
        return self.inner.paths()

    def file_bytes(self) -> int:
        """As the store."""
        return self.inner.file_bytes()

    def close(self) -> None:
        """As the store."""
        self.inner.close()


class ObservedBroker(Network):
    """The loopback network; what the relay sends is written down and handed on."""

    def __init__(self, on_down: Callable[[bytes, bytes], None]) -> None:
        super().__init__()
        self._on_down = on_down

    def down(self, device_tag: bytes, packet: bytes) -> None:
        """Write down what the relay sends, and hand it on."""
        self._on_down(device_tag, packet)


class Measured:
    """Takes the place of the module `time` in relay/service.py, which measures what its disk takes."""

    def __init__(self) -> None:
        self.disk_s = 0.0

    def perf_counter(self) -> float:
        """Seconds that commits have taken, as drawn."""
        return self.disk_s
