"""What a sized run hands to the relay as bodies: of the lengths that client/ would make.

    inline       144 bytes around the padded content; a first message 1,138 and the sealed sender more
    large        a manifest, and chunks of at most 192 KiB (protocol.md section 8)

Under `blindpost` they are random bytes; under an older protection a real text under that protection's real keys.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from client.attachments import plan_chunks
from sim.generations.protections import DeviceKeyProtection, HostedProtection, ServerKeyProtection
from sim.handset import PinProtection
from sim.historical import GLOBAL_PIN_KEY, PIN_SUITE, PinMessage
from wire.codec import encode
from wire.envelope import CHUNK_OVERHEAD_BYTES, FIRST_OVERHEAD_BYTES, ORDINARY_OVERHEAD_BYTES
from wire.limits import INLINE_CONTENT_BYTES_MAX, SEALED_STEP_BYTES
from wire.padding import padded_length

if TYPE_CHECKING:
    from sim.engine.handset import Handset, Job

__all__ = ["Bodies", "HistoricalBodies", "RandomBodies", "bodies_under"]

CONTENT_OVERHEAD_BYTES: Final = 96
"""About what client/content.py puts around a payload: token, kind, id, time, one address."""
_MANIFEST_BYTES: Final = 256
_SEALED_STEPS: Final = 2
"""A sealed sender with a list of one or two devices."""
_HISTORICAL_BYTES_MAX: Final = 32_768
_FILLING: Final = "the quarterly figures are attached and the meeting is on Tuesday. "


class Bodies(Protocol):
    """How messages become bodies."""

    def parts_of(self, payload_bytes: int) -> list[tuple[int, int, int]]:
        """What a message is sent as: (count of parts, content bytes of the inline one, bytes of the chunk)."""

    def make(self, sender: "Handset", job: "Job", device: int, token: bytes) -> bytes:
        """The body of one part for one device."""

    @property
    def volunteered(self) -> list[bytes]:
        """What a handset's owner can give the verifier: under the global key, that key."""

    @property
    def kept_keys(self) -> dict[bytes, bytes] | None:
        """What the server has in its database, by mailbox; None if it has none."""


class RandomBodies:
    """Bodies of random bytes.

    Args:
        entropy: gives them.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self.volunteered: list[bytes] = []
        self.kept_keys: dict[bytes, bytes] | None = None

    def parts_of(self, payload_bytes: int) -> list[tuple[int, int, int]]:
        """One body, or chunks and their manifest."""
        encoded = payload_bytes + CONTENT_OVERHEAD_BYTES
        if encoded <= INLINE_CONTENT_BYTES_MAX:
            return [(1, encoded, 0)]
        plan = plan_chunks(payload_bytes)
        parts = plan.chunk_count + 1
        return [(parts, 0, plan.chunk_bytes)] * plan.chunk_count + [(parts, _MANIFEST_BYTES, 0)]

    def make(self, sender: "Handset", job: "Job", device: int, token: bytes) -> bytes:
        """The body of one part for one device."""
        if job.chunk_bytes:
            return self._entropy(CHUNK_OVERHEAD_BYTES + job.chunk_bytes)
        length = padded_length(job.content_bytes)
        if job.to in sender.heard:
            return self._entropy(ORDINARY_OVERHEAD_BYTES + length)
        # Until the first answer the handshake goes with every message.
        return self._entropy(FIRST_OVERHEAD_BYTES + _SEALED_STEPS * SEALED_STEP_BYTES + length)


class HistoricalBodies:
    """Bodies of an older generation: real texts under its real keys.

    Args:
        name: the protection, as the scenario writes it.
        entropy: random bytes of the run.
    """

    def __init__(self, name: str, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._protection: PinProtection | HostedProtection | ServerKeyProtection | DeviceKeyProtection
        self.volunteered: list[bytes] = []
        match name:
            case "global-pin-key":
                self._protection = PinProtection()
                item = [5, PIN_SUITE, GLOBAL_PIN_KEY]
                self.volunteered = [encode(["blindpost/v1/volunteered", "the owner of a handset", [item]])]
            case "hosted":
                self._protection = HostedProtection(entropy)
            case "server-keys":
                self._protection = ServerKeyProtection()
            case _:
                assert name == "device-keys", name
                self._protection = DeviceKeyProtection()

    @property
    def kept_keys(self) -> dict[bytes, bytes] | None:
        """The server's table."""
        match self._protection:
            case HostedProtection(database=keys):
                return dict(keys)
            case ServerKeyProtection(database=pairs):
                return {mailbox: pair[0] for mailbox, pair in pairs.items()}
            case _:
                return None

    def parts_of(self, payload_bytes: int) -> list[tuple[int, int, int]]:
        """One body; what would not fit is cut, as those systems cut it."""
        return [(1, min(payload_bytes, _HISTORICAL_BYTES_MAX), 0)]

    def make(self, sender: "Handset", job: "Job", device: int, token: bytes) -> bytes:
        """The body for one device."""
        message, town = job.message, sender.town
        text = f"message {message.number} from {town.accounts[message.person]}: "
        payload = (text + _FILLING * (job.content_bytes // len(_FILLING) + 1))[: max(len(text), job.content_bytes)]
        written = PinMessage(
            token,
            1 + message.kind,
            message.number.to_bytes(16, "big"),
            message.written_ms,
            bytes(16),
            (town.accounts[message.person],),
            payload.encode(),
        )
        return self._protection.write(written, town.entry_of(device), self._entropy)


def bodies_under(protection: str, escrow: bool, entropy: Callable[[int], bytes]) -> Bodies:
    """How bodies are made under a protection; with escrow, for device keys of which the operator has a copy."""
    if escrow:
        return HistoricalBodies("server-keys", entropy)
    return RandomBodies(entropy) if protection == "blindpost" else HistoricalBodies(protection, entropy)
