"""A gateway's folder, settings and card: read back as written, and refused by field where something is wrong."""

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from client.errors import HomeInUse, HomeInvalid
from client.gateway import link_key
from client.gateway.address import CARD_BYTES_MAX, GatewayAddress, GatewayCard
from client.gateway.home import GatewayConfig, GatewayHome, init
from client.gateway.upstream import Upstream, check_broker
from client.route import gateway_of, keep_gateway, transport_of
from client.transport import MqttTransport
from keys.pki import Authority
from wire.card import RelayCard
from wire.errors import FormatError
from wire.identity import device_tag
from wire.signing import SigningKey

RELAY = RelayCard(SigningKey(b"r" * 32).public, "mqtt://127.0.0.1:1883")
HERE = GatewayAddress("127.0.0.1", 7480)
AWAY = GatewayAddress("gateway.example", 7480, tls=True)
EVERYWHERE = GatewayAddress("0.0.0.0", 7480)
CONFIG = GatewayConfig(HERE, HERE, RELAY.broker)


def make(folder: Path, config: GatewayConfig = CONFIG) -> GatewayHome:
    return init(folder, RELAY, config, lambda size: b"s" * size)


def test_a_home_is_read_back_as_it_was_made_and_its_seed_is_for_its_owner_only(tmp_path: Path) -> None:
    made = make(tmp_path / "gateway")
    home = GatewayHome.open(tmp_path / "gateway")
    assert home == made
    assert home.load_seed() == b"s" * 32
    assert home.link_key(3).public == link_key(b"s" * 32, 3).public
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.path.iterdir()}
    assert modes.pop("keys.msgpack") == 0o600
    assert set(modes.values()) == {0o644}
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert GatewayCard.read(home.path / "gateway-card.toml") == GatewayCard(RELAY.relay_id, HERE)
    for path in home.path.iterdir():
        assert (b"s" * 32 in path.read_bytes()) == (path.name == "keys.msgpack")


def test_a_folder_that_holds_something_is_not_made_a_home(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(HomeInvalid, match="not empty"):
        make(tmp_path)
    with pytest.raises(HomeInvalid, match="gateway init"):
        GatewayHome.open(tmp_path)


def test_a_seed_that_others_can_read_or_of_another_relays_gateway_is_refused(tmp_path: Path) -> None:
    home = make(tmp_path / "gateway")
    keys = home.path / "keys.msgpack"
    keys.chmod(0o640)
    with pytest.raises(FormatError, match="can be read by others"):
        home.load_seed()
    keys.chmod(0o600)
    keys.write_bytes(keys.read_bytes()[:-1])
    with pytest.raises(FormatError):
        home.load_seed()
    keys.unlink()
    with pytest.raises(HomeInvalid, match="missing"):
        home.load_seed()
    other = RelayCard(SigningKey(b"o" * 32).public, RELAY.broker)
    init(tmp_path / "other", other, CONFIG, lambda size: b"s" * size)
    keys.write_bytes((tmp_path / "other" / "keys.msgpack").read_bytes())
    keys.chmod(0o600)
    with pytest.raises(FormatError, match="another relay"):
        home.load_seed()


def test_two_processes_never_hold_one_home(tmp_path: Path) -> None:
    home = make(tmp_path / "gateway")
    with home.locked(), pytest.raises(HomeInUse):
        home.use_broker("nats://127.0.0.1:4222")
    assert GatewayHome.open(home.path).config.broker == RELAY.broker
    assert home.use_broker("nats://127.0.0.1").config.broker == "nats://127.0.0.1:4222"
    assert GatewayHome.open(home.path).config.broker == "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("protocol = 2", "protocol"),
        ("protocol = true", "protocol"),
        ('listen = "127.0.0.1"', "listen"),
        ('listen = "0.0.0.0:7480"', "tls://"),
        ('address = "tls://gateway.example:0"', "1 to 65535"),
        ('broker = "http://x:1"', "broker"),
        ("links = 0", "links: must be 1 to 64"),
        ("links = 65", "links: must be 1 to 64"),
        ('links = "4"', "links: must be an integer"),
        ("more = 1", "no others"),
        ("= ", "is not TOML"),
    ],
)
def test_settings_that_are_wrong_are_refused_by_field(changed: str, said: str) -> None:
    name = changed.partition(" ")[0]
    lines = [line for line in CONFIG.to_toml().splitlines() if not line.startswith(f"{name} ")]
    with pytest.raises(FormatError, match=said):
        GatewayConfig.from_toml("\n".join([*lines, changed]))


def test_in_the_clear_a_gateway_takes_devices_of_its_own_machine_only() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert GatewayConfig(GatewayAddress(host, 1), GatewayAddress(host, 1), RELAY.broker).links == 4
    for listen, address in [(EVERYWHERE, HERE), (GatewayAddress("192.0.2.1", 1), HERE)]:
        with pytest.raises(FormatError, match="needs a tls:// address"):
            GatewayConfig(listen, address, RELAY.broker)
    for host in ("gateway.example", "192.0.2.1", "localhost.example"):
        with pytest.raises(FormatError, match="over tls:// only"):
            GatewayCard(RELAY.relay_id, GatewayAddress(host, 1))
    with pytest.raises(FormatError, match="at which devices reach"):
        GatewayCard(RELAY.relay_id, replace(EVERYWHERE, tls=True))


@pytest.mark.parametrize(
    "text", ["gateway.example", ":1", "a b:1", "host:", "host:0", "host:65536", "host:+1", "http://host:1", "a/b:1", ""]
)
def test_what_is_no_address_of_a_gateway_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="gateway"):
        GatewayAddress.from_text(text)


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:7480", "tls://gateway.example:1", "tls://[2001:db8::1]:7480"])
def test_an_address_is_read_back_as_it_was_written(text: str) -> None:
    assert GatewayAddress.from_text(text).url == text


def test_a_card_with_its_authority_is_read_back_and_one_that_is_wrong_is_refused(tmp_path: Path) -> None:
    pem = Authority.new("Acme", int(time.time())).certificate.decode()
    card = GatewayCard(RELAY.relay_id, AWAY, pem)
    text = card.to_toml()
    assert GatewayCard.from_toml(text) == card
    for wrong in (
        text.replace(RELAY.relay_id.hex(), RELAY.relay_id.hex().upper()),
        text.replace(RELAY.relay_id.hex(), "00"),
        text.replace("protocol = 1", "protocol = 9"),
        text.replace("authority", "extra"),
        text.replace("BEGIN", "'''\nbroker = '''"),
        text.replace('"tls://gateway.example:7480"', "7480"),
        "protocol",
    ):
        with pytest.raises(FormatError, match="gateway card"):
            GatewayCard.from_toml(wrong)
    with pytest.raises(FormatError, match="PEM"):
        GatewayCard(RELAY.relay_id, AWAY, "'''\nrelay_id = 1")
    path = tmp_path / "card"
    path.write_bytes(b"#" * (CARD_BYTES_MAX + 1))
    with pytest.raises(FormatError, match="too large"):
        GatewayCard.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(FormatError, match="UTF-8"):
        GatewayCard.read(path)


def test_without_its_certificate_a_gateway_for_other_machines_does_not_begin(tmp_path: Path) -> None:
    home = make(tmp_path / "gateway", GatewayConfig(EVERYWHERE, AWAY, RELAY.broker))
    with pytest.raises(HomeInvalid, match=r"certificate issue --ca CADIR --broker gateway\.example --out"):
        home.listen_context()
    authority = Authority.new("Acme", int(time.time()))
    credentials = authority.issue_broker(["gateway.example"], int(time.time()))
    folder = home.path / "listen"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.certificate)
    (folder / "broker.pem").write_bytes(credentials.certificate)
    (folder / "broker.key").write_bytes(credentials.key)
    (folder / "broker.key").chmod(0o644)
    with pytest.raises(HomeInvalid, match="can be read by others"):
        home.listen_context()
    (folder / "broker.key").chmod(0o600)
    assert home.listen_context() is not None
    assert home.write_card().authority == authority.certificate.decode()
    (folder / "broker.key").write_bytes(authority.issue_broker(["other"], int(time.time())).key)
    with pytest.raises(HomeInvalid, match="listen"):
        home.listen_context()


def test_a_gateway_makes_only_links_that_have_a_certificate_where_the_broker_asks_for_them(tmp_path: Path) -> None:
    home = make(tmp_path / "gateway", replace(CONFIG, broker="tls://broker.example:4222", links=3))
    assert home.usable_links() == 3, "a broker of the system's authorities asks for none"
    tags = [device_tag(link_key(b"s" * 32, index).public).hex() for index in range(3)]
    home.links_path.mkdir()
    with pytest.raises(HomeInvalid, match="--link 0"):
        home.usable_links()
    for index in (0, 2):
        assert home.link_path(index) == home.links_path / tags[index]
        (home.link_path(index) / "tls").mkdir(parents=True)
        (home.link_path(index) / "tls" / "client.pem").write_text("a certificate")
    assert home.usable_links() == 1, "the second has none, and links are made in their order"
    assert replace(home, config=replace(home.config, broker="nats://127.0.0.1:4222")).usable_links() == 3
    with pytest.raises(FormatError, match="must be 0 to 2"):
        home.link_key(3)


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1",
        "mqtt://",
        "nats://a:0",
        "nats://a:99999",
        "mqtt://u@a:1",
        "mqtt://u:p@a:1",
        "tls://a:1/x",
        'tls://"',
    ],
)
def test_a_brokers_url_with_anything_else_in_it_is_refused(url: str) -> None:
    with pytest.raises(FormatError, match="broker"):
        Upstream(url)


def test_a_brokers_url_gets_the_port_of_its_scheme() -> None:
    urls = ["mqtt://a", "mqtts://a", "nats://a", "tls://[::1]", "tls://a:5"]
    assert [check_broker(url) for url in urls] == [
        *("mqtt://a:1883", "mqtts://a:8883", "nats://a:4222", "tls://[::1]:4222", "tls://a:5")
    ]


def test_a_devices_home_says_by_which_way_it_goes(tmp_path: Path) -> None:
    assert gateway_of(tmp_path) is None
    assert isinstance(transport_of(RELAY, tmp_path), MqttTransport)
    card = GatewayCard(RELAY.relay_id, HERE)
    keep_gateway(tmp_path, card)
    assert gateway_of(tmp_path) == card
    assert stat.S_IMODE((tmp_path / "gateway.toml").stat().st_mode) == 0o600
    assert repr(transport_of(RELAY, tmp_path)) == "SocketTransport(tcp://127.0.0.1:7480)"
    keep_gateway(tmp_path, GatewayCard(bytes(16), HERE))
    with pytest.raises(FormatError, match="another relay"):
        transport_of(RELAY, tmp_path)
    keep_gateway(tmp_path, None)
    keep_gateway(tmp_path, None)
    assert gateway_of(tmp_path) is None


def test_each_file_of_a_home_is_durable_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    home = make(tmp_path / "gateway")
    assert synced == ["file", "folder"] * (len(synced) // 2)
    assert len(synced) == 2 * len(list(home.path.iterdir()))
