"""Core and SQLite together: deleted is erased, and a restart from the file goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.sqlite import SqliteStore
from tests.relay.world import HOUR_S, Device, Mail, World, seeded
from wire.commands import PublishList, Withdraw


class OnDisk:
    """Ana and Bob with a store on disk, and two letters, of which the second stays."""

    def __init__(self, folder: Path, body_bytes: int) -> None:
        self.path = folder / "store.sqlite"
        # The relay's id comes from the world's own seed.
        self.world = World(store=SqliteStore(self.path, World().relay_id), restarted=self._reopen)
        self.ana, self.bob = self.world.enrolled("ana"), self.world.enrolled("bob")
        self.tablet = self.world.device("tablet", self.bob.account)
        self.publish(self.bob, self.tablet)
        late = self.world.now_s // HOUR_S * HOUR_S + 600 * HOUR_S
        self.gone = self._letter(self.tablet, body_bytes, late - 500 * HOUR_S)
        self.kept = self._letter(self.bob, body_bytes, late)
        self.world.link(self.tablet)
        for mail in (self.gone, self.kept):
            self.world.send(self.ana, self.world.submit(self.ana, self.bob.account, mail))

    def _letter(self, to: Device, body_bytes: int, expiry: int) -> Mail:
        mail = self.world.mail(to, expiry=expiry)
        envelope = mail.envelope
        # Any 16 bytes of this body are found nowhere else.
        body = b"".join(seeded(f"{to.name} {part}") for part in range(body_bytes // 32 + 1))[:body_bytes]
        return Mail(mail.token, type(envelope)(envelope.mailbox, envelope.envelope_id, envelope.expiry, body))

    def publish(self, *devices: Device) -> None:
        signed = self.world.next_list(self.bob.account, *devices)
        self.world.send(self.bob, PublishList(self.bob.next_ref(), signed))

    def _reopen(self, store: object) -> SqliteStore:
        assert isinstance(store, SqliteStore)
        store.close()
        return SqliteStore(self.path, self.world.relay_id)

    def found(self, mail: Mail) -> int:
        """How many runs of 16 bytes of a body lie in the raw files."""
        raw = b"".join(file.read_bytes() for file in sorted(self.path.parent.iterdir()))
        body = mail.envelope.body
        step = max(8, len(body) // 200)
        return sum(body[start : start + 16] in raw for start in range(0, len(body) - 16, step))


@pytest.fixture(params=[400, 1_500, 60_000])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnDisk]:
    made = OnDisk(tmp_path, request.param)
    assert made.found(made.gone) > 0
    yield made
    made.world.store.close()


@pytest.mark.parametrize("how", ["acked", "withdrawn", "expired", "closed"])
def test_no_run_of_bytes_is_left(on_disk: OnDisk, how: str) -> None:
    world, mail = on_disk.world, on_disk.gone
    if how == "acked":
        world.send(on_disk.tablet, world.ack(on_disk.tablet, mail))
    elif how == "withdrawn":
        world.send(on_disk.ana, Withdraw(on_disk.ana.next_ref(), on_disk.tablet.mailbox, (mail.token,)))
    elif how == "expired":
        world.after(101 * HOUR_S * 1_000)
    else:
        on_disk.publish(on_disk.bob)
    world.store.checkpoint()
    assert on_disk.found(mail) == 0
    assert on_disk.found(on_disk.kept) > 0
    assert [row.reason for row in world.store.load().tombstones] == {
        "acked": [1],
        "withdrawn": [2],
        "expired": [],
        "closed": [4],
    }[how]


def test_restart_from_the_file_goes_on_where_it_was(on_disk: OnDisk) -> None:
    world, bob = on_disk.world, on_disk.bob
    world.send(on_disk.tablet, world.ack(on_disk.tablet, on_disk.gone))
    before = world.store.load()
    world.restart()
    assert world.store.load() == before
    for device in (on_disk.ana, bob):
        world.link(device)
    bob.inbox.clear()
    world.subscribe(bob)
    (delivered,) = bob.delivered()
    assert delivered.body == on_disk.kept.envelope.body
    again = world.submit(on_disk.ana, bob.account, on_disk.kept, on_disk.gone)
    on_disk.ana.inbox.clear()
    world.send(on_disk.ana, again)
    assert set(world.check_receipts(again, on_disk.ana.receipts())) == {0, 1}
    assert len(world.store.load().commits) == 2
