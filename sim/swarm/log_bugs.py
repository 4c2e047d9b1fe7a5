"""Planted bugs of the desk and its public log: a leaf rewritten, an answer not logged, a checkpoint that forgets.

Each is a context in which the bug is there; sim/swarm/bugs.py lists them among the others.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from relay.orders import Desk
from relay.tlog import TransparencyLog
from sim.world import replaced
from wire.codec import encode
from wire.leaves import AnswerLeaf, ChangeLeaf, Leaf, read_leaf
from wire.note import Checkpoint, NoteKey, NoteSigner

__all__ = ["answer_without_leaf", "checkpoint_forgets", "leaf_rewritten_after_restart"]


@contextlib.contextmanager
def leaf_rewritten_after_restart() -> Iterator[None]:
    """A log that was opened again writes its last leaf once more, with the time of now, before it goes on."""
    append = TransparencyLog.append
    goes_on: set[int] = set()

    def redated(log: TransparencyLog, entries: Sequence[bytes], signer: NoteSigner) -> Checkpoint:
        if log.size > 1 and id(log) not in goes_on:
            last = read_leaf(log.entry(log.size - 1))
            dated = replace(last, logged_at=read_leaf(entries[0]).logged_at)
            log.checkpoint = Checkpoint(log.checkpoint.origin, log.size - 1, log._root_of(log.size - 1))
            entries = [encode(dated), *entries]
        goes_on.add(id(log))
        return append(log, entries, signer)

    def opened_again(folder: Path, key: NoteKey) -> TransparencyLog:
        log = opened(folder, key)
        goes_on.discard(id(log))
        return log

    opened = TransparencyLog.open
    with replaced(TransparencyLog, "append", redated), replaced(TransparencyLog, "open", opened_again):
        yield


@contextlib.contextmanager
def answer_without_leaf() -> Iterator[None]:
    """An answer goes out, and nobody writes it into the log."""
    append = Desk._append

    def but_answers(desk: Desk, leaf: Leaf) -> int:
        return desk.log.size if isinstance(leaf, AnswerLeaf) else append(desk, leaf)

    with replaced(Desk, "_append", but_answers):
        yield


@contextlib.contextmanager
def checkpoint_forgets() -> Iterator[None]:
    """A log that goes on from the checkpoint before the last one, where that only added an answer or a change."""
    append, opened = TransparencyLog.append, TransparencyLog.open
    before: dict[Path, tuple[Checkpoint, str]] = {}

    def kept(log: TransparencyLog, entries: Sequence[bytes], signer: NoteSigner) -> Checkpoint:
        before[log.folder] = log.checkpoint, log.note
        return append(log, entries, signer)

    def from_the_one_before(folder: Path, key: NoteKey) -> TransparencyLog:
        log = opened(folder, key)
        if folder in before and isinstance(read_leaf(log.entry(log.size - 1)), AnswerLeaf | ChangeLeaf):
            log.checkpoint, log.note = before[folder]
        return log

    with replaced(TransparencyLog, "append", kept), replaced(TransparencyLog, "open", from_the_one_before):
        yield
