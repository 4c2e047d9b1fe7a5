"""What a broker must be told so that each device reaches its own topics and no others (docs/brokers.md).

One function for each file; they take what they write down and touch no disk. `R` is the relay's id, `D` a device's tag:

    relay     reads bp/R/+/up     writes bp/R/+/down
    device    writes bp/R/D/up    reads bp/R/D/down    or a link of a gateway, whose own key gives its D

Who somebody is, the broker reads from the common name of their certificate (keys/pki.py).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from keys.pki import relay_user
from relay.transport.address import BrokerAddress
from wire.limits import FRAME_BYTES_MAX

__all__ = ["mosquitto_acl", "mosquitto_conf", "nats_conf", "nats_users"]

PACKET_BYTES_MAX: Final = FRAME_BYTES_MAX + 8_192
"""A frame, its topic, and what the broker adds."""
SESSIONS_BYTES_MAX: Final = 67_108_864
"""What NATS may keep for its MQTT sessions; it keeps no message of ours."""
MADE: Final = "# Made by `blindpost broker-config`; docs/brokers.md tells what it is for."


def mosquitto_conf(listen: BrokerAddress, folder: Path) -> str:
    """mosquitto.conf.

    Args:
        listen: where Mosquitto listens, for devices and relay alike.
        folder: where the files are on the broker's machine.
    """
    return f"""{MADE}
per_listener_settings false
allow_anonymous false
acl_file {folder}/acl

# Nothing is kept: the acknowledgement that counts is the relay's receipt.
persistence false
retain_available false
max_packet_size {PACKET_BYTES_MAX}

# No line for each connection: who connects when is nobody's business.
connection_messages false
log_type error
log_type warning

listener {listen.port} {listen.host}
max_qos 0
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/crl.pem
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
"""


def mosquitto_acl(relay_id: bytes) -> str:
    """The access list: two lines for the relay, two patterns for every device there will ever be."""
    topics = f"bp/{relay_id.hex()}"
    return f"""{MADE}
user {relay_user(relay_id)}
topic read {topics}/+/up
topic write {topics}/+/down

pattern write {topics}/%u/up
pattern read {topics}/%u/down
"""


def nats_conf(listen: BrokerAddress, relay_listen: BrokerAddress, folder: Path) -> str:
    """nats.conf.

    Args:
        listen: where devices reach the MQTT listener.
        relay_listen: where the relay, and gateways, reach the server by NATS's own protocol.
        folder: where the files are on the broker's machine.
    """
    tls = f"""tls {{
    cert_file: "{folder}/broker.pem"
    key_file: "{folder}/broker.key"
    ca_file: "{folder}/ca.pem"
    min_version: "1.2"
    # Whoever has no certificate of this authority is refused; its subject is the user's name.
    verify_and_map: true
  }}"""
    return f"""{MADE}
server_name: "blindpost"
listen: "{_quoted(relay_listen)}"
max_payload: {PACKET_BYTES_MAX}

authorization {{
  include "./users.conf"
}}

{tls}

mqtt {{
  listen: "{_quoted(listen)}"
  {tls}
}}

# MQTT needs it, for its sessions. Messages at QoS 0 never go into it.
jetstream {{
  store_dir: "{folder}/jetstream"
  max_file_store: {SESSIONS_BYTES_MAX}
  max_memory_store: {SESSIONS_BYTES_MAX}
}}
"""


def nats_users(relay_id: bytes, device_tags: Iterable[str]) -> str:
    """users.conf: a line for the relay and one for each device; NATS has no pattern for names from certificates."""
    subjects = f"bp.{relay_id.hex()}"
    lines = [_nats_user(relay_user(relay_id), f"{subjects}.*.down", f"{subjects}.*.up")]
    lines += [_nats_user(tag, f"{subjects}.{tag}.up", f"{subjects}.{tag}.down") for tag in device_tags]
    return "\n".join([MADE, "users = [", *lines, "]", ""])


def _nats_user(name: str, publish: str, subscribe: str) -> str:
    return f'  {{user: "CN={name}", permissions: {{publish: "{publish}", subscribe: "{subscribe}"}}}}'


def _quoted(address: BrokerAddress) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
