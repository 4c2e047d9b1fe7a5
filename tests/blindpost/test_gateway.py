"""`blindpost gateway` as a company runs it: a process of its own between devices and relay, and what it has loaded."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blindpost.__main__ import main
from client.content import Kind
from client.device import Device
from client.gateway.address import GatewayAddress, GatewayCard
from client.gateway.home import GatewayHome
from client.gateway_socket import SocketTransport
from client.route import keep_gateway
from client.state import Settings
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from relay.home import Home
from relay.transport.address import free_port
from tests.relay.running import ADMIN, PROJECT, TENANT, WAIT_S, RelayProcess, make_home, mosquitto, nats_server

PASSPHRASE = b"correct horse"
QUICK = Settings(reconnect_first_s=0.05, reconnect_last_s=0.5)
DEVICES_ONLY = re.compile(r"^(keys(\..*)?|client\.(device|engine|sessions|store|home|gateway_link)|relay(\..*)?)$")


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


@contextlib.contextmanager
def gateway_process(
    home: Path, command: Sequence[str] = ("-m", "blindpost", "gateway"), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """The gateway, on; `ready` has been read."""
    process = subprocess.Popen(
        [sys.executable, *command, "run", "--home", str(home)],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready listen="), (ready, process.communicate(timeout=WAIT_S))
        assert ready.endswith(f" home={home}\n")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT_S)


def stop(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """SIGTERM; the exit status, and what was said since `ready`."""
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=WAIT_S)
    return process.returncode, out, errors


def set_up(folder: Path, relay: Home, *more: object) -> GatewayHome:
    listen = f"127.0.0.1:{free_port('127.0.0.1')}"
    card = relay.path / "relay-card.toml"
    run("gateway", "init", "--home", folder / "gateway", "--relay", card, "--listen", listen, *more)
    return GatewayHome.open(folder / "gateway")


def new_device(folder: Path, relay: Home, name: str, gateway: GatewayHome) -> Device:
    """As `device new --gateway` makes it, but for the cost of its passphrase."""
    token = TenantAdminKey(ADMIN).activate(f"{name}@{TENANT}", 4_102_444_800)
    card = GatewayCard.read(gateway.path / "gateway-card.toml")
    home = folder / name
    made = Device.new(
        home, relay.card, token, PASSPHRASE, settings=QUICK, cost=CHEAP_FOR_TESTS, transport=SocketTransport(card)
    )
    made.close()
    keep_gateway(home, card)
    return Device.open(home, PASSPHRASE, settings=QUICK)


async def exchange(ana: Device, bo: Device, text: bytes) -> None:
    await ana.enrolled(WAIT_S)
    await bo.enrolled(WAIT_S)
    to = [f"bo@{TENANT}"]
    ana.post(ana.compose(Kind.CHAT, text, to), to)
    assert [message.payload for message in await bo.receive(WAIT_S)] == [text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("mosquitto", marks=pytest.mark.mosquitto),
        pytest.param("nats", marks=pytest.mark.nats_server),
    ],
)
async def test_a_gateway_process_carries_devices_is_killed_and_its_successor_goes_on(tmp_path: Path, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "mosquitto":
            relay = make_home(tmp_path / "relay", stack.enter_context(mosquitto(tmp_path)).url)
            home = set_up(tmp_path, relay)
        else:
            native, listener = stack.enter_context(nats_server(tmp_path))
            relay = make_home(tmp_path / "relay", native.url, listener.url)
            home = set_up(tmp_path, relay, "--broker", native.url)
        stack.enter_context(RelayProcess(relay))
        async with contextlib.AsyncExitStack() as devices:
            with gateway_process(home.path) as first:
                ana = await devices.enter_async_context(new_device(tmp_path, relay, "ana", home))
                bo = await devices.enter_async_context(new_device(tmp_path, relay, "bo", home))
                await exchange(ana, bo, b"through a process of its own")
                command = Path(f"/proc/{first.pid}/cmdline").read_bytes().split(b"\0")
                assert b"client.gateway" in command, "the command line's own process is gone"
                first.send_signal(signal.SIGUSR1)
                assert first.stdout is not None
                figures = first.stdout.readline()
                assert figures.startswith("figures devices=2 links=1 links_up=1 taken=2 joined=2 refused_full=0 ")
                first.kill()
            to = [f"bo@{TENANT}"]
            ana.post(ana.compose(Kind.CHAT, b"while it was away", to), to)
            with gateway_process(home.path) as second:
                assert [message.payload for message in await bo.receive(WAIT_S)] == [b"while it was away"]
                assert stop(second) == (0, "", ""), "it says nothing of who said what"
            # No other way was taken behind everybody's back.
            ana.post(ana.compose(Kind.CHAT, b"without a gateway", to), to)
            assert await bo.receive(0.5) == []


def imported(errors: str) -> set[str]:
    """The modules that a process has loaded, by Python's own account of its imports."""
    lines = [line.rpartition("|") for line in errors.splitlines() if line.startswith("import time:")]
    return {name.strip() for _, _, name in lines} - {"imported package"}


@pytest.mark.nats_server
async def test_the_process_that_carried_a_device_has_loaded_nothing_of_keys_or_of_a_device(tmp_path: Path) -> None:
    with nats_server(tmp_path) as (native, listener):
        relay = make_home(tmp_path / "relay", native.url, listener.url)
        home = set_up(tmp_path, relay, "--broker", native.url)
        own = ("-m", "client.gateway")
        with RelayProcess(relay), gateway_process(home.path, own, PYTHONPROFILEIMPORTTIME="1") as process:
            async with new_device(tmp_path, relay, "ana", home) as ana:
                await ana.enrolled(WAIT_S)
            status, _out, errors = stop(process)
    assert status == 0
    loaded = imported(errors)
    assert {"client.gateway.server", "client.gateway.nats", "wire.link", "nats.aio.client"} <= loaded
    assert sorted(filter(DEVICES_ONLY.match, loaded)) == []


def test_attack_twin_a_gateway_that_loads_the_ratchet_is_found_by_the_same_look() -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import client.gateway.process, keys.ratchet"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"keys", "keys.ratchet"} <= set(filter(DEVICES_ONLY.match, imported(told.stderr)))


async def test_over_tls_with_the_certificate_that_the_authority_issues(tmp_path: Path) -> None:
    relay = make_home(tmp_path / "relay")
    listen = f"0.0.0.0:{free_port('127.0.0.1')}"
    gateway = tmp_path / "gateway"
    address = f"localhost:{listen.rpartition(':')[2]}"
    words = ["--relay", relay.path / "relay-card.toml", "--listen", listen, "--address", f"tls://{address}"]
    run("gateway", "init", "--home", gateway, *words)
    own = [sys.executable, "-m", "client.gateway", "run", "--home", str(gateway)]
    refused = subprocess.run(own, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True)
    assert refused.returncode == 69
    assert "devices need its certificate" in refused.stderr
    run("certificate", "new-ca", "--out", tmp_path / "ca", "--unprotected")
    issue = ["certificate", "issue", "--ca", tmp_path / "ca", "--broker", "localhost", "--out", gateway / "listen"]
    run(*issue)
    home = GatewayHome.open(gateway)
    with RelayProcess(relay), gateway_process(gateway, ("-m", "client.gateway")):
        card = GatewayCard.read(gateway / "gateway-card.toml")
        assert card.authority == (tmp_path / "ca" / "ca.pem").read_text()
        async with new_device(tmp_path, relay, "ana", home) as ana, new_device(tmp_path, relay, "bo", home) as bo:
            await exchange(ana, bo, b"over TLS")


@pytest.mark.slow
def test_the_usual_commands_of_a_device_that_was_made_with_a_gateway_go_through_it(tmp_path: Path) -> None:
    relay = make_home(tmp_path / "relay")
    home = set_up(tmp_path, relay)
    (tmp_path / "pass").write_bytes(PASSPHRASE)
    (tmp_path / "bcc.eml").write_bytes(b"From: ana@acme.example\r\nSubject: salam\r\n\r\nby the gateway\r\n")
    run("tenant", "add", "globex.example", "--home", relay.path, "--out", tmp_path / "globex.key", "--unprotected")

    def command(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "blindpost", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    secret = ("--passphrase-file", tmp_path / "pass")
    with RelayProcess(relay), gateway_process(home.path) as process:
        for name, gateway in (("ana", home.path / "gateway-card.toml"), ("bo", home.config.listen.host_and_port)):
            activate = ("tenant", "activate", "--key", tmp_path / "globex.key", "--account", f"{name}@globex.example")
            command(*activate, "--out", tmp_path / f"{name}.token")
            new = ("device", "new", "--home", name, "--relay", relay.path / "relay-card.toml", "--gateway", gateway)
            assert "is enrolled" in command(*new, "--token", tmp_path / f"{name}.token", *secret)
        to = ("--to", "bo@globex.example")
        assert "receipt bo@globex.example" in command("mail", "send", "--home", "ana", *to, "bcc.eml", *secret)
        assert "receipt bo@globex.example" in command("chat", "send", "--home", "ana", *to, "and chat", *secret)
        assert "and chat" in command("receive", "--home", "bo", "--maildir", "bo-mail", *secret)
        (mail,) = (tmp_path / "bo-mail" / "new").iterdir()
        assert b"by the gateway" in mail.read_bytes()
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        # Two enrolments, two sendings, one receiving: each came through the gateway's socket.
        assert " joined=5 refused_full=0 refused_rate=0 " in process.stdout.readline()


def test_the_setting_of_a_devices_home_is_shown_changed_and_taken_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = make_home(tmp_path / "relay", "mqtt://127.0.0.1:1")
    gateway = set_up(tmp_path, relay)
    (tmp_path / "pass").write_bytes(PASSPHRASE)
    new_device(tmp_path, relay, "ana", gateway).close()
    capsys.readouterr()

    def setting(*words: object, status: int = 0) -> str:
        options = ["device", "gateway", "--home", tmp_path / "ana", *words, "--passphrase-file", tmp_path / "pass"]
        assert main([str(word) for word in options]) == status
        output = capsys.readouterr()
        return (output.err if status else output.out).replace(str(tmp_path), "")

    assert setting() == f"/ana: gateway {gateway.config.address.url}\n"
    assert setting("--none") == "/ana: broker mqtt://127.0.0.1:1\n"
    assert setting("127.0.0.1:9") == "/ana: gateway tcp://127.0.0.1:9\n"
    assert setting(gateway.path / "gateway-card.toml") == f"/ana: gateway {gateway.config.address.url}\n"
    assert "over tls:// only" in setting("192.0.2.1:9", status=65)
    assert "is not there" in setting("no-card.toml", status=66)
    other = make_home(tmp_path / "other", "mqtt://127.0.0.1:1")
    (tmp_path / "more").mkdir()
    elsewhere = set_up(tmp_path / "more", other)
    capsys.readouterr()
    assert "another relay" in setting(elsewhere.path / "gateway-card.toml", status=78)
    assert setting() == f"/ana: gateway {gateway.config.address.url}\n", "what was refused changed nothing"


def test_init_and_show_tell_how_devices_join_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = make_home(tmp_path / "relay", "mqtts://broker.example:8883")
    card = relay.path / "relay-card.toml"
    run("gateway", "init", "--home", tmp_path / "g", "--relay", card, "--address", "gateway.example:7480", "--links", 2)
    told = capsys.readouterr().out
    assert f"devices reach it at {GatewayAddress('gateway.example', 7480, tls=True).url}" in told
    assert "certificate issue --ca CADIR --broker gateway.example" in told
    run("gateway", "show", "--home", tmp_path / "g")
    shown = capsys.readouterr().out
    assert "it needs a certificate" in shown
    assert re.search(r"link 0 tag [0-9a-f]{32}, without a certificate\nlink 1 tag [0-9a-f]{32}, without", shown)
    for words, status, said in (
        (["--listen", "0.0.0.0:7480"], 64, "--address"),
        (["--links", "65"], 65, "1 to 64"),
        (["--broker", "amqp://a:1"], 65, "broker"),
        (["--listen", "localhost"], 65, "listen"),
    ):
        assert main(["gateway", "init", "--home", str(tmp_path / "h"), "--relay", str(card), *words]) == status
        assert said in capsys.readouterr().err
        assert not (tmp_path / "h").exists()
    assert main(["gateway", "init", "--home", str(tmp_path / "g"), "--relay", str(card)]) == 78
    assert "not empty" in capsys.readouterr().err
    assert main(["gateway", "run", "--home", str(tmp_path / "h")]) == 78
    assert "gateway init" in capsys.readouterr().err


def test_a_gateway_that_cannot_listen_or_has_no_home_says_so_and_ends(tmp_path: Path) -> None:
    relay = make_home(tmp_path / "relay", "mqtt://127.0.0.1:1")
    home = set_up(tmp_path, relay)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

    def told(*words: str) -> tuple[int, str]:
        own = [sys.executable, "-m", "client.gateway", *words]
        done = subprocess.run(own, env=environment, capture_output=True, text=True, timeout=WAIT_S)
        return done.returncode, done.stderr

    with gateway_process(home.path, ("-m", "client.gateway")):
        status, errors = told("run", "--home", str(home.path))
        assert (status, "in use by another process" in errors) == (69, True)
        (tmp_path / "more").mkdir()
        second = set_up(tmp_path / "more", relay)
        config = (second.path / "gateway.toml").read_text()
        listen = second.config.listen.host_and_port
        (second.path / "gateway.toml").write_text(config.replace(listen, home.config.listen.host_and_port))
        status, errors = told("run", "--home", str(second.path))
        assert (status, "address already in use" in errors) == (69, True)
    assert told("run", "--home", str(tmp_path))[0] == 69
    assert told("walk")[0] == 64
