"""Our relay, with everything on: links, receipts, erasure, tombstones; behind nats-server or Mosquitto.

Each message of the work is one envelope whose body is what a device would make of so much content: 1,024 bytes become
1,232. The broker's CPU counts with the relay's. A sender is a device with a link of its own, or all are behind one
gateway; recipients come back each by a connection and a link of its own, or through gateways of 250.
"""

from pathlib import Path

from benchmarks.load.job import Job
from benchmarks.load.process import running
from benchmarks.peers.work import Outcome, Watch, Work
from benchmarks.processes import usage_of
from benchmarks.servers import missing_broker, relay_server

__all__ = ["Blindpost"]


class Blindpost:
    """Meets `Peer`.

    Args:
        transport: `nats` or `mosquitto`.
        gateways: whether devices are behind gateways, instead of each having a link of its own.
    """

    kind = 0
    synced = "yes"

    def __init__(self, transport: str, gateways: bool) -> None:
        self._transport = transport
        self._gateways = gateways
        self.name = f"Blindpost, {transport}, {'behind gateways' if gateways else 'every device by itself'}"

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        return missing_broker(self._transport)

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        with relay_server(folder, self._transport, prefix=watch.prefix) as relay:
            pids = [relay.server.pid] + ([relay.broker.pid] if relay.broker is not None else [])
            job = Job(
                name="work",
                broker=relay.url,
                relay_id=relay.card.relay_id.hex(),
                relay_key=relay.card.signing_key.hex(),
                admin_seed=relay.admin.seed.hex(),
                seed=work.seed,
                messages=work.messages,
                senders=work.senders,
                recipients=work.recipients,
                senders_a_link=work.senders if self._gateways else 1,
                content_bytes=work.message_bytes,
                # A device by itself has its window in two frames, so that one is under way while the other is filled.
                envelopes_a_frame=64 if self._gateways else work.window // 2,
                window=work.window,
                online=False,
                recipients_alone=not self._gateways,
            )
            with running([job], watch.tell) as loads:
                start, flushes = usage_of(*pids).cpu_s, watch.flushes()
                loads.phase("submit", "submitted")
                between, flushes_between = usage_of(*pids).cpu_s, watch.flushes()
                loads.phase("drain", "drained")
                end, flushes_end = usage_of(*pids).cpu_s, watch.flushes()
                (result,) = loads.phase("finish", "finished")
        return Outcome(
            accept_s=(result.submitted_ns - result.submit_start_ns) / 1e9,
            drain_s=(result.delivered_ns - result.first_delivery_start_ns) / 1e9,
            accept_cpu_s=between - start,
            drain_cpu_s=end - between,
            load_accept_cpu_s=result.submit_cpu_s,
            load_drain_cpu_s=result.drain_cpu_s,
            accept_flushes=flushes_between - flushes,
            drain_flushes=flushes_end - flushes_between,
        )
