"""The enterprise server of one company: few links to the relay that carry many devices (docs/architecture.md).

    messages.py    what a device and its gateway say to each other, and how a device lets a link speak for it
    seat.py        one device: what it asked, what it is to hear, what it may ask at all
    handshake.py   a link's handshake, signed by its devices
    traffic.py     turns, frames, answers
    link.py        the two joined: one link, without I/O
    service.py     links at work: connections, tasks, who is on which link
    upstream.py    the way to the broker, by its URL; nats.py: NATS's own protocol
    door.py        the local protocol's bytes; framing.py: on a socket
    server.py      the socket for devices; admission.py: who may begin to join
    home.py        a gateway's folder; address.py: its public card
    process.py     all of it as a process, `python -m client.gateway`
    limits.py      every bound

The device's side is client/gateway_link.py and gateway_socket.py. A gateway sees ciphertext: nothing here imports
keys/.
"""

from client.gateway.door import Door
from client.gateway.limits import GatewayLimits
from client.gateway.service import Gateway, Member, link_key

__all__ = ["Door", "Gateway", "GatewayLimits", "Member", "link_key"]
