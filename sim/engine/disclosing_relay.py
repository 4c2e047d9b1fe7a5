"""The relay that answers a simulated order: the real relay's code, in a process of its own, at the simulation's time.

    python -P disclosing_relay.py HOME OUT UNIX_S [KEYS]

It is run by its path and imports nothing of sim/, client/ or keys/, so that the modules on the manifest are a relay's.
Only its clock is not the machine's. KEYS, for the older protections whose server keeps keys, is a file of lines
`mailbox key` in hexadecimal, which go into a table of the store before it is handed over.
"""

import sys
from pathlib import Path

import relay.process


def main(arguments: list[str]) -> int:
    """Hand over; 0."""
    home, out, at_s = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    relay.process.now_s = lambda: at_s
    relay.process.now_ms = lambda: 1_000 * at_s
    if len(arguments) > 3:
        _keep_keys(Path(arguments[3]))
    relay.process.disclose_at_rest(home, out)
    return 0


def _keep_keys(path: Path) -> None:
    rows = [tuple(bytes.fromhex(word) for word in line.split()) for line in path.read_text().splitlines()]

    class HostedStore(relay.process.SqliteStore):  # type: ignore[name-defined, misc]
        """A store with a table of keys beside the mail, as sim/generations/relay_hosted.py has it."""

        def checkpoint(self) -> int:
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS keys "
                "(seq INTEGER PRIMARY KEY, mailbox BLOB NOT NULL, key BLOB NOT NULL) STRICT"
            )
            if not self._writer.execute("SELECT count(*) FROM keys").fetchone()[0]:
                self._writer.executemany("INSERT INTO keys (mailbox, key) VALUES (?, ?)", rows)
            return int(super().checkpoint())

    relay.process.SqliteStore = HostedStore  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
