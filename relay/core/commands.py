"""What each command of a device means: who may give it, what it stages, what it is answered (protocol.md 6.3 to 6.5).

A command is handled while a batch is under construction, never while one is under way. It ends in one of three ways:
ANSWERED at once; WAITING for the commit, which `committed` and `aborted` answer; DEFERRED to the next batch. A
`Refused` leaves nothing staged.

Rules: a link that speaks for no enrolled device may enrol, and nothing else: every other command is `not_entitled`
before anything is looked up. A mailbox that is not the link's own is `not_entitled`, whether it exists or not. As
long as the directory in memory is ahead of the one on disk, answers wait for the commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from relay.core.batch import Refused, Staged
from relay.core.belongings import Belongings
from relay.core.capture import Captures
from relay.core.commitlog import CommitLog
from relay.core.delivery import Deliveries
from relay.core.directory import Account, Directory
from relay.core.events import REASON_ACKED, REASON_WITHDRAWN, CoreConfig, CoreCounters
from relay.core.links import Link, Links
from relay.core.mailboxes import LEAVING, LIVE, STAGED, Held, Mailbox, Mailboxes
from relay.core.records import Records
from wire.codec import encode
from wire.commands import (
    Ack,
    AddPrekeys,
    AskRecord,
    DeviceCommand,
    Enrol,
    LookUp,
    PublishList,
    PublishPrekeys,
    Refusal,
    RelayCommand,
    Submit,
    Subscribe,
    Withdraw,
)
from wire.commands import Directory as DirectoryAnswer
from wire.envelope import Envelope
from wire.errors import SERVICE_ENDED, BlindpostError, RefusalCode
from wire.identity import domain_of
from wire.limits import REFUSAL_FIELD_BYTES_MAX
from wire.prekeys import verify_one_time_prekey
from wire.receipt import ReceiptEntry

__all__ = ["Commands"]

ANSWERED: Final = 0
WAITING: Final = 1
DEFERRED: Final = 2

# A subscription goes through all entries of its mailbox once; so many take as long as checking one signature.
_ENTRIES_PER_WORK: Final = 512


class Commands:
    """Handles commands on behalf of the core, over its machines."""

    def __init__(
        self,
        config: CoreConfig,
        counters: CoreCounters,
        links: Links,
        mailboxes: Mailboxes,
        deliveries: Deliveries,
        directory: Directory,
        log: CommitLog,
        belongings: Belongings,
        captures: Captures,
    ) -> None:
        self.records = Records(config, links, belongings, self._speaks_for, self._refuse)
        self._config = config
        self._counters = counters
        self._links = links
        self._mailboxes = mailboxes
        self._deliveries = deliveries
        self._directory = directory
        self._log = log
        self._captures = captures
        self._now_ms = 0
        self._handlers: dict[type, Callable[[Staged, Link, Any], int]] = {
            Submit: self._submit,
            Ack: self._ack,
            Withdraw: self._withdraw,
            Subscribe: self._subscribe,
            Enrol: self._enrol,
            PublishList: self._publish_list,
            PublishPrekeys: self._publish_prekeys,
            AddPrekeys: self._add_prekeys,
            LookUp: self._look_up,
            AskRecord: self._ask_record,
        }

    def handle(self, staged: Staged, link: Link, command: DeviceCommand, now_ms: int) -> int:
        """Stage or answer one command; return ANSWERED, WAITING or DEFERRED."""
        self._now_ms = now_ms
        if link.generation != self._directory.generation:
            self.entitle(link)
        try:
            return self._handlers[type(command)](staged, link, command)
        except Refused as refused:
            return self._answer(staged, link, self.refusal(command.ref, refused))

    # ---- answers

    def refusal(self, ref: int, refused: Refused) -> Refusal:
        """Make a refusal, and count it."""
        code = int(refused.code)
        self._counters.refusals[code] = self._counters.refusals.get(code, 0) + 1
        return Refusal(
            ref,
            code,
            refused.field[:REFUSAL_FIELD_BYTES_MAX],
            refused.limit,
            refused.retry_after_ms,
            refused.attachment,
        )

    def _answer(self, staged: Staged, link: Link, answer: Refusal | DirectoryAnswer) -> int:
        if staged.directory_changed:
            staged.answers.append((link, answer))
            return WAITING
        self._links.talk(link).other(answer)
        return ANSWERED

    def _finish(self, staged: Staged, link: Link, ref: int) -> int:
        """Say done: at once, if all that the command asked for is durable already."""
        if staged.directory_changed:
            staged.done.append((link, ref))
            return WAITING
        self._links.talk(link).done(ref)
        return ANSWERED

    def receipt(self, link: Link, ref: int, position: int, held: Held) -> None:
        """Give the receipt of an envelope that an earlier commit stored."""
        commit = self._log.commits[held.commit_index]
        entry = ReceiptEntry(ref, position, held.number, held.leaf, self._log.path(commit, held.leaf))
        self._links.talk(link).receipt(commit.header, commit.signature, entry)

    # ---- entitlement

    def entitle(self, link: Link) -> None:
        """Note for which enrolled devices, accounts and mailboxes a link speaks, as the directory stands."""
        devices = self._directory.devices
        link.enrolled = tuple(key for key in link.device_keys if key in devices)
        link.accounts = tuple(dict.fromkeys(devices[key].account for key in link.enrolled))
        link.mailboxes = frozenset(devices[key].mailbox.id for key in link.enrolled)
        link.generation = self._directory.generation

    def entitle_anew(self, link: Link) -> None:
        """The same, if the directory has changed since."""
        if link.generation != self._directory.generation:
            self.entitle(link)

    @staticmethod
    def _need_enrolled(link: Link) -> None:
        if not link.enrolled:
            raise Refused(RefusalCode.NOT_ENTITLED, "link")

    def _need_own(self, link: Link, mailbox_id: bytes) -> Mailbox:
        if mailbox_id not in link.mailboxes:
            raise Refused(RefusalCode.NOT_ENTITLED, "mailbox")
        return self._mailboxes.by_id[mailbox_id]

    def _work(self, link: Link, units: int) -> None:
        config = self._config
        if not link.work.take(units, config.link_work_burst, config.link_work_per_s, self._now_ms):
            wait_ms = -(-units * 1_000 // config.link_work_per_s)
            raise Refused(RefusalCode.LINK_QUOTA, "work", config.link_work_per_s, wait_ms)

    # ---- submit

    def _submit(self, staged: Staged, link: Link, command: Submit) -> int:
        self._need_enrolled(link)
        account = self._directory.accounts.get(command.account)
        if account is None:
            raise Refused(RefusalCode.UNKNOWN_ACCOUNT, "account")
        ended = self._ended(link, command.account) if self._directory.ended else ""
        stale = command.list_hash != account.list_hash
        envelopes = command.envelopes
        if len(envelopes) == 1 and not stale and not ended and self._submit_new(staged, link, command, account):
            return WAITING
        find = self._mailbox_once if stale else self._mailbox_now
        mailboxes = self._mailboxes
        now_s = self._now_ms // 1_000
        own, known = account.mailboxes, mailboxes.known
        placed: list[tuple[Mailbox, Envelope, Held | None]] = []
        fresh = 0
        for envelope in envelopes:
            mailbox = own.get(envelope.mailbox) or find(link, command.account, envelope.mailbox)
            held = None if mailbox is None else known(mailbox, envelope)
            if held is None or mailbox is None:
                # A stale submit that is stored whole was done, and gets its receipts: to say that it never happened
                # would be a lie. Any other stale one is refused before anything else is looked at.
                if stale:
                    raise Refused(RefusalCode.STALE_LIST, "list_hash", attachment=encode(account.signed))
                if mailbox is None:
                    raise Refused(RefusalCode.NOT_ENTITLED, "mailbox")
                if ended:
                    raise Refused(RefusalCode.UNKNOWN_ACCOUNT, f"{SERVICE_ENDED}{ended}")
                mailboxes.check_expiry(envelope.expiry, now_s)
                fresh += 1
            elif held.state == STAGED:
                mailboxes.check_staged(staged, held, envelope)
            placed.append((mailbox, envelope, held))
        if len(envelopes) > 1 and len({(item.mailbox, item.envelope_id) for item in envelopes}) != len(envelopes):
            raise Refused(RefusalCode.MALFORMED, "envelopes: one is there twice")
        if fresh < len(placed):
            self._work(link, len(placed) - fresh)
        self._check_room(placed)
        commit_index = self._log.head_index + 1
        stage = mailboxes.stage
        kept = [
            stage(staged, mailbox, envelope, commit_index) if held is None else held
            for mailbox, envelope, held in placed
        ]
        if fresh or staged.directory_changed or any(held.state == STAGED for held in kept):
            staged.submits.append((link, command.ref, kept))
            return WAITING
        for position, held in enumerate(kept):
            self.receipt(link, command.ref, position, held)
        return ANSWERED

    def _ended(self, link: Link, account: str) -> str:
        """The company for which the service has ended: the recipient's, or that of all for whom the link speaks."""
        ended = self._directory.ended
        if (domain := domain_of(account)) in ended:
            return domain
        own = {domain_of(name) for name in link.accounts}
        return min(own) if own and own <= ended else ""

    def _submit_new(self, staged: Staged, link: Link, command: Submit, account: Account) -> bool:
        """Stage a submit of one new envelope to the account's own mailbox: nearly all are that, and this is `_submit`
        for them alone. False, and nothing is staged, if it is another.
        """
        envelope = command.envelopes[0]
        mailbox = account.mailboxes.get(envelope.mailbox)
        mailboxes = self._mailboxes
        if mailbox is None or not mailboxes.is_new(mailbox, envelope.envelope_id):
            return False
        mailboxes.check_expiry(envelope.expiry, self._now_ms // 1_000)
        mailboxes.check_room(mailbox, 1, len(envelope.body))
        held = mailboxes.stage(staged, mailbox, envelope, self._log.head_index + 1)
        staged.submits.append((link, command.ref, [held]))
        return True

    def _mailbox_now(self, link: Link, account: str, mailbox_id: bytes) -> Mailbox | None:
        """Return the mailbox of another device of the sender's own account."""
        for own in link.accounts:
            mailbox = self._directory.accounts[own].mailboxes.get(mailbox_id)
            if mailbox is not None:
                return mailbox
        return None

    def _mailbox_once(self, link: Link, account: str, mailbox_id: bytes) -> Mailbox | None:
        """Return a mailbox that is or was of that account, or of the sender's own."""
        mailbox = self._mailboxes.by_id.get(mailbox_id)
        return mailbox if mailbox and (mailbox.account == account or mailbox.account in link.accounts) else None

    def _check_room(self, placed: list[tuple[Mailbox, Envelope, Held | None]]) -> None:
        if len(placed) == 1:
            mailbox, envelope, held = placed[0]
            if held is None:
                self._mailboxes.check_room(mailbox, 1, len(envelope.body))
            return
        wanted: dict[Mailbox, tuple[int, int]] = {}
        for mailbox, envelope, held in placed:
            if held is None:
                count, body_bytes = wanted.get(mailbox, (0, 0))
                wanted[mailbox] = (count + 1, body_bytes + len(envelope.body))
        for mailbox, (count, body_bytes) in wanted.items():
            self._mailboxes.check_room(mailbox, count, body_bytes)

    # ---- ack, withdraw, subscribe

    def _ack(self, staged: Staged, link: Link, command: Ack) -> int:
        return self._erase(staged, link, command, self._need_own(link, command.mailbox), REASON_ACKED)

    def _withdraw(self, staged: Staged, link: Link, command: Withdraw) -> int:
        self._need_enrolled(link)
        mailbox = self._mailboxes.by_id.get(command.mailbox)
        if mailbox is None:
            # Done, as for any envelope that is not there: so an answer never tells whether the mailbox exists.
            return self._finish(staged, link, command.ref)
        return self._erase(staged, link, command, mailbox, REASON_WITHDRAWN)

    def _erase(self, staged: Staged, link: Link, command: Ack | Withdraw, mailbox: Mailbox, reason: int) -> int:
        found = self._mailboxes.find(mailbox, command.tokens)
        waits = False
        for held, _token in found:
            if held.state == STAGED:
                return DEFERRED
        leave = self._mailboxes.stage_leaving
        if self._captures.on:
            staged.erasers.update((held, link) for held, _token in found if held.state == LIVE)
        for held, token in found:
            if held.state == LIVE:
                leave(staged, held, reason, token)
                staged.batch.acks += 1
                if reason == REASON_WITHDRAWN:
                    staged.withdrawn += 1
                waits = True
            elif held.state == LEAVING:
                waits = True
        if waits:
            (staged.acked if reason == REASON_ACKED else staged.done).append((link, command.ref))
            return WAITING
        return self._finish(staged, link, command.ref)

    def _subscribe(self, staged: Staged, link: Link, command: Subscribe) -> int:
        mailbox = self._need_own(link, command.mailbox)
        if link.closed:
            # It was replaced while this waited for its batch: what is said to it goes nowhere, and would pile up.
            return ANSWERED
        self._work(link, 1 + len(mailbox.entries) // _ENTRIES_PER_WORK)
        self._deliveries.subscribe(mailbox, link, command.after, command.credit)
        return self._finish(staged, link, command.ref)

    # ---- the directory

    def _enrol(self, staged: Staged, link: Link, command: Enrol) -> int:
        if command.prekeys.device_key not in link.device_keys:
            raise Refused(RefusalCode.NOT_ENTITLED, "device_key")
        self._work(link, 4 + len(command.prekeys.one_time))
        new = self._directory.enrol(staged, command.token, command.signed_list, command.prekeys, self._now_ms // 1_000)
        return self._changed(staged, link, command.ref, new)

    def _publish_list(self, staged: Staged, link: Link, command: PublishList) -> int:
        self._need_enrolled(link)
        self._work(link, 1)
        new = self._directory.publish_list(staged, command.signed_list, link.accounts, self._now_ms // 1_000)
        return self._changed(staged, link, command.ref, new)

    def _publish_prekeys(self, staged: Staged, link: Link, command: PublishPrekeys) -> int:
        if command.prekeys.device_key not in link.enrolled:
            raise Refused(RefusalCode.NOT_ENTITLED, "device_key")
        self._work(link, 2 + len(command.prekeys.one_time))
        self._directory.publish_prekeys(staged, command.prekeys)
        return self._changed(staged, link, command.ref, True)

    def _add_prekeys(self, staged: Staged, link: Link, command: AddPrekeys) -> int:
        self._need_enrolled(link)
        self._work(link, len(command.one_time) + (len(link.enrolled) if len(link.enrolled) > 1 else 0))
        device_key = self._signer(link, command)
        new = self._directory.add_prekeys(staged, device_key, command.one_time)
        return self._changed(staged, link, command.ref, new)

    @staticmethod
    def _signer(link: Link, command: AddPrekeys) -> bytes:
        """Return the device that the prekeys are of: the command names none, so of several the one that signed."""
        if len(link.enrolled) == 1:
            return link.enrolled[0]
        for device_key in link.enrolled:
            try:
                verify_one_time_prekey(device_key, command.one_time[0])
            except BlindpostError:
                continue
            return device_key
        raise Refused(RefusalCode.PREKEYS_INVALID, "signature")

    def _changed(self, staged: Staged, link: Link, ref: int, new: bool) -> int:
        if not new:
            return self._finish(staged, link, ref)
        staged.done.append((link, ref))
        return WAITING

    def _look_up(self, staged: Staged, link: Link, command: LookUp) -> int:
        self._need_enrolled(link)
        answers = link.bundle_answers
        kept = answers.get(command.ref)
        if kept is not None and command.want_bundles and kept[0] == command.account:
            return self._answer(staged, link, kept[1])
        account = self._directory.accounts.get(command.account)
        if account is None:
            self._work(link, 1)
            raise Refused(RefusalCode.UNKNOWN_ACCOUNT, "account")
        self._work(link, 1 + len(account.devices.devices))
        answer = self._directory.look_up(staged, command.ref, account, command.want_bundles)
        if command.want_bundles:
            answers[command.ref] = (command.account, answer)
            answers.move_to_end(command.ref)
            if len(answers) > self._config.bundle_answers_kept:
                answers.popitem(last=False)
            if staged.directory_changed:
                staged.undo.append(lambda: _forget(answers, command.ref))
        return self._answer(staged, link, answer)

    # ---- what is held

    def _ask_record(self, staged: Staged, link: Link, command: AskRecord) -> int:
        mailbox = self._need_own(link, command.mailbox)
        self._work(link, 1)
        if not link.closed:
            # What it tells is of no batch under way: rows are read between two of them (records.py).
            self.records.ask(link, command, mailbox.account, self._now_ms)
        return ANSWERED

    def _speaks_for(self, link: Link, mailbox_id: bytes) -> bool:
        self.entitle_anew(link)
        return not link.closed and mailbox_id in link.mailboxes

    def _refuse(self, link: Link, ref: int, refused: Refused) -> None:
        self._links.talk(link).other(self.refusal(ref, refused))

    # ---- the end of a batch

    def say(self, link: Link, answer: RelayCommand) -> None:
        """Give an answer that waited for the commit."""
        assert isinstance(answer, Refusal | DirectoryAnswer)
        self._links.talk(link).other(answer)


def _forget(answers: OrderedDict[int, tuple[str, DirectoryAnswer]], ref: int) -> None:
    answers.pop(ref, None)
