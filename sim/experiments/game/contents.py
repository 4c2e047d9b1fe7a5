"""What the adversary chose: a pattern that both worlds share, and the contents in which they differ.

    world 0   short chats, each of other words, of few bytes in their padding step
    world 1   emails that fill their padding step, the same text again and again

The pattern is the declared leakage L: who writes to whom and when, to which padded size, when it is acknowledged. It is
drawn from the episode's chance without looking at the world. The worlds are as far apart as L allows, in kind, words,
length within the step and repetition at once: the adversary may choose, so it chooses what is easiest to see.

The first and the last message have one sender, recipient and size, so that there is always a repetition to be found.
"""

from typing import Final, NamedTuple

import msgspec

from client.content import NO_REPLY, Content, Kind, encode_content
from sim.experiments.game.chance import Chance
from wire.padding import padded_length, padme_lengths

__all__ = ["ANA", "BOB", "Composer", "Message", "Pattern", "draw_pattern"]

ANA: Final = "ana@acme.example"
BOB: Final = "bob@acme.example"

_SIZES: Final = tuple(padme_lengths(1_024))
_SMALLEST_SHARE: Final = 0.1
_BEFORE_SMALLEST: Final = 160
"""Below the smallest padded size of 256 there is no other; contents of the game have at least this many bytes."""
_MESSAGES: Final = (3, 5)
_MEAN_GAP_MS: Final = 20_000
_ACK_SHARE: Final = 0.6
_ACK_MS: Final = (50, 4_000)

_VOCABULARY: Final = (
    "about after again always answer before between boat book bread bridge bring brother carry chair city clear close "
    "cloud coat cold corner country door early east evening every field fire first friend garden give glass good green "
    "ground half hand harbour head hear heart here hold home hope horse hour house hundred island just keep kind know "
    "lamp large last late learn leave letter light line little long market matter meet middle money month morning most "
    "mother mountain move music name near never night north number open order other page paper part people place plain "
    "plan point poor quiet rain read ready rest right river road room round sail salt same school second seven shoe "
    "short side silver sister sleep small snow some song sound south speak spring stand star still stone story street "
    "strong summer sunday table take talk thing think third three through time today together town train tree turn "
    "under until village voice wait walk wall warm watch water week well west white wind winter with woman wood word "
    "work write year young"
)
_WORDS: Final = _VOCABULARY.split()


class Message(NamedTuple):
    """One message of the pattern.

    Attributes:
        sender: account.
        recipient: account.
        at_ms: when it is sent, from the beginning of the episode.
        padded_bytes: the length of its padded content.
        ack_ms: how long after that the recipient's phone acknowledges it; None: not within the episode.
    """

    sender: str
    recipient: str
    at_ms: int
    padded_bytes: int
    ack_ms: int | None


Pattern = tuple[Message, ...]


def draw_pattern(chance: Chance) -> Pattern:
    """What relay and adversary may know of the episode; does not depend on the world."""
    choice = chance.choice
    count = choice.randint(*_MESSAGES)
    repeated_bytes = _draw_size(chance)
    messages = []
    at_ms = 0
    for index in range(count):
        at_ms += 1 + int(choice.expovariate(1 / _MEAN_GAP_MS))
        outer = index in {0, count - 1}
        from_ana = outer or choice.random() < 0.5
        sender, recipient = (ANA, BOB) if from_ana else (BOB, ANA)
        size = repeated_bytes if outer else _draw_size(chance)
        ack_ms = choice.randint(*_ACK_MS) if choice.random() < _ACK_SHARE else None
        messages.append(Message(sender, recipient, at_ms, size, ack_ms))
    return tuple(messages)


def _draw_size(chance: Chance) -> int:
    choice = chance.choice
    return _SIZES[0] if choice.random() < _SMALLEST_SHARE else choice.choice(_SIZES[1:])


class Composer:
    """Writes the messages of one episode in one world.

    Args:
        chance: words are drawn from its `choice`.
        slack_bytes: what a suite adds to a content before it is padded, beyond the 0x80 byte.
    """

    def __init__(self, chance: Chance, slack_bytes: int = 0) -> None:
        self._chance = chance
        self._slack_bytes = slack_bytes
        self._text = self._draw_words(_SIZES[-1])

    def compose(self, message: Message, token: bytes, message_id: bytes, sent_ms: int) -> Content:
        """The content of a message, whose padded length is the pattern's in either world."""
        before = (
            _SIZES[_SIZES.index(message.padded_bytes) - 1] if message.padded_bytes > _SIZES[0] else _BEFORE_SMALLEST
        )
        step = message.padded_bytes - before
        if self._chance.world:
            kind, length, text = Kind.EMAIL, message.padded_bytes, _headers(message) + self._text
        else:
            length = before + 1 + self._chance.choice.randrange(max(1, step // 3))
            kind, text = Kind.CHAT, self._draw_words(length)
        empty = Content(token, kind, message_id, sent_ms, NO_REPLY, (message.recipient,), b"")
        # The padding's own 0x80 byte, and what the suite adds, are part of the padded length.
        room = length - 1 - self._slack_bytes - len(encode_content(empty))
        # From 256 bytes on the payload's length takes one byte more.
        payload = text.encode()[: room - (room > 256)]
        content = msgspec.structs.replace(empty, payload=payload)
        padded_bytes = padded_length(len(encode_content(content)) + self._slack_bytes)
        assert padded_bytes == message.padded_bytes, f"padded to {padded_bytes}, not {message.padded_bytes} bytes"
        return content

    def _draw_words(self, length: int) -> str:
        """Words of the shared language, at least so many letters."""
        # The shortest words have four letters; each is followed by a space.
        return " ".join(self._chance.choice.choices(_WORDS, k=length // 5 + 1))


def _headers(message: Message) -> str:
    return f"From: {message.sender}\r\nTo: {message.recipient}\r\nSubject: the papers\r\n\r\n"
