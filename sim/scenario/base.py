"""What all records of a scenario share: strict fields, names, shares, moments, and the error for whatever is wrong.

A scenario's key has the name of the record's field, and its unit is in that name. Whatever is unknown, missing, of
another type or out of its bounds is refused with its path in the file; nothing is guessed.
"""

import datetime
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from wire.errors import BlindpostError

__all__ = [
    "DAY_S",
    "Count",
    "Domain",
    "Moment",
    "Name",
    "Part",
    "Positive",
    "ScenarioError",
    "Share",
    "Text",
    "decode_hook",
]

DAY_S: Final = 86_400
_A_DATE: Final = "Expected a date, such as 2015-11-30, or a date and time, such as 2015-11-30T09:00:00Z"

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Text = Annotated[str, Meta(min_length=1, max_length=4_096)]
Domain = Annotated[str, Meta(min_length=1, max_length=253)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0, le=10_000_000)]
Positive = Annotated[float, Meta(gt=0.0, le=1_000_000.0)]


class ScenarioError(BlindpostError):
    """A scenario that cannot be run as it is written.

    Args:
        field: the key, with the tables that it stands in.
        problem: what is wrong with it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a scenario."""


class Moment:
    """A date, or a date and time, of the scenario: UTC unless it names an offset; a date alone is its midnight.

    Args:
        unix_s: Unix time in seconds.
    """

    __slots__ = ("unix_s",)

    def __init__(self, unix_s: int) -> None:
        self.unix_s = unix_s

    def __repr__(self) -> str:
        return f"Moment({self})"

    def __str__(self) -> str:
        moment = datetime.datetime.fromtimestamp(self.unix_s, datetime.UTC)
        return moment.strftime("%Y-%m-%d" if self.unix_s % DAY_S == 0 else "%Y-%m-%d %H:%M:%S")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moment) and self.unix_s == other.unix_s

    def __lt__(self, other: "Moment") -> bool:
        return self.unix_s < other.unix_s

    def __hash__(self) -> int:
        return hash(self.unix_s)

    def plus_s(self, seconds: float) -> "Moment":
        """The moment so many seconds later."""
        return Moment(self.unix_s + round(seconds))


def decode_hook(kind: type, value: Any) -> Any:
    """Make a `Moment` of TOML's dates."""
    if kind is not Moment:
        raise NotImplementedError(kind)
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
    elif isinstance(value, datetime.date):
        moment = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    else:
        # msgspec makes an error with the path of it.
        raise ValueError(_A_DATE)  # noqa: TRY004
    return Moment(int(moment.timestamp()))
