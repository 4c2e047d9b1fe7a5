"""The enterprise server of one company: few links to the relay that carry many devices (docs/architecture.md).

    messages.py    what a device and its gateway say to each other, and how a device lets a link speak for it
    seat.py        one device: what it asked, what it is to hear, what it may ask at all
    handshake.py   a link's handshake, signed by its devices
    traffic.py     turns, frames, answers
    link.py        the two joined: one link, without I/O
    service.py     links at work: connections, tasks, who is on which link
    door.py        the local protocol's bytes
    limits.py      every bound

The device's side of it is client/gateway_link.py. A gateway sees ciphertext: nothing here imports keys/.
"""

from client.gateway.door import Door
from client.gateway.limits import GatewayLimits
from client.gateway.service import Gateway, Member, link_key

__all__ = ["Door", "Gateway", "GatewayLimits", "Member", "link_key"]
