"""One load process: enrols its devices, sends, drains, keeps the account, and says what it measured and what it cost.

Rules: what can be made before the clock starts is made then (keys, envelopes, their encoding); everything that comes
back is verified while the clock runs; whatever goes wrong ends the process with the reason, and the run with it.
"""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TextIO, TypeVar

import msgspec

from benchmarks.histogram import Histogram
from benchmarks.load.job import Job, LoadResult, Said
from benchmarks.load.ledger import Ledger, LostOrDoubled
from benchmarks.load.link import LoadLink
from benchmarks.load.parties import Party, activation_token, body_bytes_for, mail_for, parties
from benchmarks.load.traffic import Outgoing, closed_loop, make_outgoing, open_loop, schedule
from benchmarks.load.ways import Way, open_way
from benchmarks.processes import own_cpu_s
from wire.signing import SigningKey

__all__ = ["Load", "loop_factory", "work"]

T = TypeVar("T")

_LOOKS_PER_STALL = 10
# Handshakes under way at once when every recipient links alone; the relay answers 200 hellos a second (section 6.2).
_LINKS_AT_ONCE = 64


class Load:
    """The devices and the account of one job.

    Args:
        job: what to do.
        said: where progress goes.
    """

    def __init__(self, job: Job, said: TextIO) -> None:
        self.job = job
        self._out = said
        self._relay_id = bytes.fromhex(job.relay_id)
        self._relay_key = bytes.fromhex(job.relay_key)
        self._rng = random.Random(job.seed)
        self.ledger = Ledger(self._relay_key, job.acknowledge)
        self._failure: asyncio.Future[None] | None = None
        self._ways: list[Way] = []
        self.sender_links: list[LoadLink] = []
        self.recipient_links: list[LoadLink] = []
        self._closed_links: list[LoadLink] = []
        self._recipients: list[Party] = []
        self._work: list[list[Outgoing]] = []
        self._delivered = asyncio.Event()
        self._frames = 0
        self._late_ns: list[int] = []
        self._due_ns: list[int] = []
        self._start_ns = self._submitted_ns = self._drain_ns = self._delivered_ns = 0
        self._cpu_submit_s = self._cpu_drain_s = 0.0

    # ---- phases

    async def prepare(self) -> None:
        """Connect, enrol, link; make the envelopes."""
        job = self.job
        self._failure = asyncio.get_running_loop().create_future()
        senders = parties(f"{job.name}.s", job.senders)
        self._recipients = parties(f"{job.name}.r", job.recipients)
        way = await self._open_way("load")
        self.sender_links = await self._link_all(way, senders, job.senders_a_link)
        self.recipient_links = await self._link_all(way, self._recipients, job.devices_a_link)
        idle = await self._link_all(way, parties(f"{job.name}.i", job.idle_devices), job.devices_a_link)
        for link in idle:
            await link.subscribe(job.credit)
        if job.online:
            for link in self.recipient_links:
                await link.subscribe(job.credit)
        else:
            self._let_go(self.recipient_links)
        self._make(senders)
        # What exists now stays until the end: a collection that walks it again and again would stall the load.
        gc.collect()
        gc.freeze()

    async def submit(self) -> None:
        """Send everything; returns when all of it is receipted."""
        job = self.job
        cpu_s = own_cpu_s()
        self.ledger.on_delivered = self._look
        self._start_ns = time.monotonic_ns()
        if job.rate_per_s:
            flat = [one for queue in self._work for one in queue]
            due_ns = schedule(job.rate_per_s / job.envelopes_a_submit, len(flat), self._rng)
            self._start_ns, self._late_ns = await self._guard(
                open_loop(self.ledger, flat, due_ns, job.envelopes_a_frame, self._progress)
            )
            self._due_ns = [self._start_ns + due for one, due in zip(flat, due_ns, strict=True) for _ in one.places]
        else:
            self._frames = await self._guard(
                closed_loop(self.ledger, self._work, job.window, job.envelopes_a_frame, self._progress)
            )
        self._submitted_ns = time.monotonic_ns()
        self._cpu_submit_s = own_cpu_s() - cpu_s

    async def drain(self) -> None:
        """Let the recipients come, if they were away; returns when everything arrived and every ack is answered."""
        if self.job.linger:
            return
        cpu_s = own_cpu_s()
        self._drain_ns = self._start_ns if self.job.online else time.monotonic_ns()
        if not self.job.online:
            await self._guard(self._arrive())
        self._look()
        await self._guard(self._delivered.wait())
        await self._guard(asyncio.gather(*(link.settled() for link in self.recipient_links)))
        self._cpu_drain_s = own_cpu_s() - cpu_s

    def finish(self) -> LoadResult:
        """Close the account.

        Raises:
            LostOrDoubled: it does not close.
        """
        self.ledger.close(delivered=not self.job.linger)
        links = self.sender_links + self.recipient_links + self._closed_links
        refusals: dict[str, int] = {}
        for link in links:
            for name, count in link.refusals.items():
                refusals[name] = refusals.get(name, 0) + count
        result = LoadResult(
            sent=self.ledger.sent,
            delivered=self.ledger.delivered_count,
            submit_start_ns=self._start_ns,
            submitted_ns=self._submitted_ns,
            first_delivery_start_ns=self._drain_ns,
            delivered_ns=self._delivered_ns,
            submit_cpu_s=self._cpu_submit_s,
            drain_cpu_s=self._cpu_drain_s,
            frames=self._frames,
            refusals=refusals,
            repeats=sum(link.repeats for link in links),
            redelivered=self.ledger.redelivered,
        )
        if self._due_ns:
            due = self._due_ns
            result.receipt_us = _histogram(at - due[i] for i, at in enumerate(self.ledger.receipted_ns))
            if self.job.online:
                result.delivery_us = _histogram(at - due[i] for i, at in enumerate(self.ledger.delivered_ns))
            result.late_us = _histogram(self._late_ns)
        return result

    def close(self) -> None:
        """Let go of links and connections."""
        self._let_go(self.sender_links + self.recipient_links)
        for way in self._ways:
            way.close()
        if self._failure is not None and self._failure.done():
            self._failure.exception()

    # ---- parts

    async def _open_way(self, name: str) -> Way:
        way = await open_way(self.job.broker, self._relay_id, f"{self.job.name}-{name}".encode(), self._lost)
        self._ways.append(way)
        return way

    async def _link_all(self, way: Way, devices: Sequence[Party], devices_a_link: int) -> list[LoadLink]:
        admin = SigningKey(bytes.fromhex(self.job.admin_seed))
        links = []
        for start in range(0, len(devices), devices_a_link):
            some = devices[start : start + devices_a_link]
            link = self._link(way, some)
            await self._guard(link.open())
            await self._guard(
                link.ask(
                    [
                        lambda ref, one=one: one.enrol(ref, activation_token(admin, one.account))  # type: ignore[misc]
                        for one in some
                    ]
                )
            )
            links.append(link)
        return links

    def _link(self, way: Way, devices: Sequence[Party]) -> LoadLink:
        return LoadLink(way, self._relay_id, self._relay_key, devices, self.ledger, self._fail)

    def _make(self, senders: Sequence[Party]) -> None:
        """Envelopes for recipients in turn, dealt to the senders in turn."""
        job = self.job
        body_bytes = body_bytes_for(job.content_bytes)
        link_of = [link for link in self.sender_links for _ in link.devices]
        work: list[list[Outgoing]] = [[] for _ in senders]
        order = list(range(job.recipients))
        self._rng.shuffle(order)
        for number, start in enumerate(range(0, job.messages, job.envelopes_a_submit)):
            sender, recipient = number % job.senders, self._recipients[order[number % job.recipients]]
            count = min(job.envelopes_a_submit, job.messages - start)
            mails = [mail_for(recipient, body_bytes) for _ in range(count)]
            work[sender].append(make_outgoing(self.ledger, link_of[sender], sender, recipient, mails))
        self._work = work
        if job.rate_per_s:
            # One sender after the other is the order of the ledger's places; the schedule deals them in turn.
            flat = sorted((one for queue in work for one in queue), key=lambda one: one.places[0])
            self._work = [flat]

    async def _arrive(self) -> None:
        """The recipients come back: through gateways, or each by a connection and a link of its own."""
        if not self.job.recipients_alone:
            way = await self._open_way("back")
            size = self.job.devices_a_link
            groups = [self._recipients[start : start + size] for start in range(0, len(self._recipients), size)]
            self.recipient_links = [self._link(way, group) for group in groups]
            await asyncio.gather(*(self._come(link) for link in self.recipient_links))
            return
        gate = asyncio.Semaphore(_LINKS_AT_ONCE)

        async def alone(number: int, device: Party) -> None:
            async with gate:
                link = self._link(await self._open_way(f"r{number}"), [device])
                self.recipient_links.append(link)
                await self._come(link)

        await asyncio.gather(*(alone(number, device) for number, device in enumerate(self._recipients)))

    async def _come(self, link: LoadLink) -> None:
        await link.open()
        await link.subscribe(self.job.credit)

    def _let_go(self, links: Sequence[LoadLink]) -> None:
        for link in links:
            link.close()
        self._closed_links.extend(links)
        if links is self.recipient_links:
            self.recipient_links = []

    def _look(self) -> None:
        if self.ledger.delivered_count >= self.job.messages and not self._delivered.is_set():
            self._delivered_ns = time.monotonic_ns()
            self._delivered.set()

    async def _guard(self, step: Awaitable[T]) -> T:
        """Wait for a step, or for the failure that ends the run."""
        assert self._failure is not None
        task = asyncio.ensure_future(step)
        done: set[asyncio.Future[Any]] = set()
        still_s, before = 0.0, self._counts()
        while not done and still_s < self.job.stall_s:
            look_s = self.job.stall_s / _LOOKS_PER_STALL
            done, _ = await asyncio.wait((task, self._failure), timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
            counts = self._counts()
            still_s, before = (still_s + look_s if counts == before else 0.0), counts
        if self._failure in done:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._failure.result()
        if not done:
            task.cancel()
            raise self._stalled()
        return task.result()

    def _counts(self) -> tuple[int, int, int]:
        return self.ledger.sent, self.ledger.receipted_count, self.ledger.delivered_count

    def _stalled(self) -> Exception:
        """Nothing has come for too long: what was sent and did not arrive is lost."""
        sent, receipted, delivered = self._counts()
        unanswered = sum(link.unanswered for link in self.sender_links + self.recipient_links)
        words = (
            f"nothing more for {self.job.stall_s:g} s: {sent} sent, {receipted} receipted, {delivered} delivered, "
            f"{unanswered} commands unanswered"
        )
        expected = sent if self.job.online or self._drain_ns else 0
        return LostOrDoubled(words) if receipted < sent or delivered < expected else TimeoutError(words)

    def _lost(self, words: str) -> None:
        self._fail(ConnectionError(words))

    def _fail(self, error: Exception) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _progress(self, receipted: int) -> None:
        print(encode_line(Said(progress=receipted)), file=self._out, flush=True)


def encode_line(said: Said) -> str:
    """One line of output."""
    return msgspec.json.encode(said).decode()


def _histogram(latencies_ns: Iterable[int]) -> list[tuple[int, int]]:
    return Histogram(one // 1_000 for one in latencies_ns).to_pairs()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it exists."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


async def work(lines: TextIO, out: TextIO) -> int:
    """Do what the lines say; returns the exit status.

    Args:
        lines: a job, then the phases' names.
        out: where lines of `Said` go.
    """

    def say(said: Said) -> None:
        print(encode_line(said), file=out, flush=True)

    job = msgspec.json.decode(lines.readline(), type=Job)
    load = Load(job, out)
    try:
        await load.prepare()
        say(Said(phase="ready"))
        # Links go on hearing while the next word is awaited.
        while line := await asyncio.to_thread(lines.readline):
            step = line.strip()
            if step == "submit":
                await load.submit()
                say(Said(phase="submitted"))
            elif step == "drain":
                await load.drain()
                say(Said(phase="drained"))
            elif step == "finish":
                say(Said(phase="finished", result=load.finish()))
                return 0
        return 1
    except Exception as error:
        say(Said(failed=f"{type(error).__name__}: {error}"))
        return 1
    finally:
        load.close()
