"""What a device gives the verifier: read back by the verifier's own decoder, and tried on the relay's rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from audit.material import Material, read_material
from client.attachments import chunks, plan_chunks
from client.content import Kind, decode_content
from client.device import Device
from client.volunteer import (
    Item,
    canary_items,
    commit,
    commitments_file,
    list_items,
    opening_items,
    receipt_items,
    secret_items,
    volunteered_file,
)
from keys.chunks import open_chunk
from keys.errors import DecryptionError
from keys.message import Opening, open_with_message_key
from tests.client.world import World, run
from wire.envelope import Envelope, envelope_id_of
from wire.errors import FormatError
from wire.hashing import label

ANA, BO = "ana@acme.example", "bo@globex.example"


def given(items: Sequence[Item], commitments: bytes = b"") -> Material:
    """The items as the verifier reads them out of their file."""
    material = read_material([volunteered_file(ANA, items)], [commitments] if commitments else [], [])
    assert material.problems == []
    return material


def rows_of(world: World) -> list[Envelope]:
    """The envelopes that the relay holds, as a disclosure shows them."""
    return [Envelope(row.mailbox, row.envelope_id, row.expiry, row.body) for row in world.store.envelopes.values()]


def opened(rows: Sequence[Envelope], material: Material) -> list[bytes]:
    """What the volunteered keys show of these rows: contents and chunks."""
    by_id = {row.envelope_id: row for row in rows}
    shown = []
    for item in material.message_keys:
        row = by_id[item.envelope_id]
        assert row.mailbox == item.mailbox
        opening = Opening(item.message_key, item.sender_device, item.recipient_device, item.offset)
        try:
            shown.append(decode_content(open_with_message_key(row.body, row.envelope_id, opening)).payload)
        except (FormatError, DecryptionError):
            shown.append(open_chunk(row.body, row.envelope_id, opening))
    return shown


async def say(device: Device, text: str, to: str) -> None:
    await device.send(device.compose(Kind.CHAT, text.encode(), [to]), [to], wait_s=600)


async def story(world: World, mail: bytes = b"") -> Device:
    """Bo has heard of Ana once, goes offline, and Ana writes twice more; returns his device, at rest."""
    async with world.new(ANA, "ana") as ana:
        async with world.new(BO, "bo") as bo:
            await bo.enrolled(60)
            await say(ana, "one", BO)
            assert [message.payload for message in await bo.receive(60)] == [b"one"]
            await bo.idle(60)
        await say(ana, "two", BO)
        await say(ana, "three", BO)
        if mail:
            await ana.send(ana.compose(Kind.EMAIL, mail, [BO]), [BO], wait_s=600)
    return world.open("bo")


def test_openings_show_exactly_the_rows_of_their_owner_and_move_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo = await story(world)
        rows = rows_of(world)
        material = given(opening_items(bo, rows))
        assert sorted(opened(rows, material)) == [b"three", b"two"]
        # The same again, and after it the messages arrive as if nothing had been.
        assert given(opening_items(bo, rows)).message_keys == material.message_keys
        async with bo:
            await bo.caught_up(wait_s=60)
            assert [message.payload for message in await bo.receive(60)] == [b"two", b"three"]
            assert bo.notices() == []

    run(scenario)


def test_first_messages_that_were_never_received_open_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(BO, "bo") as bo:
            await bo.enrolled(60)
        async with world.new(ANA, "ana") as ana:
            await say(ana, "one", BO)
            await say(ana, "two", BO)
        bo = world.open("bo")
        rows = rows_of(world)
        assert sorted(opened(rows, given(opening_items(bo, rows)))) == [b"one", b"two"]
        async with bo:
            await bo.caught_up(wait_s=60)
            assert [message.payload for message in await bo.receive(60)] == [b"one", b"two"]

    run(scenario)


def test_a_large_message_opens_with_its_chunks(tmp_path: Path) -> None:
    mail = b"To: bo\n\n" + os.urandom(300_000)

    async def scenario() -> None:
        world = World(tmp_path)
        bo = await story(world, mail)
        rows = rows_of(world)
        shown = opened(rows, given(opening_items(bo, rows)))
        expected = {b"two", b"three", *chunks(mail, plan_chunks(len(mail)))}
        assert len(shown) == len(rows) == len(expected) + 1  # the manifest
        assert expected < set(shown)
        async with bo:
            await bo.caught_up(wait_s=60)
            assert [message.payload for message in await bo.receive(60)] == [b"two", b"three", mail]

    run(scenario)


def test_a_sender_opens_nothing_of_what_it_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        (await story(world)).close()
        ana = world.open("ana")
        rows = rows_of(world)
        assert opening_items(ana, rows) == []
        # Not even if the rows are said to be of its own mailbox.
        mine = [Envelope(ana.mailbox, row.envelope_id, row.expiry, row.body) for row in rows]
        assert opening_items(ana, mine) == []
        ana.close()

    run(scenario)


def test_a_body_that_was_exchanged_does_not_open_and_is_refused_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo = await story(world)
        rows = rows_of(world)
        bent = [Envelope(row.mailbox, row.envelope_id, row.expiry, row.body[:-1] + b"\0") for row in rows]
        assert opening_items(bo, bent) == []
        assert len(opening_items(bo, rows)) == 2
        # Whoever has the keys now could make other bodies: they are refused, and said so.
        for seq, row in list(world.store.envelopes.items()):
            world.store.envelopes[seq] = row._replace(body=row.body[:-1] + bytes([row.body[-1] ^ 1]))
        async with bo:
            await bo.caught_up(wait_s=60)
            assert await bo.receive() == []
            assert {notice.kind for notice in bo.notices()} == {"BodyChanged"}

    run(scenario)


def test_receipts_are_those_of_the_relay_for_these_very_bodies(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        (await story(world)).close()
        ana = world.open("ana")
        receipts = {item.envelope_id: item for item in given(receipt_items(ana)).receipts}
        rows = rows_of(world)
        assert len(receipts) == 3  # the first one was acked since
        for row in rows:
            item = receipts[row.envelope_id]
            assert (item.mailbox, item.expiry, item.body_hash) == (row.mailbox, row.expiry, sha256(row.body).digest())
            assert item.token == b""
        commits = {row.header: row.signature for row in world.store.commits.values()}
        assert all(commits[item.header] == item.signature for item in receipts.values())
        ana.close()

    run(scenario)


def test_a_receipt_of_a_withdrawn_message_comes_with_its_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(BO, "bo") as bo:
            await bo.enrolled(60)
        async with world.new(ANA, "ana") as ana:
            chat = ana.compose(Kind.CHAT, b"never mind", [BO])
            await ana.send(chat, [BO], wait_s=60)
            await ana.withdraw(chat.message_id, wait_s=60)
            (item,) = given(receipt_items(ana)).receipts
            assert envelope_id_of(item.token) == item.envelope_id
            assert world.held() == 0

    run(scenario)


def test_secrets_are_private_named_and_many(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        (await story(world)).close()
        ana = world.open("ana")
        secrets = {item.secret for item in given(secret_items(ana)).secrets}
        names = {item.name.partition(" of ")[0] for item in given(secret_items(ana)).secrets}
        assert {"device signing seed", "device identity key", "account key", "signed prekey"} <= names
        assert {"one-time prekey", "last-resort prekey", "session root key"} <= names
        assert all(len(secret) in {32, 64} for secret in secrets)
        # Nothing public among them, or every audit would find a leak.
        held = b"".join(row.signed_list for row in world.store.lists.values())
        held += b"".join(row.record for row in world.store.prekeys.values())
        assert not any(secret in held for secret in secrets)
        ana.close()

    run(scenario)


def test_lists_are_those_that_the_relay_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        (await story(world)).close()
        ana = world.open("ana")
        assert len(given(list_items(ana)).signed_lists) == 2
        ana.close()

    run(scenario)


def test_a_canary_is_committed_to_kept_and_opened(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana = world.new(ANA, "ana")
        commitment = commit(ana, b"the door is blue")
        assert b"blue" not in commitments_file([(commitment, ANA)])
        ana.close()
        ana = world.open("ana")
        items = canary_items(ana)
        material = given(items, commitments_file([(commitment, ANA)]))
        (opening,) = material.openings
        assert opening.text == b"the door is blue"
        assert material.commitments == {commitment: ANA}
        (item,) = items
        nonce = item[1]
        assert isinstance(nonce, bytes)
        assert sha256(label("canary") + nonce + b"the door is blue").digest() == commitment
        # The same text again is another commitment: nobody can tell that it was committed to twice.
        assert commit(ana, b"the door is blue") != commitment
        ana.close()

    run(scenario)


@pytest.mark.parametrize("size", [0, 65_537])
def test_a_canary_that_is_no_text_is_refused(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        ana = World(tmp_path).new(ANA, "ana")
        with pytest.raises(FormatError, match=f"canary: has {size} bytes"):
            commit(ana, bytes(size))
        ana.close()

    run(scenario)
