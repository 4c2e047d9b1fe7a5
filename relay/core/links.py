"""Links: who may start a handshake, which link a packet belongs to, and what waits on each (protocol.md section 6.2).

wire/link.py does the bytes of handshake and frames; here is decided what is answered and what is dropped. What a
command means is left to commands.py.

    nothing ──hello (token)──▶ PENDING ──prove (opens, all signed)──▶ LINKED ──replaced, pushed out, rotated──▶ closed
                                  └── 10 s, or pushed out ──▶ nothing

Rules: nothing that is not authenticated changes a link; an unanswered packet is counted as dropped; public-key work
before authentication is paid for from token buckets, of the topic and of the relay; a link runs on the topic of one
of its own devices; a new link takes a device over only once its prove has verified; every table is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from relay.core.events import CoreConfig, CoreCounters
from relay.core.outbox import Outbox
from wire.commands import DeviceCommand, Directory, encode_commands
from wire.errors import BlindpostError, FormatError
from wire.identity import device_tag as tag_of
from wire.limits import FRAME_BYTES_MAX
from wire.link import (
    FRAME,
    HELLO,
    LINK_ID_BYTES,
    PROVE,
    FrameOpener,
    FrameSealer,
    PendingLink,
    accept_prove,
    answer_hello,
    link_id_of,
    packet_kind,
    unknown_link,
)
from wire.rotation import Rotation
from wire.signing import SigningKey

__all__ = ["Link", "Links", "TokenBucket"]

# A proof is a key, a signature and 5 bytes of MessagePack; around them kind, link id, tag and array header.
_PROOF_BYTES: Final = 101
_FRAME_BYTE: Final = bytes((FRAME,))
_FRAME_ID_END: Final = 1 + LINK_ID_BYTES


class TokenBucket:
    """So many at once, so many a second. Counted in thousandths, so that it is exact."""

    __slots__ = ("_level", "_now_ms")

    def __init__(self, burst: int, now_ms: int) -> None:
        self._level = burst * 1_000
        self._now_ms = now_ms

    def take(self, count: int, burst: int, per_s: int, now_ms: int) -> bool:
        """Take tokens, all or none; tell whether there were enough. A clock that goes back adds none."""
        if now_ms > self._now_ms:
            self._level = min(burst * 1_000, self._level + (now_ms - self._now_ms) * per_s)
        self._now_ms = now_ms
        if self._level < count * 1_000:
            return False
        self._level -= count * 1_000
        return True

    def give_back(self, count: int) -> None:
        """Return tokens that were not needed."""
        self._level += count * 1_000


class Link:
    """One authenticated channel. Its repr shows no key.

    `pending_commands` and `pending_bytes` count what waits for a batch or its commit.
    """

    __slots__ = (
        "accounts",
        "bundle_answers",
        "closed",
        "confirmed",
        "device_keys",
        "enrolled",
        "generation",
        "link_id",
        "mailboxes",
        "opener",
        "outbox",
        "pending_bytes",
        "pending_commands",
        "prove",
        "sealer",
        "subscribed",
        "tag",
        "waiting",
        "work",
    )

    def __init__(
        self, tag: bytes, pending: PendingLink, device_keys: tuple[bytes, ...], prove: bytes, work: TokenBucket
    ) -> None:
        self.tag = tag
        self.link_id = pending.keys.link_id
        self.device_keys = device_keys
        self.opener = FrameOpener(pending.keys.up_key)
        self.sealer = FrameSealer(pending.keys.link_id, pending.keys.down_key)
        self.outbox = Outbox()
        self.prove = prove
        self.work = work
        self.confirmed = False
        self.closed = False
        self.pending_commands = 0
        self.pending_bytes = 0
        # Commands that wait for a batch (queue.py); None for no command, since most links have none.
        self.waiting: deque[tuple[Link, DeviceCommand, int]] | None = None
        # Mailboxes that deliver to this link, and answers to repeat, by ref.
        self.subscribed: dict[bytes, None] = {}
        self.bundle_answers: OrderedDict[int, tuple[str, Directory]] = OrderedDict()
        # What the link may do, as of a generation of the directory (commands.py keeps it).
        self.generation = -1
        self.enrolled: tuple[bytes, ...] = ()
        self.accounts: tuple[str, ...] = ()
        self.mailboxes: frozenset[bytes] = frozenset()

    def __repr__(self) -> str:
        return f"Link(devices={len(self.device_keys)}, closed={self.closed}, keys=<redacted>)"


@dataclass(slots=True)
class _Topic:
    """Token buckets of one topic: of hellos, and of hints and repeated answers, so that neither uses up the other's."""

    hellos: TokenBucket
    hints: TokenBucket


@dataclass(slots=True, repr=False)
class _Pending:
    tag: bytes
    link: PendingLink
    since_ms: int


class Links:
    """All links and handshakes of the relay.

    Args:
        config: bounds and token buckets.
        counters: kept up to date.
        relay_id: 16 bytes.
        signing_key: signs welcomes.
        rotations: go into welcomes.
        entropy: for ephemeral keys and nonces.
        on_linked: called with each new link; must see that `linked` is said.
        on_closed: called with each link that ends.
        on_reduced: called with each link that goes on, and speaks no more for some of its devices.
        now_ms: the time at start, for the buckets.
    """

    def __init__(
        self,
        config: CoreConfig,
        counters: CoreCounters,
        relay_id: bytes,
        signing_key: SigningKey,
        rotations: tuple[Rotation, ...],
        entropy: Callable[[int], bytes],
        on_linked: Callable[[Link], None],
        on_closed: Callable[[Link], None],
        on_reduced: Callable[[Link], None],
    ) -> None:
        self._config = config
        self._counters = counters
        self._relay_id = relay_id
        self._signing_key = signing_key
        self._rotations = rotations
        self._entropy = entropy
        self._on_linked = on_linked
        self._on_closed = on_closed
        self._on_reduced = on_reduced
        self._links: OrderedDict[bytes, Link] = OrderedDict()
        self._link_of_device: dict[bytes, Link] = {}
        self._pending: OrderedDict[bytes, _Pending] = OrderedDict()
        self._pending_of_topic: dict[bytes, int] = {}
        self._topics: OrderedDict[bytes, _Topic] = OrderedDict()
        self._hellos = TokenBucket(config.hello_relay_burst, 0)
        self._proofs = TokenBucket(config.prove_signatures_burst, 0)
        self._talking: dict[Link, None] = {}
        # Links with answers that may wait for the next frame, and until when.
        self._late: OrderedDict[Link, int] = OrderedDict()
        # Bytes put into outboxes since the last `take_packets`: bodies, and about what receipts take.
        self.outgoing_bytes = 0
        self._packets: list[tuple[bytes, bytes]] = []

    # ---- packets in

    def receive(self, tag: bytes, packet: bytes, now_ms: int) -> tuple[Link, bytes] | None:
        """Take a packet; return the link and the plaintext of a frame that is genuine and new.

        Raises:
            BlindpostError: the packet is to be dropped.
        """
        if packet[:1] == _FRAME_BYTE and len(packet) <= FRAME_BYTES_MAX:
            # Nearly all packets, so that they are not asked the rest first.
            link_id = packet[1:_FRAME_ID_END]
            link = self._links.get(link_id)
            if link is not None and link.tag == tag and (plain := link.opener.open(packet)) is not None:
                self._links.move_to_end(link_id)
                return link, plain
        kind = packet_kind(packet)
        if kind == FRAME:
            raise self._dropped(tag, packet, now_ms)
        if kind == HELLO:
            self._hello(tag, packet, now_ms)
        elif kind == PROVE:
            self._prove(tag, packet, now_ms)
        else:
            raise FormatError("packet kind", f"{kind} is not for a relay")
        return None

    def _dropped(self, tag: bytes, packet: bytes, now_ms: int) -> FormatError:
        """Return why a frame is dropped, and tell the device if its link is not known here."""
        link_id = link_id_of(packet)
        link = self._links.get(link_id)
        if link is None:
            if link_id not in self._pending and self._may_hint(tag, now_ms):
                self._packets.append((tag, unknown_link(link_id)))
            return FormatError("link id", "is unknown")
        if link.tag != tag:
            return FormatError("link id", "is not of this topic")
        return FormatError("frame", "is replayed, forged or cut short")

    def _topic(self, tag: bytes, now_ms: int) -> _Topic:
        topic = self._topics.get(tag)
        if topic is None:
            burst = self._config.hello_topic_burst
            topic = self._topics[tag] = _Topic(TokenBucket(burst, now_ms), TokenBucket(burst, now_ms))
            if len(self._topics) > self._config.topics_max:
                self._topics.popitem(last=False)
        else:
            self._topics.move_to_end(tag)
        return topic

    def _may_hint(self, tag: bytes, now_ms: int) -> bool:
        config = self._config
        return self._topic(tag, now_ms).hints.take(1, config.hello_topic_burst, config.hello_topic_per_s, now_ms)

    def _hello(self, tag: bytes, packet: bytes, now_ms: int) -> None:
        config = self._config
        if not self._topic(tag, now_ms).hellos.take(1, config.hello_topic_burst, config.hello_topic_per_s, now_ms):
            raise FormatError("hello", "is one too many on this topic", config.hello_topic_per_s)
        if not self._hellos.take(1, config.hello_relay_burst, config.hello_relay_per_s, now_ms):
            raise FormatError("hello", "is one too many for this relay", config.hello_relay_per_s)
        pending, welcome = answer_hello(self._relay_id, self._signing_key, self._rotations, packet, self._entropy)
        if self._pending_of_topic.get(tag, 0) >= config.topic_handshakes_max:
            self._end_handshake(next(key for key, other in self._pending.items() if other.tag == tag))
        elif len(self._pending) >= config.pending_handshakes_max:
            self._end_handshake(next(iter(self._pending)))
        self._pending[pending.keys.link_id] = _Pending(tag, pending, now_ms)
        self._pending_of_topic[tag] = self._pending_of_topic.get(tag, 0) + 1
        self._packets.append((tag, welcome))

    def _end_handshake(self, link_id: bytes) -> None:
        tag = self._pending.pop(link_id).tag
        self._pending_of_topic[tag] -= 1
        if not self._pending_of_topic[tag]:
            del self._pending_of_topic[tag]

    def _prove(self, tag: bytes, packet: bytes, now_ms: int) -> None:
        link_id = link_id_of(packet)
        link = self._links.get(link_id)
        if link is not None:
            # The device did not get `linked`, or the broker replays: to say it again reveals nothing.
            if link.tag != tag or packet != link.prove or not link.confirmed or not self._may_hint(tag, now_ms):
                raise FormatError("prove", "is not for a handshake under way")
            self._on_linked(link)
            return
        pending = self._pending.get(link_id)
        if pending is None or pending.tag != tag:
            raise FormatError("prove", "is not for a handshake under way")
        config = self._config
        signatures = max(1, len(packet) // _PROOF_BYTES)
        if not self._proofs.take(signatures, config.prove_signatures_burst, config.prove_signatures_per_s, now_ms):
            raise FormatError("prove", "is one too many for this relay", config.prove_signatures_per_s)
        try:
            device_keys = accept_prove(pending.link, packet)
        except FormatError:
            # Forged by somebody without the link's key: no signature was checked, and the handshake goes on.
            self._proofs.give_back(signatures)
            raise
        except BlindpostError:
            # Whoever has the key and not the signatures gets no second try: each would be work for us.
            self._end_handshake(link_id)
            raise
        self._end_handshake(link_id)
        if all(tag_of(key) != tag for key in device_keys):
            raise FormatError("prove", "is on a topic of none of its devices")
        self._open(Link(tag, pending.link, device_keys, packet, TokenBucket(config.link_work_burst, now_ms)))

    def _open(self, link: Link) -> None:
        replaced = {old for key in link.device_keys if (old := self._link_of_device.get(key)) is not None}
        for key in link.device_keys:
            self._link_of_device[key] = link
        # In the order of the links, so that one seed replays one run.
        for old in sorted(replaced, key=lambda old: old.link_id):
            left = tuple(key for key in old.device_keys if self._link_of_device[key] is old)
            if left:
                # A device that has proved itself elsewhere has left its gateway: that may not go on in its name.
                old.device_keys = left
                self._on_reduced(old)
            else:
                self._close(old)
        self._links[link.link_id] = link
        if len(self._links) > self._config.links_max:
            self._close(next(iter(self._links.values())))
        self._counters.links = len(self._links)
        self._counters.links_made += 1
        self._on_linked(link)

    def _close(self, link: Link) -> None:
        link.closed = True
        del self._links[link.link_id]
        for key in link.device_keys:
            if self._link_of_device.get(key) is link:
                del self._link_of_device[key]
        self._talking.pop(link, None)
        self._late.pop(link, None)
        self._counters.links = len(self._links)
        self._on_closed(link)

    # ---- packets out

    def talk(self, link: Link) -> Outbox:
        """Return where to put what the link is to be told; it is thrown away if the link is closed."""
        if not link.closed:
            self._talking[link] = None
        return link.outbox

    def done_late(self, link: Link, ref: int, now_ms: int) -> None:
        """A command is done; to be said in the link's next frame, or soon."""
        if not self._config.ack_answer_ms:
            self.talk(link).done(ref)
        elif not link.closed:
            link.outbox.done(ref)
            if link not in self._late:
                self._late[link] = now_ms + self._config.ack_answer_ms

    def flush_late(self, now_ms: int | None = None) -> None:
        """Let the links talk whose answers have waited long enough; all of them without a time."""
        late = self._late
        while late:
            link = next(iter(late))
            if now_ms is not None and late[link] > now_ms:
                return
            del late[link]
            self.talk(link)

    def take_packets(self) -> list[tuple[bytes, bytes]]:
        """Seal all that waits."""
        packets = self._packets
        self._packets = []
        self.outgoing_bytes = 0
        waiting: dict[Link, None] = {}
        late = self._late
        for link in self._talking:
            late.pop(link, None)
            if not link.confirmed:
                waiting[link] = None
                continue
            for commands in link.outbox.frames():
                packets.append((link.tag, link.sealer.seal(encode_commands(commands))))
                self._counters.frames_sent += 1
        self._talking = waiting
        return packets

    # ---- time, rotation

    def tick(self, now_ms: int) -> None:
        """End handshakes that took too long, and say what has waited long enough."""
        self.flush_late(now_ms)
        while self._pending:
            link_id = next(iter(self._pending))
            if self._pending[link_id].since_ms + self._config.handshake_ms > now_ms:
                return
            self._end_handshake(link_id)

    def next_deadline(self) -> int | None:
        """Return when the oldest handshake ends, or an answer has waited long enough."""
        deadlines = [pending.since_ms + self._config.handshake_ms for pending in islice(self._pending.values(), 1)]
        deadlines += islice(self._late.values(), 1)
        return min(deadlines, default=None)

    def rotate(self, signing_key: SigningKey, rotations: tuple[Rotation, ...]) -> None:
        """Sign with another key from now on; every link and handshake ends, for the image held their keys."""
        self._signing_key = signing_key
        self._rotations = rotations
        for link in list(self._links.values()):
            self._close(link)
        self._pending.clear()
        self._pending_of_topic.clear()
        self._packets.clear()
