"""The operator's desk: every order and every answer goes onto the docket and into the public log, by this one way.

    DIR/log.key        0600  the seed of the log's key; the relay's process never loads it
    DIR/log.vkey             its public half, as Go's sumdb/note writes it
    DIR/transparency/        the log, for any web server to mirror (relay/tlog.py)
    DIR/orders/              whom orders are about, and what the commitments open with (relay/order_files.py)
    DIR/policy.toml          where there is one: what is honoured where (relay/core/policy.py)
    DIR/desk.lock            held by whoever writes the log

It works beside a relay that runs, in a process of its own: a memory image of the relay holds no key of the log, so that
a rotation after one need not touch it. The private record is durable before its leaf is: a crash in between leaves a
record without a leaf, which the next order of that number replaces, never a leaf that nobody can open.

Rules: nothing is answered that is not on the docket; whatever is done about an order is a leaf; what a leaf says is
what docket and policy say, and whom it is about is a commitment.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.core.answers import Answer
from relay.core.docket import DocketError, Entry, Order, OrderState
from relay.core.policy import POLICY_BYTES_MAX, Decision, Policy
from relay.home import Home, HomeBusy, replace_file
from relay.logkey import (
    LOG_FOLDER,
    LOG_KEY_NAME,
    NEW_KEY_NAME,
    bounded,
    ensure_log,
    settle_key,
    signer_of,
    take_key,
)
from relay.order_files import NotFiled, OrderFiles
from relay.order_replay import docket_of, kept_until_s
from relay.tlog import TransparencyLog
from wire.codec import encode
from wire.leaves import (
    AnswerLeaf,
    ChangeLeaf,
    ExitLeaf,
    Leaf,
    OpeningLeaf,
    OrderLeaf,
    SealedLeaf,
    change_key,
    read_leaf,
    sign_exit,
)
from wire.limits import KEY_BYTES
from wire.note import NoteSigner
from wire.signing import SigningKey

__all__ = ["Desk", "Filed", "NotFiled"]

POLICY_NAME: Final = "policy.toml"
_LOCK_NAME: Final = "desk.lock"
_EXIT_STEPS: Final = {
    "": ("announced",),
    "announced": ("extended", "cancelled", "completed"),
    "extended": ("extended", "cancelled", "completed"),
    "cancelled": ("announced",),
}


@dataclass(frozen=True, slots=True)
class Filed:
    """Something that went onto the docket and into the log.

    Args:
        entry: the docket's entry.
        index: the leaf's place in the log.
        sealed: whether the leaf is a commitment.
    """

    entry: Entry
    index: int
    sealed: bool


class Desk:
    """The orders of one home, its lock held. Made by `Desk.at`.

    Args:
        home: the home.
        log: its log.
        signer: the log's key.
        policy: the relay's.
        clock_s: Unix time in seconds.
        entropy: gives nonces.
    """

    def __init__(
        self,
        home: Home,
        log: TransparencyLog,
        signer: NoteSigner,
        policy: Policy,
        clock_s: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.home = home
        self.log = log
        self.policy = policy
        self._signer = signer
        self._clock_s = clock_s
        self._entropy = entropy
        self._leaves: list[Leaf] = [read_leaf(entry) for entry in log.entries()]
        self._files = OrderFiles(home.path, entropy)
        self.docket = docket_of(self._leaves, self._files)

    @classmethod
    @contextmanager
    def at(cls, path: Path, clock_s: Callable[[], int], entropy: Callable[[int], bytes]) -> "Iterator[Desk]":
        """Open the desk of a home, running or not; its log is begun where there is none.

        Raises:
            HomeBusy: another process writes the log.
            HomeError: there is no home.
            LogDamaged, FormatError, SignatureError: the log, a record or the policy is damaged.
        """
        home = Home.open(path)
        with _locked(path):
            ensure_log(home, clock_s(), entropy)
            settle_key(home)
            signer = signer_of(home)
            log = TransparencyLog.open(path / LOG_FOLDER, signer.key)
            yield cls(home, log, signer, _policy_of(path), clock_s, entropy)

    @property
    def leaves(self) -> Sequence[Leaf]:
        """All leaves of the log."""
        return self._leaves

    def now_s(self) -> int:
        """The time of the next leaf: that of the clock, and never before the leaf before."""
        return max(self._clock_s(), self._leaves[-1].logged_at)

    def receive(self, order: Order) -> Filed:
        """Put an order onto the docket and into the log.

        Raises:
            OSError: it could not be written; it is not on the docket then.
        """
        sealed = self.policy.seals(order)
        index = self._append(self._files.keep_order(len(self.docket), self.now_s(), order, sealed))
        return Filed(self.docket.receive(order), index, sealed)

    def answer(self, number: int, answer: Answer, decision: Decision | None = None) -> Filed:
        """Answer an order, on the docket and in the log. The answer to a sealed order is sealed as long.

        Args:
            number: the order's.
            answer: what is answered.
            decision: what it follows from; None: the policy's.

        Raises:
            DocketError: it is settled, there is none, or what was captured is to be refused.
            OSError: it could not be written.
        """
        entry, now_s = self.docket.entry(number), self.now_s()
        honoured = answer.honoured and (decision or self.policy.decision(entry.order)) is Decision.HONOUR
        self.docket.check_answer(number, honoured)
        state = (OrderState.HONOURED if honoured else OrderState.REFUSED).value
        text = AnswerLeaf(now_s, number, state, answer.outcome.value, answer.text, answer.given, answer.evidence)
        sealed = self.is_sealed(number)
        index = self._append(self._files.keep_sealed("answer", text, entry.order.secret_until_s) if sealed else text)
        return Filed(self.docket.answer(number, honoured, now_s, kept_until_s(entry.order, text)), index, sealed)

    def capture(self, number: int, until_s: int) -> Filed:
        """Recording of what passes begins, until then. That of a sealed order is sealed: it tells what was asked.

        Raises:
            DocketError: the order is settled, recorded already or of another kind, or the day has passed.
            OSError: it could not be written.
        """
        entry = self.docket.capture(number, until_s, self.now_s())
        leaf, sealed = ChangeLeaf(self.now_s(), number, "capturing", until_s), self.is_sealed(number)
        logged = self._files.keep_sealed("change", leaf, entry.order.secret_until_s) if sealed else leaf
        return Filed(entry, self._append(logged), sealed)

    def extend(self, number: int, deadline_s: int) -> Filed:
        """The authority moves an order's deadline.

        Raises:
            DocketError: it is settled, or the deadline is not later.
        """
        entry = self.docket.extend(number, deadline_s, self.now_s())
        return Filed(entry, self._append(ChangeLeaf(self.now_s(), number, "extended", deadline_s)), sealed=False)

    def appeal(self, number: int) -> Filed:
        """The relay contests an order.

        Raises:
            DocketError: it is settled.
        """
        entry = self.docket.appeal(number, self.now_s())
        return Filed(entry, self._append(ChangeLeaf(self.now_s(), number, "appealed", entry.deadline_s)), sealed=False)

    def withdraw(self, number: int) -> Filed:
        """The authority takes an order back.

        Raises:
            DocketError: it was honoured or withdrawn before.
        """
        entry = self.docket.withdraw(number, self.now_s())
        # The day of a capture whose beginning is sealed is not told by its withdrawal.
        deadline_s = 0 if entry.captured and self.is_closed(number) else entry.deadline_s
        return Filed(entry, self._append(ChangeLeaf(self.now_s(), number, "withdrawn", deadline_s)), sealed=False)

    def take_back(self, number: int) -> Filed:
        """The authority takes a preservation back before its day.

        Raises:
            DocketError: it is none, or has ended.
        """
        entry = self.docket.take_back(number, self.now_s())
        return Filed(entry, self._append(ChangeLeaf(self.now_s(), number, "withdrawn", entry.deadline_s)), sealed=False)

    def release(self, number: int) -> Filed:
        """A preservation has ended, and the relay has erased what was kept.

        Raises:
            DocketError: it is none, it has not ended, or its text is sealed: the leaf would tell what was asked.
        """
        if self.is_closed(number):
            raise DocketError(f"order {number} is sealed: that a preservation ended is logged once it is opened")
        entry = self.docket.release(number, self.now_s())
        return Filed(entry, self._append(ChangeLeaf(self.now_s(), number, "released", entry.deadline_s)), sealed=False)

    def ended(self) -> tuple[Entry, ...]:
        """Preservations that were taken back or whose day has passed, and of which the log does not say so yet."""
        over = (OrderState.HONOURED, OrderState.WITHDRAWN)
        return tuple(
            entry
            for entry in self.docket.entries
            if entry.until_s
            and entry.state in over
            and (entry.state is OrderState.WITHDRAWN or entry.until_s <= self.now_s())
        )

    def standing(self) -> tuple[Entry, ...]:
        """Preservations that hold."""
        return tuple(
            entry
            for entry in self.docket.entries
            if entry.state is OrderState.HONOURED and entry.until_s > self.now_s()
        )

    def open_sealed(self, number: int) -> list[int]:
        """Open what is sealed of an order: its text, and that of its answer; returns the openings' places.

        Raises:
            NotFiled: nothing of it is sealed, or the private record is missing.
        """
        opened = {leaf.index for leaf in self._leaves if isinstance(leaf, OpeningLeaf)}
        openings = [
            self._files.open(leaf, index, self.now_s())
            for index, leaf in enumerate(self._leaves)
            if isinstance(leaf, SealedLeaf) and leaf.number == number and index not in opened
        ]
        if not openings:
            raise NotFiled(f"nothing of order {number} is sealed")
        return [self._append(opening) for opening in openings]

    def change_log_key(self) -> int:
        """Sign the log with another key from now on; the leaf that says so is signed by both. Returns its place.

        The new key is durable before the leaf is, and counts from the checkpoint on: `settle_key` finishes what a
        crash cuts short.

        Raises:
            OSError: it could not be written; the old key counts.
        """
        seed = self._entropy(KEY_BYTES)
        replace_file(self.home.path / NEW_KEY_NAME, seed, 0o600)
        old = SigningKey((self.home.path / LOG_KEY_NAME).read_bytes())
        leaf = change_key(self.now_s(), old, SigningKey(seed))
        self._signer = signer_of(self.home, NEW_KEY_NAME)
        index = self._append(leaf)
        self.log.key = self._signer.key
        take_key(self.home)
        return index

    def check_exit_step(self, jurisdiction: str, step: str, ends_s: int) -> None:
        """Whether a step of leaving a jurisdiction follows from the one before.

        Raises:
            DocketError: it does not, or its day has not come.
        """
        before = self.last_exit(jurisdiction)
        if step not in _EXIT_STEPS.get(before.step if before else "", ()):
            raise DocketError(f"leaving {jurisdiction} was {before.step if before else 'not announced'}: not {step}")
        if step == "extended" and before is not None and ends_s <= before.ends_at:
            raise DocketError("an extension must end later than the day before it")
        if step == "completed" and before is not None and self.now_s() < before.ends_at:
            raise DocketError(f"leaving {jurisdiction} was announced for a later day: extend or wait")

    def exit_step(self, jurisdiction: str, step: str, ends_s: int, text: str) -> int:
        """Sign a step of leaving a jurisdiction by the relay's key, and log it; returns its place.

        Raises:
            DocketError: as `check_exit_step`.
        """
        self.check_exit_step(jurisdiction, step, ends_s)
        keys = self.home.load_keys()
        leaf = sign_exit(self.now_s(), jurisdiction, step, ends_s, text, keys.rotations, SigningKey(keys.seed))
        return self._append(leaf)

    def last_exit(self, jurisdiction: str) -> ExitLeaf | None:
        """The newest step of leaving a jurisdiction."""
        steps = [leaf for leaf in self._leaves if isinstance(leaf, ExitLeaf) and leaf.jurisdiction == jurisdiction]
        return steps[-1] if steps else None

    def order_index(self, number: int) -> int:
        """An order's leaf.

        Raises:
            DocketError: there is no such order.
        """
        self.docket.entry(number)
        return next(
            index
            for index, leaf in enumerate(self._leaves)
            if (isinstance(leaf, OrderLeaf) or (isinstance(leaf, SealedLeaf) and leaf.what == "order"))
            and leaf.number == number
        )

    def answer_text(self, number: int) -> AnswerLeaf | None:
        """The answer to an order, also where it is sealed in the log; None if there is none yet."""
        for leaf in self._leaves:
            if isinstance(leaf, AnswerLeaf) and leaf.number == number:
                return leaf
            if isinstance(leaf, SealedLeaf) and leaf.number == number and leaf.what == "answer":
                return self._files.answer(number)
        return None

    def is_sealed(self, number: int) -> bool:
        """Whether an order's text is sealed in the log."""
        return any(isinstance(leaf, SealedLeaf) and leaf.number == number for leaf in self._leaves)

    def is_closed(self, number: int) -> bool:
        """Whether an order's text is sealed in the log, and has not been opened."""
        opened = {leaf.index for leaf in self._leaves if isinstance(leaf, OpeningLeaf)}
        return any(
            isinstance(leaf, SealedLeaf) and leaf.number == number and index not in opened
            for index, leaf in enumerate(self._leaves)
        )

    def _append(self, leaf: Leaf) -> int:
        index = self.log.size
        self.log.append([encode(leaf)], self._signer)
        self._leaves.append(leaf)
        return index


def _policy_of(path: Path) -> Policy:
    file = path / POLICY_NAME
    if not file.is_file():
        return Policy()
    return Policy.from_toml(bounded(file, POLICY_NAME, POLICY_BYTES_MAX).decode("utf-8", "replace"))


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    descriptor = os.open(home / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeBusy(f"another process writes the log of {home}") from None
        yield
    finally:
        os.close(descriptor)
