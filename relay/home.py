"""The relay's home directory: its keys, its configuration, its card, its lock.

    DIR/keys.msgpack       0600  the signing seed and the rotations that lead to it; never handed over
    DIR/relay.toml               the configuration, public: the keys of protocol.md section 11 and no others
    DIR/relay-card.toml          the card, public (section 2.7)
    DIR/store.sqlite             the store (relay/store)
    DIR/relay.log                the log (relay/log.py)
    DIR/control.sock       0600  while the relay runs (relay/control.py)
    DIR/tls/                     where there is one: the certificates for the broker (wire/broker_tls.py)
    DIR/ended-tenants      0600  where there is one: companies for which the service has ended, one a line
    DIR/log.key, log.vkey, transparency/, orders/, policy.toml: the public log and the docket (relay/orders.py)
    DIR/lock                     held by whoever serves or changes the home, so that two never do

Rules: files are replaced whole (written beside, flushed to the disk, renamed), so a crash leaves the old or
the new one; what a person may have edited is checked on reading, and an error names the key and the limit.
"""

import fcntl
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from relay.core.events import CoreConfig, RelayIdentity
from relay.transport.address import BrokerAddress, free_port
from wire.card import RelayCard
from wire.codec import Id, Key, SecretRecord, decode, encode
from wire.errors import BlindpostError, FormatError
from wire.identity import check_domain
from wire.limits import EXPIRY_S_MAX, PROTOCOL_VERSION, ROTATIONS_MAX, UINT16_MAX
from wire.rotation import Rotation, follow_rotations, relay_id_of
from wire.signing import SigningKey

KEYS_NAME = "keys.msgpack"
CONFIG_NAME = "relay.toml"
CARD_NAME = "relay-card.toml"
STORE_NAME = "store.sqlite"
LOG_NAME = "relay.log"
SOCKET_NAME = "control.sock"
LOCK_NAME = "lock"
ENDED_NAME = "ended-tenants"

CONFIG_BYTES_MAX = 4_096
KEYS_BYTES_MAX = 131_072
ENDED_BYTES_MAX = 1_048_576
RETENTION_S_MIN = 3_600
MAILBOX_ENVELOPES_MAX = 1_000_000
MAILBOX_BYTES_MIN = 1_048_576
MAILBOX_BYTES_MAX = 2**40
_USUAL = CoreConfig()


class HomeError(BlindpostError):
    """The home cannot be used: it is not there, not empty, or held by another process."""


class HomeBusy(HomeError):
    """Another process serves or changes this home."""


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What relay.toml says: how devices reach the relay, and its limits.

    Args:
        listen: `HOST:PORT` of the broker in the relay's own process; exactly one of this and `broker` is given.
        broker: URL of a broker that somebody else runs.
        partition: 0 to 65535.
        retention_s: how far ahead an expiry may lie, one hour to 30 days.
        mailbox_envelopes_max: envelopes and tombstones in a mailbox.
        mailbox_bytes_max: bytes of bodies in a mailbox.
    """

    listen: str | None = None
    broker: str | None = None
    partition: int = 0
    retention_s: int = EXPIRY_S_MAX
    mailbox_envelopes_max: int = _USUAL.mailbox_envelopes_max
    mailbox_bytes_max: int = _USUAL.mailbox_bytes_max

    def __post_init__(self) -> None:
        if (self.listen is None) == (self.broker is None):
            raise FormatError("relay.toml", "must have exactly one of listen and broker")
        _check_int("partition", self.partition, 0, UINT16_MAX)
        _check_int("retention_s", self.retention_s, RETENTION_S_MIN, EXPIRY_S_MAX)
        _check_int("mailbox_envelopes_max", self.mailbox_envelopes_max, 1, MAILBOX_ENVELOPES_MAX)
        _check_int("mailbox_bytes_max", self.mailbox_bytes_max, MAILBOX_BYTES_MIN, MAILBOX_BYTES_MAX)
        # The address is checked where it is made.
        _ = self.address

    @property
    def address(self) -> BrokerAddress:
        """Where the broker is, whoever runs it."""
        if self.broker is not None:
            return BrokerAddress.from_url(self.broker, "broker")
        assert self.listen is not None
        return BrokerAddress.from_listen(self.listen, "listen")

    @property
    def core(self) -> CoreConfig:
        """The core's limits, with the three that are configured."""
        return CoreConfig(
            retention_s=self.retention_s,
            mailbox_envelopes_max=self.mailbox_envelopes_max,
            mailbox_bytes_max=self.mailbox_bytes_max,
        )

    @property
    def settings(self) -> tuple[int, int, int]:
        """The limits as the manifest of a disclosure names them (section 11)."""
        return self.retention_s, self.mailbox_envelopes_max, self.mailbox_bytes_max

    def to_toml(self) -> str:
        """The configuration as a file's text; `from_toml` reads it back."""
        where = f'listen = "{self.listen}"' if self.listen is not None else f'broker = "{self.broker}"'
        return (
            f"protocol = {PROTOCOL_VERSION}\n{where}\npartition = {self.partition}\nretention_s = {self.retention_s}\n"
            f"mailbox_envelopes_max = {self.mailbox_envelopes_max}\nmailbox_bytes_max = {self.mailbox_bytes_max}\n"
        )

    @classmethod
    def from_toml(cls, text: str) -> "RelayConfig":
        """Read a configuration; limits that are left out have their usual values.

        Raises:
            FormatError: not TOML, an unknown key, a wrong type, or a value out of its limits.
        """
        try:
            values = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FormatError("relay.toml", f"is not TOML: {error}") from None
        protocol = values.pop("protocol", None)
        if protocol != PROTOCOL_VERSION or isinstance(protocol, bool):
            raise FormatError("relay.toml protocol", f"must be {PROTOCOL_VERSION}", PROTOCOL_VERSION)
        numbers = {"partition", "retention_s", "mailbox_envelopes_max", "mailbox_bytes_max"}
        for name, value in values.items():
            if name not in numbers | {"listen", "broker"}:
                raise FormatError("relay.toml", f"has the unknown key {name[:40]!r}")
            if name in numbers and (not isinstance(value, int) or isinstance(value, bool)):
                raise FormatError(f"relay.toml {name}", "must be an integer")
            if name not in numbers and not isinstance(value, str):
                raise FormatError(f"relay.toml {name}", "must be text")
        return cls(**values)


class _Keys(SecretRecord, frozen=True):
    """keys.msgpack."""

    version: Literal[1]
    relay_id: Id
    seed: Key
    rotations: Annotated[tuple[Rotation, ...], Meta(max_length=ROTATIONS_MAX)]


@dataclass(frozen=True, slots=True, repr=False)
class RelayKeys:
    """The relay's signing key and how it follows from the card's. Its repr shows no secret.

    Args:
        relay_id: 16 bytes.
        seed: the current signing seed; secret.
        rotations: from the card's key to the current one.
    """

    relay_id: bytes
    seed: bytes
    rotations: tuple[Rotation, ...] = ()

    def __repr__(self) -> str:
        return f"RelayKeys(relay_id={self.relay_id.hex()}, seed=<redacted>, rotations={len(self.rotations)})"

    def identity(self, partition: int) -> RelayIdentity:
        """The identity that the core works with."""
        return RelayIdentity(
            self.relay_id, self.seed, tuple(encode(rotation) for rotation in self.rotations), partition
        )


@dataclass(frozen=True, slots=True)
class Home:
    """A relay's home directory that exists."""

    path: Path
    config: RelayConfig = field(compare=False)
    card: RelayCard = field(compare=False)

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return self.path / STORE_NAME

    @property
    def log_path(self) -> Path:
        """The log's file."""
        return self.path / LOG_NAME

    @property
    def socket_path(self) -> Path:
        """The control socket."""
        return self.path / SOCKET_NAME

    @classmethod
    def open(cls, path: Path) -> "Home":
        """Read configuration and card. (Whether the keys are the card's, `load_keys` tells.)

        Raises:
            HomeError: there is no relay's home.
            FormatError: a file of it does not hold what it should.
        """
        if not (path / CONFIG_NAME).is_file():
            raise HomeError(f"{path} is not a relay's home: it has no {CONFIG_NAME} (make one with: relay init)")
        config = RelayConfig.from_toml(_read_text(path / CONFIG_NAME, "relay.toml", CONFIG_BYTES_MAX))
        card = RelayCard.from_toml(_read_text(path / CARD_NAME, "relay card", CONFIG_BYTES_MAX))
        if card.partition != config.partition:
            raise FormatError("relay.toml partition", "is not that of the card", card.partition)
        # The broker's address may differ: the card tells how devices reach it, perhaps under another name.
        return cls(path, config, card)

    def ended_tenants(self) -> tuple[str, ...]:
        """The companies for which the service has ended.

        Raises:
            FormatError: the file holds something else than domains.
        """
        if not (self.path / ENDED_NAME).is_file():
            return ()
        return tuple(map(check_domain, _read_text(self.path / ENDED_NAME, ENDED_NAME, ENDED_BYTES_MAX).split()))

    def end_tenants(self, domains: Iterable[str]) -> None:
        """Write down for which companies it has ended, with those before.

        Raises:
            FormatError, OSError: it could not be read or written.
        """
        all_of_them = sorted({*self.ended_tenants(), *domains})
        replace_file(self.path / ENDED_NAME, "".join(f"{domain}\n" for domain in all_of_them).encode(), 0o600)

    def load_keys(self) -> RelayKeys:
        """Read the keys, and check that they are the card's.

        Raises:
            FormatError: damaged, readable by others, or of another relay.
            SignatureError: a rotation is not signed by its keys.
        """
        path = self.path / KEYS_NAME
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise FormatError(KEYS_NAME, "can be read by others; its mode must be 0600", 0o600)
                data = file.read(KEYS_BYTES_MAX + 1)
        except FileNotFoundError:
            raise HomeError(f"{self.path} has no {KEYS_NAME}") from None
        if len(data) > KEYS_BYTES_MAX:
            raise FormatError(KEYS_NAME, "is too large", KEYS_BYTES_MAX)
        keys = decode(_Keys, data, KEYS_NAME)
        chain = follow_rotations(self.card.signing_key, keys.rotations)
        current = chain[-1].new_key if chain else self.card.signing_key
        if keys.relay_id != self.card.relay_id or SigningKey(keys.seed).public != current:
            raise FormatError(KEYS_NAME, "is not of the relay on the card")
        return RelayKeys(keys.relay_id, keys.seed, keys.rotations)

    def save_keys(self, keys: RelayKeys) -> None:
        """Replace the keys, durably: on return a crash finds the new ones.

        Raises:
            OSError: they could not be written; the old ones are still there.
        """
        replace_file(self.path / KEYS_NAME, encode(_Keys(1, keys.relay_id, keys.seed, keys.rotations)), 0o600)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home alone.

        Raises:
            HomeBusy: another process does.
        """
        descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HomeBusy(f"{self.path} is in use by another process") from None
            yield
        finally:
            os.close(descriptor)


def init(
    path: Path,
    entropy: Callable[[int], bytes],
    listen: str | None = None,
    broker: str | None = None,
    device_broker: str | None = None,
    **limits: int,
) -> Home:
    """Make a relay's home: directory, keys, configuration, card.

    Args:
        path: a directory that is not there yet, or empty.
        entropy: gives the signing seed.
        listen: `HOST:PORT` for a broker of its own; port 0 picks a free one and writes it down.
        broker: the URL of another broker. Without either, a free port of 127.0.0.1.
        device_broker: the URL, for the card, at which devices reach the same broker; they speak MQTT. Without it, the
            address that the relay uses.
        limits: `partition`, `retention_s`, `mailbox_envelopes_max`, `mailbox_bytes_max`.

    Raises:
        FormatError: an address or limit is not allowed.
        HomeError: the directory holds something already.
        ListenFailed: no port can be had there.
    """
    if listen is None and broker is None:
        listen = "127.0.0.1:0"
    if listen is not None:
        address = BrokerAddress.from_listen(listen)
        port = address.port or free_port(address.host)
        listen = f"[{address.host}]:{port}" if ":" in address.host else f"{address.host}:{port}"
    elif broker is not None:
        broker = BrokerAddress.from_url(broker).url
    config = RelayConfig(listen, broker, **limits)
    seed = entropy(32)
    public = SigningKey(seed).public
    card = RelayCard(public, _device_address(config, device_broker).url, config.partition)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise HomeError(f"{path} is not empty")
    path.chmod(0o700)
    home = Home(path, config, card)
    home.save_keys(RelayKeys(relay_id_of(public), seed))
    replace_file(path / CARD_NAME, card.to_toml().encode(), 0o644)
    # Last, since a home is one that has a configuration.
    replace_file(path / CONFIG_NAME, config.to_toml().encode(), 0o644)
    return home


def use_broker(home: Home, broker: str) -> Home:
    """Write another broker into the configuration, for good; the card, which others have, stays as it is.

    Raises:
        FormatError: the URL is not allowed.
        HomeBusy: the relay runs.
        OSError: the file could not be written; the old one is still there.
    """
    config = replace(home.config, listen=None, broker=BrokerAddress.from_url(broker).url)
    with home.locked():
        replace_file(home.path / CONFIG_NAME, config.to_toml().encode(), 0o644)
    return replace(home, config=config)


def _device_address(config: RelayConfig, device_broker: str | None) -> BrokerAddress:
    if device_broker is None:
        if config.address.nats:
            raise FormatError("device broker", "must be given: devices reach a NATS server by its MQTT listener")
        return config.address
    address = BrokerAddress.from_url(device_broker, "device broker")
    if address.nats:
        raise FormatError("device broker", "must begin with mqtt:// or mqtts://: devices speak MQTT")
    return address


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole and durably, or leave the one that is there.

    Raises:
        OSError: it could not be written.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check_int(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        limit = least if value < least else most
        raise FormatError(f"relay.toml {name}", f"must be {least} to {most}", limit)


def _read_text(path: Path, what: str, bytes_max: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise HomeError(f"{path} is missing") from None
    if len(data) > bytes_max:
        raise FormatError(what, "is too large", bytes_max)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError(what, "is not UTF-8") from None
