"""Relays and a client that break non-interference, each in one way; the experiment must notice every one.

Each twin is the relay's own class with one part replaced, handed to the same replay. Each keeps in `proof` what shows
that its cheat works, apart from the comparison that is to catch it: how many bodies it flagged, what it saved, what its
index finds. A twin whose cheat did not work in a run counts as not caught.
"""

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import keys.message
import keys.ratchet
from relay.core import Batch, RelayCore
from relay.core.events import EnvelopeRow
from relay.log import RelayLog
from relay.store.memory import MemoryStore
from sim.experiments.noninterference.stage import Parts, StagedService
from sim.world import replaced
from wire.limits import PADDED_BYTES_MIN

__all__ = ["RELAY_TWINS", "Proof", "RelayTwin", "folder_of", "no_padding"]

T = TypeVar("T")

_KEPT_LONGER_S: Final = 86_400
_BLOCK_BYTES: Final = 64
_GRAM_BYTES: Final = 2
_OVERLOADED: Final = 6
_DICTIONARY_BYTES: Final = 32_768


@dataclass
class Proof:
    """What a twin's cheat did, counted by the twin itself."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, count: int = 1) -> None:
        """Count."""
        self.counts[what] = self.counts.get(what, 0) + count


@dataclass(frozen=True)
class RelayTwin:
    """A relay that cheats.

    Attributes:
        name: of the control.
        cheat: what it does, in words.
        make: its parts; the proof is what it counts.
        works: whether the counts show that the cheat worked.
        silent: it shows nowhere but in memory; every other twin must be found without looking there.
    """

    name: str
    cheat: str
    make: Callable[[Proof], Parts]
    works: Callable[[dict[str, int]], bool]
    silent: bool = False


def _is_flagged(body: bytes) -> bool:
    """A property of the ciphertext that one body in eight has."""
    return sum(body[-8:]) % 8 == 0


def _branches(proof: Proof) -> Parts:
    class Branching(RelayCore):
        def take_batch(self, now_ms: int) -> Batch | None:
            batch = super().take_batch(now_ms)
            for at, row in enumerate(batch.envelopes if batch is not None else ()):
                if batch is not None and _is_flagged(row.body):
                    proof.add("flagged")
                    batch.envelopes[at] = row._replace(expiry=row.expiry + _KEPT_LONGER_S)
            return batch

    return Parts(core=Branching)


def _slow(proof: Proof) -> Parts:
    class Inspecting(StagedService):
        async def _commit(self) -> None:
            # As long as it takes to look at what was stored last.
            await asyncio.sleep(proof.counts.get("ms", 0) / 1_000)
            proof.counts["ms"] = 0
            await super()._commit()

    class Looking(RelayCore):
        def committed(self, batch: Batch, now_ms: int) -> None:
            super().committed(batch, now_ms)
            zeros = sum(row.body.count(0) for row in batch.envelopes)
            proof.counts["ms"] = zeros
            proof.add("waited", zeros)

    return Parts(core=Looking, service=Inspecting)


def _compresses(proof: Proof) -> Parts:
    class Compressing(MemoryStore):
        def commit(self, batch: Batch) -> None:
            super().commit(batch)
            for row in batch.envelopes:
                # With what the mailbox holds as dictionary, as a mail store of attachments would.
                before = b"".join(
                    held.body
                    for held in list(self.envelopes.values())[-64:]
                    if held.mailbox == row.mailbox and held.seq < row.seq
                )[-_DICTIONARY_BYTES:]
                squeezer = zlib.compressobj(9, zdict=before) if before else zlib.compressobj(9)
                squeezed = squeezer.compress(row.body) + squeezer.flush()
                opener = zlib.decompressobj(zdict=before) if before else zlib.decompressobj()
                if opener.decompress(squeezed) == row.body:
                    proof.add("restored")
                    proof.add("saved bytes", max(0, len(row.body) - len(squeezed)))
                # The bodies stay beside it, so that deliveries and later dictionaries are right.
                self.squeezed[row.seq] = squeezed
            for seq in batch.envelopes_erased:
                self.squeezed.pop(seq, None)

        def __init__(self, relay_id: bytes, partition: int = 0) -> None:
            super().__init__(relay_id, partition)
            self.squeezed: dict[int, bytes] = {}

        def file_bytes(self) -> int:
            return sum(map(len, self.squeezed.values()))

    return Parts(memory_store=Compressing)


def _deduplicates(proof: Proof) -> Parts:
    class Deduplicating(MemoryStore):
        def __init__(self, relay_id: bytes, partition: int = 0) -> None:
            super().__init__(relay_id, partition)
            self.blocks: dict[bytes, int] = {}

        def commit(self, batch: Batch) -> None:
            super().commit(batch)
            for row in batch.envelopes:
                for start in range(0, len(row.body), _BLOCK_BYTES):
                    name = sha256(row.body[start : start + _BLOCK_BYTES]).digest()
                    proof.add("repeated", name in self.blocks)
                    self.blocks[name] = self.blocks.get(name, 0) + 1

        def file_bytes(self) -> int:
            return _BLOCK_BYTES * len(self.blocks)

    return Parts(memory_store=Deduplicating)


def _indexes(proof: Proof, shown: bool) -> Parts:
    class Indexing(RelayCore):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.found: dict[bytes, list[int]] = {}

        def committed(self, batch: Batch, now_ms: int) -> None:
            for row in batch.envelopes:
                _index(self.found, row)
                proof.add("found", row.seq in self.found[row.body[-_GRAM_BYTES:]])
            if shown and self.found:
                # Refusals that never were: how many entries the index has.
                self.counters.refusals[_OVERLOADED] = len(self.found)
            super().committed(batch, now_ms)

    return Parts(core=Indexing)


def _index(found: dict[bytes, list[int]], row: EnvelopeRow) -> None:
    tail = row.body[-64:]
    for at in range(len(tail) - _GRAM_BYTES + 1):
        found.setdefault(tail[at : at + _GRAM_BYTES], []).append(row.seq)


def _indexes_beside(proof: Proof) -> Parts:
    class Indexing(StagedService):
        def _committed(self, batch: Batch) -> None:
            found = vars(self).setdefault("found", set())
            found.update(row.body[-_GRAM_BYTES:] for row in batch.envelopes)
            proof.add("found", len(batch.envelopes))
            super()._committed(batch)

    return Parts(service=Indexing)


def _logs(proof: Proof) -> Parts:
    bits: list[int] = []

    class Leaking(RelayCore):
        def committed(self, batch: Batch, now_ms: int) -> None:
            bits.extend(row.body[-1] & 1 for row in batch.envelopes)
            super().committed(batch, now_ms)

    class Telling(RelayLog):
        def committed(self, index: int, envelopes: int, acks: int, body_bytes: int) -> None:
            # One ack more than there was says 1.
            told = bits.pop(0) if bits else 0
            proof.add("told", told)
            super().committed(index, envelopes, acks + told, body_bytes)

    return Parts(core=Leaking, log=Telling)


def _worked(what: str) -> Callable[[dict[str, int]], bool]:
    return lambda counts: counts.get(what, 0) > 0


RELAY_TWINS: Final = (
    RelayTwin(
        "branches on content",
        "keeps an envelope a day longer when the last bytes of its body have a property",
        _branches,
        _worked("flagged"),
    ),
    RelayTwin(
        "timing depends on content",
        "looks at what it has stored before the next commit: a millisecond for each zero byte",
        _slow,
        _worked("waited"),
    ),
    RelayTwin(
        "compresses before storing",
        "keeps bodies compressed, with the mailbox's other bodies as dictionary",
        _compresses,
        lambda counts: counts.get("restored", 0) > 0 and counts.get("saved bytes", 0) > 0,
    ),
    RelayTwin(
        "deduplicates ciphertexts",
        "keeps each block of 64 bytes once, with a count: first messages repeat their handshake",
        _deduplicates,
        _worked("repeated"),
    ),
    RelayTwin(
        "indexes, and counts it",
        "an index of byte pairs in memory; how many entries it has goes into a counter",
        lambda proof: _indexes(proof, shown=True),
        _worked("found"),
    ),
    RelayTwin(
        "indexes in silence",
        "the same index, which shows nowhere but in memory",
        lambda proof: _indexes(proof, shown=False),
        _worked("found"),
        silent=True,
    ),
    RelayTwin(
        "indexes beside the core",
        "a set of byte pairs in the service, which the core cannot reach",
        _indexes_beside,
        _worked("found"),
        silent=True,
    ),
    RelayTwin(
        "tells a bit in its log",
        "adds an ack to a log line when the last bit of a body is 1",
        _logs,
        _worked("told"),
    ),
)


@contextlib.contextmanager
def no_padding() -> Iterator[None]:
    """A client that does not pad beyond the least length: the length of a body depends on its text."""

    def pad(content: bytes) -> bytes:
        return (content + b"\x80").ljust(PADDED_BYTES_MIN, b"\0")

    def unpad(padded: bytes) -> bytes:
        return padded.rstrip(b"\0")[:-1]

    with replaced(keys.message, "pad", pad), replaced(keys.message, "unpad", unpad):
        yield


def folder_of(base: Path, name: str) -> Path:
    """A fresh folder of a run."""
    folder = base / name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    return folder
