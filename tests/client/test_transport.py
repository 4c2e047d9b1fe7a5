"""A device's connection to the broker: what it may not or cannot do is told and tried again, never taken for work."""

from pathlib import Path

import pytest

from client.errors import TransportClosed
from client.transport import MqttTransport, topics_of
from keys.pki import Authority
from relay.transport.address import BrokerAddress, free_port
from relay.transport.broker import EmbeddedBroker

UP, DOWN = topics_of(bytes(16), bytes(range(16)))


async def test_a_broker_that_refuses_the_devices_own_topic_is_told_of() -> None:
    address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    broker = EmbeddedBroker(address)
    await broker.start()
    try:
        transport = MqttTransport(address.url)
        async with transport.connect(UP, DOWN):
            pass
        # The embedded broker knows the topics of the protocol and refuses all others.
        with pytest.raises(TransportClosed, match="not subscribe"):
            async with transport.connect(UP, "elsewhere"):
                pass
    finally:
        await broker.stop()


@pytest.mark.parametrize("name", ["ca.pem", "client.pem", "client.key"])
async def test_a_home_with_half_of_its_certificates_is_told_of_before_anything_is_sent(
    tmp_path: Path, name: str
) -> None:
    authority = Authority.new("Acme brokers", 1_448_884_800)
    credentials = authority.issue_relay(bytes(16), 1_448_884_800)
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "tls" / "client.pem").write_bytes(credentials.certificate)
    (tmp_path / "tls" / "client.key").write_bytes(credentials.key)
    (tmp_path / "tls" / "client.key").chmod(0o600)
    (tmp_path / "tls" / name).unlink()
    with pytest.raises(TransportClosed, match="tls"):
        async with MqttTransport(f"mqtts://127.0.0.1:{free_port('127.0.0.1')}", tmp_path).connect(UP, DOWN):
            pass
