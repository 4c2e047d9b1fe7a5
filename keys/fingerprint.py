"""Safety numbers: 60 digits that two people compare out of band (protocol.md section 2.5).

Until there is a key log, a false *first* account key is caught only by this comparison. The iteration makes it costly
to search for an account key whose 30 digits look like another's.
"""

from hashlib import sha512
from typing import Final

from keys.errors import HandshakeError
from wire.hashing import KeyRole, label, typed
from wire.identity import check_account

__all__ = ["fingerprint", "safety_number"]

ROUNDS: Final = 5_200
_GROUPS: Final = 6


def fingerprint(account: str, account_key: bytes) -> str:
    """The 30 digits of one account.

    Raises:
        FormatError: not an account address, or not a key of 32 bytes.
    """
    key = typed(KeyRole.ACCOUNT, account_key)
    digest = sha512(label("safety-number") + key + check_account(account).encode("ascii")).digest()
    for _ in range(ROUNDS - 1):
        digest = sha512(digest + key).digest()
    groups = (int.from_bytes(digest[5 * i : 5 * i + 5], "big") % 100_000 for i in range(_GROUPS))
    return "".join(f"{group:05}" for group in groups)


def safety_number(account_a: str, key_a: bytes, account_b: str, key_b: bytes) -> str:
    """The number of two accounts: 12 groups of 5 digits, the same whoever computes it.

    Raises:
        FormatError: not an account address, or not a key of 32 bytes.
        HandshakeError: the two accounts are one.
    """
    if account_a == account_b:
        raise HandshakeError("safety number: both accounts are the same")
    (first, first_key), (second, second_key) = sorted([(account_a, key_a), (account_b, key_b)])
    digits = fingerprint(first, first_key) + fingerprint(second, second_key)
    return " ".join(digits[i : i + 5] for i in range(0, len(digits), 5))
