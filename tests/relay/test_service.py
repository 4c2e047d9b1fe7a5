"""The service over loopback: what it answers and when, failed commits, checkpoints, stopping, holding still."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from benchmarks.wire_device import WireDevice, activation_token
from relay.core import Batch, CoreConfig, RelayCore, RelayIdentity
from relay.core.events import Snapshot
from relay.log import RelayLog
from relay.service import RelayFailed, RelayService, RelayStopping, head_of
from relay.store.memory import MemoryStore
from relay.store.protocol import StoreError
from relay.transport import Packet
from relay.transport.loopback import Faults, Network, Transport
from tests.relay.running import ADMIN, TENANT, WAIT_S, RelayProcess, device_of, enrolled, hub_of, make_home, until
from wire.errors import FormatError, RefusalCode
from wire.rotation import relay_id_of
from wire.signing import SigningKey

RELAY_KEY = SigningKey(bytes(32))
RELAY_ID = relay_id_of(RELAY_KEY.public)


class WatchedStore(MemoryStore):
    """A store in memory that notes what is asked of it, fails when told to, and waits when told to."""

    def __init__(self) -> None:
        super().__init__(RELAY_ID)
        self.commits_made = 0
        self.checkpoints = 0
        self.commit_fails = 0
        self.read_fails = 0
        self.checkpoint_fails = 0
        self.seconds_each = 0.0
        self.largest = 0
        self.closed = 0
        self.threads: list[str] = []

    def commit(self, batch: Batch) -> None:
        time.sleep(self.seconds_each)
        self.threads.append(threading.current_thread().name)
        if self.commit_fails:
            self.commit_fails -= 1
            raise StoreError("disk full")
        super().commit(batch)
        self.commits_made += 1
        self.largest = max(self.largest, len(batch.envelopes))

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        if self.read_fails:
            self.read_fails -= 1
            raise OSError("cannot read")
        return super().read(seqs)

    def checkpoint(self) -> int:
        if self.checkpoint_fails:
            self.checkpoint_fails -= 1
            raise StoreError("busy")
        self.checkpoints += 1
        return super().checkpoint()

    def close(self) -> None:
        self.closed += 1
        super().close()


class Running:
    """A service over loopback, and its parts."""

    def __init__(self, folder: Path, network: Network, store: WatchedStore, config: CoreConfig) -> None:
        snapshot = store.load()
        self.store = store
        self.network = network
        self.log_path = folder / "relay.log"
        identity = RelayIdentity(RELAY_ID, RELAY_KEY.seed)
        core = RelayCore(config, identity, snapshot, os.urandom)
        log = RelayLog(self.log_path, now_ms)
        self.service = RelayService(core, store, Transport(network), log, now_ms, head_of(snapshot))
        self.task = asyncio.create_task(self.service.run())

    def events(self) -> list[str]:
        return [line.split()[1] for line in self.log_path.read_text().splitlines()]

    async def device(self, name: str, credit: int = 1_024) -> WireDevice:
        device = WireDevice(f"{name}@{TENANT}", RELAY_ID, RELAY_KEY.public)
        async with asyncio.timeout(WAIT_S):
            await device.start(self.network.device(device.tag))
            await device.enrol(activation_token(ADMIN, device.account))
            if credit:
                await device.subscribe(credit)
        return device


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def running(
    folder: Path, network: Network | None = None, store: WatchedStore | None = None, config: CoreConfig | None = None
) -> AsyncIterator[Running]:
    relay = Running(folder, network or Network(), store or WatchedStore(), config or CoreConfig())
    await until(lambda: "ready" in relay.events(), "ready")
    await relay.service.admit_tenant(TENANT, ADMIN.public)
    try:
        yield relay
    finally:
        relay.service.stop()
        with contextlib.suppress(RelayFailed):
            await asyncio.wait_for(relay.task, WAIT_S)


async def test_receipts_deliveries_and_acks_over_a_network_that_loses_doubles_and_reorders(tmp_path: Path) -> None:
    import random

    network = Network(random.Random(3), Faults(drop=0.05, duplicate=0.1, reorder=0.1))
    async with running(tmp_path, network) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob")
        bob.keep_bodies = True
        mails = [ana.mail_to(bob) for _ in range(60)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(ana.submit(bob, mails[start : start + 3]) for start in range(0, 60, 3)))
        assert ana.check_receipts() == 60
        await until(lambda: len(bob.numbers) == 60, "the deliveries", 60)
        assert bob.bodies == {mail.envelope.envelope_id: mail.envelope.body for mail in mails}
        assert bob.doubled == []
        await until(lambda: not relay.store.envelopes, "the erasure", 60)
        await ana.stop()
        await bob.stop()


async def test_commits_group_by_themselves_while_one_is_under_way(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob", credit=0)
        relay.store.seconds_each = 0.02
        before = relay.store.commits_made
        await asyncio.gather(*(ana.submit(bob, [ana.mail_to(bob)]) for _ in range(50)))
        assert relay.store.commits_made - before < 10
        assert relay.store.largest > 10
        await ana.stop()
        await bob.stop()


async def commit_threads(folder: Path, submits: int = 5) -> list[str]:
    """In which threads the commits of a few submits were, one after another."""
    folder.mkdir(exist_ok=True)
    async with running(folder) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob", credit=0)
        relay.store.threads.clear()
        for _ in range(submits):
            await ana.submit(bob, [ana.mail_to(bob)])
        assert ana.check_receipts() == submits
        threads = list(relay.store.threads)
        assert len(threads) == submits
        await ana.stop()
        await bob.stop()
    return threads


async def test_small_commits_stay_on_the_loop_while_the_disk_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.INLINE_S_MAX", 60.0)
    assert set(await commit_threads(tmp_path)) == {threading.current_thread().name}


async def test_after_a_slow_commit_and_for_large_batches_the_loop_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.INLINE_S_MAX", 0.0)
    assert all("relay-store" in name for name in await commit_threads(tmp_path / "slow"))
    monkeypatch.setattr("relay.service.INLINE_S_MAX", 60.0)
    for bound in ("INLINE_ROWS_MAX", "INLINE_BYTES_MAX"):
        with monkeypatch.context() as patch:
            patch.setattr(f"relay.service.{bound}", 0)
            assert all("relay-store" in name for name in await commit_threads(tmp_path / bound))


async def test_a_failed_commit_on_the_loop_is_told_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.INLINE_S_MAX", 60.0)
    async with running(tmp_path, config=CoreConfig(retry_after_ms=50)) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob", credit=0)
        relay.store.commit_fails = 1
        await asyncio.wait_for(ana.submit(bob, [ana.mail_to(bob)]), WAIT_S)
        assert ana.refusals == [RefusalCode.STORAGE_FAILED]
        assert ana.check_receipts() == 1
        assert relay.store.threads[-1] == threading.current_thread().name
        await ana.stop()
        await bob.stop()


async def test_attack_broker_that_takes_nothing_does_not_fill_the_memory_and_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, config=CoreConfig(outgoing_bytes_max=100_000)) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob")
        transport = relay.service.transport
        send, gate, stuck = transport.send, asyncio.Event(), asyncio.Event()

        async def held_up(packets: Sequence[Packet]) -> None:
            stuck.set()
            await gate.wait()
            await send(packets)

        relay.service.transport.send = held_up  # type: ignore[method-assign]
        submits = [asyncio.create_task(ana.submit(bob, [ana.mail_to(bob)])) for _ in range(1_000)]
        await asyncio.wait_for(stuck.wait(), WAIT_S)
        await until(relay.service.core.has_backlog, "the backlog")
        await asyncio.sleep(0.1)
        assert relay.service.core._links.outgoing_bytes < 400_000
        assert len(transport._inbox) > 100, "nothing more is received"  # type: ignore[attr-defined]
        gate.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*submits)
        assert ana.check_receipts() == 1_000
        await until(lambda: len(bob.numbers) == 1_000, "the deliveries", 60)
        await ana.stop()
        await bob.stop()


async def test_a_failed_commit_receipts_nothing_is_told_to_its_sender_and_stops_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path, config=CoreConfig(retry_after_ms=50)) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob")
        relay.store.commit_fails = 2
        receipts = await asyncio.wait_for(ana.submit(bob, [ana.mail_to(bob)]), WAIT_S)
        assert ana.refusals == [RefusalCode.STORAGE_FAILED] * 2
        assert len(receipts) == ana.check_receipts() == 1
        await until(lambda: len(bob.received) == 1, "the delivery")
        assert relay.events().count("aborted") == 2
        # A tenant whose commit fails is not admitted in silence.
        relay.store.commit_fails = 1
        with pytest.raises(StoreError, match="commit failed"):
            await relay.service.admit_tenant("other.example", ADMIN.public)
        await ana.stop()
        await bob.stop()


async def test_a_body_that_cannot_be_read_now_is_delivered_later(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob", credit=0)
        await ana.submit(bob, [ana.mail_to(bob)])
        relay.store.read_fails = 1
        await bob.subscribe()
        await until(lambda: len(bob.received) == 1, "the delivery")
        assert relay.store.read_fails == 0
        assert relay.service.counters.reads_missing == 0
        await ana.stop()
        await bob.stop()


async def test_while_a_failed_read_waits_the_relay_does_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as relay:
        ana, bob, eve = await relay.device("ana"), await relay.device("bob", credit=0), await relay.device("eve", 0)
        await ana.submit(bob, [ana.mail_to(bob)])
        await ana.submit(eve, [ana.mail_to(eve)])
        steps = 0
        step = relay.service._step

        async def counted() -> None:
            nonlocal steps
            steps += 1
            await step()

        monkeypatch.setattr(relay.service, "_step", counted)
        relay.store.read_fails = 1
        await bob.subscribe()
        await until(lambda: relay.store.read_fails == 0, "the failed read")
        # One more wants a body: that alone must not wake the store again and again until the read is repeated.
        await eve.subscribe()
        await until(lambda: len(bob.received) == len(eve.received) == 1, "the deliveries")
        assert steps < 100, "a loop without a pause takes thousands"
        for device in (ana, bob, eve):
            await device.stop()


async def test_the_write_ahead_log_is_emptied_when_idle_and_a_failed_attempt_is_repeated(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        await until(lambda: relay.store.checkpoints >= 1, "the checkpoint when idle")
        relay.store.checkpoint_fails = 1
        ana = await relay.device("ana")
        before = relay.store.checkpoints
        await until(lambda: relay.store.checkpoints > before, "the repeated checkpoint")
        assert relay.store.checkpoint_fails == 0
        await ana.stop()


async def test_stopping_commits_and_answers_what_was_received(tmp_path: Path) -> None:
    store = WatchedStore()
    async with running(tmp_path, store=store) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob", credit=0)
        store.seconds_each = 0.05
        submits = [asyncio.create_task(ana.submit(bob, [ana.mail_to(bob)])) for _ in range(5)]
        await asyncio.sleep(0.02)
        relay.service.stop()
        await asyncio.wait_for(relay.task, WAIT_S)
        await asyncio.wait(submits, timeout=0.2)
        held = {row.envelope_id for row in store.envelopes.values()}
        receipted = {receipt.envelope_id for receipt in ana.receipts}
        assert receipted == held
        assert len(held) == 5
        for task in submits:
            task.cancel()
        assert store.closed == 1
        assert relay.events()[-2:] == ["stopped"] or relay.events()[-1] == "stopped"
        with pytest.raises(RelayStopping):
            async with relay.service.held():
                pass
        await ana.stop()
        await bob.stop()


async def test_a_held_store_stands_still_and_commands_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        ana, bob = await relay.device("ana"), await relay.device("bob")
        async with relay.service.held():
            before = relay.store.commits_made
            submit = asyncio.create_task(ana.submit(bob, [ana.mail_to(bob)]))
            await asyncio.sleep(0.1)
            assert not submit.done()
            assert relay.store.commits_made == before
        await asyncio.wait_for(submit, WAIT_S)
        await ana.stop()
        await bob.stop()


async def test_a_relay_that_cannot_go_on_stops_commits_nothing_more_and_says_so(tmp_path: Path) -> None:
    store = WatchedStore()
    relay = Running(tmp_path, Network(), store, CoreConfig())
    await until(lambda: "ready" in relay.events(), "ready")
    async with relay.service.held():
        relay.service.core.admit_tenant(TENANT, ADMIN.public)
        relay.service.fail("the rotated key cannot be saved")
    with pytest.raises(RelayFailed, match="cannot be saved"):
        await asyncio.wait_for(relay.task, WAIT_S)
    assert store.tenants == {}
    assert store.closed == 1


async def test_a_tenant_is_durable_when_admit_returns_and_another_key_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        assert [row.domain for row in relay.store.tenants.values()] == [TENANT]
        await asyncio.wait_for(relay.service.admit_tenant(TENANT, ADMIN.public), WAIT_S)
        assert len(relay.store.tenants) == 1
        with pytest.raises(FormatError, match="another"):
            await relay.service.admit_tenant(TENANT, RELAY_KEY.public)


def test_the_head_of_an_empty_store_is_zero() -> None:
    assert head_of(Snapshot()) == (0, bytes(32))


async def full_disk(relay: RelayProcess) -> None:
    """Fill the relay's disk through its own mailboxes; then acks make room again, and it goes on."""
    async with hub_of(relay.home) as hub:
        ana = await enrolled(hub, device_of(relay.home, "ana"), credit=0)
        bob = await enrolled(hub, device_of(relay.home, "bob"), credit=0)
        bob.keep_bodies = True
        sent: dict[bytes, bytes] = {}

        async def pour() -> None:
            while RefusalCode.STORAGE_FAILED not in ana.refusals:
                mails = [ana.mail_to(bob, 98_000) for _ in range(2)]
                sent.update((mail.envelope.envelope_id, mail.envelope.body) for mail in mails)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ana.submit(bob, mails), 3)

        await asyncio.wait_for(pour(), 60)
        assert relay.process is not None
        assert relay.process.poll() is None, "the relay goes on"
        assert ana.check_receipts() == len(ana.receipts) > 0
        # Everything receipted is there, and is delivered, while the disk is full.
        receipted = {receipt.envelope_id for receipt in ana.receipts}
        bob.acknowledge = False
        await bob.subscribe()
        await until(lambda: receipted <= set(bob.numbers), "what was receipted", 30)
        assert all(bob.bodies[envelope_id] == sent[envelope_id] for envelope_id in receipted)
        await ana.stop()
        await bob.stop()


async def test_a_file_size_limit_stands_for_a_full_disk(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with RelayProcess(home, limits="ulimit -f 4096") as relay:
        await full_disk(relay)
        relay.stop()
    with RelayProcess(home) as relay:
        assert relay.stop()[0] == 0
    assert "aborted" in home.log_path.read_text()


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("mount") is None, reason="only root can mount a small file system")
async def test_a_full_file_system_receipts_nothing_more_and_stops_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk]).returncode:
        pytest.skip("this container may not mount")
    try:
        with RelayProcess(make_home(disk / "home")) as relay:
            await full_disk(relay)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_uvloop_is_used_where_it_is(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    home = make_home(tmp_path / "home")
    with RelayProcess(home) as relay:
        maps = Path(f"/proc/{relay.pid}/maps").read_text()
    assert "uvloop" in maps
    assert sys.executable
