"""A gateway's home directory: its seed, its settings, its cards, its certificates, its lock.

    DIR/keys.msgpack       0600  the seed from which the links' own keys follow
    DIR/gateway.toml             where it listens, how devices reach it, its broker, how many links
    DIR/relay-card.toml          the relay's card
    DIR/gateway-card.toml        public: what a device must know to reach it (client/gateway/address.py)
    DIR/listen/                  where devices come from other machines: ca.pem, broker.pem, broker.key 0600
    DIR/links/TAG/tls/           where the broker asks for certificates: those of the link with that tag
    DIR/lock                     held by the process that serves

The seed opens no message. Who has it can hold a link's topic against the gateway, and links that no device signs.
Files are replaced whole; what a person may have edited is checked on reading, and an error names key and limit.
"""

import fcntl
import os
import ssl
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from client.errors import HomeInUse, HomeInvalid
from client.gateway.address import GatewayAddress, GatewayCard
from client.gateway.limits import GatewayLimits
from client.gateway.service import link_key
from client.gateway.upstream import TLS_SCHEMES, check_broker
from wire.broker_tls import CERTIFICATE_NAME, FOLDER_NAME
from wire.card import RelayCard
from wire.codec import Id, Key, SecretRecord, decode, encode
from wire.errors import FormatError
from wire.identity import device_tag
from wire.limits import KEY_BYTES, PROTOCOL_VERSION
from wire.signing import SigningKey

__all__ = ["CARD_NAME", "LINKS_USUAL", "LISTEN_NAME", "GatewayConfig", "GatewayHome", "init"]

CARD_NAME: Final = "gateway-card.toml"
LISTEN_NAME: Final = "listen"
LINKS_USUAL: Final = 4
_KEYS: Final = "keys.msgpack"
_CONFIG: Final = "gateway.toml"
_RELAY_CARD: Final = "relay-card.toml"
_LINKS: Final = "links"
_LOCK: Final = "lock"
_BYTES_MAX: Final = 4_096
_FIELDS: Final = {"protocol": int, "listen": str, "address": str, "broker": str, "links": int}


class _Keys(SecretRecord, frozen=True):
    version: Literal[1]
    relay_id: Id
    seed: Key


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What gateway.toml says.

    Args:
        listen: where devices are taken.
        address: how devices reach that; its scheme tells whether over TLS.
        broker: URL of the relay's broker.
        links: how many links the gateway may have, each for 255 devices.
    """

    listen: GatewayAddress
    address: GatewayAddress
    broker: str
    links: int = LINKS_USUAL

    def __post_init__(self) -> None:
        links_max = GatewayLimits().links_max
        if not 1 <= self.links <= links_max:
            raise FormatError("gateway.toml links", f"must be 1 to {links_max}", links_max)
        if not self.address.tls and not self.listen.is_of_this_machine:
            raise FormatError("gateway.toml listen", "is open to other machines, which needs a tls:// address")

    def to_toml(self) -> str:
        """The settings as a file's text; `from_toml` reads it back."""
        return (
            f'protocol = {PROTOCOL_VERSION}\nlisten = "{self.listen.host_and_port}"\naddress = "{self.address.url}"\n'
            f'broker = "{self.broker}"\nlinks = {self.links}\n'
        )

    @classmethod
    def from_toml(cls, text: str) -> "GatewayConfig":
        """Read settings.

        Raises:
            FormatError: not TOML, a key unknown or missing, a wrong type, or a value out of its limits.
        """
        try:
            values: dict[str, Any] = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FormatError(_CONFIG, f"is not TOML: {error}") from None
        if values.keys() != _FIELDS.keys():
            raise FormatError(_CONFIG, f"must have the keys {', '.join(_FIELDS)} and no others")
        for name, kind in _FIELDS.items():
            if type(values[name]) is not kind:
                raise FormatError(f"{_CONFIG} {name}", "must be text" if kind is str else "must be an integer")
        if values["protocol"] != PROTOCOL_VERSION:
            raise FormatError(f"{_CONFIG} protocol", "is not one that this program speaks", PROTOCOL_VERSION)
        return cls(
            GatewayAddress.from_text(values["listen"], f"{_CONFIG} listen"),
            GatewayAddress.from_text(values["address"], f"{_CONFIG} address"),
            check_broker(values["broker"]),
            values["links"],
        )


@dataclass(frozen=True, slots=True)
class GatewayHome:
    """A gateway's home that exists."""

    path: Path
    config: GatewayConfig
    relay_card: RelayCard

    @classmethod
    def open(cls, path: Path) -> "GatewayHome":
        """Read settings and cards.

        Raises:
            HomeInvalid: there is no gateway's home.
            FormatError: a file of it does not hold what it should.
        """
        if not (path / _CONFIG).is_file():
            raise HomeInvalid(f"{path} is no gateway's home: it has no {_CONFIG} (make one with: gateway init)")
        try:
            text = _read(path / _CONFIG).decode()
        except UnicodeDecodeError:
            raise FormatError(_CONFIG, "is not UTF-8") from None
        return cls(path, GatewayConfig.from_toml(text), RelayCard.read(path / _RELAY_CARD))

    def load_seed(self) -> bytes:
        """The links' seed; secret.

        Raises:
            FormatError: damaged, readable by others, or of a gateway to another relay.
        """
        keys = decode(_Keys, _read(self.path / _KEYS, is_secret=True), _KEYS)
        if keys.relay_id != self.relay_card.relay_id:
            raise FormatError(_KEYS, "is of a gateway to another relay")
        return keys.seed

    # The links and their certificates

    @property
    def links_path(self) -> Path:
        """Where the links' certificates are."""
        return self.path / _LINKS

    def link_key(self, index: int) -> SigningKey:
        """The gateway's own key on the link of that number, from 0.

        Raises:
            FormatError: the gateway has not so many links.
        """
        if not 0 <= index < self.config.links:
            raise FormatError("link", f"must be 0 to {self.config.links - 1}", self.config.links - 1)
        return link_key(self.load_seed(), index)

    def link_path(self, index: int) -> Path:
        """Where the certificates of the link of that number are."""
        return self.links_path / device_tag(self.link_key(index).public).hex()

    def has_certificate(self, index: int) -> bool:
        """Whether the link of that number has a certificate for the broker."""
        return (self.link_path(index) / FOLDER_NAME / CERTIFICATE_NAME).is_file()

    def usable_links(self) -> int:
        """How many links there can be: with certificates at all, those before the first that has none.

        Raises:
            HomeInvalid: the broker asks for certificates, and the first link has none.
        """
        if urlsplit(self.config.broker).scheme not in TLS_SCHEMES or not self.links_path.is_dir():
            return self.config.links
        without = (index for index in range(self.config.links) if not self.has_certificate(index))
        usable = next(without, self.config.links)
        if not usable:
            raise HomeInvalid(f"{self.links_path}: the first link has no certificate (certificate request --link 0)")
        return usable

    # How devices reach it

    def listen_context(self) -> ssl.SSLContext | None:
        """The context for devices' connections; None where they come from this machine, in the clear.

        Raises:
            HomeInvalid: there is no certificate, its key can be read by others, or they do not belong together.
        """
        if not self.config.address.tls:
            return None
        folder = self.path / LISTEN_NAME
        key = folder / "broker.key"
        try:
            if key.stat().st_mode & 0o077:
                raise HomeInvalid(f"{key}: can be read by others; its mode must be 0600")
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # A key under a passphrase is refused here; without one given, OpenSSL would ask at a terminal.
            context.load_cert_chain(folder / "broker.pem", key, password="")
        except (OSError, ssl.SSLError) as error:
            words = str(error.strerror or error)
            hint = f"certificate issue --ca CADIR --broker {self.config.address.host} --out {folder}"
            raise HomeInvalid(f"{folder}: {words}; devices need its certificate ({hint})") from None
        return context

    def write_card(self) -> GatewayCard:
        """Write the card as settings and certificates are now.

        Raises:
            OSError: writing failed; the old one is still there.
        """
        authority = self.path / LISTEN_NAME / "ca.pem"
        text = authority.read_text(encoding="ascii") if self.config.address.tls and authority.is_file() else ""
        card = GatewayCard(self.relay_card.relay_id, self.config.address, text)
        _replace(self.path / CARD_NAME, card.to_toml().encode(), 0o644)
        return card

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home alone.

        Raises:
            HomeInUse: another process does.
        """
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HomeInUse(f"{self.path} is in use by another process") from None
            yield
        finally:
            os.close(descriptor)

    def use_broker(self, broker: str) -> "GatewayHome":
        """Write another broker into the settings, for good.

        Raises:
            FormatError: the URL is not allowed.
            HomeInUse: the gateway runs.
        """
        config = replace(self.config, broker=check_broker(broker))
        with self.locked():
            _replace(self.path / _CONFIG, config.to_toml().encode(), 0o644)
        return replace(self, config=config)


def init(path: Path, card: RelayCard, config: GatewayConfig, entropy: Callable[[int], bytes]) -> GatewayHome:
    """Make a gateway's home.

    Args:
        path: a directory that is not there yet, or empty.
        card: the relay's card.
        config: its settings.
        entropy: gives the links' seed.

    Raises:
        HomeInvalid: the directory holds something already.
        FormatError: devices cannot reach it by that address.
    """
    GatewayCard(card.relay_id, config.address)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise HomeInvalid(f"{path} is not empty")
    path.chmod(0o700)
    _replace(path / _KEYS, encode(_Keys(1, card.relay_id, entropy(KEY_BYTES))), 0o600)
    _replace(path / _RELAY_CARD, card.to_toml().encode(), 0o644)
    home = GatewayHome(path, config, card)
    home.write_card()
    # Last, since a home is one that has settings.
    _replace(path / _CONFIG, config.to_toml().encode(), 0o644)
    return home


def _read(path: Path, *, is_secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if is_secret and os.fstat(file.fileno()).st_mode & 0o077:
                raise FormatError(path.name, "can be read by others; its mode must be 0600", 0o600)
            data = file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        raise HomeInvalid(f"{path} is missing") from None
    if len(data) > _BYTES_MAX:
        raise FormatError(path.name, "is too large", _BYTES_MAX)
    return data


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole and durably, or leave the one that is there."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    # The name is durable with its directory, not with the file.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
