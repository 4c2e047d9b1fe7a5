"""How the story talks to its other processes: canonical MessagePack over pipes (wire/codec.py).

    one message = u32(length) ‖ MessagePack array

The story asks (`Ask`), the other process answers each question once, in the order of its asking (`Answer`). What is
asked is a verb and its arguments, themselves an encoded record that the verb's own module knows. Messages are bounded;
an answer that says no carries the error's words, never a secret.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta

from blindpost.demo.processes import environment
from wire.codec import U32, Record, decode, encode
from wire.errors import BlindpostError, FormatError
from wire.limits import MESSAGE_BYTES_MAX

__all__ = ["Answer", "Ask", "Process", "RemoteError", "read_message", "serve", "write_message"]

T = TypeVar("T")

# A mail of the largest size, its addresses and a few results.
MESSAGE_MAX: Final = 4 * MESSAGE_BYTES_MAX
_LENGTH_BYTES: Final = 4

_Bytes = Annotated[bytes, Meta(max_length=MESSAGE_MAX)]


class Ask(Record, frozen=True):
    """A question: what to do, and with what."""

    number: U32
    verb: Annotated[str, Meta(max_length=40)]
    argument: _Bytes


class Answer(Record, frozen=True):
    """The answer: a result, or the words of an error."""

    number: U32
    error: Annotated[str, Meta(max_length=4_096)]
    result: _Bytes


class RemoteError(BlindpostError):
    """The other process could not do what it was asked."""


async def read_message(reader: asyncio.StreamReader, kind: type[T], field: str) -> T | None:
    """The next message, or None at the end of the pipe.

    Raises:
        FormatError: too long, or not a message of that kind.
    """
    try:
        head = await reader.readexactly(_LENGTH_BYTES)
        length = int.from_bytes(head, "big")
        if length > MESSAGE_MAX:
            raise FormatError(field, f"has {length} bytes", MESSAGE_MAX)
        data = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    return decode(kind, data, field)


def write_message(message: Record) -> bytes:
    """The bytes of one message on a pipe."""
    data = encode(message)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class Process:
    """Another process of the story, started by exec, asked over its standard input and output.

    Args:
        name: what it is, for errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: asyncio.subprocess.Process | None = None
        self._number = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "start it first"
        return self._process.pid

    async def start(self, command: Sequence[str]) -> None:
        """Start it; what it writes to standard error goes to ours."""
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=MESSAGE_MAX,
            env=environment(),
            start_new_session=True,
        )

    async def ask(self, verb: str, argument: Any, kind: type[T]) -> T:
        """Ask for something and wait for the answer.

        Args:
            verb: what to do.
            argument: a record that the other side knows.
            kind: the type of the result.

        Raises:
            RemoteError: it said no, or it is gone.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._number += 1
        try:
            process.stdin.write(write_message(Ask(self._number, verb, encode(argument))))
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise RemoteError(f"{self.name} is gone, at {verb}") from None
        answer = await read_message(process.stdout, Answer, "answer")
        if answer is None:
            raise RemoteError(f"{self.name} ended, at {verb}, with status {await process.wait()}")
        if answer.number != self._number:
            raise RemoteError(f"{self.name} answered another question, at {verb}")
        if answer.error:
            raise RemoteError(f"{self.name}, {verb}: {answer.error}")
        return decode(kind, answer.result, verb)

    async def stop(self) -> None:
        """Let it end by itself (its input ends), or end it, by its process id."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for signal_it in (None, process.terminate, process.kill):
            if signal_it is not None:
                signal_it()
            try:
                await asyncio.wait_for(process.wait(), 3.0)
                return
            except TimeoutError:
                continue


Verb = Callable[[bytes], Awaitable[Any]]
"""Takes the encoded argument; its result is a record, or anything that MessagePack holds."""


async def serve(verbs: Mapping[str, Verb]) -> None:
    """Answer questions on standard input until it ends: the other side of `Process`.

    Standard output belongs to the answers from here on; whatever prints goes to standard error.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    reader = asyncio.StreamReader(limit=MESSAGE_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    asked = asyncio.create_task(read_message(reader, Ask, "question"))
    while (question := await asked) is not None:
        # The next read also tells when the story is gone: then nobody waits for the answer any more.
        asked = asyncio.create_task(read_message(reader, Ask, "question"))
        answering = asyncio.create_task(_answered(verbs, question))
        await asyncio.wait({asked, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            await asyncio.wait({answering})
            return
        answers.write(write_message(await answering))
        answers.flush()


async def _answered(verbs: Mapping[str, Verb], asked: Ask) -> Answer:
    verb = verbs.get(asked.verb)
    if verb is None:
        return Answer(asked.number, f"there is no verb {asked.verb!r}", b"")
    try:
        return Answer(asked.number, "", encode(await verb(asked.argument)))
    except (BlindpostError, OSError) as error:
        return Answer(asked.number, f"{type(error).__name__}: {error}"[:4_096], b"")
