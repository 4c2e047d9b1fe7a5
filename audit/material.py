"""What the verifier is given beside the disclosure: the relay's card, commitments, volunteered files, a list of
canaries.

Each comes from a participant who chose to give it (protocol.md sections 2.7 and 12). A file that cannot be used makes
the audit incomplete; it convicts nobody. Secrets among it have no representation that shows them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from audit import decoder
from audit.crypto import relay_id_of
from audit.disclosure import printable
from audit.errors import AuditError, DecodeError, EvidenceError

CARD_BYTES_MAX: Final = 16 * 1024
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
ITEMS_MAX: Final = 200_000
CARD_KEYS: Final = ("protocol", "relay_id", "signing_key", "broker", "partition")
_HEX = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class RelayCard:
    """The relay's name and first signing key (section 2.7)."""

    relay_id: bytes
    signing_key: bytes
    broker: str
    partition: int


def read_card(data: bytes, where: str) -> RelayCard:
    """Parse a card.

    Raises:
        EvidenceError: It is no card, or its id is not that of its key.
    """
    if len(data) > CARD_BYTES_MAX:
        raise EvidenceError(where, f"{len(data)} bytes, at most {CARD_BYTES_MAX} are allowed")
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        raise EvidenceError(where, "is no TOML in UTF-8") from None
    unknown = sorted(set(values) - set(CARD_KEYS))
    if unknown:
        raise EvidenceError(where, f"has a key {printable(unknown[0])!r} that no card has")
    if type(values.get("protocol")) is not int or values["protocol"] != 1:
        raise EvidenceError(where, "protocol must be 1")
    broker, partition = values.get("broker", ""), values.get("partition", 0)
    if type(broker) is not str or type(partition) is not int or not 0 <= partition < 65536:
        raise EvidenceError(where, "broker must be text and partition a number below 65536")
    relay_id = _hex(values, "relay_id", 16, where)
    signing_key = _hex(values, "signing_key", 32, where)
    if relay_id_of(signing_key) != relay_id:
        raise EvidenceError(where, "relay_id is not the hash of signing_key")
    return RelayCard(relay_id, signing_key, broker, partition)


@dataclass(frozen=True, slots=True)
class OrderTimes:
    """When, by the orderer's own clock, the disclosure was asked for and had been handed over; Unix seconds."""

    requested_at: int
    received_at: int


def read_order_times(data: bytes, where: str) -> OrderTimes:
    """Read an `order.toml` (section 11), which the orderer wrote.

    Raises:
        EvidenceError: It is none.
    """
    try:
        values = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise EvidenceError(where, "is no TOML") from None
    times = [values.get(name) for name in ("requested_at", "received_at")]
    if set(values) != {"requested_at", "received_at"} or not all(type(value) is int for value in times):
        raise EvidenceError(where, "must have requested_at and received_at, in Unix seconds, and nothing else")
    requested_at, received_at = (int(value) for value in times if value is not None)
    if not 0 <= requested_at <= received_at < 2**63:
        raise EvidenceError(where, "received_at must not be before requested_at")
    return OrderTimes(requested_at, received_at)


def _hex(values: dict[str, Any], name: str, length: int, where: str) -> bytes:
    value = values.get(name)
    if type(value) is not str or len(value) != 2 * length or not _HEX.fullmatch(value):
        raise EvidenceError(where, f"{name} must be {2 * length} hexadecimal digits")
    return bytes.fromhex(value)


@dataclass(frozen=True, slots=True)
class Secret:
    """Item 1: something that must be found nowhere."""

    who: str
    name: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Secret(who={self.who!r}, name={self.name!r}, secret=<redacted>)"


@dataclass(frozen=True, slots=True)
class ReceiptItem:
    """Item 2: a receipt (section 5.2), with t if the envelope was acknowledged or withdrawn."""

    who: str
    header: bytes
    signature: bytes
    mailbox: bytes
    envelope_id: bytes
    expiry: int
    number: int
    leaf: int
    path: bytes
    body_hash: bytes
    token: bytes


@dataclass(frozen=True, slots=True)
class MessageKeyItem:
    """Item 3: opens the content of one row."""

    who: str
    mailbox: bytes
    envelope_id: bytes
    message_key: bytes
    sender_device: bytes
    recipient_device: bytes
    offset: int

    def __repr__(self) -> str:
        return f"MessageKeyItem(who={self.who!r}, envelope_id={self.envelope_id.hex()[:8]}…, message_key=<redacted>)"


@dataclass(frozen=True, slots=True)
class Opening:
    """Item 4: nonce and text of a commitment; or a canary of the plain list, without a nonce."""

    who: str
    nonce: bytes
    text: bytes

    def __repr__(self) -> str:
        return f"Opening(who={self.who!r}, text of {len(self.text)} bytes)"


@dataclass(frozen=True, slots=True)
class HistoricalKey:
    """Item 5: a key of a historical suite (section 13)."""

    who: str
    suite: int
    key: bytes

    def __repr__(self) -> str:
        return f"HistoricalKey(who={self.who!r}, suite={self.suite:#06x}, key=<redacted>)"


@dataclass(slots=True)
class Material:
    """All that participants gave, merged."""

    secrets: list[Secret] = field(default_factory=list)
    receipts: list[ReceiptItem] = field(default_factory=list)
    message_keys: list[MessageKeyItem] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    canaries: list[Opening] = field(default_factory=list)
    historical_keys: list[HistoricalKey] = field(default_factory=list)
    signed_lists: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    commitments: dict[bytes, str] = field(default_factory=dict)
    commitment_files: int = 0
    volunteered_files: int = 0
    problems: list[str] = field(default_factory=list)


def read_material(
    volunteered: Iterable[Path | bytes], commitments: Iterable[Path | bytes], canary_files: Iterable[Path | bytes]
) -> Material:
    """Read all files given; one that cannot be used is named in `problems`, and what was read of it does not count."""
    material = Material()
    for kind, sources in (("volunteered", volunteered), ("commitments", commitments), ("canaries", canary_files)):
        for position, source in enumerate(sources, start=1):
            where = source.name if isinstance(source, Path) else f"{kind} {position}"
            try:
                data = load(source, where)
                if kind == "volunteered":
                    _read_volunteered(material, data, where)
                elif kind == "commitments":
                    _read_commitments(material, data, where)
                else:
                    _read_canaries(material, data)
            except AuditError as error:
                material.problems.append(f"{printable(where)}: {error}")
    return material


def load(source: Path | bytes, where: str) -> bytes:
    """Return bytes as they are, or the content of a file that the person who audits has named."""
    if isinstance(source, bytes):
        return source
    try:
        with source.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise EvidenceError(where, f"cannot be read ({error.strerror})") from None
    if len(data) > FILE_BYTES_MAX:
        raise EvidenceError(where, f"more than {FILE_BYTES_MAX} bytes")
    return data


def _read_commitments(material: Material, data: bytes, where: str) -> None:
    """Section 12.1."""
    name, items = decoder.array(decoder.decode(data, where, FILE_BYTES_MAX), where, 2)
    if name != "blindpost/v1/commitments":
        raise DecodeError(where, "is no file of commitments")
    found = {}
    for item in decoder.array(items, "commitments", length_max=ITEMS_MAX):
        commitment, who = decoder.array(item, "commitment", 2)
        found[decoder.binary(commitment, "commitment", 32)] = printable(decoder.text(who, "who", 254))
    material.commitments.update(found)
    material.commitment_files += 1


def _read_canaries(material: Material, data: bytes) -> None:
    """One canary a line, in UTF-8 or any bytes."""
    for line in data.splitlines():
        if line.strip():
            material.canaries.append(Opening("canary file", b"", line.strip()))


def _read_volunteered(material: Material, data: bytes, where: str) -> None:
    """Section 12.2."""
    name, who, items = decoder.array(decoder.decode(data, where, FILE_BYTES_MAX), where, 3)
    if name != "blindpost/v1/volunteered":
        raise DecodeError(where, "is no volunteered file")
    who = printable(decoder.text(who, "who", 254))
    fresh = Material()
    for item in decoder.array(items, "items", length_max=ITEMS_MAX):
        _read_item(fresh, who, decoder.array(item, "item", length_max=12))
    for kind in ("secrets", "receipts", "message_keys", "openings", "historical_keys", "signed_lists"):
        getattr(material, kind).extend(getattr(fresh, kind))
    material.volunteered_files += 1


_ITEM_LENGTHS = {1: 3, 2: 11, 3: 7, 4: 3, 5: 3, 6: 2}


def _read_item(material: Material, who: str, item: list[Any]) -> None:
    kind = decoder.integer(item[0] if item else None, "item kind")
    if kind not in _ITEM_LENGTHS:
        raise DecodeError("item kind", f"{kind} is unknown")
    fields = decoder.array(item, f"item of kind {kind}", _ITEM_LENGTHS[kind])[1:]
    if kind == 1:
        name = printable(decoder.text(fields[0], "secret name", 254))
        material.secrets.append(Secret(who, name, decoder.binary(fields[1], "secret", length_max=65_536)))
    elif kind == 2:
        material.receipts.append(_receipt(who, fields))
    elif kind == 3:
        material.message_keys.append(
            MessageKeyItem(
                who,
                decoder.binary(fields[0], "mailbox", 16),
                decoder.binary(fields[1], "envelope id", 16),
                decoder.binary(fields[2], "message key", 32),
                decoder.binary(fields[3], "sender device", 32),
                decoder.binary(fields[4], "recipient device", 32),
                decoder.integer(fields[5], "offset", 0, 196_696),
            )
        )
    elif kind == 4:
        text = fields[1].encode() if type(fields[1]) is str else decoder.binary(fields[1], "text")
        material.openings.append(Opening(who, decoder.binary(fields[0], "nonce", 32), text))
    elif kind == 5:
        suite = decoder.integer(fields[0], "suite", 0, 65_535)
        material.historical_keys.append(HistoricalKey(who, suite, decoder.binary(fields[1], "key", length_max=64)))
    else:
        # A SignedList is given as the array itself, or as bin that holds its encoding.
        signed = decoder.decode(fields[0], "SignedList", 4096) if type(fields[0]) is bytes else fields[0]
        list_bytes, signature = decoder.array(signed, "SignedList", 2)
        material.signed_lists.append(
            (who, decoder.binary(list_bytes, "list", length_max=4096), decoder.binary(signature, "signature", 64))
        )


def _receipt(who: str, fields: list[Any]) -> ReceiptItem:
    header, signature, mailbox, envelope_id, expiry, number, leaf, path, body_hash, token = fields[:10]
    # The header is bin in a receipts command; a device may also give it as the array that it is.
    if type(header) is list:
        header = decoder.encode(header, "header")
    token = decoder.binary(token, "t", length_max=16)
    if len(token) not in {0, 16}:
        raise DecodeError("t", "must be empty or have 16 bytes")
    return ReceiptItem(
        who,
        decoder.binary(header, "header", length_max=160),
        decoder.binary(signature, "signature", 64),
        decoder.binary(mailbox, "mailbox", 16),
        decoder.binary(envelope_id, "envelope id", 16),
        decoder.integer(expiry, "expiry"),
        decoder.integer(number, "number"),
        decoder.integer(leaf, "leaf", 0, 2**32 - 1),
        _path(path),
        decoder.binary(body_hash, "body hash", 32),
        token,
    )


def _path(value: Any) -> bytes:
    path = b"".join(decoder.binary(step, "path", 32) for step in value) if type(value) is list else value
    path = decoder.binary(path, "path", length_max=64 * 32)
    if len(path) % 32:
        raise DecodeError("path", "must be whole hashes of 32 bytes")
    return path
