"""The errors and the refusal codes that both sides speak (protocol.md section 6.5).

Rules:

* bad bytes raise `FormatError`, which names the field and the limit, and never repeats a secret value;
* a signature that does not verify raises `SignatureError`: no bool is returned that a caller could forget;
* a refusal is *definite* (it did not happen, and the same command will not) or says when to repeat the command.
"""

from enum import IntEnum, unique
from typing import Final

__all__ = ["BlindpostError", "FormatError", "RefusalCode", "SignatureError"]


class BlindpostError(Exception):
    """The root of every error that Blindpost raises on purpose."""


class FormatError(BlindpostError):
    """Bytes or values that the protocol does not allow.

    Args:
        field: the field's name, as protocol.md calls it.
        problem: what is wrong, in words, without the value where it could be secret.
        limit: the limit that was passed, or 0 where none applies.
    """

    def __init__(self, field: str, problem: str, limit: int = 0) -> None:
        self.field = field
        self.problem = problem
        self.limit = limit
        suffix = f" (limit {limit})" if limit else ""
        super().__init__(f"{field}: {problem}{suffix}")


class SignatureError(BlindpostError):
    """A signature, or a proof that leads to one, does not verify.

    Args:
        what: which signature, as protocol.md labels it.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: signature does not verify")


SERVICE_ENDED: Final = "service ended: "
"""Begins the field of `unknown_account` where the relay serves a company no more; its domain follows."""


@unique
class RefusalCode(IntEnum):
    """Why the relay refused a command (protocol.md section 6.5)."""

    MALFORMED = 1
    NOT_ENTITLED = 2
    STALE_LIST = 3
    MAILBOX_FULL = 4
    LINK_QUOTA = 5
    OVERLOADED = 6
    STORAGE_FAILED = 7
    CONFLICT = 8
    EXPIRY_INVALID = 9
    TOKEN_INVALID = 10
    LIST_INVALID = 11
    PREKEYS_INVALID = 12
    UNKNOWN_ACCOUNT = 13
    STOPPING = 14

    @property
    def definite(self) -> bool:
        """Whether the same command would be refused again (else: repeat it after `retry_after_ms`)."""
        return self not in _AGAIN


_AGAIN = frozenset(
    {
        RefusalCode.MAILBOX_FULL,
        RefusalCode.LINK_QUOTA,
        RefusalCode.OVERLOADED,
        RefusalCode.STORAGE_FAILED,
        RefusalCode.STOPPING,
    }
)
