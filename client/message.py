"""What a program gets of a device: messages, what became of sent ones, notices. Plain values, no keys."""

from dataclasses import dataclass

from client.content import Kind

__all__ = ["Message", "Notice", "SentStatus"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived, or an own copy of one that another own device sent.

    Attributes:
        account: the sender, by the session that opened it.
        device_key: the sender's device.
        kind: email, chat or ping.
        message_id: the sender's 16 bytes; with the account, the message's name.
        sent_ms: when it was written, by the sender's word only.
        reply_to: the message that it answers, or 16 zero bytes.
        audience: the accounts that it was addressed to, by the sender's word only.
        recipients: on own copies, everybody that it was sent to, Bcc included.
        own_copy: whether it is one.
        payload: by kind.
        received_ms: when this device kept it.
        read: whether it was marked as read.
    """

    account: str
    device_key: bytes
    kind: Kind
    message_id: bytes
    sent_ms: int
    reply_to: bytes
    audience: tuple[str, ...]
    recipients: tuple[str, ...]
    own_copy: bool
    payload: bytes
    received_ms: int
    read: bool

    def __repr__(self) -> str:
        """Sender, kind and size: the payload has no place in a log."""
        return f"Message(account={self.account!r}, kind={self.kind.name}, payload=<{len(self.payload)} bytes>)"


@dataclass(frozen=True, slots=True)
class SentStatus:
    """What became of a sent message: `receipted` by the relay for all, D and R by account."""

    message_id: bytes
    kind: Kind
    recipients: tuple[str, ...]
    sent_ms: int
    receipted: bool
    failed: bool
    delivered_to: tuple[str, ...]
    read_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """An alarm or a failure that nobody was waiting for; `kind` is the name of the error's class."""

    name: bytes
    kind: str
    text: str
    message_id: bytes
    accounts: tuple[str, ...]
    time_s: int
