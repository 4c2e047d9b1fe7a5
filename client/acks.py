"""What this device has seen, and the acks that say so (protocol.md sections 5.3 and 6.3).

An envelope is seen when what it carried is durable; the mark is a row of the same step, and so is the ack that is owed.
The ack leaves after that step, again on every new link until the relay has answered, and its row goes away with the
next step after the answer. The relay deletes on an ack, because only who opened the body knows the token.

A mark outlives its envelope's expiry by `SEEN_S`, so that a replay is known for one. Without a token (a body that
authenticated and could not be read) there is a mark and no ack.
"""

from client.content import NO_REPLY
from client.link import Link
from client.records import AckPending, Seen
from client.state import State
from client.store import Kind, Step
from wire.codec import decode, encode
from wire.commands import Ack
from wire.limits import SEEN_S, TOKENS_PER_ACK_MAX

__all__ = ["Acks"]


class Acks:
    """The seen marks of a device, and the acks that it owes the relay.

    Args:
        state: the device's state.
        link: where acks are asked.
    """

    def __init__(self, state: State, link: Link) -> None:
        self._state = state
        self._link = link
        self._owed: dict[bytes, bytes] = {
            envelope_id: decode(AckPending, value, "ack").token for envelope_id, value in state.store.items(Kind.ACK)
        }
        self._asked: dict[int, tuple[bytes, ...]] = {}
        self._done: list[bytes] = []

    # Seen marks

    def seen(self, step: Step, envelope_id: bytes) -> Seen | None:
        """The mark of an envelope, or None if it was not seen; marks of this step count."""
        value = step.changes.get((Kind.SEEN, envelope_id)) or self._state.store.get(Kind.SEEN, envelope_id)
        return None if value is None else decode(Seen, value, "seen")

    def mark_seen(self, step: Step, envelope_id: bytes, expiry: int, token: bytes) -> None:
        """An envelope was seen, within the step that keeps what it carried; `send` its ack after that step.

        Args:
            step: the step.
            envelope_id: the envelope.
            expiry: its expiry, Unix seconds.
            token: its ack token; 16 zero bytes where it is not known.
        """
        forget_s = max(self._state.now_s, expiry) + SEEN_S
        step.put(Kind.SEEN, envelope_id, encode(Seen(token, forget_s)))
        if token != NO_REPLY:
            step.put(Kind.ACK, envelope_id, encode(AckPending(token)))

    # Acks

    def send(self, tokens_by_id: dict[bytes, bytes]) -> None:
        """Ask the relay to delete envelopes; what asks for it is durable."""
        self._owed.update(tokens_by_id)
        pairs = list(tokens_by_id.items())
        mailbox = self._state.keys.mailbox
        for start in range(0, len(pairs), TOKENS_PER_ACK_MAX):
            part = pairs[start : start + TOKENS_PER_ACK_MAX]
            tokens = tuple(token for _envelope_id, token in part)
            ref = self._link.ask(lambda ref, tokens=tokens: Ack(ref, mailbox, tokens))  # type: ignore[misc]
            self._asked[ref] = tuple(envelope_id for envelope_id, _token in part)

    def send_again(self) -> None:
        """A new link stands: repeat what was not answered."""
        self.send(dict(self._owed))

    def on_done(self, ref: int) -> None:
        """An ack was answered: its row goes away with the next step."""
        done = self._asked.pop(ref, ())
        self._done.extend(done)
        for envelope_id in done:
            self._owed.pop(envelope_id, None)

    def forget_done(self, step: Step) -> None:
        """The rows of answered acks go away, within a step."""
        done, self._done = self._done, []
        for envelope_id in done:
            step.delete(Kind.ACK, envelope_id)

    def sweep(self, step: Step) -> None:
        """Forget marks whose time is over."""
        now_s = self._state.now_s
        self.forget_done(step)
        for envelope_id, value in self._state.store.items(Kind.SEEN):
            if decode(Seen, value, "seen").forget_s < now_s:
                step.delete(Kind.SEEN, envelope_id)
