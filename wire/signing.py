"""Ed25519 by libsodium's strict rule (protocol.md section 1.3).

OpenSSL and libsodium disagree on hostile signatures (small-order keys, S not reduced, other encodings); a receipt must
mean the same to everyone, so that one library's rule is the protocol's. `verify` raises: it has no result to forget.
"""

from nacl.bindings import crypto_sign_seed_keypair
from nacl.bindings.crypto_sign import crypto_sign, crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError, CryptoError

from wire.errors import FormatError, SignatureError
from wire.hashing import label
from wire.limits import KEY_BYTES, SIGNATURE_BYTES

__all__ = ["SigningKey", "verify"]


class SigningKey:
    """An Ed25519 key that signs under labels. Its repr shows the public half only.

    Args:
        seed: 32 secret bytes.
    """

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise FormatError("signing seed", f"has {len(seed)} bytes", KEY_BYTES)
        self.public, self._secret = crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()}, seed=<redacted>)"

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for sealed storage only."""
        return self._secret[:KEY_BYTES]

    def sign(self, name: str, data: bytes) -> bytes:
        """The 64-byte signature over L(name) ‖ data."""
        return crypto_sign(label(name) + data, self._secret)[:crypto_sign_BYTES]


def verify(public: bytes, name: str, data: bytes, signature: bytes) -> None:
    """Verify a signature over L(name) ‖ data.

    Raises:
        SignatureError: it does not verify under libsodium's rule, or key or signature have wrong lengths.
    """
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise SignatureError(name)
    try:
        crypto_sign_open(signature + label(name) + data, public)
    except (BadSignatureError, CryptoError):
        raise SignatureError(name) from None
