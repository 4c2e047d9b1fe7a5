"""How the relay answers an order for everything: a directory with a signed manifest (protocol.md section 11).

    orderer (a process of its own)                     relay
    make OUT ──── disclose(OUT, memory) ─────────────▶ hold the store still, empty the write-ahead log,
         ◀─────── copied(pid) ───────────────────────  copy store, log, configuration and card into OUT, byte for byte
    stop the relay, copy its memory, let it go on
         ──────── seal ──────────────────────────────▶ hash all of OUT, name the loaded modules, sign by the key,
         ◀─────── sealed ────────────────────────────  after a memory image: rotate that key; write the manifest; go on
    lay the card as it was before, and the times by its own clock, beside it

Rules:
- what is copied are the very bytes of the store's file, free pages included: never a vacuumed or exported copy;
- once the relay has let somebody read its memory, its signing key counts as known: it rotates on every way
  out, also when the order is abandoned or the process is killed (the mark `rotate-due` in the home says so
  until the new key is saved);
- the rotation is saved before the manifest is written, the manifest is signed by the key before: a crash in between
  leaves a disclosure without a manifest, which nobody takes for whole, and a relay whose key nobody has;
- the key file is not handed over, and the manifest says so.
"""

import contextlib
import ctypes
import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relay import memory_image
from relay.control import Connection, Copied, DiscloseRequest, NotRunning, Peer, Sealed, SealRequest
from relay.home import CARD_NAME, CONFIG_NAME, KEYS_NAME, LOG_NAME, STORE_NAME, Home, RelayKeys, replace_file
from relay.service import RelayService
from wire.codec import U64, Hash, Id, Key, Record, Signature, encode
from wire.errors import BlindpostError
from wire.limits import ROTATIONS_MAX
from wire.rotation import Rotation
from wire.signing import SigningKey

MANIFEST_NAME = "manifest.msgpack"
ROTATE_DUE_NAME = "rotate-due"
ORDER_TIMES_NAME = "order.toml"
COPY_BYTES = 1_048_576
_PR_SET_PTRACER = 0x59616D61

LEFT_OUT = (
    f"{KEYS_NAME}: the relay's signing key; it opens no content",
    "tls/client.key, where there is one: the key of the relay's certificate for the broker; it opens no content",
    "log.key: the key of the public log of orders; it opens no content",
    "transparency, log.vkey: that log, which is public anyway",
    "orders, policy.toml, ended-tenants: whom orders are about, and what is done with them",
    "lock, desk.lock, control.sock: empty files of the running process",
    "store.sqlite-wal, store.sqlite-shm: the first is empty, the second is SQLite's index of it",
    "the broker's memory: packets under way, sealed under link keys",
)
LEFT_OUT_MEMORY = (
    "memory: read-only mappings of unchanged program files, which memory/maps.txt names",
    "memory: the processor's registers, and what the kernel holds for the process",
)


class OrderRefused(BlindpostError):
    """The order cannot be served as asked."""


class Process(Record, frozen=True):
    """What process made the disclosure: interpreter and every module that it had loaded."""

    python_version: str
    executable_sha256: Hash
    modules: tuple[tuple[str, Hash], ...]


class Manifest(Record, frozen=True):
    """What was handed over, as section 11 gives it."""

    relay_id: Id
    order: Literal["wholesale"]
    taken_at: U64
    files: tuple[tuple[str, U64, Hash], ...]
    head: tuple[U64, Hash]
    settings: tuple[U64, U64, U64]
    process: Process
    rotations: tuple[Rotation, ...]
    left_out: tuple[str, ...]


class SignedManifest(Record, frozen=True):
    """The manifest's file."""

    manifest: bytes
    signing_key: Key
    signature: Signature


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A disclosure that was taken.

    Args:
        path: its directory.
        files: how many files its manifest lists.
        rotated: the relay signs with another key from now on.
        memory: the memory image, if one was taken.
    """

    path: Path
    files: int
    rotated: bool
    memory: memory_image.MemoryImage | None


# ---- the orderer


def take_wholesale(
    home: Path, out: Path, memory: bool = False, progress: memory_image.Progress | None = None
) -> Disclosure:
    """Order everything from a relay, running or not.

    Args:
        home: the relay's home.
        out: where the disclosure goes: a directory that is not there yet, or empty.
        memory: also take an image of the relay's memory; it must run then.
        progress: told what is being done.

    Raises:
        OrderRefused: OUT is not empty, or the memory of a relay that does not run was asked for.
        ControlError: the relay refused.
        MemoryImageError: its memory cannot be read.
        HomeError: there is no relay's home.
    """
    requested_at = int(time.time())
    opened = Home.open(home)
    card = opened.card.to_toml().encode()
    out = out.absolute()
    _prepare(out)
    try:
        connection = Connection(opened.socket_path)
    except NotRunning:
        if memory:
            raise OrderRefused("the relay does not run: it has no memory to take an image of") from None
        _order_stopped(home, out)
        disclosure = Disclosure(out, _count_files(out), rotated=False, memory=None)
    else:
        with connection:
            disclosure = _order_running(connection, out, memory, progress)
    replace_file(out / CARD_NAME, card, 0o644)
    times = f"requested_at = {requested_at}\nreceived_at = {int(time.time()) + 1}\n"
    replace_file(out / ORDER_TIMES_NAME, times.encode(), 0o644)
    return disclosure


def _order_running(
    connection: Connection, out: Path, memory: bool, progress: memory_image.Progress | None
) -> Disclosure:
    relay = connection.relay
    if relay.uid != os.getuid():
        # Only root comes here: the relay's user must be able to write what it hands over.
        _give(out, relay.uid, ())
    if progress is not None:
        progress("copy", 0, 1)
    copied = connection.request(DiscloseRequest(str(out), memory))
    assert isinstance(copied, Copied)
    image = None
    if memory:
        if copied.pid != relay.pid:
            raise OrderRefused("the process that answers is not the one that listens")
        image = memory_image.take(copied.pid, out / "memory", progress)
        if relay.uid != os.getuid():
            names = (memory_image.MAPS_NAME, memory_image.RANGES_NAME, memory_image.IMAGE_NAME)
            _give(out / "memory", relay.uid, names)
    if progress is not None:
        progress("seal", 0, 1)
    sealed = connection.request(SealRequest())
    assert isinstance(sealed, Sealed)
    return Disclosure(out, sealed.files, sealed.rotated, image)


def _give(folder: Path, uid: int, names: tuple[str, ...]) -> None:
    """Make a folder of ours, and these files in it, another user's; only root can.

    Through descriptors, and nothing that is not ours alone: that user may own the directory above, and lay a link to
    somebody else's file in the place of one of these.

    Raises:
        OrderRefused: the folder or a file was exchanged.
        OSError: it cannot be opened, or is a link.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(folder, flags | os.O_DIRECTORY)
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise OrderRefused(f"{folder.name} was exchanged")
        for name in names:
            file = os.open(name, flags | os.O_NONBLOCK, dir_fd=directory)
            try:
                state = os.fstat(file)
                if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1 or state.st_uid != os.geteuid():
                    raise OrderRefused(f"{folder.name}/{name} was exchanged")
                os.fchown(file, uid, -1)
            finally:
                os.close(file)
        os.fchown(directory, uid, -1)
    finally:
        os.close(directory)


def _order_stopped(home: Path, out: Path) -> None:
    """Have a process of the relay's own code make the disclosure: its loaded modules are listed, not the caller's."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(
        [sys.executable, "-m", "relay", "disclose", "--home", str(home.absolute()), "--out", str(out)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        raise OrderRefused(f"the stopped relay's store cannot be handed over: {done.stderr.strip()[-500:]}")


def _prepare(out: Path) -> None:
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OrderRefused(f"{out} is not empty")
    out.chmod(0o700)


def _count_files(out: Path) -> int:
    return sum(1 for path in out.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)


# ---- the relay


def _check_empty(out: Path) -> None:
    if not out.is_absolute() or out.is_symlink() or not out.is_dir() or any(out.iterdir()):
        raise OrderRefused("out is not an empty directory")


class Order:
    """One order at the relay, from `begin` to `seal` or `abandon`."""

    def __init__(self, out: Path, memory: bool, stack: contextlib.AsyncExitStack) -> None:
        self.out = out
        self.memory = memory
        self.stack = stack


class Discloser:
    """The relay's side of orders.

    Args:
        home: the relay's home, locked.
        keys: the present keys.
        service: the relay, running or not; it is held still while an order is served.
        clock_s: Unix time in seconds.
        entropy: gives the seed of the next key.
    """

    def __init__(
        self,
        home: Home,
        keys: RelayKeys,
        service: RelayService,
        clock_s: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._home = home
        self._keys = keys
        self._service = service
        self._clock_s = clock_s
        self._entropy = entropy
        self._open: dict[Path, int] = {}

    @property
    def keys(self) -> RelayKeys:
        """The present keys."""
        return self._keys

    async def begin(self, out: Path, memory: bool, tracer_pid: int | None) -> Order:
        """Hold the store still and copy everything into `out`.

        Args:
            out: an empty directory.
            memory: a memory image will follow.
            tracer_pid: the process that will take it.

        Raises:
            OrderRefused: `out` is not an empty directory, or the key has rotated as often as a welcome can tell.
            StoreError: the write-ahead log cannot be emptied.
            OSError: `out` cannot be written.
        """
        _check_empty(out)
        if memory and len(self._keys.rotations) >= ROTATIONS_MAX:
            # One more, and neither a device nor this relay itself could read the chain of its keys.
            raise OrderRefused(
                f"the key has rotated {ROTATIONS_MAX} times, once for each image: no further one is taken"
            )
        stack = contextlib.AsyncExitStack()
        async with stack:
            await stack.enter_async_context(self._service.held())
            # A rotation of the order before, or of a process that was killed, goes into the store with a batch: now.
            await self._service.commit_waiting()
            await self._service.checkpoint()
            await self._service.in_thread(self._copy_all, out)
            if memory:
                # From here on the key counts as known, whatever happens.
                replace_file(self._home.path / ROTATE_DUE_NAME, b"", 0o600)
                allow_tracer(tracer_pid or 0)
            return Order(out, memory, stack.pop_all())
        raise AssertionError("not reached")

    async def seal(self, order: Order) -> Sealed:
        """Sign the manifest, rotate the key after a memory image, and let the store go on.

        Raises:
            OrderRefused: `out` holds something else than it should.
            OSError: a file could not be read or written.
        """
        async with order.stack:
            if order.memory:
                allow_tracer(0)
            taken_at = self._taken_at()
            # Before anybody can have the date: what is committed later must be dated later, after a restart too.
            self._service.core.not_before(taken_at * 1_000)
            self._service.log.not_before(taken_at)
            try:
                manifest = await self._service.in_thread(self._manifest, order, taken_at)
            finally:
                if order.memory:
                    self.rotate()
            await self._service.in_thread(replace_file, order.out / MANIFEST_NAME, encode(manifest[0]), 0o600)
            self._service.log.disclosed(manifest[1], int(order.memory))
            return Sealed(manifest[1], order.memory)

    async def abandon(self, order: Order) -> None:
        """Let the store go on without the order; the key rotates if somebody may have read the memory."""
        async with order.stack:
            if order.memory:
                allow_tracer(0)
                self.rotate()

    def rotate(self) -> None:
        """Change the signing key; saved before anything is signed with it. The store must be held.

        Raises:
            OSError: it could not be saved; the relay must stop then, since its core signs with a key that is not saved.
        """
        seed = self._entropy(32)
        rotation = self._service.rotate(seed)
        keys = RelayKeys(self._keys.relay_id, seed, (*self._keys.rotations, rotation))
        try:
            self._home.save_keys(keys)
        except OSError:
            self._service.fail("the rotated key cannot be saved")
            raise
        self._keys = keys
        (self._home.path / ROTATE_DUE_NAME).unlink(missing_ok=True)

    async def rotate_if_due(self) -> None:
        """Rotate at the start, if an order with a memory image was cut short by the end of the process."""
        if (self._home.path / ROTATE_DUE_NAME).exists():
            async with self._service.held():
                self.rotate()

    def close(self) -> None:
        """Let go of the files that were read; call it after the store is closed."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _copy_all(self, out: Path) -> None:
        home = self._home
        wal = home.store_path.with_name(STORE_NAME + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise OrderRefused("the write-ahead log is not empty after the checkpoint")
        for path in self._service.store.paths():
            self._copy(path, out / "store" / path.name)
        self._copy(home.log_path, out / "log" / LOG_NAME)
        self._copy(home.path / CONFIG_NAME, out / "config" / CONFIG_NAME)
        self._copy(home.path / CARD_NAME, out / "config" / CARD_NAME)

    def _copy(self, source: Path, target: Path) -> None:
        # A closed descriptor would drop SQLite's locks on its file (POSIX): those that were opened here stay open.
        descriptor = self._open.get(source)
        if descriptor is None or os.fstat(descriptor).st_ino != source.stat().st_ino:
            descriptor = self._open[source] = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            offset = 0
            while data := os.pread(descriptor, COPY_BYTES, offset):
                file.write(data)
                offset += len(data)
            file.flush()
            os.fsync(file.fileno())

    def _taken_at(self) -> int:
        """The date of a disclosure made now: not before its head or another disclosure, whatever the clock says."""
        service = self._service
        return max(self._clock_s(), service.log.time_s, service.core.time_ms // 1_000)

    def _manifest(self, order: Order, taken_at: int) -> tuple[SignedManifest, int]:
        wanted = {f"store/{STORE_NAME}", f"log/{LOG_NAME}", f"config/{CONFIG_NAME}", f"config/{CARD_NAME}"}
        if order.memory:
            names = (memory_image.MAPS_NAME, memory_image.RANGES_NAME, memory_image.IMAGE_NAME)
            wanted |= {f"memory/{name}" for name in names}
        found = {str(path.relative_to(order.out)) for path in order.out.rglob("*") if not path.is_dir()}
        if found != wanted:
            raise OrderRefused(f"out holds {len(found - wanted)} other files and lacks {len(wanted - found)}")
        files = []
        for name in sorted(wanted):
            path = order.out / name
            if path.is_symlink():
                raise OrderRefused("out holds a link")
            files.append((name, path.stat().st_size, sha256_of(path)))
        manifest = encode(
            Manifest(
                self._keys.relay_id,
                "wholesale",
                taken_at,
                tuple(files),
                self._service.head,
                self._home.config.settings,
                process(),
                self._keys.rotations,
                LEFT_OUT + (LEFT_OUT_MEMORY if order.memory else ()),
            )
        )
        key = SigningKey(self._keys.seed)
        return SignedManifest(manifest, key.public, key.sign("disclosure", manifest)), len(files)


async def serve_order(discloser: Discloser, peer: Peer, request: DiscloseRequest | SealRequest) -> Copied | Sealed:
    """Serve one stage of an order on a peer's connection.

    Raises:
        OrderRefused: a stage out of turn.
    """
    order = peer.order
    if isinstance(request, DiscloseRequest):
        if order is not None:
            raise OrderRefused("an order is under way on this connection")
        peer.order = await discloser.begin(Path(request.out), request.memory, peer.pid)
        return Copied(os.getpid())
    if not isinstance(order, Order):
        raise OrderRefused("no order is under way on this connection")
    peer.order = None
    return await discloser.seal(order)


async def end_order(discloser: Discloser, peer: Peer) -> None:
    """Abandon the order of a connection that has ended, if it has one."""
    order, peer.order = peer.order, None
    if isinstance(order, Order):
        await discloser.abandon(order)


def process() -> Process:
    """This process: interpreter, and every loaded module with the hash of its file."""
    modules = []
    for name, module in sorted(sys.modules.items()):
        # Through __dict__: some packages load more when they are asked for an attribute.
        file = getattr(module, "__dict__", {}).get("__file__")
        digest = bytes(32)
        if isinstance(file, str):
            try:
                digest = sha256_of(Path(file))
            except OSError:
                digest = bytes(32)
        modules.append((name, digest))
    return Process(sys.version.split()[0], sha256_of(Path("/proc/self/exe")), tuple(modules))


def sha256_of(path: Path) -> bytes:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def allow_tracer(pid: int) -> None:
    """Name the one process that may read this one's memory where Yama restricts it; 0: none."""
    # The call fails where the kernel has no Yama; then there is nothing to allow.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
