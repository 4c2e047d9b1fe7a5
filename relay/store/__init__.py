"""Where the relay's rows lie: in memory (tests, simulation) or in SQLite (the embedded default)."""

from relay.store.protocol import Store, StoreError

__all__ = ["Store", "StoreError"]
