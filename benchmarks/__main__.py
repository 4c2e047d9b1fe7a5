"""`python -m benchmarks NAME …`: one benchmark by its name; `--help` after a name tells its options."""

import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator, Sequence

__all__ = ["NAMES", "known", "main"]

NAMES = {
    "relay": ("benchmarks.relay", "durable receipted messages a second, latency at stated rates, CPU, memory, disk"),
    "peers": ("benchmarks.peers.command", "the same work by Mosquitto, NATS, RabbitMQ, PostgreSQL, Prosody, Synapse"),
    "mqtt": ("benchmarks.mqtt", "what aiomqtt alone can move in the relay's process, beside what the relay moves"),
    "store": ("benchmarks.store", "SQLite beside LMDB, and what erasure costs"),
    "scale": ("benchmarks.scale", "cost of a message from a thousand to a million stored envelopes and mailboxes"),
    "audit": ("benchmarks.audit", "time and memory of the verifier by the size of the disclosure"),
    "keysearch": ("benchmarks.keysearch", "windows a second of the verifier's search for keys, by kind"),
    "fairness": ("benchmarks.fairness", "the latency of everybody else while one misbehaves"),
    "soak": ("benchmarks.soak", "a steady rate for as long as is asked: what grows"),
    "plot": ("benchmarks.plot", "the plot and the page of a result again, from its JSON"),
    "compare": ("benchmarks.compare", "what changed from one result to another beyond the noise"),
    "hotpath": ("benchmarks.hotpath", "where each microsecond of a message goes inside the relay"),
    "gateway": ("benchmarks.gateway", "encrypted and receipted chats a second from one gateway process"),
    "simulate": ("benchmarks.simulate", "the simulator: devices and messages over simulated days, time and memory"),
    "ratchet": ("benchmarks.ratchet", "the ratchet beside python-doubleratchet and vodozemac"),
}


def known() -> str:
    """The benchmarks, one a line."""
    return "\n".join(f"  {name:10} {what}" for name, (_, what) in NAMES.items())


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that the first argument names; returns the exit status."""
    if not argv or argv[0] not in NAMES:
        print(f"usage: python -m benchmarks NAME [options]\n\n{known()}", file=sys.stderr)
        return 0 if list(argv[:1]) in (["-h"], ["--help"]) else 64
    with _ended_by_sigterm():
        status: int = importlib.import_module(NAMES[argv[0]][0]).main(list(argv[1:]))
    return status


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a benchmark as an exit does, so that servers and load are ended too."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: object) -> None:
    # Whoever asks twice does not end the ending of the servers.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
