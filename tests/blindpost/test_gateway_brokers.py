"""A gateway's links on brokers that `blindpost broker-config` has set up: each reaches its own topics and no others.

A link's own key names its topics, so each link has a certificate of its own; those of one gateway are as far apart as
those of two devices.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest

from blindpost.__main__ import main
from client.content import Kind
from client.device import Device
from client.errors import TransportClosed
from client.gateway import Gateway
from client.gateway.home import GatewayHome
from client.gateway.limits import GatewayLimits
from client.gateway.upstream import Upstream
from client.gateway_link import GatewayTransport
from client.transport import Channel, topics_of
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from tests.blindpost.test_brokers import (
    ACCEPTED,
    BROKERS,
    PASSPHRASE,
    QUICK,
    Place,
    answer_to_connect,
    received,
    relay_of,
    run,
    set_up,
)
from tests.relay.running import ADMIN, TENANT, WAIT_S, RelayProcess
from wire.broker_tls import client_context
from wire.identity import device_tag


@pytest.fixture(params=[*BROKERS, pytest.param("nats by MQTT", marks=pytest.mark.nats_server)])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, GatewayHome]:
    """A place with a gateway of three links, the first two certified; by NATS's own protocol or by MQTT."""
    kind, _, by_mqtt = request.param.partition(" by ")
    place = set_up(tmp_path, kind)
    native = kind == "nats" and not by_mqtt
    broker = place.home.config.address.url if native else place.home.card.broker
    card = place.home.path / "relay-card.toml"
    run("gateway", "init", "--home", tmp_path / "gateway", "--relay", card, "--broker", broker, "--links", 3)
    home = GatewayHome.open(tmp_path / "gateway")
    for number in range(2):
        certify(place, home, number)
    return place, home


def certify(place: Place, home: GatewayHome, number: int) -> None:
    request, issued = place.folder / f"link{number}.request", place.folder / f"link{number}.pem"
    run("certificate", "request", "--home", home.path, "--link", number, "--out", request)
    run("certificate", "issue", "--ca", place.ca, "--device", request, "--out", issued)
    run("certificate", "accept", "--home", home.path, "--link", number, issued)


def tag_of(home: GatewayHome, number: int) -> str:
    return device_tag(home.link_key(number).public).hex()


@contextlib.asynccontextmanager
async def link_of(home: GatewayHome, number: int) -> AsyncIterator[Channel]:
    topics = topics_of(home.relay_card.relay_id, bytes.fromhex(tag_of(home, number)))
    async with Upstream(home.config.broker, home.links_path).connect(*topics) as channel:
        yield channel


async def test_each_link_reaches_its_own_topics_by_its_own_certificate(gateway: tuple[Place, GatewayHome]) -> None:
    place, home = gateway
    with place.running():
        async with relay_of(place) as relay, link_of(home, 0) as first, link_of(home, 1) as second:
            for number, link in ((0, first), (1, second)):
                await link.send(b"to the relay")
                assert await received(relay) == [(tag_of(home, number), b"to the relay")]
                await relay.send([(bytes.fromhex(tag_of(home, number)), b"%d" % number)])
            assert await asyncio.wait_for(second.receive(), WAIT_S) == b"1"
            assert await asyncio.wait_for(first.receive(), WAIT_S) == b"0"


async def test_attack_a_links_certificate_gives_nothing_of_another_link(gateway: tuple[Place, GatewayHome]) -> None:
    place, home = gateway
    own, other = tag_of(home, 0), tag_of(home, 1)
    up, down = topics_of(home.relay_card.relay_id, bytes.fromhex(other))
    # The first link's certificate where the second's is looked for.
    stolen = place.folder / "stolen"
    (stolen / other).parent.mkdir()
    (stolen / other).symlink_to(home.links_path / own)
    upstream = Upstream(home.config.broker, stolen)
    with place.running():
        async with relay_of(place) as relay, link_of(home, 1) as second:
            # NATS refuses the subscription, by either protocol; Mosquitto grants it, and delivers nothing of it.
            outcome = (
                pytest.raises(TransportClosed, match="not subscribe")
                if place.kind == "nats"
                else contextlib.nullcontext()
            )
            with outcome:
                async with upstream.connect(up, down) as thief:
                    await thief.send(b"forged")
                    await relay.send([(bytes.fromhex(other), b"not for the thief")])
                    assert await asyncio.wait_for(second.receive(), WAIT_S) == b"not for the thief"
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(thief.receive(), 0.3)
            await second.send(b"own")
            assert await received(relay) == [(other, b"own")], "nothing of the forged one came before"


async def test_a_link_without_a_certificate_or_with_a_revoked_one_gets_no_connection(
    gateway: tuple[Place, GatewayHome],
) -> None:
    place, home = gateway
    assert home.usable_links() == 2
    run("certificate", "revoke", "--ca", place.ca, tag_of(home, 1))
    with place.running():
        async with link_of(home, 0):
            pass
        for number in (1, 2):
            if home.config.broker.startswith("mqtts:"):
                assert answer_to_connect(place.listen.port, client_context(home.link_path(number))) != ACCEPTED
                continue
            with pytest.raises(TransportClosed):
                async with link_of(home, number):
                    pass


async def test_devices_on_two_links_write_to_each_other_over_tls(gateway: tuple[Place, GatewayHome]) -> None:
    place, home = gateway
    limits = GatewayLimits(devices_per_link_max=1, links_max=home.usable_links())
    upstream = Upstream(home.config.broker, home.links_path)
    with place.running(), RelayProcess(place.home) as relay:
        async with (
            Gateway(home.relay_card, home.load_seed(), upstream, limits=limits) as server,
            contextlib.AsyncExitStack() as stack,
        ):
            ana, bo = [
                await stack.enter_async_context(
                    Device.new(
                        place.folder / name,
                        home.relay_card,
                        TenantAdminKey(ADMIN).activate(f"{name}@{TENANT}", 4_102_444_800),
                        PASSPHRASE,
                        settings=QUICK,
                        cost=CHEAP_FOR_TESTS,
                        transport=GatewayTransport(server),
                    )
                )
                for name in ("ana", "bo")
            ]
            await ana.enrolled(WAIT_S)
            await bo.enrolled(WAIT_S)
            to = [f"bo@{TENANT}"]
            await ana.send(ana.compose(Kind.CHAT, b"from link to link", to), to, wait_s=WAIT_S)
            assert [message.payload for message in await bo.receive(WAIT_S)] == [b"from link to link"]
            assert [len(lane.members) for lane in server.lanes] == [1, 1]
        assert relay.stop() == (0, "", "")


@pytest.mark.nats_server
async def test_attack_a_link_on_nats_may_neither_listen_to_others_nor_ask_the_server(tmp_path: Path) -> None:
    place = set_up(tmp_path, "nats")
    broker = place.home.config.address.url
    card = place.home.path / "relay-card.toml"
    run("gateway", "init", "--home", tmp_path / "gateway", "--relay", card, "--broker", broker)
    home = GatewayHome.open(tmp_path / "gateway")
    certify(place, home, 0)
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    base, own = f"bp.{home.relay_card.relay_id.hex()}", tag_of(home, 0)
    listens = [">", "bp.>", f"{base}.*.up", f"{base}.*.down", f"{base}.{own}.up", "$SYS.>", "$JS.>", "_INBOX.>"]
    writes = [f"{base}.{own}.down", f"{base}.other.up", "$JS.API.STREAM.LIST", "$MQTT.sub.x", "bp"]
    with place.running():
        context = client_context(home.link_path(0))
        client = await nats.connect(broker, tls=context, error_cb=note, allow_reconnect=False)
        try:
            for subject in listens:
                await client.subscribe(subject)
            for subject in writes:
                await client.publish(subject, b"forged")
            await client.flush()
            await asyncio.sleep(0.1)
        finally:
            await client.close()
    for subject in (*listens, *writes):
        assert any(f'"{subject.lower()}"' in words for words in refused), f"{subject} was allowed: {refused}"


def test_certificates_of_links_are_refused_where_they_do_not_belong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = set_up(tmp_path, "mosquitto")
    card = place.home.path / "relay-card.toml"
    run("gateway", "init", "--home", tmp_path / "gateway", "--relay", card, "--links", 2)
    home = GatewayHome.open(tmp_path / "gateway")
    certify(place, home, 0)
    run("certificate", "request", "--home", home.path, "--link", 1, "--out", tmp_path / "second")
    told = capsys.readouterr().out
    assert f"tag {tag_of(home, 1)}" in told

    def refused(*words: object) -> tuple[int, str]:
        status = main(["certificate", *(str(word) for word in words)])
        return status, capsys.readouterr().err

    accept = ["accept", "--home", home.path, "--link"]
    status, said = refused(*accept, 1, tmp_path / "link0.pem")
    assert (status, "is for another key" in said) == (65, True)
    assert not home.has_certificate(1)
    status, said = refused(*accept, 0, tmp_path / "link0.pem")
    assert (status, "no request" in said) == (78, True)
    status, said = refused("request", "--home", home.path, "--link", 2, "--out", tmp_path / "third")
    assert (status, "must be 0 to 1" in said) == (65, True)
    status, said = refused("request", "--home", place.home.path, "--link", 0, "--out", tmp_path / "third")
    assert (status, "no gateway's home" in said) == (78, True)
    assert not (tmp_path / "third").exists()
    for path in home.links_path.rglob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
