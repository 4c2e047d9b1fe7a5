"""Two people, their devices and a relay: the way of one message, end to end, under virtual time."""

from pathlib import Path

from client.content import Kind
from tests.client.world import World, run

ANA, BO, CY = "ana@acme.example", "bo@globex.example", "cy@acme.example"


def test_a_chat_goes_from_one_company_to_the_other_and_is_receipted(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            chat = ana.compose(Kind.CHAT, b"salam", [BO])
            receipts = await ana.send(chat, [BO], wait_s=60)
            assert [receipt.account for receipt in receipts] == [BO]
            messages = await bo.receive(30)
            assert [(message.account, message.kind, message.payload) for message in messages] == [
                (ANA, Kind.CHAT, b"salam")
            ]
            assert await bo.receive(5) == []
            await bo.idle(60)
            await ana.idle(60)
            status = ana.status(chat.message_id)
            assert status is not None
            assert status.receipted
            assert status.delivered_to == (BO,)

    run(scenario)
