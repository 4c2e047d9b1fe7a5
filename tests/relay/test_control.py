"""The control socket: only its owner, only whole requests of the protocol, and no request harms the relay."""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.control import (
    CONNECTIONS_MAX,
    MESSAGE_BYTES_MAX,
    Answer,
    Connection,
    ControlError,
    ControlServer,
    Done,
    NotRunning,
    Peer,
    Request,
    SealRequest,
    Status,
    StatusRequest,
    StopRequest,
    TenantAddRequest,
    is_allowed,
    peer_of,
    socket_address,
)
from relay.home import Home
from relay.process import tenant_add
from tests.relay.running import ADMIN, TENANT, RelayProcess, make_home
from wire.codec import encode
from wire.errors import FormatError
from wire.signing import SigningKey


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    home = make_home(tmp_path_factory.mktemp("control") / "home")
    with RelayProcess(home) as running:
        yield running


def raw(path: Path, data: bytes) -> bytes:
    """Send bytes, and read what comes until the relay ends the connection or there is an answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, socket_address(path) as address:
        connection.settimeout(10)
        connection.connect(address)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
        except ConnectionResetError:
            return answer
        return answer


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def is_alive(home: Home) -> bool:
    with Connection(home.socket_path) as connection:
        return isinstance(connection.request(StatusRequest()), Status)


def test_the_socket_is_the_owners_alone_and_the_peer_is_asked_of_the_kernel(relay: RelayProcess) -> None:
    assert stat.S_IMODE(relay.home.socket_path.stat().st_mode) == 0o600
    with Connection(relay.home.socket_path) as connection:
        assert connection.relay.pid == relay.pid
        assert connection.relay.uid == os.getuid()


def test_only_the_relays_user_and_root_are_allowed() -> None:
    assert is_allowed(1_000, 1_000)
    assert is_allowed(0, 1_000)
    assert not is_allowed(1_001, 1_000)
    assert not is_allowed(1_000, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_turned_away_even_if_the_sockets_mode_let_them_in(tmp_path: Path) -> None:
    served: list[Request] = []

    async def scenario() -> bytes:
        async def serve(_: Peer, request: Request) -> Answer:
            served.append(request)
            return Done()

        async def ended(_: Peer) -> None:
            return

        # Another user's server: the socket's folder is open to all, and so is the socket.
        server = ControlServer(Path(folder) / "control.sock", serve, ended)
        await server.start()
        os.chmod(Path(folder) / "control.sock", 0o666)
        child = await asyncio.create_subprocess_exec(
            "python3",
            "-c",
            "import socket, sys, os\n"
            "os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX)\n"
            "s.connect(sys.argv[1])\n"
            "s.sendall(bytes([0, 0, 0, 2, 0x91, 1]))\n"
            "sys.stdout.buffer.write(b'got ' + s.recv(100))\n",
            str(Path(folder) / "control.sock"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, _errors = await asyncio.wait_for(child.communicate(), 20)
        await server.close()
        return out

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        assert asyncio.run(scenario()) in {b"got ", b""}
    assert served == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        bytes(4),
        (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big") + bytes(100),
        b"\xff\xff\xff\xff",
        framed(b"\xc1"),
        framed(b"\x80"),
        framed(encode([9])),
        framed(encode([1, 2])),
        framed(encode([1]) + b"\0"),
        framed(encode([2, "acme.example"])),
        framed(encode([2, "acme.example", bytes(31)])),
        framed(encode([2, "a" * 300, bytes(32)])),
        framed(encode([3, "", False])),
        framed(encode([3, "/tmp", 1])),
        framed(b"\x92\xcc\x01\xc2"),
        framed(encode([1]))[:-1],
        framed(b"\x91" * 5_000),
    ],
)
def test_a_request_that_is_none_is_refused_and_the_relay_goes_on(relay: RelayProcess, data: bytes) -> None:
    answer = raw(relay.home.socket_path, data)
    if answer:
        assert answer[4:6] == b"\x93\x00", "an answer of the kind 'failed'"
        assert b"FormatError" in answer
    assert is_alive(relay.home)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_leave_the_relay_alive(relay: RelayProcess, data: bytes, with_length: bool) -> None:
    # [5] alone stops the relay, as it should; it is not hostile.
    if data != encode(StopRequest()):
        raw(relay.home.socket_path, framed(data) if with_length else data)
    assert is_alive(relay.home)


def test_stages_out_of_turn_and_bad_domains_are_typed_errors(relay: RelayProcess) -> None:
    with Connection(relay.home.socket_path) as connection:
        with pytest.raises(ControlError, match="no order is under way") as caught:
            connection.request(SealRequest())
        assert caught.value.kind == "OrderRefused"
        with pytest.raises(ControlError) as caught:
            connection.request(TenantAddRequest("Not A Domain", ADMIN.public))
        assert caught.value.kind == "FormatError"
        with pytest.raises(ControlError, match="another"):
            connection.request(TenantAddRequest(TENANT, SigningKey(bytes(32)).public))
        assert connection.request(TenantAddRequest("second.example", ADMIN.public)) == Done()


def test_too_many_connections_are_turned_away_and_served_again_later(relay: RelayProcess) -> None:
    connections = [Connection(relay.home.socket_path, 10) for _ in range(CONNECTIONS_MAX)]
    for connection in connections:
        connection.request(StatusRequest())
    with Connection(relay.home.socket_path, 10) as beyond, pytest.raises(ControlError, match="ended the connection"):
        beyond.request(StatusRequest())
    for connection in connections:
        connection.__exit__()
    # The relay notices the ends in its own time.
    for _ in range(200):
        try:
            assert is_alive(relay.home)
            return
        except ControlError:
            threading.Event().wait(0.02)
    pytest.fail("no connection is served again")


def test_a_home_without_a_relay_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        Connection(tmp_path / "control.sock")
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control.sock"))
    left.close()
    with pytest.raises(NotRunning):
        Connection(tmp_path / "control.sock")


def test_a_tenant_is_admitted_by_a_relay_that_runs_and_by_one_that_does_not(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with RelayProcess(home) as relay:
        tenant_add(home.path, "running.example", ADMIN.public)
        with pytest.raises(ControlError, match="another"):
            tenant_add(home.path, TENANT, SigningKey(bytes(32)).public)
        assert relay.stop() == (0, "", "")
    with pytest.raises(FormatError, match="another"):
        tenant_add(home.path, "running.example", SigningKey(bytes(32)).public)
    tenant_add(home.path, "stopped.example", ADMIN.public)
    with RelayProcess(home) as relay:
        with pytest.raises(ControlError, match="another"):
            tenant_add(home.path, "stopped.example", SigningKey(bytes(32)).public)
        with Connection(home.socket_path) as connection:
            assert connection.request(StopRequest()) == Done()
        assert relay.process is not None
        assert relay.process.wait(20) == 0


def test_a_home_deep_in_the_tree_has_a_socket_all_the_same(tmp_path: Path) -> None:
    home = make_home(tmp_path / ("deep" * 30) / "home")
    assert len(str(home.socket_path)) > 108
    with RelayProcess(home):
        assert is_alive(home)
        with Connection(home.socket_path) as connection:
            assert connection.relay.uid == os.getuid()


def test_the_kernel_names_this_process_as_its_own_peer() -> None:
    one, other = socket.socketpair()
    with one, other:
        peer = peer_of(one)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
