"""A real relay process is killed with -9 in the middle of a burst, ten times in a row, over a real broker: nothing that
was sent is lost, and nothing is shown twice.
"""

import asyncio
from pathlib import Path

import pytest

from client.content import Kind
from client.device import Device
from client.errors import Unknown
from client.records import HeldReceipt
from client.state import Settings
from client.transport import MqttTransport
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from tests.relay.running import ADMIN, TENANT, RelayProcess, make_home, mosquitto
from wire.errors import FormatError

PASSPHRASE = b"correct horse"
KILLS = 10
MESSAGES = 300
ANA, BO = f"ana@{TENANT}", f"bo@{TENANT}"
# A relay that is away for half a second needs no device that waits half a minute for it.
QUICK = Settings(reconnect_first_s=0.05, reconnect_last_s=0.5, keepalive_s=2.0)


def new(folder: Path, relay: RelayProcess, account: str) -> Device:
    token = TenantAdminKey(ADMIN).activate(account, 4_102_444_800)
    return Device.new(folder / account, relay.home.card, token, PASSPHRASE, settings=QUICK, cost=CHEAP_FOR_TESTS)


async def burst(ana: Device, bo: Device, relay: RelayProcess) -> None:
    """Ana writes, the relay dies and comes back, again and again; then everything must be with Bo, once."""
    loop = asyncio.get_running_loop()
    receipted: list[HeldReceipt] = []
    shown: list[bytes] = []

    async def write(number: int) -> None:
        await asyncio.sleep(number * 0.01)
        receipted.extend(await ana.send(ana.compose(Kind.CHAT, str(number).encode(), [BO]), [BO]))

    async def read() -> None:
        while len(shown) < MESSAGES:
            shown.extend(message.payload for message in await bo.receive(5))

    async def kill() -> None:
        for _ in range(KILLS):
            await asyncio.sleep(0.25)
            await loop.run_in_executor(None, relay.kill)
            await loop.run_in_executor(None, relay.start)

    async with asyncio.timeout(90):
        await asyncio.gather(kill(), read(), *(write(number) for number in range(MESSAGES)))
        assert await bo.receive(2) == []
        await bo.idle()
        await ana.idle()
    assert sorted(shown, key=int) == [str(number).encode() for number in range(MESSAGES)]
    assert len(bo.kept()) == MESSAGES
    assert len({held.envelope_id for held in receipted}) == len(receipted) == MESSAGES
    assert ana.notices() == bo.notices() == []


async def scenario(folder: Path, relay: RelayProcess) -> None:
    async with new(folder, relay, ANA) as ana, new(folder, relay, BO) as bo:
        await ana.enrolled(30)
        await bo.enrolled(30)
        await burst(ana, bo, relay)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_killed_ten_times_in_a_burst_over_its_own_broker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with RelayProcess(make_home(tmp_path / "relay")) as relay:
        asyncio.run(scenario(tmp_path, relay))


@pytest.mark.slow
@pytest.mark.mosquitto
@pytest.mark.timeout(150)
def test_killed_ten_times_in_a_burst_over_mosquitto_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, RelayProcess(make_home(tmp_path / "relay", f"{broker.url}")) as relay:
        asyncio.run(scenario(tmp_path, relay))


@pytest.mark.parametrize("broker", ["", "http://a:1", "mqtt://", "mqtt://u:p@h:1", "mqtt://h:99999", "mqtt://h:1/x"])
def test_a_broker_that_is_no_mqtt_url_is_refused(broker: str) -> None:
    with pytest.raises(FormatError, match="broker"):
        MqttTransport(broker)


def test_a_broker_that_is_not_there_is_reported_and_tried_again(tmp_path: Path) -> None:
    async def wait() -> None:
        home = make_home(tmp_path / "relay")
        token = TenantAdminKey(ADMIN).activate(ANA, 4_102_444_800)
        device = Device.new(tmp_path / "ana", home.card, token, PASSPHRASE, settings=QUICK, cost=CHEAP_FOR_TESTS)
        async with device:
            with pytest.raises(Unknown, match="ask again"):
                await device.linked(1)
            assert "refused" in str(device.engine.last_error)

    asyncio.run(wait())
