"""Who may begin to join: a bound on what nobody has vouched for yet, by the address that it comes from.

Anybody who reaches the gateway's socket may make a key and join with it; only the relay knows which devices are of an
account. Until it has said so, a join has cost the gateway a signature, a place and perhaps a handshake for all. So each
address has a bounded number of joins that nobody vouched for; they come back with time, and at once when the relay
tells of the device. Honest devices of a company behind one address are never refused by it while the relay answers.

Addresses are kept in memory, at most `ADDRESSES_MAX` of them, and told to nobody. Time is handed in.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

__all__ = ["ADDRESSES_MAX", "Admission"]

ADDRESSES_MAX: Final = 4_096
# Who has one address of a network of IPv6 has all of them.
_IPV6_PREFIX_BITS: Final = 64


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float


class Admission:
    """Joins that are not vouched for, by address.

    Args:
        burst: so many of one address at once.
        per_s: so many come back in a second.
    """

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __repr__(self) -> str:
        return f"Admission(addresses={len(self._buckets)})"

    def admit(self, address: str, now_s: float) -> bool:
        """Whether one more may begin from that address; it counts from now on."""
        bucket = self._bucket(address, now_s)
        if bucket.left < 1.0:
            return False
        bucket.left -= 1.0
        return True

    def vouch(self, address: str, now_s: float) -> None:
        """One that began there is a device that the relay knows: it counts no more."""
        bucket = self._bucket(address, now_s)
        bucket.left = min(bucket.left + 1.0, self._burst)

    def _bucket(self, address: str, now_s: float) -> _Bucket:
        name = _network_of(address)
        bucket = self._buckets.pop(name, None) or _Bucket(self._burst, now_s)
        bucket.left = min(self._burst, bucket.left + (now_s - bucket.at_s) * self._per_s)
        bucket.at_s = now_s
        self._buckets[name] = bucket
        while len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return bucket


def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), _IPV6_PREFIX_BITS), strict=False))
