"""What a participant gives the verifier: it opens those rows and no other, and no state moves."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from client.content import Kind, decode_content
from client.store import Kind as RowKind
from client.volunteer import (
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
from keys.message import Opening, open_with_message_key
from tests.client.test_attacks import cheat, kinds
from tests.client.test_device import ANA, BO, heard, say
from tests.client.test_large import mail_of
from tests.client.world import World, run
from wire.commands import Delivery, RelayCommand
from wire.envelope import Envelope
from wire.errors import BlindpostError, FormatError
from wire.hashing import hash32
from wire.receipt import Receipt, verify_receipt


def disclosed(world: World) -> list[Envelope]:
    rows = world.store.envelopes.values()
    return [Envelope(row.mailbox, row.envelope_id, row.expiry, row.body) for row in rows]


def test_openings_open_the_own_rows_and_the_mail_is_received_later_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        large = mail_of(300_000)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(60)
                await say(ana, "before", BO)
                assert await heard(bo, 1) == ["before"]
                await say(bo, "reply", ANA)
                assert await heard(ana, 1) == ["reply"]
                await bo.idle(60)
                await ana.idle(60)
                await bo.caught_up(10, wait_s=60)
            async with world.new("cy@acme.example") as cy:
                await cy.enrolled(60)
                texts = [f"canary {number}" for number in range(5)]
                for text in texts:
                    await say(ana, text, BO)
                # First messages of a session that Bo has not accepted yet.
                await say(cy, "first of all", BO)
                await say(cy, "second of all", BO)
                await ana.send(ana.compose(Kind.EMAIL, large, [BO]), [BO], wait_s=600)
            rows = disclosed(world)
            bo = world.open(BO)
            before = dict(bo.state.store.items(RowKind.SESSION)), bo.state.store.get(RowKind.PREKEYS, b"ring")
            items = opening_items(bo, rows)
            assert (dict(bo.state.store.items(RowKind.SESSION)), bo.state.store.get(RowKind.PREKEYS, b"ring")) == before
            by_id = {row.envelope_id: row for row in rows}
            shown, chunks = [], 0
            for number, mailbox, envelope_id, *opening in items:
                assert number == 3
                assert isinstance(envelope_id, bytes)
                row = by_id[envelope_id]
                assert mailbox == row.mailbox == bo.mailbox
                volunteered = Opening(*opening)  # type: ignore[arg-type]
                if volunteered.offset == 72:
                    open_chunk(row.body, row.envelope_id, volunteered)
                    chunks += 1
                    continue
                content = decode_content(open_with_message_key(row.body, row.envelope_id, volunteered))
                if content.kind is Kind.CHAT:
                    shown.append(content.payload.decode())
                for other in rows:
                    if other is not row:
                        with pytest.raises(BlindpostError):
                            open_with_message_key(other.body, other.envelope_id, volunteered)
            assert sorted(shown) == sorted([*texts, "first of all", "second of all"])
            assert len(items) == len(rows) == len(shown) + chunks + 1
            # Ana can open none of them: they are not her rows.
            assert opening_items(ana, rows) == []
            bo.close()
            async with world.open(BO) as bo:
                await bo.caught_up(10, wait_s=600)
                assert [message.payload for message in bo.kept() if message.kind is Kind.EMAIL] == [large]
                assert len([message for message in bo.kept() if message.kind is Kind.CHAT]) == 8
                assert bo.notices() == []

    run(scenario)


def test_another_body_under_a_volunteered_envelope_is_refused_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(60)
            await say(ana, "the true text", BO)
            bo = world.open(BO)
            assert len(opening_items(bo, disclosed(world))) == 1
            bo.close()

            def forge(command: RelayCommand) -> RelayCommand:
                if not isinstance(command, Delivery):
                    return command
                changed = [replace(row, body=row.body[:-1] + bytes([row.body[-1] ^ 1])) for row in command.envelopes]
                return replace(command, envelopes=tuple(changed))

            async with world.open(BO) as bo:
                cheat(bo, forge)
                assert await bo.receive(30) == []
                assert kinds(bo) == {"BodyChanged"}

    run(scenario)


def test_receipts_verify_and_show_a_token_only_of_what_was_withdrawn(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(60)
            await say(ana, "stays", BO)
            gone = await say(ana, "goes", BO)
            await ana.withdraw(gone, wait_s=60)
            items = receipt_items(ana)
            assert len(items) == 2
            tokens = set()
            for number, *fields, token in items:
                assert number == 2
                header, signature, mailbox, envelope_id, expiry, place, leaf, path, body_hash = fields
                receipt = Receipt(header, signature, mailbox, envelope_id, expiry, place, leaf, path, body_hash)  # type: ignore[arg-type]
                verify_receipt(world.card.signing_key, receipt)
                tokens.add(token)
            assert b"" in tokens
            assert len(tokens) == 2

    run(scenario)


def test_a_commitment_opens_to_the_text_and_files_are_as_the_protocol_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            commitment = commit(ana, "قطة".encode())
            ((number, nonce, text),) = canary_items(ana)
            assert number == 4
            assert isinstance(nonce, bytes)
            assert isinstance(text, bytes)
            assert commitment == hash32("canary", nonce + text)
            assert msgspec.msgpack.decode(commitments_file([(commitment, ANA)])) == [
                "blindpost/v1/commitments",
                [[commitment, ANA]],
            ]
            await say(ana, "x", BO)
            assert len(list_items(ana)) == 2
            file = msgspec.msgpack.decode(volunteered_file(ANA, [*canary_items(ana), *list_items(ana)]))
            assert file[:2] == ["blindpost/v1/volunteered", ANA]
            assert [item[0] for item in file[2]] == [4, 6, 6]
            with pytest.raises(FormatError, match="canary"):
                commit(ana, b"")

    run(scenario)


def test_secrets_are_private_halves_and_none_of_them_is_public(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            await say(ana, "x", BO)
            assert await heard(bo, 1) == ["x"]
            secrets = [secret for _number, _name, secret in secret_items(bo)]
            assert bo.state.keys.signing.seed in secrets
            assert len(secrets) > 130
            public = b"".join(row.record for row in world.store.prekeys.values())
            public += b"".join(row.signed_list for row in world.store.lists.values())
            public += b"".join(row.body for row in world.store.envelopes.values())
            for secret in secrets:
                assert isinstance(secret, bytes)
                assert len(secret) in {32, 64}
                assert secret not in public

    run(scenario)
