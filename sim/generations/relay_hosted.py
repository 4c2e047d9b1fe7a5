"""A hosted server: the relay with a table of keys beside the mail, as a process of its own, run by its path.

    python -P relay_hosted.py keys-in-database HOME OUT SPOILS

SPOILS is a file: {"keys": [[mailbox, key], …]}, in hexadecimal.

Like relay_side.py, which it is built on, it imports nothing of sim/, client/ or keys/.
"""

import importlib.util
import sqlite3
import sys
from pathlib import Path
from typing import Any


def _relay_side() -> Any:
    """relay_side.py, by its path: this process has no sim/ to import it from, and must not list it as loaded."""
    path = Path(__file__).resolve().parents[1] / "mutants" / "relay_side.py"
    spec = importlib.util.spec_from_file_location("relay_side", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments: list[str]) -> int:
    """As relay_side.py's, with one relay more."""
    relay_side = _relay_side()

    def keys_in_database(home: Path, spoils: dict[str, Any]) -> None:
        rows = [(bytes.fromhex(mailbox), bytes.fromhex(key)) for mailbox, key in spoils["keys"]]

        def change(db: sqlite3.Connection) -> None:
            db.execute("CREATE TABLE keys (seq INTEGER PRIMARY KEY, mailbox BLOB NOT NULL, key BLOB NOT NULL) STRICT")
            db.executemany("INSERT INTO keys (mailbox, key) VALUES (?, ?)", rows)

        relay_side._store_change(change)

    relay_side.CHEATS["keys-in-database"] = keys_in_database
    return int(relay_side.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
