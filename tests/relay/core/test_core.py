"""The way of one message through the core, and what a failed commit leaves behind."""

from __future__ import annotations

from tests.relay.world import a_pair


def test_message_is_receipted_delivered_acked_and_erased() -> None:
    pair = a_pair()
    world, ana, bob = pair.world, pair.ana, pair.bob
    mail = world.mail(bob)
    submit = world.submit(ana, bob.account, mail)
    world.send(ana, submit)
    receipts = world.check_receipts(submit, ana.receipts())
    assert set(receipts) == {0}
    (delivered,) = bob.delivered()
    assert delivered.body == mail.envelope.body
    assert delivered.envelope_id == mail.envelope.envelope_id
    assert delivered.number == receipts[0].number == 1
    ack = world.ack(bob, mail)
    world.send(bob, ack)
    assert bob.done() == [ack.ref]
    snapshot = world.store.load()
    assert not snapshot.envelopes
    (tombstone,) = snapshot.tombstones
    assert tombstone.token == mail.token
    assert tombstone.reason == 1
