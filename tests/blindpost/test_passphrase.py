from __future__ import annotations

import argparse
import getpass
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from blindpost.errors import CommandError, UsageError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Parser
from blindpost.passphrase import PASSPHRASE_BYTES_MAX, add_passphrase_options, read_passphrase


def parsed(*words: str) -> argparse.Namespace:
    parser = Parser(prog="test")
    add_passphrase_options(parser)
    return parser.parse_args(list(words))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pass"


@pytest.mark.parametrize(
    ("data", "passphrase"),
    [
        (b"correct horse\n", b"correct horse"),
        (b"correct horse\r\nsecond line\n", b"correct horse"),
        (b"no line end", b"no line end"),
        (b" spaces stay \n", b" spaces stay "),
        ("e\u0301\n".encode(), "\u00e9".encode()),
        (b"x" * PASSPHRASE_BYTES_MAX + b"\r\n", b"x" * PASSPHRASE_BYTES_MAX),
    ],
    ids=["line", "first_of_two", "no_line_end", "spaces", "composed_form", "longest"],
)
def test_the_first_line_of_a_file_is_the_passphrase(file: Path, data: bytes, passphrase: bytes) -> None:
    file.write_bytes(data)
    assert read_passphrase(parsed("--passphrase-file", str(file)), "a test") == passphrase


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "passphrase: empty"),
        (b"\nsecond line", "passphrase: empty"),
        (b"x" * (PASSPHRASE_BYTES_MAX + 1), "passphrase: longer than 1024 bytes"),
        (b"\xffabc", "passphrase: not UTF-8"),
    ],
    ids=["empty_file", "empty_line", "too_long", "not_utf8"],
)
def test_what_is_no_passphrase_is_refused(file: Path, data: bytes, problem: str) -> None:
    file.write_bytes(data)
    with pytest.raises(CommandError) as caught:
        read_passphrase(parsed("--passphrase-file", str(file)), "a test")
    assert str(caught.value) == problem
    assert caught.value.status is ExitStatus.DATA


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_passphrase(parsed("--passphrase-file", str(tmp_path / "absent")), "a test")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test closed it


def test_a_descriptor_is_read_and_stays_the_caller_s(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"correct horse\n")
    os.close(writing)
    assert read_passphrase(parsed("--passphrase-fd", str(reading)), "a test") == b"correct horse"
    assert os.fstat(reading)


def test_a_descriptor_that_is_not_open_is_wrong_usage(pipe: tuple[int, int]) -> None:
    reading, _ = pipe
    os.close(reading)
    with pytest.raises(UsageError, match=f"file descriptor {reading} cannot be read"):
        read_passphrase(parsed("--passphrase-fd", str(reading)), "a test")


@pytest.mark.parametrize("word", ["-1", "x", "1.5", "\u0661", "99999999"])
def test_what_is_no_descriptor_is_wrong_usage(word: str) -> None:
    with pytest.raises(UsageError, match=r"is no file descriptor|expected one argument"):
        parsed("--passphrase-fd", word)


def test_file_and_descriptor_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="not allowed with argument"):
        parsed("--passphrase-fd", "3", "--passphrase-file", "x")


class Terminal:
    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    given = iter(answers)
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return next(given)

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", ask)
    return prompts


def test_a_person_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = answer(monkeypatch, "correct horse")
    assert read_passphrase(parsed(), "ana's device") == b"correct horse"
    assert prompts == ["passphrase for ana's device: "]


def test_a_person_who_chooses_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = answer(monkeypatch, "e\u0301", "\u00e9")
    assert read_passphrase(parsed(), "ana's device", new=True) == "\u00e9".encode()
    assert prompts == ["passphrase for ana's device: ", "the same again: "]


def test_two_entries_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "correct horse", "corect horse")
    with pytest.raises(CommandError, match="the two passphrases differ"):
        read_passphrase(parsed(), "a test", new=True)


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", Pipe())
    with pytest.raises(UsageError, match="a passphrase is needed for ana's device") as caught:
        read_passphrase(parsed(), "ana's device")
    assert "--passphrase-file" in caught.value.hint


def test_there_is_no_option_that_takes_a_passphrase() -> None:
    parser = Parser(prog="test")
    add_passphrase_options(parser)
    assert sorted(parser._option_string_actions) == ["--help", "--passphrase-fd", "--passphrase-file", "-h"]
    with pytest.raises(UsageError):
        parser.parse_args(["--passphrase", "secret"])


def test_a_traceback_does_not_show_a_passphrase_that_is_not_utf8(file: Path) -> None:
    secret = b"7f3a".hex().encode()
    file.write_bytes(secret + b"\xff\n")
    with pytest.raises(CommandError) as caught:
        read_passphrase(parsed("--passphrase-file", str(file)), "a test")
    assert secret.decode() not in "".join(traceback.format_exception(caught.value))
