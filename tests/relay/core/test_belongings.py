"""The rows that the core names for a person are all that the store holds about them, whatever happened before."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import holdings
from relay.control import Content
from relay.core.docket import Scope, ScopeKind
from relay.core.events import EnvelopeIndexRow, RowNumbers, Snapshot
from relay.held import find, held_of, mailboxes_of
from relay.log import RelayLog
from relay.service import RelayService, head_of
from relay.store.protocol import Store
from relay.store.sqlite import SqliteStore
from relay.transport.loopback import Network
from relay.transport.loopback import Transport as LoopbackTransport
from tests.relay.strategies import body_bytes, expiries_s, picks
from tests.relay.world import Device, Mail, World, a_pair
from wire.commands import LookUp, PublishList, Withdraw

T = TypeVar("T")
_DAY_S = 86_400
_names = itertools.count()


class Town:
    """Three people, one of them with a second device, and whatever a list of numbers makes them do."""

    def __init__(self, store: Store | None = None) -> None:
        self.world = World(store=store)
        self.people = [self.world.enrolled(name) for name in ("ana", "bob", "cai")]
        self.mails: list[tuple[Device, Mail]] = []
        self.phone: Device | None = None
        self.deeds: list[Callable[[int, int, int], None]] = [
            self._mail,
            self._mail,
            self._ack,
            self._withdraw,
            self._preserve,
            self._prekeys,
            self._phone,
            self._fail,
            self._wait,
            self._restart,
        ]

    def do(self, deed: int, pick: int, size: int, expiry_s: int) -> None:
        self.deeds[deed % len(self.deeds)](pick, size, expiry_s)

    def _mail(self, pick: int, size: int, expiry_s: int) -> None:
        to = self.people[pick % 3]
        mail = self.world.mail(to, size, expiry=self.world.now_s + expiry_s)
        self.mails.append((to, mail))
        sender = self.people[pick // 3 % 3]
        self.world.send(sender, self.world.submit(sender, to.account, mail))

    def _ack(self, pick: int, _size: int, _expiry_s: int) -> None:
        if self.mails:
            to, mail = self.mails[pick % len(self.mails)]
            self.world.send(to, self.world.ack(to, mail))

    def _withdraw(self, pick: int, _size: int, _expiry_s: int) -> None:
        if self.mails:
            to, mail = self.mails[pick % len(self.mails)]
            sender = self.people[0]
            self.world.send(sender, Withdraw(sender.next_ref(), to.mailbox, (mail.token,)))

    def _preserve(self, pick: int, _size: int, expiry_s: int) -> None:
        self.world.core.preserve((self.people[pick % 3].mailbox,), self.world.now_s + expiry_s, 7)
        self.world.run()

    def _prekeys(self, pick: int, _size: int, _expiry_s: int) -> None:
        asker = self.people[pick % 3]
        self.world.send(asker, LookUp(asker.next_ref(), self.people[pick // 3 % 3].account, True))

    def _phone(self, _pick: int, _size: int, _expiry_s: int) -> None:
        """A second device comes, or goes."""
        ana = self.people[0]
        if self.phone is None:
            self.phone = self.world.device(f"phone {next(_names)}", ana.account)
            signed = self.world.next_list(ana.account, ana, self.phone)
        else:
            signed = self.world.next_list(ana.account, ana)
            self.phone = None
        self.world.send(ana, PublishList(ana.next_ref(), signed))

    def _fail(self, pick: int, size: int, expiry_s: int) -> None:
        """A commit fails; what it would have changed is as before."""
        self.world.fail = 1
        self._mail(pick, size, expiry_s)
        self._ack(pick, size, expiry_s)
        self.world.fail = 0

    def _wait(self, _pick: int, _size: int, expiry_s: int) -> None:
        self.world.after(expiry_s * 1_000)

    def _restart(self, _pick: int, _size: int, _expiry_s: int) -> None:
        self.world.restart()
        for person in self.people:
            self.world.link(person)

    def scopes(self) -> list[Scope]:
        boxes = [row.mailbox.hex() for row in self.world.store.load().mailboxes]
        return [
            Scope(),
            Scope(ScopeKind.TENANT, "acme.example"),
            Scope(ScopeKind.TENANT, "nobody.example"),
            *(Scope(ScopeKind.ACCOUNT, person.account) for person in self.people),
            Scope(ScopeKind.ACCOUNT, "nobody@acme.example"),
            *(Scope(ScopeKind.MAILBOX, box) for box in boxes),
            Scope(ScopeKind.MAILBOX, "00" * 16),
        ]


def service_of(world: World, folder: Path) -> RelayService:
    snapshot = world.store.load()
    log = RelayLog(folder / f"{next(_names)}.log", lambda: world.now_ms)
    transport = LoopbackTransport(Network())
    return RelayService(world.core, world.store, transport, log, lambda: world.now_ms, head_of(snapshot))


def ran(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def content_of_all_rows(world: World, scope: Scope, after: int) -> Content:
    """The answer as one would make it who looks at every row."""
    snapshot = world.store.load()
    mailboxes = set(mailboxes_of(snapshot, scope))
    rows = [row for row in snapshot.envelopes if row.seq > after and row.mailbox in mailboxes]
    bodies = world.store.read([row.seq for row in rows])
    whole = zip(rows, bodies, strict=True)
    return Content(tuple((*row[:2], row.number, row.envelope_id, row.expiry, body or b"") for row, body in whole))


def check(town: Town, folder: Path) -> None:
    """Every answer has the bytes that it would have if all rows had been looked at."""
    world = town.world
    everything = world.store.load()
    service = service_of(world, folder)

    async def answers() -> None:
        for scope in town.scopes():
            assert await holdings.found(service, scope) == find(everything, scope)
            for after in (0, 2):
                assert await holdings.content(service, scope, after) == content_of_all_rows(world, scope, after)

    ran(answers())
    for person in town.people:
        rows = world.store.rows(world.core.belongings.rows_of(person.account))
        assert held_of(rows, person.account) == held_of(everything, person.account)
        assert {row.account for row in rows.mailboxes} == {person.account}


deeds = st.lists(st.tuples(st.integers(0, 9), picks(), body_bytes(), expiries_s()), max_size=25)


@settings(max_examples=40)
@given(deeds=deeds)
def test_answers_are_those_of_one_who_looks_at_every_row(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[int, int, int, int]]
) -> None:
    town = Town()
    for deed in deeds:
        town.do(*deed)
    check(town, tmp_path_factory.mktemp("town"))


def everything_once(town: Town) -> None:
    """Each deed, so that rows of every kind are there: kept, closed, expired, tombstones."""
    for deed in (0, 0, 0, 1, 1, 4, 0, 2, 3, 5, 6, 0, 6, 7, 8, 9, 0):
        for pick in (0, 1, 4):
            town.do(deed, pick, 700, _DAY_S if deed in {0, 1, 4, 7} else 3_600)


def test_sqlite_answers_the_same(tmp_path: Path) -> None:
    world = World()
    town = Town(SqliteStore(tmp_path / "store.sqlite", world.relay_id))
    everything_once(town)
    check(town, tmp_path)
    held = town.world.store.load()
    assert held.envelopes
    assert held.tombstones
    assert any(row.closed for row in held.mailboxes)
    assert len(held.relay) > 3, "something is preserved"
    town.world.store.close()


def test_to_preserve_says_what_was_held_and_asks_for_the_same_mailboxes(tmp_path: Path) -> None:
    town = Town()
    everything_once(town)
    service = service_of(town.world, tmp_path)
    scope = Scope(ScopeKind.ACCOUNT, town.people[0].account)
    before = find(town.world.store.load(), scope)

    async def preserve() -> None:
        task = asyncio.create_task(holdings.preserve(service, scope, town.world.now_s + 90 * _DAY_S, 9))
        while not task.done():
            await asyncio.sleep(0.001)
            await service.step()
        assert await task == before

    ran(preserve())
    boxes = [row.mailbox for row in town.world.store.load().mailboxes if row.account == town.people[0].account]
    assert len(boxes) > 1
    assert all(box.hex() in town.world.store.load().relay for box in boxes)


class _WholeStore(Exception):
    """Somebody has looked at all rows."""


def test_nobody_else_is_looked_at_for_an_answer_about_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town()
    everything_once(town)
    service = service_of(town.world, tmp_path)
    scope = Scope(ScopeKind.ACCOUNT, town.people[1].account)
    own = set(town.world.core.belongings.rows_of(town.people[1].account).envelopes)
    read: list[int] = []
    rows, bodies = town.world.store.rows, town.world.store.read

    def no_load() -> Snapshot:
        raise _WholeStore

    def noted_rows(numbers: RowNumbers) -> Snapshot:
        read.extend(numbers.envelopes)
        return rows(numbers)

    def noted_bodies(seqs: Sequence[int]) -> list[bytes | None]:
        read.extend(seqs)
        return bodies(seqs)

    monkeypatch.setattr(town.world.store, "load", no_load)
    monkeypatch.setattr(town.world.store, "rows", noted_rows)
    monkeypatch.setattr(town.world.store, "read", noted_bodies)
    ran(holdings.found(service, scope))
    ran(holdings.content(service, scope, 0))
    assert read
    assert set(read) == own


@pytest.mark.parametrize("forgets", ["former", "kept", "tombstones"])
def test_the_check_notices_rows_that_are_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: str
) -> None:
    town = Town()
    everything_once(town)
    check(town, tmp_path)
    core = town.world.core
    if forgets == "former":
        monkeypatch.setattr(core.belongings._directory, "former", {})
    elif forgets == "kept":
        for mailbox in core._mailboxes.by_id.values():
            if mailbox.preservation is not None:
                mailbox.preservation.kept.clear()
    else:
        for mailbox in core._mailboxes.by_id.values():
            mailbox.tombstones.clear()
    with pytest.raises(AssertionError):
        check(town, tmp_path)


def test_content_comes_in_pieces_that_miss_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "_CONTENT_ROWS", 2)
    pair = a_pair()
    mails = [pair.world.mail(pair.bob) for _ in range(5)]
    pair.world.send(pair.ana, pair.world.submit(pair.ana, pair.bob.account, *mails))
    service = service_of(pair.world, tmp_path)
    scope = Scope(ScopeKind.ACCOUNT, pair.bob.account)
    got: list[bytes] = []

    async def fetch() -> None:
        after = 0
        while piece := (await holdings.content(service, scope, after)).envelopes:
            assert len(piece) <= 2
            got.extend(one[5] for one in piece)
            after = piece[-1][0]

    ran(fetch())
    assert got == [mail.envelope.body for mail in mails]


def test_rows_of_a_store_are_those_asked_for_and_no_others(tmp_path: Path) -> None:
    town = Town(SqliteStore(tmp_path / "store.sqlite", World().relay_id))
    everything_once(town)
    held = town.world.store.load()
    assert isinstance(held.envelopes[0], EnvelopeIndexRow)
    numbers = town.world.core.belongings.rows_of(town.people[2].account)
    some = town.world.store.rows(numbers)
    for table in ("mailboxes", "lists", "prekeys", "envelopes", "tombstones"):
        wanted = set(getattr(numbers, table))
        assert getattr(some, table) == [row for row in getattr(held, table) if row.seq in wanted]
    assert not some.commits
    assert not some.relay
    town.world.store.close()
