from __future__ import annotations

import argparse
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import client.errors
import keys.errors
from blindpost.__main__ import build_parser, main
from blindpost.errors import CommandError, UsageError
from blindpost.exit_status import _BY_NAME, MEANINGS, ExitStatus, status_of
from blindpost.parser import HOME_VARIABLE, Parser, home_of
from blindpost.reference import command_parsers, render
from wire.errors import BlindpostError, FormatError, RefusalCode, SignatureError

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"
COMMANDS = list(command_parsers(build_parser()))
EXAMPLES = [(parser.prog, example) for parser in COMMANDS for example in parser.examples]

WANTED = """
demo
relay init
relay run
certificate new-ca
certificate issue
certificate request
certificate accept
certificate revoke
broker-config
tenant add
tenant activate
gateway init
gateway run
gateway show
device new
device request
device approve
device accept
device gateway
mail send
chat send
chat ping
chat status
chat withdraw
receive
safety-number
canary
order wholesale
order seizure
order content
order interception
order subscriber
order metadata
order pen-register
order preservation
order keys
order decrypt
order weakness
order ghost
order secrecy
order leave
order list
order show
order extend
order decide
order capture
order withdraw
order release
order open
order exit
log verify
log prove
log mirror
log rotate
transparency-report
mydata
volunteer
audit
simulate
prove controls
prove keysearch
prove noninterference
prove game
prove completeness
prove evidence
prove erased
prove seizure
prove harvest
prove generations
prove all
prove verify
bench
"""


def words_of(line: str) -> list[str]:
    """The words that a shell would give the program: quotes taken off, redirections taken out."""
    words = shlex.split(re.sub(r"\s\d*[<>]\s*\S+", "", line))
    assert words[0] == "blindpost"
    return words[1:]


def test_the_commands_are_those_that_were_promised() -> None:
    assert [parser.prog for parser in COMMANDS] == [f"blindpost {line}" for line in WANTED.split("\n") if line]


@pytest.mark.parametrize("parser", COMMANDS, ids=lambda parser: parser.prog)
def test_every_command_has_a_summary_a_description_and_examples(parser: Parser) -> None:
    assert parser.summary
    assert parser.summary[0].islower()
    assert not parser.summary.endswith(".")
    assert parser.description
    assert parser.examples
    text = parser.format_help()
    assert all(example in text for example in parser.examples)
    for action in parser._actions:
        assert action.help, f"{parser.prog}: {action.dest} is not explained"


@pytest.mark.parametrize(("prog", "example"), EXAMPLES)
def test_every_example_parses_as_the_command_that_shows_it(prog: str, example: str) -> None:
    assert example.startswith(prog)
    options = build_parser().parse_args(words_of(example))
    assert callable(options.run)


def test_the_page_of_the_commands_is_that_of_the_parsers() -> None:
    assert DOCS.read_text(encoding="utf-8") == render(), (
        "make it again: python -m blindpost.reference > docs/commands.md"
    )


@pytest.mark.parametrize(
    "words", [[], ["mail"], ["device", "new"], ["audit"]], ids=lambda words: " ".join(words) or "none"
)
def test_help_ends_well_and_goes_to_stdout(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr()
    assert output.out.startswith("usage: blindpost")
    assert output.err == ""


def test_the_first_help_tells_every_exit_status() -> None:
    text = build_parser().format_help()
    for status, meaning in MEANINGS.items():
        assert f"{status.value:3} {meaning}" in text
    assert set(MEANINGS) == set(ExitStatus)
    assert HOME_VARIABLE in text


WRONG = [
    ([], "the following arguments are required: COMMAND", "see 'blindpost --help'"),
    (["send"], "argument COMMAND: invalid choice: 'send'", "see 'blindpost --help'"),
    (["mail"], "the following arguments are required: COMMAND", "see 'blindpost mail --help'"),
    (["mail", "send", "a.eml"], "the following arguments are required: --to", "see 'blindpost mail send --help'"),
    (
        ["mail", "send", "--to", "ana@acme.example"],
        "the following arguments are required: FILE.eml",
        "see 'blindpost mail send --help'",
    ),
    (
        ["mail", "send", "--to", "ana", "a.eml"],
        "argument --to: 'ana' is no address",
        "see 'blindpost mail send --help'",
    ),
    (
        ["chat", "send", "--to", "ana@acme.example", "omar@acme.example"],
        "the following arguments are required: TEXT",
        "see 'blindpost chat send --help'",
    ),
    (["relay", "init", "--hom", "x"], "unrecognized arguments: --hom x", "see 'blindpost --help'"),
    (
        ["relay", "init", "--listen", "127.0.0.1:0", "--broker", "mqtt://h:1"],
        "argument --broker: not allowed with argument --listen",
        "see 'blindpost relay init --help'",
    ),
    (["receive", "--wait", "-1", "--home", "x"], "argument --wait: ", "see 'blindpost receive --help'"),
    (
        ["receive", "--wait", "nan", "--home", "x"],
        "argument --wait: 'nan' is not a number of seconds from 0 to 86400",
        "see 'blindpost receive --help'",
    ),
    (
        ["tenant", "add", "Acme_Inc", "--home", "x", "--out", "k"],
        "argument DOMAIN: 'Acme_Inc' is no domain",
        "see 'blindpost tenant add --help'",
    ),
    (
        ["tenant", "activate", "--key", "k", "--account", "a@b.example", "--out", "t", "--days", "0"],
        "argument --days: '0' is not a number of days from 1 to 365",
        "see 'blindpost tenant activate --help'",
    ),
    (["relay", "init"], "no home is named", "give --home DIR, or set BLINDPOST_HOME"),
    (
        ["volunteer", "--home", "x", "--out", "y", "--openings"],
        "--openings needs --disclosure DIR",
        "the rows to open are looked for there",
    ),
]


@pytest.mark.parametrize(("words", "problem", "hint"), WRONG, ids=[" ".join(case[0]) or "none" for case in WRONG])
def test_wrong_usage_ends_with_64_and_says_what_and_what_to_do(
    words: list[str],
    problem: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(words) == 64
    output = capsys.readouterr()
    assert output.out == ""
    first, second = output.err.splitlines()
    assert first.startswith(f"blindpost: error: {problem}")
    assert second.startswith(f"blindpost: hint: {hint}")
    assert not first.endswith(".")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "to", "cc", "bcc"),
    [
        ("--to a@x.example b@x.example F", ["a@x.example", "b@x.example"], [], []),
        ("F --to a@x.example b@x.example", ["a@x.example", "b@x.example"], [], []),
        ("--to a@x.example --to b@x.example F", ["a@x.example", "b@x.example"], [], []),
        ("--to A@X.Example B@X.example F", ["a@x.example", "b@x.example"], [], []),
        ("--to a@x.example --cc c@x.example d@x.example F", ["a@x.example"], ["c@x.example", "d@x.example"], []),
        ("--to a@x.example F --bcc e@x.example", ["a@x.example"], [], ["e@x.example"]),
        ("--to=a@x.example -- F", ["a@x.example"], [], []),
    ],
)
def test_an_option_of_addresses_takes_all_that_follow(words: str, to: list[str], cc: list[str], bcc: list[str]) -> None:
    options = build_parser().parse_args(["mail", "send", *words.split()])
    assert (options.to, options.cc, options.bcc, str(options.file)) == (to, cc, bcc, "F")


def test_a_text_that_looks_like_an_address_can_be_said_after_two_dashes() -> None:
    words = ["chat", "send", "--to", "a@x.example", "--", "b@x.example"]
    options = build_parser().parse_args(words)
    assert (options.to, options.text) == (["a@x.example"], "b@x.example")


def test_the_environment_names_the_home_where_the_command_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, "from-environment")
    assert home_of(argparse.Namespace(home=None)) == Path("from-environment")
    assert home_of(argparse.Namespace(home=Path("given"))) == Path("given")
    monkeypatch.setenv(HOME_VARIABLE, "")
    with pytest.raises(UsageError):
        home_of(argparse.Namespace(home=None))


def everything_that_can_be_raised() -> list[type[BaseException]]:
    return [
        kind
        for module in (client.errors, keys.errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, BlindpostError)
    ]


def test_every_error_that_is_named_for_a_status_exists() -> None:
    from relay.home import HomeBusy, HomeError
    from relay.memory_image import MemoryImageError

    names = {kind.__name__ for kind in [*everything_that_can_be_raised(), HomeError, HomeBusy, MemoryImageError]}
    assert set(_BY_NAME) <= names


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FormatError("field", "is wrong"), 65),
        (SignatureError("commit"), 65),
        (FileNotFoundError(2, "No such file", "x"), 66),
        (client.errors.Refused("submit", RefusalCode.CONFLICT), 69),
        (BlindpostError("other"), 69),
        (FileExistsError(17, "File exists", "x"), 73),
        (OSError(5, "Input/output error", "x"), 74),
        (client.errors.Unknown("submit", "no answer"), 75),
        (client.errors.HomeInUse("x"), 75),
        (client.errors.ListRolledBack("a@x.example", 2, 1), 76),
        (client.errors.WrongPassphrase("x"), 77),
        (keys.errors.WrongPassphrase(), 77),
        (PermissionError(13, "Permission denied", "x"), 77),
        (client.errors.HomeInvalid("x"), 78),
        (CommandError("x", status=ExitStatus.INTERRUPTED), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_kind_of_error_has_its_status(error: BlindpostError | OSError, status: int) -> None:
    assert status_of(error) == status


def run_raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def run(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("blindpost.commands.relay._init", run)
    return main(["relay", "init", "--home", "x"])


def test_an_error_of_the_system_is_told_in_our_manner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(monkeypatch, PermissionError(13, "Permission denied", "relay/keys")) == 77
    assert capsys.readouterr().err == "blindpost: error: relay/keys: permission denied\n"


def test_a_name_with_control_characters_cannot_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_raising(monkeypatch, FileNotFoundError(2, "No such file or directory", "a\x1b[2J"))
    assert capsys.readouterr().err == "blindpost: error: a\u241b[2J: no such file or directory\n"


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_raising(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.startswith("blindpost: error: interrupted\n")


def test_a_crash_ends_with_70_and_tells_where_but_not_what_was_handled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BLINDPOST_TRACEBACK", raising=False)
    assert run_raising(monkeypatch, ValueError("the passphrase was hunter2")) == 70
    shown = capsys.readouterr().err
    assert re.match(r"blindpost: error: this is a bug: ValueError in test_command_line\.py line \d+\n", shown)
    assert "hunter2" not in shown


def test_the_whole_traceback_is_shown_to_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BLINDPOST_TRACEBACK", "1")
    assert run_raising(monkeypatch, ValueError("details")) == 70
    assert "Traceback" in capsys.readouterr().err


def loaded_by(*words: str) -> set[str]:
    """The rooms that a process has loaded after it has run a command."""
    program = (
        "import sys; from blindpost.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return {name for name in done.stdout.splitlines()[-1].split() if "." in name or name in {"keys", "relay", "audit"}}


def test_help_loads_neither_relay_nor_ratchet_nor_verifier() -> None:
    rooms = {name.partition(".")[0] for name in loaded_by("mail", "send", "--help")}
    assert rooms & {"relay", "keys", "audit", "sim"} == set()


def test_the_program_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "blindpost", "mail"], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 64
    assert done.stderr.startswith("blindpost: error: the following arguments are required: COMMAND\n")


def test_relay_run_needs_a_home_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "run", "--home", str(tmp_path / "absent")]) == 78
    assert "absent is no folder" in capsys.readouterr().err


def test_relay_run_becomes_the_relay_and_searches_no_module_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *given: became.append(given))
    main(["relay", "run", "--home", str(tmp_path)])
    ((program, arguments, environment),) = became
    assert program == sys.executable
    assert arguments == [sys.executable, "-P", "-m", "relay", "run", "--home", str(tmp_path)]
    assert Path(environment["PYTHONPATH"].split(os.pathsep)[0], "relay", "__init__.py").is_file()
