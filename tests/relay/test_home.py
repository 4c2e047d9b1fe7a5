"""The relay's home: made whole, read strictly, held by one process; secrets stay in one file."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.home import Home, HomeBusy, HomeError, RelayConfig, RelayKeys, init, replace_file, use_broker
from tests.relay.running import environment
from wire.card import RelayCard
from wire.errors import FormatError, SignatureError
from wire.rotation import Rotation, relay_id_of, sign_rotation
from wire.signing import SigningKey


def made(path: Path) -> Home:
    return init(path, os.urandom, "127.0.0.1:0")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_keys_card_and_configuration_with_a_free_port(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    assert mode(home.path) == 0o700
    assert mode(home.path / "keys.msgpack") == 0o600
    assert sorted(path.name for path in home.path.iterdir()) == ["keys.msgpack", "relay-card.toml", "relay.toml"]
    opened = Home.open(home.path)
    keys = opened.load_keys()
    assert opened.card == RelayCard.read(home.path / "relay-card.toml") == home.card
    assert opened.config == home.config
    assert SigningKey(keys.seed).public == home.card.signing_key
    assert keys.relay_id == home.card.relay_id == relay_id_of(home.card.signing_key)
    assert opened.config.address.port > 0
    assert home.card.broker == f"mqtt://127.0.0.1:{opened.config.address.port}"


def test_with_nats_the_card_names_the_broker_as_devices_reach_it(tmp_path: Path) -> None:
    nats, device = "nats://127.0.0.1:4222", "mqtt://relay.example:1883"
    home = init(tmp_path / "home", os.urandom, broker=nats, device_broker=device)
    assert Home.open(home.path).config.broker == nats
    assert Home.open(home.path).card.broker == device
    for wrong in (None, nats, "tls://relay.example:4222", "mqtt://ana:secret@relay.example"):
        with pytest.raises(FormatError, match="device broker"):
            init(tmp_path / "other", os.urandom, broker=nats, device_broker=wrong)
    assert not (tmp_path / "other").exists()


def test_another_broker_is_written_into_the_configuration_and_the_card_stays(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    moved = use_broker(home, "tls://broker.example")
    assert Home.open(home.path).config == moved.config
    assert (moved.config.listen, moved.config.broker) == (None, "tls://broker.example:4222")
    assert Home.open(home.path).card == home.card
    with home.locked(), pytest.raises(HomeBusy):
        use_broker(home, "nats://broker.example")
    with pytest.raises(FormatError, match="broker"):
        use_broker(home, "http://broker.example")
    assert Home.open(home.path).config == moved.config


def test_the_seed_is_in_no_file_but_the_key_file_and_in_no_repr(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    keys = home.load_keys()
    for path in home.path.iterdir():
        data = path.read_bytes()
        assert (keys.seed in data) == (path.name == "keys.msgpack")
        assert keys.seed.hex().encode() not in data
    for thing in (keys, keys.identity(0), home):
        assert keys.seed.hex() not in repr(thing)
        assert repr(keys.seed)[2:-1] not in repr(thing)
    assert "redacted" in repr(keys)


def test_init_refuses_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(HomeError, match="not empty"):
        made(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    made(tmp_path / "home")
    with pytest.raises(HomeError, match="not empty"):
        made(tmp_path / "home")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("protocol = 1\n", "exactly one of listen and broker"),
        ('protocol = 1\nlisten = "a:1"\nbroker = "mqtt://b"\n', "exactly one of listen and broker"),
        ('listen = "a:1"\n', "protocol"),
        ('protocol = 2\nlisten = "a:1"\n', "protocol"),
        ('protocol = true\nlisten = "a:1"\n', "protocol"),
        ('protocol = 1\nlisten = "a:1"\nsecret = 1\n', "unknown key 'secret'"),
        ('protocol = 1\nlisten = "a:1"\npartition = "0"\n', "partition: must be an integer"),
        ('protocol = 1\nlisten = "a:1"\npartition = true\n', "partition: must be an integer"),
        ("protocol = 1\nlisten = 1\n", "listen: must be text"),
        ('protocol = 1\nlisten = "a:1"\npartition = 65536\n', r"partition: must be 0 to 65535 \(limit 65535\)"),
        ('protocol = 1\nlisten = "a:1"\nretention_s = 2592001\n', r"retention_s: .*\(limit 2592000\)"),
        ('protocol = 1\nlisten = "a:1"\nretention_s = 1\n', "retention_s"),
        ('protocol = 1\nlisten = "a:1"\nmailbox_envelopes_max = 0\n', "mailbox_envelopes_max"),
        ('protocol = 1\nlisten = "a:1"\nmailbox_bytes_max = 1\n', "mailbox_bytes_max"),
        ('protocol = 1\nlisten = "nonsense"\n', "listen: must be HOST:PORT"),
        ('protocol = 1\nbroker = "mqtt://a:b@c"\n', "broker: must not hold credentials"),
        ("protocol = ", "is not TOML"),
        ("a = " + "[" * 3000, "is not TOML"),
    ],
)
def test_a_bad_configuration_is_refused_by_key_and_limit(tmp_path: Path, text: str, field: str) -> None:
    home = made(tmp_path / "home")
    (home.path / "relay.toml").write_text(text)
    with pytest.raises(FormatError, match=field):
        Home.open(home.path)


@given(st.binary(max_size=200))
def test_any_bytes_as_configuration_are_read_or_refused(data: bytes) -> None:
    try:
        config = RelayConfig.from_toml(data.decode("utf-8", "replace"))
    except FormatError:
        return
    assert RelayConfig.from_toml(config.to_toml()) == config


def test_a_configuration_reads_back_as_written() -> None:
    for config in (
        RelayConfig(listen="[::1]:1884", partition=7, retention_s=3_600),
        RelayConfig(broker="mqtts://broker.example:8883", mailbox_envelopes_max=5, mailbox_bytes_max=2**30),
    ):
        assert RelayConfig.from_toml(config.to_toml()) == config
        assert config.core.retention_s == config.settings[0]


def test_a_home_whose_files_do_not_belong_together_is_refused(tmp_path: Path) -> None:
    home, other = made(tmp_path / "home"), made(tmp_path / "other")
    with pytest.raises(HomeError, match="not a relay's home"):
        Home.open(tmp_path)
    good = (home.path / "keys.msgpack").read_bytes()
    (home.path / "keys.msgpack").write_bytes((other.path / "keys.msgpack").read_bytes())
    with pytest.raises(FormatError, match="not of the relay on the card"):
        home.load_keys()
    for damaged in (good[:-1], good + b"\0", b"", bytes(200_000)):
        (home.path / "keys.msgpack").write_bytes(damaged)
        with pytest.raises(FormatError):
            home.load_keys()
    (home.path / "keys.msgpack").write_bytes(good)
    (home.path / "keys.msgpack").chmod(0o640)
    with pytest.raises(FormatError, match="read by others"):
        home.load_keys()
    (home.path / "keys.msgpack").unlink()
    with pytest.raises(HomeError, match=r"no keys\.msgpack"):
        home.load_keys()
    card = (home.path / "relay-card.toml").read_text()
    (home.path / "keys.msgpack").write_bytes(good)
    (home.path / "keys.msgpack").chmod(0o600)
    (home.path / "relay-card.toml").write_text((other.path / "relay-card.toml").read_text())
    with pytest.raises(FormatError, match="not of the relay on the card"):
        Home.open(home.path).load_keys()
    named = card.replace("127.0.0.1", "relay.acme.example")
    (home.path / "relay-card.toml").write_text(named)
    assert Home.open(home.path).card.broker.startswith("mqtt://relay.acme.example:")
    assert Home.open(home.path).load_keys().relay_id == home.card.relay_id
    (home.path / "relay-card.toml").write_text(card.replace("partition = 0", "partition = 1"))
    with pytest.raises(FormatError, match="not that of the card"):
        Home.open(home.path)
    (home.path / "relay-card.toml").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="UTF-8"):
        Home.open(home.path)
    (home.path / "relay-card.toml").write_bytes(bytes(5_000))
    with pytest.raises(FormatError, match="too large"):
        Home.open(home.path)
    (home.path / "relay-card.toml").unlink()
    with pytest.raises(HomeError, match="missing"):
        Home.open(home.path)


def test_rotated_keys_are_saved_whole_and_checked_on_reading(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    keys = home.load_keys()
    new = SigningKey(os.urandom(32))
    rotation = sign_rotation(keys.relay_id, SigningKey(keys.seed), new, 0, bytes(32), 5)
    home.save_keys(RelayKeys(keys.relay_id, new.seed, (rotation,)))
    assert home.load_keys().seed == new.seed
    assert mode(home.path / "keys.msgpack") == 0o600
    forged = Rotation(rotation.rotation, rotation.old_signature, bytes(64))
    home.save_keys(RelayKeys(keys.relay_id, new.seed, (forged,)))
    with pytest.raises(SignatureError):
        home.load_keys()


def test_a_file_that_cannot_be_replaced_keeps_its_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old", 0o600)
    (tmp_path / ".file.new").mkdir()
    with pytest.raises(OSError, match="file"):
        replace_file(path, b"new", 0o600)
    assert path.read_bytes() == b"old"


def test_only_one_process_holds_a_home(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    with home.locked(), pytest.raises(HomeBusy), home.locked():
        pass
    with home.locked():
        pass


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        ([], 64, "usage"),
        (["nonsense"], 64, "usage"),
        (["init"], 64, "--home"),
        (["init", "--home", "H", "--listen", "a:1", "--broker", "mqtt://b"], 64, "not allowed with"),
        (["init", "--home", "H", "--broker", "nats://b"], 69, "device broker: must be given"),
        (["run", "--home", "missing", "--broker", "nats://b"], 69, "not a relay's home"),
        (["init", "--home", "H", "--listen", "nonsense"], 69, "listen: must be HOST:PORT"),
        (["run", "--home", "missing"], 69, "not a relay's home"),
        (["tenant-add", "acme.example", "zz", "--home", "missing"], 69, "admin key"),
        (["status", "--home", "missing"], 69, "not a relay's home"),
    ],
)
def test_wrong_usage_and_what_cannot_be_done_have_their_exit_statuses(
    tmp_path: Path, argv: list[str], status: int, words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay", *argv],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
