"""The relay's state machines: links, mailboxes, directory, commit log, and the core that joins them. Pure: no I/O."""

from relay.core.core import RelayCore
from relay.core.events import Batch, CoreConfig, CoreCounters, Read, RelayIdentity, Snapshot

__all__ = ["Batch", "CoreConfig", "CoreCounters", "Read", "RelayCore", "RelayIdentity", "Snapshot"]
