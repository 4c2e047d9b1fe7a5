"""What a person sends, and what became of it (protocol.md sections 5, 6.3 and 7).

    compose ──▶ post: one step for the recipients' devices, the own other devices, and the row that `status` reads
                 └─▶ send: post, and wait for the relay's verified receipts

Everything is checked before anything is written, so that a message goes to the outbox whole or not at all. Encrypting
and submitting are client/outbox.py's and client/submits.py's.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from client.content import NO_REPLY, Content, encode_content, wrap_own_copy
from client.content import Kind as ContentKind
from client.engine import Answer, Engine
from client.kept import kept_name, put_kept
from client.message import SentStatus
from client.outbox import expiry_of
from client.records import HeldReceipt, Sent
from client.running import Running
from client.state import State
from client.store import Kind, Step, Store
from wire.codec import decode, encode
from wire.commands import Withdraw
from wire.errors import FormatError
from wire.identity import check_account
from wire.limits import AUDIENCE_MAX, EXPIRY_S_MAX, TOKENS_PER_ACK_MAX

__all__ = ["post", "receipts_of", "send", "status_of", "withdraw"]

T = TypeVar("T")


def post(
    engine: Engine, content: Content, to: Sequence[str], bcc: Sequence[str], expiry_s: int | None
) -> tuple[bytes, ...]:
    """Put a message durably into the outbox; returns the names of its outgoing rows.

    Args:
        engine: the running loop.
        content: the message.
        to: recipients that may be shown.
        bcc: recipients that are shown to nobody but the own devices.
        expiry_s: how long the relay keeps it, at most 30 days; without it, as the settings say.

    Raises:
        FormatError: an address, or a limit; nothing is sent.
        NotEnrolled: this device has no account.
        Alarm: a recipient's account key or list is not to be believed; nothing is sent.
    """
    state = engine.state
    recipients = tuple(dict.fromkeys(check_account(address) for address in (*to, *bcc)))
    if not 1 <= len(recipients) <= AUDIENCE_MAX:
        raise FormatError("recipients", f"are {len(recipients)}", AUDIENCE_MAX)
    lifetime_s = state.settings.expiry_s if expiry_s is None else expiry_s
    if not 0 < lifetime_s <= EXPIRY_S_MAX:
        raise FormatError("expiry_s", f"is {lifetime_s}", EXPIRY_S_MAX)
    encode_content(content)
    for account in recipients:
        if (blocked := engine.outbox.blocked(account)) is not None:
            raise blocked
    others = [account for account in recipients if account != state.account]
    expiry = expiry_of(state.now_s, lifetime_s)
    names = []
    with state.store.step() as step:
        if others:
            names.append(engine.outbox.add(step, content, others, expiry))
        if len(state.own.entries) > 1:
            own = wrap_own_copy(content, recipients, NO_REPLY)
            names.append(engine.outbox.add(step, own, [state.account], expiry))
        sent = Sent(content.kind, recipients, content.sent_ms, tuple(names), False, (), ())
        step.put(Kind.SENT, content.message_id, encode(sent))
        if len(others) < len(recipients):
            _keep_for_self(engine, step, content)
    engine.wake()
    return tuple(names)


def _keep_for_self(engine: Engine, step: Step, content: Content) -> None:
    """A message to oneself is here already."""
    state = engine.state
    row = put_kept(step, state, state.account, state.keys.public, content)
    engine.inbox.untaken[kept_name(state.account, content.message_id)] = (row.order, content.kind)
    engine.arrived.set()


async def send(
    running: Running,
    content: Content,
    to: Sequence[str],
    bcc: Sequence[str],
    expiry_s: int | None,
    wait_s: float | None,
) -> tuple[HeldReceipt, ...]:
    """As `post`, and wait until the relay's receipts for all are in and verified.

    Raises:
        FormatError, NotEnrolled, Alarm: as `post`; `Alarm` also when a list arrives that is not to be believed.
        Refused: the relay refused definitely.
        Expired: the time ran out.
        Unknown: not all receipts within `wait_s` seconds; the outbox goes on.
    """
    engine = running.engine
    names = post(engine, content, to, bcc, expiry_s)
    receipts = engine.collect(content.message_id)
    futures = [engine.future_of(name) for name in names]
    engine.wake()
    try:
        await running.within(_all(futures), f"message {content.message_id.hex()}", wait_s)
        return tuple(receipts)
    finally:
        for name in names:
            engine.forget_future(name)
        engine.forget_collection(content.message_id)


# What became of it


def status_of(store: Store, message_id: bytes) -> SentStatus | None:
    """What became of a message that this device sent, or None if it sent none of that id."""
    value = store.get(Kind.SENT, message_id)
    if value is None:
        return None
    sent = decode(Sent, value, "sent")
    return SentStatus(
        message_id,
        ContentKind(sent.kind),
        sent.recipients,
        sent.sent_ms,
        receipted=not sent.pending and not sent.failed,
        failed=sent.failed,
        delivered_to=sent.delivered_to,
        read_by=sent.read_by,
    )


def receipts_of(state: State, message_id: bytes) -> tuple[HeldReceipt, ...]:
    """The receipts that are kept for a message."""
    return tuple(held for held in state.evidence.held() if held.message_id == message_id)


async def withdraw(running: Running, message_id: bytes, wait_s: float | None) -> int:
    """Take a message back wherever nobody has fetched it yet; returns for how many envelopes it was asked.

    What has not left is dropped here; of the rest, sent or about to be, the relay is asked to drop it.

    Raises:
        Refused: the relay refused.
        Unknown: no answer within `wait_s` seconds; ask again.
    """
    engine = running.engine
    pairs = engine.submits.withdraw(engine.outbox.names_of(message_id))
    with running.store.step() as step:
        engine.outbox.withdraw(step, message_id)
    pairs += [(held.mailbox, held.token) for held in receipts_of(running.state, message_id)]
    await running.within(_all(_ask_to_withdraw(engine, pairs)), "withdraw", wait_s)
    with running.store.step() as step:
        for held in receipts_of(running.state, message_id):
            running.state.evidence.keep(step, replace(held, withdrawn=True))
    return len(pairs)


def _ask_to_withdraw(engine: Engine, pairs: Sequence[tuple[bytes, bytes]]) -> "list[asyncio.Future[Answer]]":
    by_mailbox: dict[bytes, list[bytes]] = {}
    for mailbox, token in pairs:
        by_mailbox.setdefault(mailbox, []).append(token)
    asked = []
    for mailbox, all_tokens in by_mailbox.items():
        for start in range(0, len(all_tokens), TOKENS_PER_ACK_MAX):
            tokens = tuple(all_tokens[start : start + TOKENS_PER_ACK_MAX])
            asked.append(engine.ask("withdraw", _withdraw(mailbox, tokens)))
    return asked


def _withdraw(mailbox: bytes, tokens: tuple[bytes, ...]) -> Callable[[int], Withdraw]:
    return lambda ref: Withdraw(ref, mailbox, tokens)


async def _all(futures: "Iterable[asyncio.Future[T]]") -> None:
    await asyncio.gather(*futures)
