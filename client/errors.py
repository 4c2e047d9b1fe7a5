"""What can go wrong for a device, as types (protocol.md section 6.5; architecture: refused or unknown).

Rules:

* `Refused` is definite: it did not happen, and the same request will not. `Unknown` is not: the relay has not answered
  (no link, or no answer yet), so ask again; a device that repeats a request never makes it happen twice.
* An `Alarm` says that somebody breaks the protocol's promises: a changed account key, an older device list, a forged
  receipt, a forked log. It names what was expected and what came, never a secret, and the step that raised it changed
  nothing.
* A failure that belongs to one message (`Expired`, `Incomplete`) names the message and who did not get it.
"""

from contextlib import suppress

from wire.errors import SERVICE_ENDED, BlindpostError, FormatError, RefusalCode
from wire.identity import check_domain

__all__ = [
    "AccountKeyChanged",
    "Alarm",
    "BodyChanged",
    "ClientError",
    "Expired",
    "FirstContactRefused",
    "Forked",
    "GatewayBusy",
    "HomeInUse",
    "HomeInvalid",
    "Incomplete",
    "ListForked",
    "ListRolledBack",
    "NotEnrolled",
    "ReceiptForged",
    "RecordFalse",
    "Refused",
    "ServiceEnded",
    "RelayKeyWrong",
    "StoreFailed",
    "TransportClosed",
    "Unknown",
    "WrongPassphrase",
    "refused",
]


class ClientError(BlindpostError):
    """The root of a device's errors."""


class Refused(ClientError):
    """The relay refused a request, definitely: it did not happen, and the same request will not.

    Args:
        request: what was asked, in words.
        code: the refusal's code.
        field: the field that the relay named.
        limit: the limit that the relay named, or 0.
    """

    def __init__(self, request: str, code: RefusalCode, field: str = "", limit: int = 0) -> None:
        self.request = request
        self.code = code
        self.field = field
        self.limit = limit
        named = f" at {field}" if field else ""
        bound = f" (limit {limit})" if limit else ""
        super().__init__(f"{request}: refused, {code.name.lower()}{named}{bound}")


class ServiceEnded(Refused):
    """The relay serves a company no more: it takes nothing new to or from it, and delivers what waits.

    Args:
        request: what was asked, in words.
        domain: the company's.
    """

    def __init__(self, request: str, domain: str) -> None:
        super().__init__(request, RefusalCode.UNKNOWN_ACCOUNT, f"{SERVICE_ENDED}{domain}")
        self.domain = domain
        self.args = (f"{request}: refused, the service for {domain} has ended",)


def refused(request: str, code: RefusalCode, field: str = "", limit: int = 0) -> Refused:
    """The error of a refusal, by what the relay named."""
    if code is RefusalCode.UNKNOWN_ACCOUNT and field.startswith(SERVICE_ENDED):
        with suppress(FormatError):
            return ServiceEnded(request, check_domain(field.removeprefix(SERVICE_ENDED)))
    return Refused(request, code, field, limit)


class Unknown(ClientError):
    """No answer yet: it may or may not have happened. Ask again; nothing happens twice.

    Args:
        request: what was asked, in words.
        why: what is missing, in words.
    """

    def __init__(self, request: str, why: str) -> None:
        self.request = request
        self.why = why
        super().__init__(f"{request}: unknown, {why}; ask again")


class NotEnrolled(ClientError):
    """The device has no account at this relay yet, or not any more."""


class Alarm(ClientError):
    """Somebody breaks a promise of the protocol; nothing was changed by the step that found it."""


class RelayKeyWrong(Alarm):
    """Whoever answers for the relay does not hold the key that the relay card leads to."""


class AccountKeyChanged(Alarm):
    """A device list carries another account key than the one that was pinned at first contact.

    Args:
        account: the address.
        pinned: the account key that was pinned.
        offered: the account key that was offered.
    """

    def __init__(self, account: str, pinned: bytes, offered: bytes) -> None:
        self.account = account
        self.pinned = pinned
        self.offered = offered
        super().__init__(
            f"{account}: the account key changed from {pinned.hex()[:16]} to {offered.hex()[:16]}; "
            "compare safety numbers before you trust the new one"
        )


class FirstContactRefused(Alarm):
    """A first message of an account that this device does not know, which the relay's directory does not confirm.

    Args:
        account: the address that it was written under.
    """

    def __init__(self, account: str) -> None:
        self.account = account
        super().__init__(
            f"{account}: somebody wrote under this address with an account key that the relay's directory does not "
            "show for it; the message was not accepted"
        )


class ListRolledBack(Alarm):
    """A device list with a lower version than one seen before.

    Args:
        account: the address.
        seen: the highest version seen.
        offered: the version that was offered.
    """

    def __init__(self, account: str, seen: int, offered: int) -> None:
        self.account = account
        self.seen = seen
        self.offered = offered
        super().__init__(f"{account}: device list version {offered} was offered, version {seen} was seen before")


class ListForked(Alarm):
    """Two device lists of one account that cannot both be in its history.

    Args:
        account: the address.
        version: the version of the list that was offered.
    """

    def __init__(self, account: str, version: int) -> None:
        self.account = account
        self.version = version
        super().__init__(f"{account}: device list version {version} does not continue the list seen before")


class ReceiptForged(Alarm):
    """A receipt that does not verify for the envelope that it is given for."""


class RecordFalse(Alarm):
    """What the relay gave as all that it holds about this account is not that: malformed, incomplete, of another.

    Args:
        why: what is wrong with it, in words.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"what the relay holds about this account: its record is not to be believed: {why}")


class BodyChanged(Alarm):
    """The relay delivers another body under an envelope id than the one that a disclosure held.

    Args:
        envelope_id: the envelope's 16 bytes.
    """

    def __init__(self, envelope_id: bytes) -> None:
        self.envelope_id = envelope_id
        super().__init__(
            f"envelope {envelope_id.hex()}: is delivered with another body than the one whose key was volunteered"
        )


class Forked(Alarm):
    """Two commit headers, both signed by the relay, that cannot be of one chain.

    Args:
        index: the commit index at which they part.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(f"the relay signed two histories that part at commit {index}")


class Expired(ClientError):
    """A message whose time ran out before the relay had receipted it for every device.

    Args:
        message_id: the message's 16 bytes.
        missing: the accounts for which no receipt of every device is held.
    """

    def __init__(self, message_id: bytes, missing: tuple[str, ...]) -> None:
        self.message_id = message_id
        self.missing = missing
        super().__init__(f"message {message_id.hex()} expired without a receipt for {', '.join(missing)}")


class Incomplete(ClientError):
    """A large message whose chunks did not all arrive before they expired.

    Args:
        message_id: the message's 16 bytes.
        account: the sender.
        have: chunks that arrived.
        count: chunks that there are.
    """

    def __init__(self, message_id: bytes, account: str, have: int, count: int) -> None:
        self.message_id = message_id
        self.account = account
        self.have = have
        self.count = count
        super().__init__(f"message {message_id.hex()} of {account} is incomplete: {have} of {count} chunks")


class HomeInUse(ClientError):
    """Another process holds this home."""


class HomeInvalid(ClientError):
    """This folder is no home of a device, or one that was damaged or half made."""


class WrongPassphrase(ClientError):
    """The passphrase does not open this home."""


class StoreFailed(ClientError):
    """A step could not be made durable; nothing of it happened."""


class GatewayBusy(ClientError):
    """A device has as much waiting at its gateway as it may: nothing was taken, ask again after `retry_after_ms`.

    Args:
        what: what there is too much of: commands, bytes, devices.
        limit: the limit that was passed.
        retry_after_ms: how long to wait before asking again, in milliseconds.
    """

    def __init__(self, what: str, limit: int, retry_after_ms: int) -> None:
        self.what = what
        self.limit = limit
        self.retry_after_ms = retry_after_ms
        super().__init__(f"gateway: too many {what} wait (limit {limit}); ask again after {retry_after_ms} ms")


class TransportClosed(ClientError):
    """The broker's connection ended; the device connects again by itself."""
