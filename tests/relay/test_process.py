"""The relay's own process: it serves links, stops when told, survives kill -9, and loads nothing that it must not."""

import asyncio
import contextlib
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from benchmarks.wire_device import Mail, WireDevice
from relay.control import Connection, Status, StatusRequest
from relay.home import Home
from relay.transport.address import BrokerAddress
from sim.experiments.erased.raw import windows
from tests.relay.running import (
    PROJECT,
    RelayProcess,
    device_of,
    enrolled,
    hub_of,
    make_home,
    mosquitto,
    nats_server,
    until,
)


async def exchange(relay: RelayProcess, count: int) -> None:
    """Ana sends to Bob; every receipt verifies, every envelope arrives once."""
    async with hub_of(relay.home) as hub:
        ana = await enrolled(hub, device_of(relay.home, "ana"))
        bob = await enrolled(hub, device_of(relay.home, "bob"))
        bob.keep_bodies = True
        mails = [ana.mail_to(bob) for _ in range(count)]
        receipts = await ana.submit(bob, mails)
        assert ana.check_receipts() == len(receipts) == count
        await until(lambda: len(bob.received) == count, "the deliveries")
        assert bob.bodies == {mail.envelope.envelope_id: mail.envelope.body for mail in mails}
        assert bob.doubled == []
        await until(lambda: held(relay) == 0, "the erasure of what was acknowledged")
        await ana.stop()
        await bob.stop()


def held(relay: RelayProcess) -> int:
    with Connection(relay.home.socket_path) as connection:
        status = connection.request(StatusRequest())
    assert isinstance(status, Status)
    return dict(status.counts)["envelopes_held"]


async def test_serves_devices_through_a_broker_of_its_own_and_stops_on_sigterm(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with RelayProcess(home) as relay:
        assert relay.ready == f"ready broker={home.card.broker} home={home.path}\n"
        await exchange(relay, 20)
        status, out, errors = relay.stop()
    assert (status, out, errors) == (0, "", "")
    assert not (home.path / "store.sqlite-wal").exists()
    assert not home.socket_path.exists()
    events = [line.split()[1] for line in home.log_path.read_text().splitlines()]
    assert events[-1] == "stopped"
    assert events.index("ready") < events.index("stopping")


@pytest.mark.mosquitto
async def test_serves_devices_through_mosquitto_and_outlives_it(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as address:
        home = make_home(tmp_path / "home", address.url)
        relay = RelayProcess(home)
        relay.start()
        await exchange(relay, 20)
    # The broker is gone; the relay stays, and stops as it should.
    try:
        assert held(relay) == 0
        assert relay.stop() == (0, "", "")
    finally:
        relay.__exit__()


@pytest.mark.nats_server
async def test_serves_devices_that_speak_mqtt_through_a_nats_server_and_outlives_it(tmp_path: Path) -> None:
    with nats_server(tmp_path) as (address, device_address):
        home = make_home(tmp_path / "home", address.url, device_address.url)
        assert home.card.broker == device_address.url
        assert Home.open(home.path).config.broker == address.url
        relay = RelayProcess(home)
        relay.start()
        await exchange(relay, 20)
    try:
        assert held(relay) == 0
        assert relay.stop() == (0, "", "")
    finally:
        relay.__exit__()


@pytest.mark.nats_server
async def test_a_relay_moves_to_another_broker_when_it_is_started_with_it(tmp_path: Path) -> None:
    with nats_server(tmp_path) as (address, device_address):
        home = make_home(tmp_path / "home", "mqtt://127.0.0.1:1", device_address.url)
        relay = RelayProcess(home, options=("--broker", address.url))
        with relay:
            assert relay.ready == f"ready broker={device_address.url} home={home.path}\n"
            await exchange(relay, 3)
            assert relay.stop() == (0, "", "")
    assert Home.open(home.path).config.broker == address.url
    assert Home.open(home.path).card == home.card


@contextlib.asynccontextmanager
async def packets_through(broker: BrokerAddress) -> AsyncIterator[list[bytes]]:
    """Every packet of a relay and its devices, as a listener at the broker sees it."""
    packets: list[bytes] = []

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            packets.append(message.payload)

    async with aiomqtt.Client(broker.host, broker.port, clean_session=True) as client:
        await client.subscribe("bp/#", qos=0)
        task = asyncio.create_task(listen(client))
        try:
            yield packets
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def session_record(relay_id: bytes) -> "re.Pattern[bytes]":
    """What the NATS server writes down of a session that is not to be remembered: the topics that it listens on.

    It does so while the connection stands, and takes it away after its end, when it comes to it.
    """
    topic = rb'"bp\.%b\.[0-9a-f]{32}\.down":0' % relay_id.hex().encode()
    return re.compile(rb'\{"origin":"\w*","id":"\w*","clean":true,"subs":\{%b(,%b)*\}\}' % (topic, topic))


@pytest.mark.nats_server
async def test_nothing_of_an_envelope_is_in_the_nats_servers_store_which_names_topics_of_the_linked(
    tmp_path: Path,
) -> None:
    store = tmp_path / "jetstream"

    def kept() -> bytes:
        while True:
            # The server replaces files while they are read.
            with contextlib.suppress(FileNotFoundError):
                return b"".join(path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file())

    def is_clean(raw: bytes, packets: list[bytes]) -> bool:
        """No topic but in the records, and whatever a packet holds, its topic would stand beside it; no packet."""
        found = any(window in raw for packet in packets for window in windows(packet))
        return relay_id not in record.sub(b"", raw) and not found

    with nats_server(tmp_path) as (address, device_address):
        home = make_home(tmp_path / "home", address.url, device_address.url)
        relay_id, record = home.card.relay_id.hex().encode(), session_record(home.card.relay_id)
        async with packets_through(device_address) as packets:
            with RelayProcess(home) as relay:
                async with hub_of(home) as hub:
                    ana, bob = [await enrolled(hub, device_of(home, name)) for name in ("ana", "bob")]
                    await ana.submit(bob, [ana.mail_to(bob) for _ in range(5)])
                    assert ana.check_receipts() == 5
                    await until(lambda: len(bob.received) == 5, "the deliveries")
                    await until(lambda: record.search(kept()) is not None, "the record of the linked")
                    assert is_clean(kept(), packets)
                    await ana.stop()
                    await bob.stop()
                assert relay.stop()[0] == 0
        assert len(packets) > 10
    assert is_clean(kept(), packets)
    assert not is_clean(kept() + packets[-1], packets)
    assert not is_clean(kept() + relay_id, packets)
    assert len(kept()) < 65_536


def test_a_second_relay_on_the_same_home_is_refused(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with RelayProcess(home):
        second = subprocess.run(
            [sys.executable, "-m", "relay", "run", "--home", str(home.path)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
    assert second.returncode == 69
    assert "in use by another process" in second.stderr
    assert "ready" not in second.stdout


def test_the_serving_process_loads_no_module_of_the_rooms_that_hold_content_keys(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    # The module that runs as __main__, with a look at sys.modules in the very process once it is ready.
    program = (
        "import runpy, sys, os, signal, builtins\n"
        "real = print\n"
        "def watching(*words, **options):\n"
        "    real(*words, **options)\n"
        "    if words and str(words[0]).startswith('ready '):\n"
        "        real('modules', *sorted({name.partition('.')[0] for name in sys.modules}), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "builtins.print = watching\n"
        f"sys.argv = ['relay', 'run', '--home', {str(home.path)!r}]\n"
        "runpy.run_module('relay', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("modules "))
    loaded = set(line.split()[1:])
    assert {"relay", "wire", "amqtt"} <= loaded
    assert not loaded & {"keys", "client", "sim", "audit", "blindpost", "benchmarks", "tests"}
    # Nor what a broker without passwords has no use for.
    assert not loaded & {"argon2", "pwdlib", "cryptography"}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_9_in_a_burst_ten_times_in_a_row_loses_and_doubles_nothing_that_was_receipted(
    tmp_path: Path,
) -> None:
    rng = random.Random(9)
    home = make_home(tmp_path / "home")
    with RelayProcess(home) as relay:
        async with hub_of(home) as hub:
            ana = await enrolled(hub, device_of(home, "ana"), credit=0)
            bob = await enrolled(hub, device_of(home, "bob"))
            carl = await enrolled(hub, device_of(home, "carl"), credit=0)
            bob.keep_bodies = True
            sent: dict[bytes, bytes] = {}

            unanswered: list[int] = []

            async def burst(to: WireDevice, mails: list[Mail]) -> None:
                for start in range(0, len(mails), 2):
                    await ana.submit(to, mails[start : start + 2])

            async def kill_in_the_middle(receipts_before: int) -> None:
                # Some receipts are in, and some commands are under way.
                while len(ana.receipts) < receipts_before or ana.unanswered < 3:
                    await asyncio.sleep(0)
                unanswered.append(ana.unanswered)
                relay.kill()
                relay.start()

            for _ in range(10):
                bursts = [asyncio.create_task(kill_in_the_middle(len(ana.receipts) + rng.randrange(2, 50)))]
                for recipient in (bob, carl):
                    for _ in range(6):
                        mails = [ana.mail_to(recipient) for _ in range(8)]
                        sent.update((mail.envelope.envelope_id, mail.envelope.body) for mail in mails)
                        bursts.append(asyncio.create_task(burst(recipient, mails)))
                await asyncio.wait_for(asyncio.gather(*bursts), 60)

            assert len(unanswered) == 10
            assert min(unanswered) >= 3
            assert len(ana.receipts) == len(sent) == 10 * 96
            assert ana.check_receipts() == len(sent)
            await until(lambda: len(bob.numbers) == 480, "Bob's deliveries", 60)
            # Carl was away throughout, and drains now.
            carl.keep_bodies = True
            await carl.subscribe()
            await until(lambda: len(carl.numbers) == 480, "Carl's deliveries", 60)
            got = {**bob.bodies, **carl.bodies}
            assert got == sent
            assert bob.doubled == carl.doubled == []
            assert sorted(carl.received) == list(range(1, 481))
            numbers = {receipt.envelope_id: receipt.number for receipt in ana.receipts}
            assert numbers == {**bob.numbers, **carl.numbers}
            await until(lambda: held(relay) == 0, "the erasure of what was acknowledged")
            for device in (ana, bob, carl):
                await device.stop()
        assert relay.stop()[0] == 0
    starts = re.findall(r" started ", home.log_path.read_text())
    assert len(starts) == 11


def test_sigterm_while_the_broker_cannot_be_reached_ends_the_relay(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        home = make_home(tmp_path / "home", f"mqtt://127.0.0.1:{closed.getsockname()[1]}")
        relay = subprocess.Popen(
            [sys.executable, "-m", "relay", "run", "--home", str(home.path)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not home.socket_path.exists():
            assert relay.poll() is None
            time.sleep(0.01)
        relay.terminate()
        assert relay.communicate(timeout=20) == ("", "")
        assert relay.returncode == 0
    events = [line.split()[1] for line in home.log_path.read_text().splitlines()]
    assert events[events.index("started") :] == ["started", "stopping", "stopped"]


def test_an_address_in_use_ends_the_relay_with_a_reason_and_no_traceback(tmp_path: Path) -> None:
    with socket.socket() as taken:
        home = make_home(tmp_path / "home")
        taken.bind(("127.0.0.1", home.config.address.port))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "relay", "run", "--home", str(home.path)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 69
    assert done.stdout == ""
    assert done.stderr.startswith("relay: listen: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
async def test_sigterm_in_the_middle_of_traffic_ends_the_relay_every_time(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    for turn in range(8):
        with RelayProcess(home) as relay:
            async with hub_of(home) as hub:
                ana = await enrolled(hub, device_of(home, f"ana{turn}"))
                bob = await enrolled(hub, device_of(home, f"bob{turn}"))
                submits = [asyncio.create_task(ana.submit(bob, [ana.mail_to(bob)])) for _ in range(8)]
                await submits[turn]
                status = await asyncio.to_thread(relay.stop)
                assert status == (0, "", "")
                for submit in submits:
                    submit.cancel()
                await asyncio.gather(*submits, return_exceptions=True)
                await ana.stop()
                await bob.stop()
