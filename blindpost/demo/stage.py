"""What all chapters share: the folder, the transcript, the people, and the record of what came out as it should."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from blindpost.demo.pipes import Process
from blindpost.demo.processes import RelayProcess, relay_running
from blindpost.demo.transcript import Transcript
from keys.identity import TenantAdminKey
from relay.disclosure import Disclosure, take_wholesale
from relay.home import init
from relay.process import tenant_add
from wire.identity import Token

__all__ = ["ABSENT", "PEOPLE", "Stage", "clock", "size"]

PEOPLE: Final = {
    "ana": "ana@acme.example",
    "bilal": "bilal@acme.example",
    "chloe": "chloe@globex.example",
    "dawud": "dawud@globex.example",
}
ABSENT: Final = "chloe"
_TOKEN_LIFE_S: Final = 3_600


@dataclass
class Stage:
    """One run of the story.

    Attributes:
        transcript: what the person sees.
        out: what is written for the person.
        work: homes of relay and devices; gone at the end.
        broker: a broker that somebody else runs, or None for one inside the relay's process.
        failures: what did not come out as it should.
    """

    transcript: Transcript
    out: Path
    work: Path
    broker: str | None
    failures: list[str] = field(default_factory=list)

    def expect(self, holds: object, good: str, bad: str = "") -> bool:
        """Say whether something came out as it should, and keep it for the end."""
        if holds:
            self.transcript.good(good)
        else:
            problem = bad or f"not so: {good}"
            self.failures.append(problem)
            self.transcript.bad(problem)
        return bool(holds)

    @asynccontextmanager
    async def relay(self, name: str) -> AsyncIterator[tuple[Path, RelayProcess]]:
        """Make a relay's home and run it as a process until the block ends; yields the home and the process."""
        home = self.work / name
        init(home, os.urandom, **({"broker": self.broker} if self.broker else {"listen": "127.0.0.1:0"}))  # type: ignore[arg-type]
        async with relay_running(home, self.work / f"{name}.errors") as process:
            yield home, process

    @asynccontextmanager
    async def program(self, name: str, module: str) -> AsyncIterator[Process]:
        """Run one of our modules as a process that the story asks, until the block ends."""
        process = Process(name)
        await process.start([sys.executable, "-m", module])
        try:
            yield process
        finally:
            await process.stop()

    def admit(self, home: Path) -> dict[str, Token]:
        """Admit both companies to a relay; returns a token for each person's first device."""
        not_after = int(time.time()) + _TOKEN_LIFE_S
        admins = {domain: TenantAdminKey.generate() for domain in sorted({_domain(a) for a in PEOPLE.values()})}
        for domain, admin in admins.items():
            tenant_add(home, domain, admin.public)
        return {name: admins[_domain(account)].activate(account, not_after) for name, account in PEOPLE.items()}

    async def order(self, home: Path, out: Path, *, memory: bool) -> Disclosure:
        """Serve the wholesale order on a relay that runs."""
        return await asyncio.to_thread(take_wholesale, home, out, memory)

    def file_table(self, folder: Path) -> None:
        """Show what was handed over."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        rows = [(str(path.relative_to(folder)), size(path.stat().st_size)) for path in paths]
        self.transcript.table(("file", "size"), rows, right=(1,))

    def leakage_table(self, report: dict[str, Any]) -> None:
        """Show what the relay did see."""
        rows = [(fact["what"], str(fact["value"])) for fact in report["leakage"]["facts"]]
        self.transcript.table(("what the relay saw", "how much of it"), rows)


def _domain(account: str) -> str:
    return account.partition("@")[2]


def size(count: int) -> str:
    """A number of bytes for people."""
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1_000:,.0f} kB" if count < 10_000_000 else f"{count / 1_000_000:,.1f} MB"


def clock(unix_s: float) -> str:
    """A time of today, UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%H:%M:%S.%f")[:-3]
