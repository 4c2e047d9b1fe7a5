"""Commands that wait for a batch: in the order of each link, and links take turns.

Fairness is here: a batch is filled with a few commands of each link in turn, so that what a quiet link asks is in the
very next batch, however much a loud one has sent, and however many loud ones there are: a turn is no more than a link's
equal part of the batch. `is_shared` tells when batches must be small because a quiet link waits for each.

Bounds are here too, and what does not fit is refused at once, before any work is done for it: so many commands and
bytes of one link, and of all links together no link more than what is left free, so that a thousand loud ones still
leave room for the next.

Rules: a command counts until it is answered or its commit has ended (`release`), not only until it is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from typing import Final

from relay.core.batch import Refused
from relay.core.events import CoreConfig
from relay.core.links import Link
from wire.commands import DeviceCommand, Submit
from wire.errors import RefusalCode

__all__ = ["CommandQueue", "Waiting"]

TURN_BYTES: Final = 32_768
TURN_COMMANDS: Final = 64
"""What a link may have handled at most before the next one's turn; a command larger than that is a turn."""

_LOUD_BYTES: Final = 131_072
_QUIET_PART: Final = 16
_LINKS_LOOKED_AT: Final = 256

Waiting = tuple[Link, DeviceCommand, int]
"""A command, whose it is, and how many bytes of a frame it took."""


class CommandQueue:
    """All commands that wait, and the bytes of those that are being answered.

    Args:
        config: the bounds.
    """

    __slots__ = ("_config", "_shared_until_ms", "_turns", "pending_bytes")

    def __init__(self, config: CoreConfig) -> None:
        self._config = config
        self._turns: deque[Link] = deque()
        self._shared_until_ms = 0
        self.pending_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._turns)

    def put(self, link: Link, command: DeviceCommand, size: int) -> None:
        """Let a command wait.

        Raises:
            Refused: `link_quota` or `overloaded`; nothing waits then.
        """
        config = self._config
        bytes_max = config.link_bytes_max if link.enrolled else config.link_bytes_unentitled_max
        held = link.pending_bytes + size
        if link.pending_commands >= config.link_commands_max:
            raise Refused(RefusalCode.LINK_QUOTA, "commands", config.link_commands_max, config.retry_after_ms)
        if held > bytes_max:
            raise Refused(RefusalCode.LINK_QUOTA, "bytes", bytes_max, config.retry_after_ms)
        if held > config.pending_bytes_max - self.pending_bytes:
            raise Refused(RefusalCode.OVERLOADED, "bytes", config.pending_bytes_max, config.retry_after_ms)
        link.pending_commands += 1
        link.pending_bytes = held
        self.pending_bytes += size
        waiting = link.waiting
        if waiting is None:
            link.waiting = deque(((link, command, size),))
            self._turns.append(link)
        else:
            waiting.append((link, command, size))

    def put_all(self, link: Link, commands: Sequence[DeviceCommand], size: int) -> bool:
        """Let all commands of a frame wait; False, and none does, unless all certainly fit (`put` decides by each).

        Args:
            link: whose they are.
            commands: in their order.
            size: bytes of the frame that each took.
        """
        config = self._config
        count = len(commands)
        held = link.pending_bytes + count * size
        if (
            link.pending_commands + count > config.link_commands_max
            or held > (config.link_bytes_max if link.enrolled else config.link_bytes_unentitled_max)
            or held > config.pending_bytes_max - self.pending_bytes - count * size
        ):
            return False
        link.pending_commands += count
        link.pending_bytes = held
        self.pending_bytes += count * size
        items = [(link, command, size) for command in commands]
        if link.waiting is None:
            link.waiting = deque(items)
            self._turns.append(link)
        else:
            link.waiting.extend(items)
        return True

    def is_shared(self, now_ms: int) -> bool:
        """Tell whether a link with little to submit waits beside one with much, now or within `shared_ms`.

        A link has much if a whole batch could be made of it, and little if that is a small part of the most.
        """
        turns = self._turns
        if len(turns) > 1:
            held = [
                link.pending_bytes
                for link in islice(turns, _LINKS_LOOKED_AT)
                if link.waiting and type(link.waiting[0][1]) is Submit
            ]
            if held and max(held) >= _LOUD_BYTES and min(held) * _QUIET_PART <= max(held):
                self._shared_until_ms = now_ms + self._config.shared_ms
        return now_ms < self._shared_until_ms

    def take(self, most: int, envelopes: int) -> Generator[Waiting, None, None]:
        """Yield commands, in turns; stop taking at any time, the rest goes on waiting.

        Args:
            most: so many commands at most.
            envelopes: about so many will be taken: a turn is a link's part of them.
        """
        turns = self._turns
        turn_commands_most = max(1, min(TURN_COMMANDS, envelopes // max(1, len(turns))))
        while most and turns:
            link = turns.popleft()
            waiting = link.waiting
            assert waiting is not None, "a link with a turn has commands that wait"
            turn_bytes, turn_commands = TURN_BYTES, min(most, turn_commands_most)
            try:
                while waiting and turn_bytes > 0 and turn_commands:
                    item = waiting.popleft()
                    turn_bytes -= item[2]
                    turn_commands -= 1
                    most -= 1
                    yield item
            finally:
                if waiting:
                    turns.append(link)
                else:
                    link.waiting = None

    def put_back(self, items: list[Waiting]) -> None:
        """Let commands wait again, before everything else of their links."""
        for item in reversed(items):
            link = item[0]
            if link.waiting is None:
                link.waiting = deque((item,))
                self._turns.appendleft(link)
            else:
                link.waiting.appendleft(item)

    def release(self, link: Link, size: int) -> None:
        """A command is answered, or its commit has ended."""
        link.pending_commands -= 1
        link.pending_bytes -= size
        self.pending_bytes -= size

    def release_all(self, items: Iterable[Waiting]) -> None:
        """Release each of them."""
        whole = 0
        for link, _command, size in items:
            link.pending_commands -= 1
            link.pending_bytes -= size
            whole += size
        self.pending_bytes -= whole
