"""What a key can be known by: commitments and hints of stored bodies, and every public key of the directory.

A private key is known by its public half, a message key by its commitment (protocol.md 4.2), a header key and a file
key by the hints that they give (4.2 and 8). Nothing public tells a root key, the key of a link, or the AEAD key of a
message if its commitment does not stand behind it: docs/verifier.md says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from audit import decoder
from audit.case import Case
from audit.checks.directory import DeviceList, verify_list
from audit.crypto import body_kinds
from audit.errors import AuditError
from audit.store import EnvelopeRow, Store

KIND_SIGNED, KIND_KEM, KIND_ONE_TIME = 1, 2, 3
_EPHEMERAL: Final = slice(128, 160)
KEM_PUBLIC_BYTES: Final = 1184


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose key it is; `declared` if the relay says that it has it."""

    name: str
    declared: bool = False


@dataclass(slots=True)
class Targets:
    """All that windows are compared with; built once, read by every process."""

    store: Store | None = None
    commitments: dict[bytes, int] = field(default_factory=dict)
    """Key commitment to the position of its row."""
    hints: dict[bytes, int] = field(default_factory=dict)
    """Hint to the position of its row; of first bodies the prekey id, which no key leads to."""
    chunks: bool = False
    """Whether a body may be a chunk."""
    x25519: dict[bytes, Whose] = field(default_factory=dict)
    ed25519: dict[bytes, Whose] = field(default_factory=dict)
    ml_kem: dict[bytes, Whose] = field(default_factory=dict)
    devices: dict[bytes, bytes] = field(default_factory=dict)
    """Mailbox to device key."""

    def row(self, position: int) -> EnvelopeRow:
        """The row of a stored body."""
        assert self.store is not None
        return self.store.envelopes[position]

    @property
    def public_keys(self) -> int:
        """How many public keys the disclosure and volunteers name."""
        return len(self.ed25519) + len(self.x25519) + len(self.ml_kem)

    def add_ed25519(self, public: bytes, whose: Whose) -> None:
        """An Ed25519 key, and the X25519 key that has the same scalar: the expanded secret is that one's."""
        self.ed25519.setdefault(public, whose)
        try:
            montgomery = bindings.crypto_sign_ed25519_pk_to_curve25519(public)
        except (CryptoError, RuntimeError):
            # No point of the curve's main subgroup: no seed leads to it either.
            return
        self.x25519.setdefault(montgomery, Whose(f"{whose.name}, expanded", whose.declared))


def targets_of(case: Case) -> Targets:
    """Gather them from store, manifest, card, and what was volunteered."""
    targets = Targets()
    _add_relay(targets, case)
    if case.store is not None:
        targets.store = case.store
        _add_directory(targets, case.store)
        for position, row in enumerate(case.store.envelopes):
            _add_body(targets, case.store, position, row)
    for who, list_bytes, signature in case.material.signed_lists:
        try:
            _add_list(targets, verify_list(list_bytes, signature, f"list of {who}"))
        except AuditError:
            # A volunteered list that does not verify names no keys; evidence.files tells of it.
            continue
    return targets


def _add_relay(targets: Targets, case: Case) -> None:
    if case.key_ring is not None:
        for period in case.key_ring.periods:
            targets.add_ed25519(period.key, Whose("a signing key of the relay", declared=True))
    for card in (case.card, case.disclosed_card):
        if card is not None:
            targets.add_ed25519(card.signing_key, Whose("a signing key of the relay", declared=True))
    if case.manifest is not None:
        targets.add_ed25519(case.manifest.signing_key, Whose("a signing key of the relay", declared=True))


def _add_directory(targets: Targets, store: Store) -> None:
    for row in store.tables["tenants"]:
        targets.add_ed25519(row.blob("admin_key"), Whose(f"the admin key of {row.text('domain')}"))
    for row in store.tables["lists"]:
        try:
            pair = decoder.array(decoder.decode(row.blob("signed_list"), "list", 4096), "list", 2)
            _add_list(
                targets,
                verify_list(decoder.binary(pair[0], "list"), decoder.binary(pair[1], "signature", 64), "list"),
            )
        except AuditError:
            # The check of the directory reports a list that cannot be read; here it names no keys.
            continue
    for row in store.tables["mailboxes"]:
        device = row.blob("device_key")
        targets.devices[row.blob("mailbox")] = device
        targets.add_ed25519(device, Whose(f"the device key {device.hex()[:8]}…"))
    for row in store.tables["prekeys"]:
        try:
            fields = decoder.array(decoder.decode(row.blob("record"), "prekey", 4096), "prekey")
        except AuditError:
            # As above: reported by the check of the directory.
            continue
        _add_prekey(targets, row.integer("kind"), row.blob("device_key").hex()[:8], fields)


def _add_prekey(targets: Targets, kind: int, device: str, fields: list[object]) -> None:
    name = {KIND_SIGNED: "signed prekey", KIND_KEM: "last-resort ML-KEM prekey", KIND_ONE_TIME: "one-time prekey"}
    whose = Whose(f"the {name.get(kind, 'prekey')} of device {device}…")
    for value in fields[1:3]:
        if isinstance(value, bytes) and len(value) == 32:
            targets.x25519.setdefault(value, whose)
        elif isinstance(value, bytes) and len(value) == KEM_PUBLIC_BYTES:
            targets.ml_kem.setdefault(value, whose)


def _add_list(targets: Targets, device_list: DeviceList) -> None:
    targets.add_ed25519(device_list.account_key, Whose(f"the account key of {device_list.account}"))
    for device in device_list.devices:
        targets.add_ed25519(device.device_key, Whose(f"a device key of {device_list.account}"))
        targets.x25519.setdefault(device.dh_key, Whose(f"an identity key of {device_list.account}"))


def _add_body(targets: Targets, store: Store, position: int, row: EnvelopeRow) -> None:
    targets.commitments[row.commitment] = position
    targets.hints[row.body_head[:16]] = position
    kinds = body_kinds(row.body_bytes)
    targets.chunks = targets.chunks or "chunk" in kinds
    if "first" in kinds:
        # Of an ordinary body that has the size of a first one these are 32 bytes of ciphertext, and match nothing.
        whose = Whose(f"the ephemeral key of envelopes row {row.seq}")
        targets.x25519.setdefault(store.body(row)[_EPHEMERAL], whose)
