"""The sessions between our device and one of a peer (protocol.md section 4.3).

When both sides start at once there are two sessions. Both are kept, and each side sends on the one that it last
received on; so does a side whose peer lost its state and began again. One that we begin is sent on until then.

    sessions = SessionSet()
    sessions.began(Session.initiate(…))           or sessions.received(accepted.session)
    body = sessions.sending.encrypt(content, envelope_id)
    sessions.received(session)                    after each body that opened
"""

import os
from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta

from keys.agreement import Entropy
from keys.errors import HandshakeError
from keys.session import Session
from wire.codec import SecretRecord, decode, encode
from wire.errors import FormatError

__all__ = ["SESSIONS_PER_PEER_MAX", "SessionSet"]

# Two when both start at once, one more after a renewal; a peer that begins session after session loses its own oldest.
SESSIONS_PER_PEER_MAX: Final = 8


class _StoredSet(SecretRecord, frozen=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    sessions: Annotated[tuple[bytes, ...], Meta(max_length=SESSIONS_PER_PEER_MAX)]


class SessionSet:
    """Sessions with one device, named by the EK of their handshake, the one to send on last."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}

    def __repr__(self) -> str:
        return f"SessionSet({list(self._sessions.values())!r})"

    def __iter__(self) -> Iterator[Session]:
        """The likeliest first."""
        return reversed(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def __getitem__(self, ephemeral: bytes) -> Session:
        return self._sessions[ephemeral]

    @property
    def sending(self) -> Session | None:
        """The session to send on: the one last received on, else the one last begun; None: begin one."""
        return next(iter(self), None)

    @property
    def order(self) -> tuple[bytes, ...]:
        """The names of the sessions, the one to send on last; it changes seldom, and is stored when it does."""
        return tuple(self._sessions)

    def began(self, session: Session) -> tuple[Session, ...]:
        """Keep a session that we began, to be sent on; returns those that are dropped for it."""
        return self._put_last(session)

    def received(self, session: Session) -> tuple[Session, ...]:
        """A body of this session has opened (or began it): send on it. Returns those that are dropped for it."""
        if self._sessions and next(reversed(self._sessions)) == session.ephemeral:
            self._sessions[session.ephemeral] = session
            return ()
        return self._put_last(session)

    def remove(self, ephemeral: bytes) -> None:
        """Forget a session; the next message starts a new one if it was the last."""
        self._sessions.pop(ephemeral, None)

    def _put_last(self, session: Session) -> tuple[Session, ...]:
        if any(other.peer_device != session.peer_device for other in self._sessions.values()):
            raise HandshakeError("session: is with another device")
        self._sessions.pop(session.ephemeral, None)
        self._sessions[session.ephemeral] = session
        dropped = []
        while len(self._sessions) > SESSIONS_PER_PEER_MAX:
            dropped.append(self._sessions.pop(next(iter(self._sessions))))
        return tuple(dropped)

    # ------------------------------------------------------------------ storage

    def to_bytes(self) -> bytes:
        """All sessions, for sealed storage only."""
        return encode(_StoredSet(1, tuple(session.to_bytes() for session in self._sessions.values())))

    @classmethod
    def from_bytes(cls, data: bytes, entropy: Entropy = os.urandom) -> "SessionSet":
        """What `to_bytes` wrote.

        Raises:
            FormatError: anything else.
        """
        sessions = cls()
        stored = decode(_StoredSet, data, "sessions").sessions
        for session in stored:
            sessions._put_last(Session.from_bytes(session, entropy))
        if len(sessions) != len(stored):
            raise FormatError("sessions", "name a session twice")
        return sessions
