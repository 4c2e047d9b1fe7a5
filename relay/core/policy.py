"""What a relay does with which order where: a table by jurisdiction and kind, with documented defaults.

    [default]
    subscriber = "honour"
    wholesale = "refuse"

    [PK]
    wholesale = "leave"        # refused, and service there ends when the deadline passes
    secrecy_is_lawful = false  # an order's text is never sealed for this jurisdiction

`honour`: give what is held; `refuse`; `appeal`: contest it, then refuse unless told otherwise; `leave`: refuse, and end
service in that jurisdiction at the deadline unless the order is withdrawn. Honouring an order for content yields
ciphertext: a policy cannot make the relay read what it has no key for, so the answer says what was given.

Source: docs/orders.md, 'Policy'.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Any, Final

from relay.core.docket import Order, OrderKind, check_jurisdiction
from wire.errors import FormatError

__all__ = ["DEFAULT_DECISIONS", "Decision", "JurisdictionPolicy", "Policy"]

POLICY_BYTES_MAX: Final = 65_536
JURISDICTIONS_MAX: Final = 300
_DEFAULT: Final = "default"
_SECRECY: Final = "secrecy_is_lawful"


@unique
class Decision(StrEnum):
    """What is done with an order."""

    HONOUR = "honour"
    REFUSE = "refuse"
    APPEAL = "appeal"
    LEAVE = "leave"


DEFAULT_DECISIONS: Final[Mapping[OrderKind, Decision]] = MappingProxyType(
    {
        OrderKind.WHOLESALE: Decision.REFUSE,
        OrderKind.CONTENT: Decision.HONOUR,
        OrderKind.INTERCEPTION: Decision.APPEAL,
        OrderKind.SUBSCRIBER: Decision.HONOUR,
        OrderKind.METADATA: Decision.HONOUR,
        OrderKind.PEN_REGISTER: Decision.APPEAL,
        OrderKind.PRESERVATION: Decision.HONOUR,
        OrderKind.KEYS: Decision.REFUSE,
        OrderKind.DECRYPT: Decision.REFUSE,
        OrderKind.WEAKNESS: Decision.REFUSE,
        OrderKind.GHOST: Decision.REFUSE,
        OrderKind.SECRECY: Decision.HONOUR,
        OrderKind.SEIZURE: Decision.HONOUR,
        OrderKind.LEAVE: Decision.HONOUR,
    }
)
"""Targeted and preserving orders get what is held; what would weaken everybody is refused. Seizure is honoured because
machines that are carried away ask nobody."""


@dataclass(frozen=True, slots=True)
class JurisdictionPolicy:
    """The policy for one jurisdiction.

    Args:
        decisions: by kind; kinds that are left out follow the default.
        secrecy_is_lawful: whether the law there can seal an order's text in the log. Its existence is never sealed.
    """

    decisions: Mapping[OrderKind, Decision] = field(default_factory=dict)
    secrecy_is_lawful: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """A relay's policy.

    Args:
        default: for jurisdictions without an entry, and kinds without one there.
        jurisdictions: by two-letter code.
    """

    default: JurisdictionPolicy = field(default_factory=JurisdictionPolicy)
    jurisdictions: Mapping[str, JurisdictionPolicy] = field(default_factory=dict)

    def decision(self, order: Order) -> Decision:
        """What is to be done with an order."""
        here = self.jurisdictions.get(order.jurisdiction)
        if here is not None and order.kind in here.decisions:
            return here.decisions[order.kind]
        return self.default.decisions.get(order.kind, DEFAULT_DECISIONS[order.kind])

    def seals(self, order: Order) -> bool:
        """Whether the order's text is sealed in the log: it asks for that, and the law there can."""
        here = self.jurisdictions.get(order.jurisdiction, self.default)
        return order.secret_until_s > order.received_s and here.secrecy_is_lawful

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """Read a policy.

        Raises:
            FormatError: not TOML, an unknown jurisdiction, kind or decision.
        """
        if len(text) > POLICY_BYTES_MAX:
            raise FormatError("policy", f"has {len(text)} characters", POLICY_BYTES_MAX)
        try:
            tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FormatError("policy", f"is not TOML: {error}") from None
        if len(tables) > JURISDICTIONS_MAX:
            raise FormatError("policy", f"has {len(tables)} jurisdictions", JURISDICTIONS_MAX)
        read = {name: _read(name, table) for name, table in tables.items()}
        return cls(read.pop(_DEFAULT, JurisdictionPolicy()), read)


def _read(name: str, table: Any) -> JurisdictionPolicy:
    if name != _DEFAULT:
        check_jurisdiction(name)
    if not isinstance(table, dict):
        raise FormatError(f"policy {name}", "is no table")
    lawful = table.get(_SECRECY, True)
    if not isinstance(lawful, bool):
        raise FormatError(f"policy {name} {_SECRECY}", "must be true or false")
    decisions = {}
    for key, value in table.items():
        if key == _SECRECY:
            continue
        if key not in set(OrderKind):
            raise FormatError(f"policy {name}", f"has the unknown kind {key[:40]!r}")
        if value not in set(Decision):
            raise FormatError(f"policy {name} {key}", f"must be one of {', '.join(Decision)}")
        decisions[OrderKind(key)] = Decision(value)
    return JurisdictionPolicy(MappingProxyType(decisions), lawful)
