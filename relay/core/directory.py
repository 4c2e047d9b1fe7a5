"""Tenants, accounts, device lists and prekeys (protocol.md sections 2.2 to 2.4).

The directory says which devices an account has and hands out their public keys. Whether a link may ask is decided in
commands.py; whether a list is the right one is decided by the devices, which pin account keys: the relay's check keeps
rubbish out, and is no promise to anybody.

Rules: an activation token works once; a list follows the one before it, or comes with a new token, which starts the
account anew; device keys and mailboxes are never used twice; a mailbox that a new list does not name is closed; a
one-time prekey is handed out once. Changes are made at once and leave an undo in the batch, so that an aborted batch
leaves no trace.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from relay.core.batch import Refused, Seqs, Staged
from relay.core.events import (
    PREKEY_KEM,
    PREKEY_ONE_TIME,
    PREKEY_SIGNED,
    ListRow,
    MailboxRow,
    PrekeyRow,
    Snapshot,
    TenantRow,
    UsedTokenRow,
)
from relay.core.mailboxes import Mailbox, Mailboxes
from wire.codec import decode, encode
from wire.commands import Directory as DirectoryAnswer
from wire.errors import BlindpostError, FormatError, RefusalCode
from wire.identity import (
    Activation,
    DeviceList,
    SignedList,
    Token,
    check_follows,
    list_hash,
    read_activation,
    verify_signed_list,
    verify_token,
)
from wire.limits import ONE_TIME_PREKEYS_KEPT_MAX
from wire.prekeys import Bundle, KemPrekey, OneTimePrekey, Prekeys, SignedPrekey, verify_one_time_prekey, verify_prekeys

__all__ = ["Account", "Device", "Directory"]

DAY_S = 86_400
# Ids of one-time prekeys handed out, remembered for each device (until a restart), so that a repeated upload does not
# offer one twice.
_TAKEN_KEPT = 256
# Lists and the mailboxes that they close are kept for good: whoever publishes without end must not fill the disk.
LISTS_PER_DAY_MAX = 64
_LISTS_RETRY_MS = 60_000
# The base point of Ed25519: a public key as good as any, and no tenant's.
_NOBODYS_KEY = bytes((0x58,)) + bytes((0x66,)) * 31


@dataclass(slots=True, eq=False)
class Account:
    """One account: its current list, and the mailboxes that the list names."""

    signed: SignedList
    devices: DeviceList
    list_hash: bytes
    mailboxes: dict[bytes, Mailbox]
    day: int = 0
    """The day of `versions_today` (not kept over a restart)."""
    versions_today: int = 0
    list_rows: tuple[int, ...] = ()
    """The `seq` of each version's row."""


@dataclass(slots=True, eq=False)
class Device:
    """One enrolled device and its prekeys, each with the seq of its row."""

    account: str
    mailbox: Mailbox
    signed_prekey: tuple[int, SignedPrekey] | None = None
    kem_prekey: tuple[int, KemPrekey] | None = None
    one_time: dict[bytes, tuple[int, OneTimePrekey]] = field(default_factory=dict)
    taken: OrderedDict[bytes, None] = field(default_factory=OrderedDict)


class Directory:
    """All tenants, accounts and devices of the relay.

    Args:
        snapshot: what is stored of them.
        mailboxes: already loaded.
        seqs: numbers rows.
    """

    def __init__(self, snapshot: Snapshot, mailboxes: Mailboxes, seqs: Seqs) -> None:
        self._mailboxes = mailboxes
        self._seqs = seqs
        self.generation = 0
        self.tenants: dict[str, bytes] = {row.domain: row.admin_key for row in snapshot.tenants}
        self._tenants_stored = set(self.tenants)
        self.ended: set[str] = set()
        """Domains of companies for which the service has ended: what waits is delivered, nothing new is taken."""
        self._used_tokens: dict[bytes, UsedTokenRow] = {row.nonce: row for row in snapshot.used_tokens}
        self.accounts: dict[str, Account] = {}
        self.devices: dict[bytes, Device] = {}
        self.former: dict[str, list[Mailbox]] = {}
        """Mailboxes of an account that its list does not name any more."""
        self._device_keys_used = {row.device_key for row in snapshot.mailboxes}
        for account, row in {row.account: row for row in snapshot.lists}.items():
            signed = decode(SignedList, row.signed_list, "lists")
            devices = decode(DeviceList, signed.list, "lists")
            if any(entry.mailbox not in mailboxes.by_id for entry in devices.devices):
                raise FormatError("lists", f"version {row.version} names a mailbox that is not there")
            boxes = {entry.mailbox: mailboxes.by_id[entry.mailbox] for entry in devices.devices}
            self.accounts[account] = Account(signed, devices, list_hash(signed), boxes)
            for entry in devices.devices:
                self.devices[entry.device_key] = Device(account, boxes[entry.mailbox])
        for prekey in snapshot.prekeys:
            self._load_prekey(prekey)
        for row in snapshot.lists:
            self.accounts[row.account].list_rows += (row.seq,)
        for mailbox in mailboxes.by_id.values():
            of = self.accounts.get(mailbox.account)
            if of is None or mailbox.id not in of.mailboxes:
                self.former.setdefault(mailbox.account, []).append(mailbox)

    def _load_prekey(self, row: PrekeyRow) -> None:
        device = self.devices.get(row.device_key)
        if device is None:
            raise FormatError("prekeys", "a row is of a device that is on no list")
        if row.kind == PREKEY_SIGNED:
            device.signed_prekey = (row.seq, decode(SignedPrekey, row.record, "prekeys"))
        elif row.kind == PREKEY_KEM:
            device.kem_prekey = (row.seq, decode(KemPrekey, row.record, "prekeys"))
        elif row.kind == PREKEY_ONE_TIME:
            device.one_time[row.id] = (row.seq, decode(OneTimePrekey, row.record, "prekeys"))
        else:
            raise FormatError("prekeys", f"kind {row.kind} is unknown")

    def _changing(self, staged: Staged) -> None:
        """Whatever links cached of the directory is void, now and once more if the batch is aborted."""
        self.generation += 1
        staged.undo.append(self._bump)

    def _bump(self) -> None:
        self.generation += 1

    # ---- tenants and tokens

    def is_stored(self, domain: str) -> bool:
        """Tell whether a tenant's row was staged before (a failed batch keeps it waiting in the core)."""
        return domain in self._tenants_stored

    def stage_tenant(self, staged: Staged, domain: str, admin_key: bytes) -> None:
        """Write down a tenant that was admitted."""
        self._tenants_stored.add(domain)
        staged.batch.tenants.append(TenantRow(self._seqs.take("tenants"), domain, admin_key))

    def _check_token(self, token: Token, signed: DeviceList, now_s: int) -> Activation:
        try:
            activation = read_activation(token)
            admin_key = self.tenants.get(activation.tenant)
            if activation.tenant in self.ended:
                admin_key = None
            # Whoever asks is not entitled yet: neither words nor time tell which companies this relay serves.
            verify_token(token, admin_key or _NOBODYS_KEY, now_s)
        except BlindpostError:
            raise Refused(RefusalCode.TOKEN_INVALID, "activation") from None
        if admin_key is None:
            raise Refused(RefusalCode.TOKEN_INVALID, "activation")
        if activation.account != signed.account:
            raise Refused(RefusalCode.TOKEN_INVALID, "account")
        if activation.nonce in self._used_tokens:
            raise Refused(RefusalCode.TOKEN_INVALID, "nonce")
        return activation

    def stage_old_tokens(self, staged: Staged, now_s: int, most: int) -> None:
        """Forget used tokens that are past their date anyway."""
        old = []
        for row in self._used_tokens.values():
            if row.not_after < now_s:
                old.append(row)
                if len(old) == most:
                    break
        for row in old:
            del self._used_tokens[row.nonce]
            staged.batch.used_tokens_erased.append(row.seq)
        if old:
            staged.undo.append(lambda: self._used_tokens.update({row.nonce: row for row in old}))

    # ---- lists

    def enrol(self, staged: Staged, token: Token, signed: SignedList, prekeys: Prekeys, now_s: int) -> bool:
        """Enrol the first device of an account. Return whether anything is new: the same enrolment again is done.

        Raises:
            Refused: `token_invalid`, `list_invalid` or `prekeys_invalid`; the token is still good then.
        """
        devices = _verified_list(signed)
        account = self.accounts.get(devices.account)
        if account is not None and account.signed == signed:
            return False
        activation = self._check_token(token, devices, now_s)
        if devices.version != 1:
            raise Refused(RefusalCode.LIST_INVALID, "version", 1)
        if len(devices.devices) != 1:
            raise Refused(RefusalCode.LIST_INVALID, "devices", 1)
        if prekeys.device_key != devices.devices[0].device_key:
            raise Refused(RefusalCode.PREKEYS_INVALID, "device_key")
        _verify_prekeys(prekeys)
        self._check_unused(devices, account)
        self._changing(staged)
        row = UsedTokenRow(self._seqs.take("used_tokens"), activation.nonce, activation.not_after)
        self._used_tokens[row.nonce] = row
        staged.undo.append(lambda: self._used_tokens.__delitem__(row.nonce))
        staged.batch.used_tokens.append(row)
        self._set_list(staged, signed, devices, account, now_s)
        self._replace_prekeys(staged, self.devices[prekeys.device_key], prekeys)
        return True

    def publish_list(self, staged: Staged, signed: SignedList, allowed: tuple[str, ...], now_s: int) -> bool:
        """Publish the next device list of an account. Return whether it is new.

        Args:
            staged: the batch.
            signed: the list.
            allowed: the accounts of the link's devices.
            now_s: Unix time.

        Raises:
            Refused: `not_entitled` for any other account, whether it exists or not; else `list_invalid`, or
                `link_quota` beyond 64 versions a day.
        """
        try:
            named = decode(DeviceList, signed.list, "device list").account
        except FormatError:
            raise Refused(RefusalCode.LIST_INVALID, "list") from None
        if named not in allowed:
            raise Refused(RefusalCode.NOT_ENTITLED, "account")
        account = self.accounts[named]
        if account.signed == signed:
            return False
        devices = _verified_list(signed)
        try:
            check_follows(devices, account.devices, account.list_hash)
        except FormatError as error:
            raise Refused(RefusalCode.LIST_INVALID, error.problem[:128], account.devices.version + 1) from None
        self._check_unused(devices, account)
        day = now_s // DAY_S
        versions = account.versions_today if account.day == day else 0
        if versions >= LISTS_PER_DAY_MAX:
            raise Refused(RefusalCode.LINK_QUOTA, "lists", LISTS_PER_DAY_MAX, _LISTS_RETRY_MS)
        self._changing(staged)
        self._set_list(staged, signed, devices, account, now_s)
        fresh = self.accounts[named]
        fresh.day, fresh.versions_today = day, versions + 1
        return True

    def _check_unused(self, devices: DeviceList, account: Account | None) -> None:
        """Device keys and mailboxes are the account's own already, in the same pairs, or new to this relay."""
        kept = {(entry.device_key, entry.mailbox) for entry in account.devices.devices} if account else set()
        for entry in devices.devices:
            if (entry.device_key, entry.mailbox) in kept:
                continue
            if entry.mailbox in self._mailboxes.by_id:
                raise Refused(RefusalCode.LIST_INVALID, "mailbox")
            if entry.device_key in self._device_keys_used:
                raise Refused(RefusalCode.LIST_INVALID, "device_key")

    def _set_list(
        self, staged: Staged, signed: SignedList, devices: DeviceList, before: Account | None, now_s: int
    ) -> None:
        seqs = self._seqs
        kept = before.mailboxes if before else {}
        boxes: dict[bytes, Mailbox] = {}
        for entry in devices.devices:
            mailbox = kept.get(entry.mailbox)
            if mailbox is None:
                mailbox = Mailbox(seqs.take("mailboxes"), entry.mailbox, entry.device_key, devices.account)
                self._add_device(staged, entry.device_key, mailbox, now_s)
            boxes[entry.mailbox] = mailbox
        account = Account(signed, devices, list_hash(signed), boxes)
        self.accounts[devices.account] = account
        if before is None:
            staged.undo.append(lambda: self.accounts.__delitem__(devices.account))
        else:
            staged.undo.append(lambda: self.accounts.update({devices.account: before}))
            for mailbox_id, mailbox in before.mailboxes.items():
                if mailbox_id not in boxes:
                    self._remove_device(staged, mailbox)
        row = ListRow(seqs.take("lists"), devices.account, devices.version, encode(signed))
        account.list_rows = (*before.list_rows, row.seq) if before else (row.seq,)
        staged.batch.lists.append(row)

    def _add_device(self, staged: Staged, device_key: bytes, mailbox: Mailbox, now_s: int) -> None:
        self._mailboxes.by_id[mailbox.id] = mailbox
        self.devices[device_key] = Device(mailbox.account, mailbox)
        self._device_keys_used.add(device_key)

        def undo() -> None:
            del self._mailboxes.by_id[mailbox.id]
            del self.devices[device_key]
            self._device_keys_used.discard(device_key)

        staged.undo.append(undo)
        staged.batch.mailboxes.append(
            MailboxRow(mailbox.seq, mailbox.id, device_key, mailbox.account, now_s // DAY_S, 0, 0)
        )

    def _remove_device(self, staged: Staged, mailbox: Mailbox) -> None:
        device = self.devices.pop(mailbox.device_key)
        mailbox.closed = True
        former = self.former.setdefault(mailbox.account, [])
        former.append(mailbox)

        def undo() -> None:
            self.devices[mailbox.device_key] = device
            mailbox.closed = False
            former.remove(mailbox)

        staged.undo.append(undo)
        staged.closed.append(mailbox)
        staged.batch.mailboxes_closed.append(mailbox.seq)
        self._erase_prekeys(staged, device)

    # ---- prekeys

    def publish_prekeys(self, staged: Staged, prekeys: Prekeys) -> None:
        """Replace all prekeys of an enrolled device.

        Raises:
            Refused: `prekeys_invalid`.
        """
        _verify_prekeys(prekeys)
        self._changing(staged)
        self._replace_prekeys(staged, self.devices[prekeys.device_key], prekeys)

    def add_prekeys(self, staged: Staged, device_key: bytes, one_time: tuple[OneTimePrekey, ...]) -> bool:
        """Add one-time prekeys to an enrolled device. Return whether any is new.

        Raises:
            Refused: `prekeys_invalid`: a signature, no signed prekey yet, or more than 128 in all.
        """
        device = self.devices[device_key]
        if device.signed_prekey is None:
            raise Refused(RefusalCode.PREKEYS_INVALID, "signed_prekey")
        try:
            for prekey in one_time:
                verify_one_time_prekey(device_key, prekey)
        except BlindpostError:
            raise Refused(RefusalCode.PREKEYS_INVALID, "signature") from None
        new = {prekey.id: prekey for prekey in one_time if prekey.id not in device.one_time}
        new = {prekey_id: prekey for prekey_id, prekey in new.items() if prekey_id not in device.taken}
        if len(device.one_time) + len(new) > ONE_TIME_PREKEYS_KEPT_MAX:
            raise Refused(RefusalCode.PREKEYS_INVALID, "one_time", ONE_TIME_PREKEYS_KEPT_MAX)
        if not new:
            return False
        self._changing(staged)
        self._keep_prekeys(staged, device)
        for prekey in new.values():
            self._insert_one_time(staged, device, device_key, prekey)
        return True

    @staticmethod
    def _keep_prekeys(staged: Staged, device: Device) -> None:
        before = (device.signed_prekey, device.kem_prekey, dict(device.one_time), OrderedDict(device.taken))

        def undo() -> None:
            device.signed_prekey, device.kem_prekey, device.one_time, device.taken = before

        staged.undo.append(undo)

    def _insert_one_time(self, staged: Staged, device: Device, device_key: bytes, prekey: OneTimePrekey) -> None:
        seq = self._seqs.take("prekeys")
        device.one_time[prekey.id] = (seq, prekey)
        staged.batch.prekeys.append(PrekeyRow(seq, device_key, PREKEY_ONE_TIME, prekey.id, encode(prekey)))

    @staticmethod
    def _forget_row(staged: Staged, seq: int) -> None:
        """Delete a row; one that this very batch inserts is not written at all."""
        rows = staged.batch.prekeys
        for index in range(len(rows) - 1, -1, -1):
            if rows[index].seq == seq:
                del rows[index]
                return
        staged.batch.prekeys_erased.append(seq)

    def _erase_prekeys(self, staged: Staged, device: Device) -> None:
        for kept in (device.signed_prekey, device.kem_prekey, *device.one_time.values()):
            if kept is not None:
                self._forget_row(staged, kept[0])

    def _replace_prekeys(self, staged: Staged, device: Device, prekeys: Prekeys) -> None:
        self._keep_prekeys(staged, device)
        self._erase_prekeys(staged, device)
        key = prekeys.device_key
        signed, kem = prekeys.signed_prekey, prekeys.kem_prekey
        device.signed_prekey = (self._seqs.take("prekeys"), signed)
        staged.batch.prekeys.append(PrekeyRow(device.signed_prekey[0], key, PREKEY_SIGNED, signed.id, encode(signed)))
        device.kem_prekey = (self._seqs.take("prekeys"), kem)
        staged.batch.prekeys.append(PrekeyRow(device.kem_prekey[0], key, PREKEY_KEM, kem.id, encode(kem)))
        device.one_time = {}
        for prekey in prekeys.one_time:
            if prekey.id not in device.taken:
                self._insert_one_time(staged, device, key, prekey)

    # ---- look-ups

    def look_up(self, staged: Staged, ref: int, account: Account, want_bundles: bool) -> DirectoryAnswer:
        """Answer a look-up; with bundles, one one-time prekey of each device is taken."""
        if not want_bundles:
            return DirectoryAnswer(ref, account.signed, ())
        bundles = []
        for entry in account.devices.devices:
            device = self.devices[entry.device_key]
            if device.signed_prekey is None or device.kem_prekey is None:
                continue
            one_time: tuple[OneTimePrekey, ...] = ()
            if device.one_time:
                one_time = (self._take_one_time(staged, device),)
            bundles.append(Bundle(entry.device_key, device.signed_prekey[1], device.kem_prekey[1], one_time))
        return DirectoryAnswer(ref, account.signed, tuple(bundles))

    def _take_one_time(self, staged: Staged, device: Device) -> OneTimePrekey:
        self._changing(staged)
        prekey_id = next(iter(device.one_time))
        before = device.one_time
        taken_before = OrderedDict(device.taken)
        device.one_time = dict(before)
        seq, prekey = device.one_time.pop(prekey_id)
        device.taken[prekey_id] = None
        if len(device.taken) > _TAKEN_KEPT:
            device.taken.popitem(last=False)

        def undo() -> None:
            device.one_time = before
            device.taken = taken_before

        staged.undo.append(undo)
        self._forget_row(staged, seq)
        return prekey


def _verified_list(signed: SignedList) -> DeviceList:
    try:
        return verify_signed_list(signed)
    except FormatError as error:
        raise Refused(RefusalCode.LIST_INVALID, error.field, error.limit) from None
    except BlindpostError:
        raise Refused(RefusalCode.LIST_INVALID, "signature") from None


def _verify_prekeys(prekeys: Prekeys) -> None:
    try:
        verify_prekeys(prekeys)
    except FormatError as error:
        raise Refused(RefusalCode.PREKEYS_INVALID, error.field, error.limit) from None
    except BlindpostError:
        raise Refused(RefusalCode.PREKEYS_INVALID, "signature") from None
