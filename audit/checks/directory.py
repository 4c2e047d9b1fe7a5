"""Accounts, devices, prekeys, tenants, tokens, and what the relay says of itself (protocol.md sections 2 and 9)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from audit import decoder
from audit import disclosure as names
from audit.case import Case
from audit.checks.schema import report_unreadable_store
from audit.crypto import (
    KEM_LAST_RESORT,
    KEM_ONE_TIME,
    X25519_ONE_TIME,
    X25519_SIGNED_PREKEY,
    hash32,
    typed,
    verify,
)
from audit.errors import AuditError, DecodeError
from audit.outcome import About, Outcome
from audit.schema import REASON_CLOSED
from audit.store import StoredRow

ABOUT = About(
    "store.directory",
    "device lists, prekeys, tenants and tokens are well-formed and signed by their owners",
    "The public keys are the accounts' own words: each list is signed by its account key and follows the one "
    "before, each prekey "
    "by its device. Rows are counted as they came, so that their numbers hold nothing else.",
    "That a first list is the person's: until there is a key log only the safety number shows a false first key. That "
    "a company, an account or a key is anybody's: a relay can make up people of its own, and keys whose bytes it "
    "chose.",
    "2, 9",
)
ADDRESS = re.compile(
    r"[a-z0-9._+-]{1,64}@(?P<domain>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*)"
)
DEVICES_MAX: Final = 16
ONE_TIME_MAX: Final = 128
KIND_SIGNED, KIND_KEM, KIND_ONE_TIME = 1, 2, 3
KEM_KEY_BYTES: Final = 1184
DAY_S: Final = 86_400
SEQ_END: Final = 2**40
ZERO_HASH: Final = bytes(32)
PRESERVED_S_MAX: Final = 181 * 86_400
LEAF_MAX: Final = 2**32


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a list."""

    device_key: bytes
    dh_key: bytes
    mailbox: bytes


@dataclass(frozen=True, slots=True)
class DeviceList:
    """A device list, its signature checked."""

    account: str
    version: int
    previous: bytes
    account_key: bytes
    devices: tuple[Device, ...]
    list_hash: bytes


def verify_list(list_bytes: bytes, signature: bytes, where: str) -> DeviceList:
    """Decode a device list and check that its account key signed it (section 2.2).

    Raises:
        DecodeError, SignatureError: It is malformed, or not signed by the key that it names.
    """
    fields = decoder.array(decoder.decode(list_bytes, where, 4096), where, 5)
    account = decoder.text(fields[0], f"{where}, account", 254)
    if not ADDRESS.fullmatch(account):
        raise DecodeError(where, "its account is no address")
    devices = tuple(
        _device(item, where) for item in decoder.array(fields[4], f"{where}, devices", length_max=DEVICES_MAX)
    )
    if not devices or len({device.device_key for device in devices}) < len(devices):
        raise DecodeError(where, "has no device, or one twice")
    if len({device.mailbox for device in devices}) < len(devices):
        raise DecodeError(where, "has a mailbox twice")
    account_key = decoder.binary(fields[3], f"{where}, account_key", 32)
    verify(account_key, "device-list", list_bytes, signature)
    return DeviceList(
        account,
        decoder.integer(fields[1], f"{where}, version", 1),
        decoder.binary(fields[2], f"{where}, previous", 32),
        account_key,
        devices,
        hash32("device-list-hash", list_bytes),
    )


def _device(value: Any, where: str) -> Device:
    device_key, dh_key, mailbox = decoder.array(value, f"{where}, device", 3)
    return Device(
        decoder.binary(device_key, f"{where}, device_key", 32),
        decoder.binary(dh_key, f"{where}, dh_key", 32),
        decoder.binary(mailbox, f"{where}, mailbox", 16),
    )


def check(case: Case, outcome: Outcome) -> None:
    """Check each table of the directory, then that they agree."""
    store = case.store
    if store is None:
        report_unreadable_store(case, outcome)
        return
    lists = _check_lists(case, outcome)
    devices = _check_mailboxes(case, outcome, lists)
    _check_prekeys(case, outcome, devices)
    domains = {row.text("domain") for row in store.tables["tenants"]}
    for account in lists:
        if account.rpartition("@")[2] not in domains:
            outcome.fail(f"account {account}", "its domain is no tenant")
    for row in store.tables["tenants"]:
        if not ADDRESS.fullmatch(f"a@{row.text('domain')}"):
            outcome.fail(f"tenants row {row.seq}", "its domain is none")
    _check_counts(case, outcome)
    _check_rotations(case, outcome)
    _check_relay(case, outcome)
    outcome.figures.update(
        {name: len(store.tables[name]) for name in ("tenants", "lists", "mailboxes", "prekeys", "used_tokens")}
    )
    outcome.figures["accounts"] = len(lists)
    outcome.evidence = (
        f"accounts {len(lists)}, tenants {len(domains)}, devices {len(devices)}, "
        f"prekeys {len(store.tables['prekeys'])}: every signature checked"
    )


def _check_lists(case: Case, outcome: Outcome) -> dict[str, list[DeviceList]]:
    """Return the valid lists of each account, in the order in which they were published."""
    assert case.store is not None
    lists: dict[str, list[DeviceList]] = defaultdict(list)
    for row in case.store.tables["lists"]:
        where = f"lists row {row.seq}"
        try:
            signed = decoder.array(decoder.decode(row.blob("signed_list"), where, 4096), where, 2)
            device_list = verify_list(
                decoder.binary(signed[0], where), decoder.binary(signed[1], f"{where}, signature", 64), where
            )
        except AuditError as error:
            outcome.fail(where, str(error))
            continue
        if (device_list.account, device_list.version) != (row.text("account"), row.integer("version")):
            outcome.fail(where, "its columns are not those of the signed list")
        lists[device_list.account].append(device_list)
    restarts = sum(_check_versions(account, versions, outcome) for account, versions in lists.items())
    outcome.figures["accounts started anew"] = restarts
    if restarts:
        outcome.note(
            f"whether the {restarts} accounts that were started anew, with another account key, are the same people's: "
            "their correspondents see the safety number change"
        )
    return lists


def _check_versions(account: str, versions: list[DeviceList], outcome: Outcome) -> int:
    """Each list follows the one before, or is a version 1 with which a fresh token started the account anew (2.3).

    Returns how often it was started anew.
    """
    where, restarts = f"account {account}", 0
    first = versions[0]
    if first.version > 1:
        outcome.note(f"lists of {account} before version {first.version}: not kept")
    for device_list in versions:
        if device_list.version == 1 and device_list.previous != ZERO_HASH:
            outcome.fail(where, "version 1 of its list names one before")
    for before, after in pairwise(versions):
        if after.version == 1:
            restarts += 1
            continue
        if (after.version, after.previous) != (before.version + 1, before.list_hash):
            outcome.fail(where, f"version {after.version} of its list does not follow version {before.version}")
        if after.account_key != before.account_key:
            outcome.fail(where, f"version {after.version} of its list has another account key")
    return restarts


def _check_mailboxes(case: Case, outcome: Outcome, lists: dict[str, list[DeviceList]]) -> set[bytes]:
    """Mailboxes are those of the lists; return the device keys that are enrolled."""
    assert case.store is not None
    enrolled, seen = set(), set()
    named = {
        (device.mailbox, device.device_key, account): device_list is versions[-1]
        for account, versions in lists.items()
        for device_list in versions
        for device in device_list.devices
    }
    waiting = {row.mailbox for row in case.store.envelopes}
    open_mailboxes = set()
    for row in case.store.tables["mailboxes"]:
        where = f"mailboxes row {row.seq}"
        mailbox, closed = row.blob("mailbox"), row.integer("closed")
        key = mailbox, row.blob("device_key"), row.text("account")
        if mailbox in seen:
            outcome.fail(where, "its mailbox stands in another row as well")
        seen.add(mailbox)
        enrolled.add(key[1])
        if key not in named:
            outcome.fail(where, "no device list of the account names this mailbox and device")
        elif closed not in {0, 1} or named[key] == bool(closed):
            outcome.fail(
                where, f"closed is {closed}, and the latest list {'names' if named[key] else 'does not name'} it"
            )
        if closed and mailbox in waiting:
            outcome.fail(where, "is closed, and envelopes wait in it")
        if not closed:
            open_mailboxes.add(mailbox)
    for (mailbox, _, account), current in named.items():
        if current and mailbox not in seen:
            outcome.fail(f"account {account}", "a device of its latest list has no mailbox")
    _check_stones(case, outcome, seen, open_mailboxes)
    homeless = len(waiting - seen)
    if homeless:
        outcome.fail("envelopes", f"wait in {homeless} mailboxes that are not in the directory")
    return enrolled


def _check_stones(case: Case, outcome: Outcome, seen: set[bytes], open_mailboxes: set[bytes]) -> None:
    """Tombstones lie in mailboxes of the directory; those of a closed one, which no t proves, in one that is closed."""
    assert case.store is not None
    for stone in case.store.tables["tombstones"]:
        mailbox = stone.blob("mailbox")
        if mailbox not in seen:
            outcome.fail(f"tombstones row {stone.seq}", "is of a mailbox that is not in the directory")
        elif stone.integer("reason") == REASON_CLOSED and mailbox in open_mailboxes:
            outcome.fail(f"tombstones row {stone.seq}", "says that its mailbox was closed, and it is open")


def _check_prekeys(case: Case, outcome: Outcome, devices: set[bytes]) -> None:
    assert case.store is not None
    counts: dict[tuple[bytes, int], int] = defaultdict(int)
    ids = set()
    for row in case.store.tables["prekeys"]:
        where = f"prekeys row {row.seq}"
        kind, device_key = row.integer("kind"), row.blob("device_key")
        counts[device_key, kind] += 1
        if device_key not in devices:
            outcome.fail(where, "is no enrolled device's")
        try:
            prekey_id = _verify_prekey(kind, device_key, row, where)
        except AuditError as error:
            outcome.fail(where, str(error))
            continue
        if prekey_id != row.blob("id"):
            outcome.fail(where, "its id is not that of its record")
        if (kind, device_key, prekey_id) in ids:
            outcome.fail(where, "is there twice")
        ids.add((kind, device_key, prekey_id))
    for (device_key, kind), count in counts.items():
        if count > (ONE_TIME_MAX if kind == KIND_ONE_TIME else 1):
            outcome.fail(f"device {device_key.hex()[:8]}…", f"has {count} prekeys of kind {kind}")


def _verify_prekey(kind: int, device_key: bytes, row: StoredRow, where: str) -> bytes:
    """Check a record against its device's signature (section 2.4); return its id."""
    fields = decoder.array(decoder.decode(row.blob("record"), where, 4096), where)
    if kind == KIND_ONE_TIME:
        prekey_id, x_key, kem_key, signature = decoder.array(fields, where, 4)
        signed = typed(X25519_ONE_TIME, decoder.binary(x_key, where, 32)) + typed(
            KEM_ONE_TIME, decoder.binary(kem_key, where, KEM_KEY_BYTES)
        )
        name = "one-time-prekey"
    elif kind in {KIND_SIGNED, KIND_KEM}:
        prekey_id, key, signature = decoder.array(fields, where, 3)
        role, size, name = (
            (X25519_SIGNED_PREKEY, 32, "signed-prekey")
            if kind == KIND_SIGNED
            else (KEM_LAST_RESORT, KEM_KEY_BYTES, "kem-prekey")
        )
        signed = typed(role, decoder.binary(key, where, size))
    else:
        raise DecodeError(where, f"kind {kind} is unknown")
    prekey_id = decoder.binary(prekey_id, f"{where}, id", 16)
    verify(device_key, name, prekey_id + signed, decoder.binary(signature, f"{where}, signature", 64))
    return prekey_id


def _check_counts(case: Case, outcome: Outcome) -> None:
    """Rows that are kept for good are counted from 1 without a gap; days and token rows do not run ahead.

    Free numbers would be room for eight bytes of anything in each row.
    """
    assert case.store is not None
    tables = case.store.tables
    for name in ("mailboxes", "lists", "tenants", "rotations", "relay"):
        for expected, row in enumerate(tables[name], start=1):
            if row.seq != expected:
                outcome.fail(f"{name} row {row.seq}", f"should be row {expected}: its rows are counted without a gap")
                break
    if tables["used_tokens"] and tables["used_tokens"][-1].seq > len(tables["lists"]):
        outcome.fail(f"used_tokens row {tables['used_tokens'][-1].seq}", "more tokens were used than lists published")
    if tables["prekeys"] and tables["prekeys"][-1].seq >= SEQ_END:
        outcome.fail(f"prekeys row {tables['prekeys'][-1].seq}", "no relay has had so many prekeys")
    for row in tables["mailboxes"] if case.taken_at is not None else ():
        if row.integer("enrolled_day") > (case.taken_at or 0) // DAY_S + 1:
            outcome.fail(f"mailboxes row {row.seq}", "was enrolled after the disclosure was taken")


def _check_rotations(case: Case, outcome: Outcome) -> None:
    assert case.store is not None
    stored = tuple(row.blob("record") for row in case.store.tables["rotations"])
    if case.manifest is None or stored == case.manifest.rotations:
        return
    # A relay whose disk takes nothing serves orders all the same: it has the rotation in its keys, and in the store
    # with its next commit. Until then nothing was committed under that key.
    periods = case.key_ring.periods[len(stored) : -1] if case.key_ring is not None else ()
    waiting = bool(periods) and all(period.last_index == case.manifest.head_index for period in periods)
    if waiting and stored == case.manifest.rotations[: len(stored)]:
        outcome.note(
            f"the last {len(periods)} rotations of the manifest, which no commit has brought into the store yet"
        )
    else:
        outcome.fail("rotations", "the store's are not those of the manifest")


def _check_relay(case: Case, outcome: Outcome) -> None:
    """The table `relay` holds three facts, the preservations that an order asked for, and nothing else."""
    assert case.store is not None
    found = {row.text("name"): row.blob("value") for row in case.store.tables["relay"]}
    preserved = {mailbox.hex() for mailbox in case.preserved}
    if len(found) < len(case.store.tables["relay"]) or set(found) - {"relay_id", "partition", "format"} - preserved:
        outcome.fail("relay", f"holds {', '.join(sorted(repr(name) for name in found))}")
    for mailbox, (until, leaf) in case.preserved.items():
        if until > (case.taken_at or until) + PRESERVED_S_MAX or leaf > LEAF_MAX:
            outcome.fail("relay", f"states a preservation of {mailbox.hex()[:8]}… with numbers that no order has")
    card = case.card or case.disclosed_card
    expected = {"format": b"1"}
    if card is not None:
        expected.update({"relay_id": card.relay_id, "partition": card.partition.to_bytes(2, "big")})
    for name, value in expected.items():
        if found.get(name) != value:
            outcome.fail("relay", f"{name} is not as in {names.CARD} or section 9")


def known_public_keys(case: Case) -> dict[bytes, str]:
    """The public keys that the disclosure and volunteers name, for the search for private halves."""
    keys: dict[bytes, str] = {}
    if case.manifest is not None:
        keys[case.manifest.signing_key] = "the relay's signing key"
    if case.key_ring is not None:
        keys.update((period.key, "a signing key of the relay") for period in case.key_ring.periods)
    signed = [(row.blob("signed_list"), None) for row in case.store.tables["lists"]] if case.store else []
    for raw, _ in signed:
        try:
            pair = decoder.array(decoder.decode(raw, "list", 4096), "list", 2)
            _add_list(keys, decoder.binary(pair[0], "list"), decoder.binary(pair[1], "signature", 64))
        except AuditError:
            # The check of the directory reports a list that cannot be read; here it names no keys.
            continue
    for _, list_bytes, signature in case.material.signed_lists:
        try:
            _add_list(keys, list_bytes, signature)
        except AuditError:
            # A volunteered list that does not verify names no keys either.
            continue
    for row in case.store.tables["prekeys"] if case.store else []:
        try:
            fields = decoder.array(decoder.decode(row.blob("record"), "prekey", 4096), "prekey")
        except AuditError:
            # As above: reported by the check of the directory.
            continue
        if len(fields) > 1 and type(fields[1]) is bytes and len(fields[1]) == 32:
            keys[fields[1]] = f"a prekey of device {row.blob('device_key').hex()[:8]}…"
    for row in case.store.tables["tenants"] if case.store else []:
        keys[row.blob("admin_key")] = f"the admin key of {row.text('domain')}"
    return keys


def _add_list(keys: dict[bytes, str], list_bytes: bytes, signature: bytes) -> None:
    device_list = verify_list(list_bytes, signature, "list")
    keys[device_list.account_key] = f"the account key of {device_list.account}"
    for device in device_list.devices:
        keys[device.device_key] = f"a device key of {device_list.account}"
        keys[device.dh_key] = f"an identity key of {device_list.account}"
