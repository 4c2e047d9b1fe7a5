"""The errors of keys/, one root for each thing that can go wrong.

Rules:

* whatever raises one of these has moved no state: no chain, no prekey, no file;
* the text names what was being done and the limit, never a key, a plaintext or a passphrase;
* a caller that only wants to know "this body does not open" catches `DecryptionError`.
"""

from wire.errors import BlindpostError

__all__ = [
    "AuthenticationFailed",
    "CertificateRefused",
    "DecryptionError",
    "GapTooLarge",
    "HandshakeError",
    "HandshakeReplayed",
    "HeaderUnknown",
    "MessageKeyGone",
    "PrekeyUnknown",
    "SenderRefused",
    "SharedSecretZero",
    "SuiteRefused",
    "VaultDamaged",
    "VaultError",
    "VaultLimit",
    "WrongPassphrase",
]


class DecryptionError(BlindpostError):
    """A body does not open. Nothing has moved; the envelope is left to its expiry or tried elsewhere."""


class AuthenticationFailed(DecryptionError):
    """A tag, commitment or hint does not verify.

    Args:
        what: which part, as protocol.md calls it.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: does not authenticate")


class HeaderUnknown(DecryptionError):
    """The header opens under no header key of this session: the body is of another session, or forged."""

    def __init__(self) -> None:
        super().__init__("header: opens under no header key of this session")


class MessageKeyGone(DecryptionError):
    """The key of this message was used and erased, or was kept for its time and erased.

    Args:
        n: the message's number in its chain.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        super().__init__(f"message key {n}: used or expired, and erased")


class GapTooLarge(DecryptionError):
    """A message is too far ahead of the last one of its chain.

    Args:
        gap: how many messages would be skipped.
        limit: how many may be.
    """

    def __init__(self, gap: int, limit: int) -> None:
        self.gap = gap
        self.limit = limit
        super().__init__(f"gap of {gap} messages (limit {limit})")


class HandshakeError(BlindpostError):
    """A session cannot be started or accepted. Nothing has moved."""


class SharedSecretZero(HandshakeError, DecryptionError):
    """An X25519 result is all zeros, or the public key is of small order (RFC 7748 section 6.1)."""

    def __init__(self) -> None:
        super().__init__("X25519: the shared secret is all zeros; the public key is of small order")


class PrekeyUnknown(HandshakeError):
    """No private half for this prekey id: used, erased after its grace, or never ours."""

    def __init__(self) -> None:
        super().__init__("prekey id: no private half for it (used, erased, or never ours)")


class HandshakeReplayed(HandshakeError):
    """A first message on a last-resort prekey whose session was accepted before."""

    def __init__(self) -> None:
        super().__init__("first message: its handshake was accepted before")


class SenderRefused(HandshakeError):
    """The sealed sender is not who they say, or the caller does not accept them.

    Args:
        problem: what is wrong, in words.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"sender: {problem}")


class SuiteRefused(BlindpostError):
    """A suite that this implementation does not speak (protocol.md section 13 are controls only).

    Args:
        suite: the number of the suite.
    """

    def __init__(self, suite: int) -> None:
        self.suite = suite
        super().__init__(f"suite: 0x{suite:04x} is refused, only 0x0001 is spoken")


class VaultError(BlindpostError):
    """A vault does not open."""


class WrongPassphrase(VaultError):
    """The passphrase does not open the wrapped key (or the wrapped key was altered: the two look alike)."""

    def __init__(self) -> None:
        super().__init__("passphrase: does not open this vault")


class VaultDamaged(VaultError):
    """A sealed row does not open under the vault's key: altered, of another place, or of another vault."""

    def __init__(self) -> None:
        super().__init__("row: does not open; altered, moved from another place, or of another vault")


class VaultLimit(VaultError):
    """Argon2id parameters beyond what this implementation runs: a hostile file must not ask for a terabyte.

    Args:
        field: the parameter.
        value: what the file asks for.
        limit: the most (or least) that is run.
    """

    def __init__(self, field: str, value: int, limit: int) -> None:
        self.field = field
        self.value = value
        self.limit = limit
        super().__init__(f"{field}: {value} is out of bounds (limit {limit})")


class CertificateRefused(BlindpostError):
    """A certificate for the broker, or a request for one, does not hold what it must.

    Args:
        problem: what is wrong, in words.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"certificate: {problem}")
