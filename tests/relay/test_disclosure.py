"""Disclosures: what is in the directory, what the manifest says of it, and that the relay goes on, by section 11."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest

from relay import disclosure
from relay.control import Connection, ControlError, Copied, DiscloseRequest, SealRequest
from relay.disclosure import OrderRefused, take_wholesale
from relay.home import HomeBusy
from tests.relay.running import PROJECT, RelayProcess, device_of, enrolled, environment, hub_of, make_home, until
from wire.errors import SignatureError
from wire.receipt import verify_receipt
from wire.rotation import Rotation, follow_rotations
from wire.signing import verify

FILES = ["config/relay-card.toml", "config/relay.toml", "log/relay.log", "store/store.sqlite"]
MEMORY_FILES = ["memory/image.bin", "memory/maps.txt", "memory/ranges.msgpack"]


def manifest_of(out: Path, signing_key: bytes) -> list[object]:
    """The manifest, after everything that section 11 lets anybody check; read with another decoder than the relay's."""
    signed = msgpack.unpackb((out / "manifest.msgpack").read_bytes(), strict_map_key=True)
    manifest_bytes, key, signature = signed
    assert key == signing_key
    verify(key, "disclosure", manifest_bytes, signature)
    with pytest.raises(SignatureError):
        verify(key, "disclosure", manifest_bytes[:-1] + b"\0", signature)
    manifest = msgpack.unpackb(manifest_bytes)
    assert msgpack.packb(manifest) == manifest_bytes
    relay_id, order, taken_at, files, head, settings, process, rotations, left_out = manifest
    assert (len(relay_id), order) == (16, "wholesale")
    assert abs(taken_at - time.time()) < 120
    assert [name for name, _, _ in files] == sorted(name for name, _, _ in files)
    for name, size, digest in files:
        data = (out / name).read_bytes()
        assert (len(data), hashlib.sha256(data).digest()) == (size, digest)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {name for name, _, _ in files} | {"manifest.msgpack", "relay-card.toml", "order.toml"}
    assert len(head) == 2
    assert settings == [30 * 86_400, 10_000, 256 * 1_048_576]
    version, executable, modules = process
    assert version == sys.version.split()[0]
    assert executable == hashlib.sha256(Path(sys.executable).resolve().read_bytes()).digest()
    loaded = dict(modules)
    assert loaded["relay.core.core"] == hashlib.sha256((PROJECT / "relay/core/core.py").read_bytes()).digest()
    assert loaded["sys"] == bytes(32)
    rooms = {name.partition(".")[0] for name in loaded}
    assert not rooms & {"keys", "client", "sim", "audit", "blindpost", "benchmarks", "tests"}
    assert any("keys.msgpack" in text for text in left_out)
    assert isinstance(rotations, list)
    return list(manifest)


@pytest.mark.parametrize("memory", [False, True])
async def test_a_running_relay_hands_over_its_very_bytes_and_goes_on(tmp_path: Path, memory: bool) -> None:
    home = make_home(tmp_path / "home")
    out = tmp_path / "out"
    seed = home.load_keys().seed
    progress: list[tuple[str, int, int]] = []
    with RelayProcess(home) as relay:
        async with hub_of(home) as hub:
            ana, bob = await enrolled(hub, device_of(home, "ana")), await enrolled(hub, device_of(home, "bob"), 0)
            mails = [ana.mail_to(bob) for _ in range(5)]
            receipts = await ana.submit(bob, mails)
            taken = await asyncio.to_thread(take_wholesale, home.path, out, memory, lambda *told: progress.append(told))
            assert (taken.path, taken.files, taken.rotated) == (out, 4 + 3 * memory, memory)
            manifest = manifest_of(out, home.card.signing_key)
            assert [entry[0] for entry in manifest[3]] == sorted(FILES + MEMORY_FILES * memory)  # type: ignore[attr-defined]
            assert manifest[4][0] == 1  # type: ignore[index]
            store = (out / "store/store.sqlite").read_bytes()
            assert all(mail.envelope.body[:400] in store for mail in mails)
            assert (out / "relay-card.toml").read_bytes() == (home.path / "relay-card.toml").read_bytes()
            assert all(stat.st_mode & 0o077 == 0 for stat in [out.stat(), *(p.stat() for p in out.rglob("*/*"))])
            for name in FILES:
                assert seed not in (out / name).read_bytes()
            assert {told[0] for told in progress} >= {"copy", "seal"}

            # It goes on: old receipts verify, new ones too, on new links under a new key after a memory image.
            await ana.submit(bob, [ana.mail_to(bob)])
            await bob.subscribe()
            await until(lambda: len(bob.received) == 6, "the deliveries")
            assert ana.check_receipts() == 6
            assert len(ana.rotations) == int(memory)
            assert ana.links == 1 + memory
            if memory:
                assert home.load_keys().seed != seed
                late = ana.receipts[-1]
                with pytest.raises(SignatureError):
                    verify_receipt(home.card.signing_key, late)
                verify_receipt(ana.rotations[0].new_key, late)
                verify_receipt(home.card.signing_key, receipts[0])
            else:
                assert home.load_keys().seed == seed
            await ana.stop()
            await bob.stop()
        assert relay.stop() == (0, "", "")
    assert f"disclosed files={4 + 3 * memory} memory={int(memory)}\n" in home.log_path.read_text()
    assert ("rotated index=1\n" in home.log_path.read_text()) == memory


def test_a_rotated_relay_starts_again_and_is_followed_from_the_first_card(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    for turn in range(2):
        with RelayProcess(home) as relay:
            take_wholesale(home.path, tmp_path / f"out{turn}", memory=True)
            assert relay.stop() == (0, "", "")
    with RelayProcess(home) as relay:
        taken = take_wholesale(home.path, tmp_path / "out")
        assert not taken.rotated
        assert relay.stop() == (0, "", "")
    keys = home.load_keys()
    chain = follow_rotations(home.card.signing_key, keys.rotations)
    assert len(chain) == 2
    manifest = manifest_of(tmp_path / "out", chain[-1].new_key)
    handed = [Rotation(*rotation) for rotation in manifest[7]]  # type: ignore[attr-defined]
    assert tuple(handed) == keys.rotations
    manifest_of(tmp_path / "out1", chain[0].new_key)


def test_a_stopped_relay_hands_over_its_store_and_has_no_memory(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with pytest.raises(OrderRefused, match="does not run"):
        take_wholesale(home.path, tmp_path / "memory", memory=True)
    taken = take_wholesale(home.path, tmp_path / "out")
    assert (taken.files, taken.rotated, taken.memory) == (4, False, None)
    manifest_of(tmp_path / "out", home.card.signing_key)
    assert (tmp_path / "out/store/store.sqlite").read_bytes() == home.store_path.read_bytes()
    with home.locked(), pytest.raises(OrderRefused, match="in use"):
        take_wholesale(home.path, tmp_path / "busy")
    with home.locked(), pytest.raises(HomeBusy), home.locked():
        pass


def test_the_stopped_relays_wal_is_emptied_before_the_bytes_are_copied(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with RelayProcess(home) as relay:
        relay.kill()
    take_wholesale(home.path, tmp_path / "out")
    manifest_of(tmp_path / "out", home.card.signing_key)


def test_out_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with RelayProcess(home):
        with pytest.raises(OrderRefused, match="not empty"):
            take_wholesale(home.path, out)
        with Connection(home.socket_path) as connection, pytest.raises(ControlError, match="not an empty directory"):
            connection.request(DiscloseRequest(str(out), False))
        with Connection(home.socket_path) as connection, pytest.raises(ControlError, match="not an empty directory"):
            connection.request(DiscloseRequest("relative", False))
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_file_that_does_not_belong_into_a_disclosure_is_never_signed(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with RelayProcess(home):
        with Connection(home.socket_path) as connection:
            assert isinstance(connection.request(DiscloseRequest(str(out), False)), Copied)
            with pytest.raises(ControlError, match="an order is under way"):
                connection.request(DiscloseRequest(str(out), False))
            (out / "extra").write_text("extra")
            with pytest.raises(ControlError, match="1 other files"):
                connection.request(SealRequest())
        assert not (out / "manifest.msgpack").exists()
        take_wholesale(home.path, tmp_path / "next")


async def test_an_orderer_that_is_gone_lets_the_relay_go_on_and_its_key_rotates(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    before = home.load_keys()
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with RelayProcess(home) as relay:
        async with hub_of(home) as hub:
            ana, bob = await enrolled(hub, device_of(home, "ana")), await enrolled(hub, device_of(home, "bob"))
            with Connection(home.socket_path) as connection:
                connection.request(DiscloseRequest(str(out), True))
                assert (home.path / "rotate-due").exists()
                submit = asyncio.create_task(ana.submit(bob, [ana.mail_to(bob)]))
                await asyncio.sleep(0.1)
                assert not submit.done(), "the store is held still"
            await asyncio.wait_for(submit, 20)
            assert ana.check_receipts() == 1
            await ana.stop()
            await bob.stop()
        assert home.load_keys().seed != before.seed
        assert not (home.path / "rotate-due").exists()
        assert relay.stop() == (0, "", "")


def test_a_relay_killed_after_its_memory_could_be_read_rotates_when_it_starts_again(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    before = home.load_keys()
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with RelayProcess(home) as relay:
        with Connection(home.socket_path) as connection:
            connection.request(DiscloseRequest(str(out), True))
            relay.kill()
        assert home.load_keys().seed == before.seed
        relay.start()
        assert home.load_keys().seed != before.seed
        assert not (home.path / "rotate-due").exists()
        assert relay.stop() == (0, "", "")
        relay.start()
        assert relay.stop() == (0, "", "")
    assert len(home.load_keys().rotations) == 1


def test_a_relay_killed_between_saving_its_new_key_and_storing_the_rotation_starts_with_the_new_key(
    tmp_path: Path,
) -> None:
    home = make_home(tmp_path / "home")
    store = home.store_path.read_bytes()
    with RelayProcess(home) as relay:
        take_wholesale(home.path, tmp_path / "out", memory=True)
        relay.kill()
    # The store as it was before the rotation was committed; the key file is already the new one.
    for suffix in ("-wal", "-shm"):
        home.store_path.with_name(home.store_path.name + suffix).unlink(missing_ok=True)
    home.store_path.write_bytes(store)
    with RelayProcess(home) as relay:
        assert relay.stop() == (0, "", "")
    assert len(home.load_keys().rotations) == 1


async def test_sigterm_in_the_middle_of_an_order_ends_the_order_and_the_relay(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with RelayProcess(home) as relay, Connection(home.socket_path) as connection:
        connection.request(DiscloseRequest(str(out), False))
        assert relay.stop() == (0, "", "")
    assert not (out / "manifest.msgpack").exists()


def test_the_command_line_takes_a_disclosure(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")

    def relay(*argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "relay", *argv, "--home", str(home.path)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )

    with RelayProcess(home) as running:
        ordered = relay("order", "--out", "out", "--memory")
        assert ordered.returncode == 0, ordered.stderr
        assert ordered.stdout.startswith("files=7 rotated=1 memory_bytes=")
        status = relay("status")
        assert "envelopes_held=0\n" in status.stdout
        assert relay("stop").returncode == 0
        assert running.process is not None
        assert running.process.wait(20) == 0
    assert relay("order", "--out", "again").stdout.startswith("files=4 rotated=0 out=")
    assert relay("order", "--out", "again").returncode == 69
    assert relay("status").returncode == 69
    manifest_of(tmp_path / "out", home.card.signing_key)


def test_nothing_of_a_disclosure_is_a_name_of_this_machine(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    take_wholesale(home.path, tmp_path / "out")
    manifest = (tmp_path / "out/manifest.msgpack").read_bytes()
    assert str(home.path).encode() not in manifest
    assert str(PROJECT).encode() not in manifest


def test_attack_only_files_of_ours_alone_are_given_away(tmp_path: Path) -> None:
    """Where root orders, the relay's user could lay a link to another's file into the folder that it will be given."""
    for kind in ("symbolic link", "hard link", "pipe"):
        folder, victim = tmp_path / kind, tmp_path / f"victim of a {kind}"
        folder.mkdir()
        victim.write_text("not yours")
        before = victim.stat()
        if kind == "symbolic link":
            (folder / "maps.txt").symlink_to(victim)
        elif kind == "hard link":
            (folder / "maps.txt").hardlink_to(victim)
        else:
            os.mkfifo(folder / "maps.txt")
        with pytest.raises((OrderRefused, OSError)):
            disclosure._give(folder, os.getuid(), ("maps.txt",))
        assert victim.stat().st_uid == before.st_uid
    (tmp_path / "folder").symlink_to(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"(?i)not a directory|symbolic"):
        disclosure._give(tmp_path / "folder", os.getuid(), ())
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "maps.txt").write_text("mine")
    disclosure._give(mine, os.getuid(), ("maps.txt",))


def test_no_memory_image_is_taken_that_would_rotate_the_key_beyond_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain of rotations is bounded on the wire: one more would lock out every device, and the relay itself."""
    monkeypatch.setattr(disclosure, "ROTATIONS_MAX", 0)
    out = tmp_path / "out"
    out.mkdir()
    home = make_home(tmp_path / "home")
    discloser = disclosure.Discloser(home, home.load_keys(), object(), lambda: 0, os.urandom)  # type: ignore[arg-type]
    with pytest.raises(OrderRefused, match="rotated 0 times"):
        asyncio.run(discloser.begin(out, True, None))
    assert list(out.iterdir()) == []
    assert not (home.path / disclosure.ROTATE_DUE_NAME).exists()


def test_the_orderers_own_times_lie_beside_the_disclosure(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    before = int(time.time())
    take_wholesale(home.path, tmp_path / "out")
    times = tomllib.loads((tmp_path / "out/order.toml").read_text())
    assert sorted(times) == ["received_at", "requested_at"]
    assert before <= times["requested_at"] <= times["received_at"] <= int(time.time()) + 1
