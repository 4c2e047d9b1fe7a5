"""The signed manifest, the relay's keys over time, and commit headers (protocol.md sections 2.6, 5.2, 11).

`KeyRing` is what a receipt or header is checked against: the keys from the card's on, each with the last commit that
it signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from audit import decoder
from audit.crypto import hash32, verify
from audit.errors import DecodeError, SignatureError

MANIFEST_BYTES_MAX: Final = 16 * 1024 * 1024
ROTATIONS_MAX: Final = 256
"""Section 1.7."""
MODULES_MAX: Final = 20_000
ZERO_HASH: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file that the relay says it handed over."""

    path: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as decoded; whether it is signed is `manifest.signature`'s to check."""

    signed: bytes
    signing_key: bytes
    signature: bytes
    relay_id: bytes
    order: str
    taken_at: int
    files: tuple[ManifestFile, ...]
    head_index: int
    head_hash: bytes
    settings: tuple[int, int, int]
    python_version: str
    executable_sha256: bytes
    modules: tuple[tuple[str, bytes], ...]
    rotations: tuple[bytes, ...]
    left_out: tuple[str, ...]


def read_manifest(data: bytes) -> Manifest:
    """Decode a manifest file.

    Raises:
        DecodeError: It is not of the shape of section 11.
    """
    outer = decoder.array(decoder.decode(data, "manifest file", MANIFEST_BYTES_MAX), "manifest file", 3)
    signed = decoder.binary(outer[0], "manifest")
    fields = decoder.array(decoder.decode(signed, "manifest", MANIFEST_BYTES_MAX), "manifest", 9)
    head = decoder.array(fields[4], "head", 2)
    settings = [decoder.integer(value, "settings") for value in decoder.array(fields[5], "settings", 3)]
    python_version, executable, modules = decoder.array(fields[6], "process", 3)
    return Manifest(
        signed=signed,
        signing_key=decoder.binary(outer[1], "signing_key", 32),
        signature=decoder.binary(outer[2], "signature", 64),
        relay_id=decoder.binary(fields[0], "relay_id", 16),
        order=decoder.text(fields[1], "order", 64),
        taken_at=decoder.integer(fields[2], "taken_at", 0, 2**40),
        files=tuple(_file(item) for item in decoder.array(fields[3], "files", length_max=1_000)),
        head_index=decoder.integer(head[0], "head index"),
        head_hash=decoder.binary(head[1], "head hash", 32),
        settings=(settings[0], settings[1], settings[2]),
        python_version=decoder.text(python_version, "python_version", 254),
        executable_sha256=decoder.binary(executable, "executable_sha256", 32),
        modules=tuple(_module(item) for item in decoder.array(modules, "modules", length_max=MODULES_MAX)),
        rotations=tuple(
            _rotation_bytes(item) for item in decoder.array(fields[7], "rotations", length_max=ROTATIONS_MAX)
        ),
        left_out=tuple(
            decoder.text(item, "left_out", 4096) for item in decoder.array(fields[8], "left_out", length_max=1_000)
        ),
    )


def _file(value: Any) -> ManifestFile:
    path, size, digest = decoder.array(value, "file", 3)
    return ManifestFile(
        decoder.text(path, "path", 1024), decoder.integer(size, "size"), decoder.binary(digest, "file hash", 32)
    )


def _module(value: Any) -> tuple[str, bytes]:
    name, digest = decoder.array(value, "module", 2)
    return decoder.text(name, "module name", 1024), decoder.binary(digest, "module hash", 32)


def _rotation_bytes(value: Any) -> bytes:
    """A rotation is the array itself, or bin that holds its encoding; both are kept as the encoding."""
    return value if type(value) is bytes else decoder.encode(decoder.array(value, "rotation", 3), "rotation")


@dataclass(frozen=True, slots=True)
class Header:
    """A commit header (section 5.2)."""

    raw: bytes
    relay_id: bytes
    partition: int
    index: int
    time_ms: int
    leaf_count: int
    root: bytes
    previous: bytes

    @property
    def commit_hash(self) -> bytes:
        """hash32("commit-hash", header)."""
        return hash32("commit-hash", self.raw)


def read_header(data: bytes, where: str) -> Header:
    """Decode a commit header."""
    fields = decoder.array(decoder.decode(data, where, 160), where, 7)
    return Header(
        raw=data,
        relay_id=decoder.binary(fields[0], f"{where}, relay_id", 16),
        partition=decoder.integer(fields[1], f"{where}, partition", 0, 65_535),
        index=decoder.integer(fields[2], f"{where}, index", 1),
        time_ms=decoder.integer(fields[3], f"{where}, time_ms"),
        leaf_count=decoder.integer(fields[4], f"{where}, leaf_count", 1, 2**32 - 1),
        root=decoder.binary(fields[5], f"{where}, root", 32),
        previous=decoder.binary(fields[6], f"{where}, previous", 32),
    )


@dataclass(frozen=True, slots=True)
class KeyPeriod:
    """A signing key, and the last commit that it could sign; None for the key in force."""

    key: bytes
    last_index: int | None
    last_hash: bytes
    ended_s: int = 0
    """When the rotation says that it ended; 0 for the key in force."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The relay's signing keys in order."""

    periods: tuple[KeyPeriod, ...]

    @property
    def current(self) -> bytes:
        """The key in force at the disclosure."""
        return self.periods[-1].key

    def verify_header(self, header: Header, signature: bytes) -> None:
        """Check a header's signature against the key that was in force at its index.

        Raises:
            SignatureError: It is not that key's.
        """
        for period in self.periods:
            if period.last_index is None or header.index <= period.last_index:
                verify(period.key, "commit", header.raw, signature)
                return
        raise SignatureError("commit", f"no key was in force at index {header.index}")


def build_key_ring(first_key: bytes, relay_id: bytes, rotations: tuple[bytes, ...]) -> KeyRing:
    """Follow rotations from the card's key (section 2.6).

    Raises:
        DecodeError: A rotation is malformed, of another relay, or does not follow.
        SignatureError: One of its two signatures is wrong.
    """
    periods: list[KeyPeriod] = []
    key, last = first_key, 0
    for position, raw in enumerate(rotations, start=1):
        where = f"rotation {position}"
        signed, old_signature, new_signature = decoder.array(decoder.decode(raw, where, 4096), where, 3)
        signed = decoder.binary(signed, where)
        fields = decoder.array(decoder.decode(signed, where, 4096), where, 6)
        of_relay, old_key, new_key, index, commit_hash, time_s = fields
        if of_relay != relay_id or old_key != key:
            raise DecodeError(where, "does not follow from the key before it")
        new_key = decoder.binary(new_key, f"{where}, new_key", 32)
        verify(key, "key-rotation", signed, decoder.binary(old_signature, where, 64))
        verify(new_key, "key-rotation", signed, decoder.binary(new_signature, where, 64))
        index = decoder.integer(index, f"{where}, commit_index", last)
        time_s = decoder.integer(time_s, f"{where}, time", 0, 2**40)
        periods.append(KeyPeriod(key, index, decoder.binary(commit_hash, f"{where}, commit_hash", 32), time_s))
        key, last = new_key, index
    periods.append(KeyPeriod(key, None, ZERO_HASH))
    return KeyRing(tuple(periods))
