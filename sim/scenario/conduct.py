"""What people send, what the network does to it, and what goes wrong at the relay."""

from typing import Annotated, Final

from msgspec import Meta

from sim.scenario.base import Count, Moment, Part, Positive, Share

__all__ = [
    "BrokerRestart",
    "ClockJump",
    "Crash",
    "Fault",
    "Fixed",
    "FullDisk",
    "Lognormal",
    "Network",
    "Partition",
    "Size",
    "SlowDisk",
    "TornWrite",
    "Traffic",
    "Uniform",
]

Bytes = Annotated[int, Meta(ge=1, le=1_048_576)]
_OFFICE_HOURS: Final = (1, 0.5, 0.3, 0.2, 0.2, 0.5, 2, 4, 8, 10, 10, 9, 7, 8, 9, 9, 8, 7, 5, 4, 4, 3, 2, 1.5)
_WEEK: Final = (1.0, 1.0, 1.0, 1.0, 0.9, 0.3, 0.25)


class Fixed(Part, frozen=True, tag_field="distribution", tag="fixed"):
    """Every content has `bytes` bytes."""

    bytes: Bytes


class Uniform(Part, frozen=True, tag_field="distribution", tag="uniform"):
    """From `least_bytes` to `most_bytes`, each length as likely."""

    least_bytes: Bytes
    most_bytes: Bytes


class Lognormal(Part, frozen=True, tag_field="distribution", tag="lognormal"):
    """exp(N(ln `median_bytes`, `sigma`)), cut at `most_bytes`."""

    median_bytes: Bytes
    sigma: Annotated[float, Meta(ge=0.0, le=4.0)] = 1.0
    most_bytes: Bytes = 1_048_576


Size = Fixed | Uniform | Lognormal


class Traffic(Part, frozen=True):
    """`[traffic]`: how much people write, when, and how long it is.

    Attributes:
        chats_per_day: chats that a person begins on a day of weight 1, replies not counted.
        mails_per_day: the same of mails.
        hours: 24 weights, of the hours of the day in UTC; only their proportions count.
        weekdays: 7 factors, Monday first.
        chat_bytes: content of a chat, before padding.
        mail_bytes: content of a mail, before padding.
        mail_recipients: mean number of recipients of a mail, at least 1.
        reply_share: of what is received, so much is answered with one of the same kind.
        reply_minutes: median time until an answer.
        messages_max: so many messages at most, whatever the rates; 0: no such bound.
    """

    chats_per_day: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 12.0
    mails_per_day: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 4.0
    hours: Annotated[tuple[Annotated[float, Meta(ge=0.0)], ...], Meta(min_length=24, max_length=24)] = _OFFICE_HOURS
    weekdays: Annotated[tuple[Annotated[float, Meta(ge=0.0)], ...], Meta(min_length=7, max_length=7)] = _WEEK
    chat_bytes: Size = Lognormal(median_bytes=60, sigma=0.9, most_bytes=4_096)
    mail_bytes: Size = Lognormal(median_bytes=3_000, sigma=1.2, most_bytes=262_144)
    mail_recipients: Annotated[float, Meta(ge=1.0, le=20.0)] = 1.4
    reply_share: Annotated[float, Meta(ge=0.0, le=0.9)] = 0.3
    reply_minutes: Positive = 8.0
    messages_max: Count = 0


class Network(Part, frozen=True):
    """`[network]`: what becomes of each packet between a device and the relay, in either direction.

    Attributes:
        delay_ms: the least time on the way.
        delay_spread_ms: a uniform part on top.
        loss: share of packets that are lost.
        duplication: share of packets that come twice.
        reorder: share of packets that are held back by up to `reorder_ms`, so that later ones pass them.
        reorder_ms: by how much at most.
    """

    delay_ms: Annotated[int, Meta(ge=1, le=60_000)] = 80
    delay_spread_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0
    loss: Annotated[float, Meta(ge=0.0, le=0.9)] = 0.0
    duplication: Share = 0.0
    reorder: Share = 0.0
    reorder_ms: Annotated[int, Meta(ge=1, le=60_000)] = 2_000


class _Fault(Part, frozen=True, tag_field="kind"):
    """`[[fault]]`: happens `at` stated moments and `per_day` so often on average, at drawn moments."""

    at: tuple[Moment, ...] = ()
    per_day: Annotated[float, Meta(ge=0.0, le=1_000.0)] = 0.0


class Crash(_Fault, frozen=True, tag="crash"):
    """The relay's process is killed, and starts again after `down_s` on what the store holds."""

    down_s: Positive = 30.0


class TornWrite(_Fault, frozen=True, tag="torn-write"):
    """The relay is killed within a commit; the store holds all of it or nothing, by chance; then as a crash."""

    down_s: Positive = 30.0


class FullDisk(_Fault, frozen=True, tag="full-disk"):
    """For `minutes` every commit fails."""

    minutes: Positive = 10.0


class SlowDisk(_Fault, frozen=True, tag="slow-disk"):
    """For `minutes` a commit takes `delay_ms` more."""

    minutes: Positive = 10.0
    delay_ms: Annotated[int, Meta(ge=1, le=60_000)] = 500


class ClockJump(_Fault, frozen=True, tag="clock-jump"):
    """The relay's clock jumps by `seconds`, forward or back, and is right again after `minutes`."""

    seconds: Annotated[int, Meta(ge=-86_400, le=86_400)] = -120
    minutes: Positive = 30.0


class BrokerRestart(_Fault, frozen=True, tag="broker-restart"):
    """The broker is gone for `down_s`: every packet under way or sent meanwhile is lost."""

    down_s: Positive = 5.0


class Partition(_Fault, frozen=True, tag="partition"):
    """For `minutes` no packet passes between the relay and some of the devices.

    Attributes:
        minutes: how long.
        jurisdiction: whose devices; empty: of all.
        share: of these devices so many, drawn.
    """

    minutes: Positive = 30.0
    jurisdiction: str = ""
    share: Share = 1.0


Fault = Crash | TornWrite | FullDisk | SlowDisk | ClockJump | BrokerRestart | Partition
