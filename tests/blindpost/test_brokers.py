"""With the configuration that `blindpost broker-config` writes, real brokers let each device reach its own topics only.

Attacks on Mosquitto and on a NATS server alike: another's topics, wildcards, no certificate, another authority's, a
revoked one. Mosquitto grants a subscription and then delivers nothing of it, NATS refuses it: what counts is what
comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest

from blindpost import authority as authorities
from blindpost.__main__ import build_parser, main
from blindpost.authority import AuthorityFolder
from blindpost.errors import CommandError
from client.content import Kind
from client.device import Device
from client.state import Settings
from keys.errors import CertificateRefused
from keys.identity import TenantAdminKey
from keys.pki import Authority, make_device_request
from keys.vault import CHEAP_FOR_TESTS
from relay.home import Home
from relay.process import transport_of
from relay.transport import RelayTransport
from relay.transport.address import BrokerAddress, free_port
from tests.relay.running import (
    ADMIN,
    TENANT,
    WAIT_S,
    RelayProcess,
    broker_process,
    make_home,
    program_path,
    until,
)
from wire.broker_tls import TlsInvalid, client_context
from wire.errors import FormatError
from wire.identity import device_tag
from wire.signing import SigningKey

BROKERS = [
    pytest.param("mosquitto", marks=pytest.mark.mosquitto),
    pytest.param("nats", marks=pytest.mark.nats_server),
]
PASSPHRASE = b"correct horse"
LONG_S = 60.0
ACCEPTED = b"\x20\x02\x00\x00"
QUICK = Settings(reconnect_first_s=0.05, reconnect_last_s=0.5, keepalive_s=2.0)


def run(*words: object) -> None:
    """Run a command that succeeds."""
    assert main([str(word) for word in words]) == 0


@dataclass
class Place:
    """A company's relay, authority and broker, set up by the commands of docs/brokers.md."""

    folder: Path
    kind: str
    listen: BrokerAddress
    home: Home
    process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> Path:
        return self.folder / "ca"

    def device(self, number: int) -> tuple[Path, str]:
        """The home of something that has a device's certificate, and its tag in hexadecimal."""
        home = self.folder / f"device{number}"
        home.mkdir()
        key = SigningKey(os.urandom(32))
        (home / "request").write_bytes(authorities.request_certificate(home, key))
        run("certificate", "issue", "--ca", self.ca, "--device", home / "request", "--out", home / "issued")
        authorities.accept_certificate(home, (home / "issued").read_bytes(), key.public)
        return home, device_tag(key.public).hex()

    def refresh(self) -> None:
        """Write the lists again, and let a broker that runs read them."""
        before = (self.folder / "broker" / f"{self.kind}.conf").read_bytes()
        run(*self.configure[:9], "--refresh")
        assert (self.folder / "broker" / f"{self.kind}.conf").read_bytes() == before
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    @property
    def configure(self) -> list[object]:
        ports = ["--listen", f"{self.listen.host}:{self.listen.port}"]
        if self.kind == "nats":
            address = self.home.config.address
            ports += ["--relay-listen", f"127.0.0.1:{address.port}"]
        out = self.folder / "broker"
        return ["broker-config", "--broker", self.kind, "--home", self.home.path, "--ca", self.ca, "--out", out, *ports]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The broker, on."""
        broker = self.folder / "broker"
        self.refresh()
        if self.kind == "mosquitto":
            command = [program_path("mosquitto"), "-c", str(broker / "mosquitto.conf")]
        else:
            command = [program_path("nats-server"), "-c", str(broker / "nats.conf")]
        with broker_process(command, [self.listen.port, self.home.config.address.port]) as self.process:
            yield
        self.process = None


def set_up(folder: Path, kind: str) -> Place:
    listen = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    device_broker = f"mqtts://localhost:{listen.port}"
    broker = device_broker if kind == "mosquitto" else f"tls://localhost:{free_port('127.0.0.1')}"
    home = make_home(folder / "relay", broker, device_broker)
    ca = folder / "ca"
    run("certificate", "new-ca", "--out", ca, "--unprotected")
    run("certificate", "issue", "--ca", ca, "--broker", "localhost", "127.0.0.1", "--out", folder / "broker")
    run("certificate", "issue", "--ca", ca, "--relay", home.path)
    place = Place(folder, kind, listen, home)
    run(*place.configure)
    if kind == "mosquitto" and os.geteuid() == 0:
        # Started by root, Mosquitto becomes another user, who could not read the test's folder.
        with (folder / "broker" / "mosquitto.conf").open("a") as file:
            file.write("user root\n")
    return place


@pytest.fixture(params=BROKERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return set_up(tmp_path, request.param)


@contextlib.asynccontextmanager
async def relay_of(place: Place) -> AsyncIterator[RelayTransport]:
    """The relay's own transport, with its certificate."""
    transport = transport_of(place.home)
    await asyncio.wait_for(transport.start(), WAIT_S)
    try:
        yield transport
    finally:
        await transport.close()


def mqtt(place: Place, home: Path) -> aiomqtt.Client:
    return aiomqtt.Client("localhost", place.listen.port, tls_context=client_context(home), timeout=WAIT_S)


async def next_payload(client: aiomqtt.Client) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return bytes((await anext(aiter(client.messages))).payload)


async def received(transport: RelayTransport) -> list[tuple[str, bytes]]:
    packets = await asyncio.wait_for(transport.receive(16), WAIT_S)
    return [(tag.hex(), packet) for tag, packet in packets]


async def test_a_device_reaches_its_own_topics_and_no_others(place: Place) -> None:
    (ana_home, ana), (eve_home, eve) = place.device(1), place.device(2)
    base = f"bp/{place.home.card.relay_id.hex()}"
    with place.running():
        async with relay_of(place) as relay, mqtt(place, ana_home) as ana_client, mqtt(place, eve_home) as eve_client:
            await ana_client.subscribe(f"{base}/{ana}/down")
            wanted = [f"{base}/{ana}/down", f"{base}/{ana}/up", f"{base}/+/down", f"{base}/+/up", f"{base}/#"]
            for topic in [*wanted, "bp/#", "+/+/+/+", "#", "$SYS/#", "$MQTT/#", "$JS/#", f"bp/+/{eve}/up"]:
                await eve_client.subscribe(topic)
            await eve_client.subscribe(f"{base}/{eve}/down")
            # Eve writes as Ana, and as the relay to Ana; only what she writes as herself arrives.
            for topic in (f"{base}/{ana}/up", f"{base}/{ana}/down", f"{base}/relay/up", "bp", "other"):
                await eve_client.publish(topic, b"forged")
            await eve_client.publish(f"{base}/{eve}/up", b"own")
            assert await received(relay) == [(eve, b"own")]
            await ana_client.publish(f"{base}/{ana}/up", b"for the relay")
            assert await received(relay) == [(ana, b"for the relay")]
            await relay.send([(bytes.fromhex(ana), b"for ana"), (bytes.fromhex(eve), b"for eve")])
            assert await next_payload(ana_client) == b"for ana"
            # Neither Ana's packets in either direction nor the forged ones came to Eve before her own.
            assert await next_payload(eve_client) == b"for eve"


def answer_to_connect(port: int, context: ssl.SSLContext | None) -> bytes:
    """What a broker answers to an MQTT CONNECT; nothing if it hangs up."""
    connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test"
    with contextlib.suppress(ssl.SSLError, ConnectionError), socket.create_connection(("127.0.0.1", port)) as plain:
        plain.settimeout(WAIT_S)
        if context is None:
            plain.sendall(connect)
            return plain.recv(4)
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            wrapped.sendall(connect)
            return wrapped.recv(4)
    return b""


def test_without_a_certificate_of_the_authority_nobody_gets_in(place: Place) -> None:
    home, _ = place.device(1)
    no_certificate = ssl.create_default_context(cafile=place.ca / "ca.pem")
    stranger = place.folder / "stranger"
    stranger.mkdir()
    other = Authority.new("Blindpost brokers", 1_700_000_000, 7_300)
    relay_user = other.issue_relay(place.home.card.relay_id, 1_700_000_000, 7_000)
    authorities.install(stranger, (place.ca / "ca.pem").read_bytes(), relay_user)
    with place.running():
        assert answer_to_connect(place.listen.port, client_context(home)) == ACCEPTED
        for context in (None, no_certificate, client_context(stranger)):
            assert answer_to_connect(place.listen.port, context) == b""


def test_devices_do_not_speak_to_a_broker_of_another_authority_or_name(place: Place) -> None:
    home, _ = place.device(1)
    other = Authority.new("Blindpost brokers", 1_700_000_000, 7_300)
    trusting = ssl.create_default_context(cadata=other.certificate.decode())
    with place.running():
        where = ("127.0.0.1", place.listen.port)
        with socket.create_connection(where) as plain, pytest.raises(ssl.SSLCertVerificationError):
            trusting.wrap_socket(plain, server_hostname="localhost")
        with socket.create_connection(where) as plain, pytest.raises(ssl.SSLCertVerificationError, match="Hostname"):
            client_context(home).wrap_socket(plain, server_hostname="other.example")


async def test_a_new_device_gets_in_and_a_revoked_one_does_not_and_the_others_stay(place: Place) -> None:
    (ana_home, ana), (eve_home, eve) = place.device(1), place.device(2)
    base = f"bp/{place.home.card.relay_id.hex()}"
    port = place.listen.port
    with place.running():
        async with relay_of(place) as relay, mqtt(place, ana_home) as client:
            await client.subscribe(f"{base}/{ana}/down")
            run("certificate", "revoke", "--ca", place.ca, eve)
            new_home, new = place.device(3)
            assert answer_to_connect(port, client_context(eve_home)) == ACCEPTED
            place.refresh()
            eve_context, new_context = client_context(eve_home), client_context(new_home)
            await until(lambda: answer_to_connect(port, eve_context) != ACCEPTED, "the revocation")
            await until(lambda: answer_to_connect(port, new_context) == ACCEPTED, "the new device")
            async with mqtt(place, new_home) as new_client:
                await new_client.publish(f"{base}/{new}/up", b"new")
                assert await received(relay) == [(new, b"new")]
            await relay.send([(bytes.fromhex(ana), b"still here")])
            assert await next_payload(client) == b"still here"
            assert relay.counters.connections == 1


async def test_mail_travels_end_to_end_over_tls(place: Place) -> None:
    (place.folder / "pass").write_bytes(PASSPHRASE)
    secret = ["--passphrase-file", place.folder / "pass"]
    devices: dict[str, Path] = {}
    for name in ("ana", "bo"):
        token = TenantAdminKey(ADMIN).activate(f"{name}@{TENANT}", 4_102_444_800)
        home = devices[name] = place.folder / name
        Device.new(home, place.home.card, token, PASSPHRASE, settings=QUICK, cost=CHEAP_FOR_TESTS).close()
        request, issued = place.folder / f"{name}.request", place.folder / f"{name}.pem"
        run("certificate", "request", "--home", home, "--out", request, *secret)
        run("certificate", "issue", "--ca", place.ca, "--device", request, "--out", issued)
        run("certificate", "accept", "--home", home, issued, *secret)
    with place.running(), RelayProcess(place.home) as relay:
        async with (
            Device.open(devices["ana"], PASSPHRASE, settings=QUICK) as ana,
            Device.open(devices["bo"], PASSPHRASE, settings=QUICK) as bo,
        ):
            await ana.enrolled(LONG_S)
            await bo.enrolled(LONG_S)
            to = [f"bo@{TENANT}"]
            receipts = await ana.send(ana.compose(Kind.CHAT, b"over TLS", to), to)
            assert [held.account for held in receipts] == to
            assert [message.payload for message in await bo.receive(LONG_S)] == [b"over TLS"]
        assert relay.stop() == (0, "", "")


def test_the_files_that_are_secret_are_for_their_owner_only(place: Place) -> None:
    home, _ = place.device(1)
    secrets = [place.ca / "ca.key", place.folder / "broker" / "broker.key", home / "tls" / "client.key"]
    for path in [*secrets, place.home.path / "tls" / "client.key"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = [path for path in (place.folder / "broker").iterdir() if path.name != "broker.key" and path.is_file()]
    public += [place.ca / "ca.pem", place.ca / "crl.pem"]
    for path in public:
        assert b"PRIVATE" not in path.read_bytes()
    assert not list(home.glob("*.key")), "the key of the request was put to use"


def test_a_configuration_is_not_written_over_without_being_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = set_up(tmp_path, "nats")
    place.device(1)
    before = (tmp_path / "broker" / "users.conf").read_bytes()
    assert main([str(word) for word in place.configure]) == 73
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "broker" / "users.conf").read_bytes() == before
    place.refresh()
    assert (tmp_path / "broker" / "users.conf").read_bytes().count(b"CN=") == 2


def test_without_the_brokers_certificate_the_command_that_makes_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_home(tmp_path / "relay")
    words = ["broker-config", "--broker", "nats", "--home", tmp_path / "relay", "--ca", "ca", "--out", tmp_path]
    assert main([str(word) for word in words]) == 78
    assert f"certificate issue --ca ca --broker HOST --out {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["issue", "--ca", "CA", "--broker", "localhost"], 64, "--out"),
        (["issue", "--ca", "CA", "--relay", "RELAY", "--out", "x"], 64, "--out"),
        (["issue", "--ca", "nowhere", "--broker", "localhost", "--out", "BASE/b"], 78, "new-ca"),
        (["issue", "--ca", "CA", "--broker", "a b", "--out", "BASE/b"], 65, "neither a host name"),
        (["issue", "--ca", "CA", "--device", "CA/ca.pem", "--out", "BASE/b"], 65, "no request"),
        (["issue", "--ca", "CA", "--days", "0", "--relay", "RELAY"], 64, "days"),
        (["new-ca", "--out", "CA", "--unprotected"], 73, "there already"),
        (["revoke", "--ca", "CA", "00" * 16], 66, "no certificate"),
        (["revoke", "--ca", "CA", "../../ca"], 66, "no certificate"),
    ],
)
def test_what_cannot_be_issued_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    home = make_home(tmp_path / "relay")
    run("certificate", "new-ca", "--out", tmp_path / "ca", "--unprotected")
    before = sorted(path for path in tmp_path.rglob("*") if path.name != "lock")
    places = {
        "CA/ca.pem": tmp_path / "ca" / "ca.pem",
        "CA": tmp_path / "ca",
        "RELAY": home.path,
        "BASE/b": tmp_path / "b",
    }
    assert main(["certificate", *(str(places.get(word, word)) for word in words)]) == status
    assert said in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "lock") == before


def test_every_command_that_docs_brokers_shows_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "brokers.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    blindpost ")]
    assert len(lines) > 15
    for line in lines:
        options = build_parser().parse_args(shlex.split(line)[1:])
        assert callable(options.run)


def test_a_sealed_authority_opens_with_its_passphrase_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The cost of a try is the vault's own subject; here it would be seconds for nothing.
    monkeypatch.setattr("keys.vault.Vault.create.__func__.__defaults__", (CHEAP_FOR_TESTS, os.urandom))
    (tmp_path / "pass").write_bytes(PASSPHRASE)
    (tmp_path / "wrong").write_bytes(b"battery staple")
    ca = tmp_path / "ca"
    run("certificate", "new-ca", "--out", ca, "--passphrase-file", tmp_path / "pass")
    folder = AuthorityFolder(ca)
    assert folder.is_sealed()
    assert folder.open(PASSPHRASE).key_bytes() not in (ca / "ca.key").read_bytes()
    words = ["certificate", "issue", "--ca", ca, "--broker", "localhost", "--out", tmp_path / "broker"]
    assert main([str(word) for word in [*words, "--passphrase-file", tmp_path / "wrong"]]) == 77
    assert not (tmp_path / "broker").exists()
    run(*words, "--passphrase-file", tmp_path / "pass")
    assert "correct" not in capsys.readouterr().out


def test_a_device_takes_no_certificate_that_it_has_not_asked_for(tmp_path: Path) -> None:
    place = set_up(tmp_path, "mosquitto")
    home, _ = place.device(1)
    key = SigningKey(os.urandom(32))
    request, _ = make_device_request(key)
    (tmp_path / "request").write_bytes(request)
    run("certificate", "issue", "--ca", place.ca, "--device", tmp_path / "request", "--out", tmp_path / "issued")
    issued = (tmp_path / "issued").read_bytes()
    with pytest.raises(CommandError, match="no request"):
        authorities.accept_certificate(home, issued, key.public)
    in_use = (home / "tls" / "client.pem").read_bytes()
    authorities.request_certificate(home, key)
    with pytest.raises(CertificateRefused, match="another key"):
        authorities.accept_certificate(home, issued, key.public)
    with pytest.raises(FormatError, match="two certificates"):
        authorities.accept_certificate(home, in_use, key.public)
    assert (home / "tls" / "client.pem").read_bytes() == in_use


def test_all_certificates_of_a_name_are_revoked_with_it(tmp_path: Path) -> None:
    home = make_home(tmp_path / "relay")
    run("certificate", "new-ca", "--out", tmp_path / "ca", "--unprotected")
    for _ in range(2):
        run("certificate", "issue", "--ca", tmp_path / "ca", "--relay", home.path)
    folder = AuthorityFolder(tmp_path / "ca")
    name = f"relay-{home.card.relay_id.hex()}"
    assert folder.users() == [name]
    run("certificate", "revoke", "--ca", tmp_path / "ca", name)
    assert folder.users() == []
    assert sorted(path.name for path in (tmp_path / "ca" / "revoked").iterdir()) == [f"{name}.1.pem", f"{name}.2.pem"]
    run("certificate", "issue", "--ca", tmp_path / "ca", "--relay", home.path)
    assert [path.name for path in (tmp_path / "ca" / "issued").iterdir()] == [f"{name}.3.pem"]


def test_a_relay_without_its_certificate_says_so(tmp_path: Path) -> None:
    home = make_home(tmp_path / "relay", "mqtts://localhost:1")
    (home.path / "tls").mkdir()
    with pytest.raises(TlsInvalid, match="tls"):
        transport_of(home)
