"""A device's home: the folder, its vault file and its store (architecture section 3, keys at rest).

    vault              the wrapped key (keys/vault.py); no secret without the passphrase
    device.sqlite      sealed rows (client/store.py)
    generation, lock   the marker against restored copies, and the lock of one process

The folder is made with mode 0700, every file with 0600. The passphrase is handed in and never kept.
"""

import os
from collections.abc import Callable
from pathlib import Path

from client.errors import HomeInvalid, WrongPassphrase
from client.store import DATABASE, Store
from keys.errors import VaultError
from keys.errors import WrongPassphrase as VaultWrongPassphrase
from keys.vault import STANDARD, Cost, Vault
from wire.errors import FormatError

__all__ = ["change_passphrase", "create_home", "open_home"]

VAULT = "vault"
_VAULT_BYTES_MAX = 4_096
Fault = Callable[[str], None]
Entropy = Callable[[int], bytes]


def create_home(
    home: Path, passphrase: bytes, random: Entropy, cost: Cost = STANDARD, fault: Fault | None = None
) -> Store:
    """Make a home and open its empty store.

    Raises:
        HomeInvalid: there is a home already, or the folder cannot be made.
        FormatError: the passphrase is empty or too long.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HomeInvalid(f"{home}: {error.strerror}") from None
    if (home / VAULT).exists() or (home / DATABASE).exists():
        raise HomeInvalid(f"{home}: is the home of a device already")
    vault = Vault.create(passphrase, cost, random)
    _write(home / VAULT, vault.header)
    return Store(home, vault, fault)


def open_home(home: Path, passphrase: bytes, random: Entropy, fault: Fault | None = None) -> Store:
    """Open a home.

    Raises:
        HomeInvalid: no home, or a damaged one.
        HomeInUse: another process holds it.
        WrongPassphrase: it does not open.
    """
    return Store(home, _open_vault(home, passphrase, random), fault)


def change_passphrase(home: Path, old: bytes, new: bytes, random: Entropy, cost: Cost = STANDARD) -> None:
    """Wrap the home's key under another passphrase; the old vault file is overwritten.

    Raises:
        HomeInvalid, WrongPassphrase: as `open_home`.
    """
    _write(home / VAULT, _open_vault(home, old, random).change_passphrase(new, cost))


def _open_vault(home: Path, passphrase: bytes, random: Entropy) -> Vault:
    try:
        with (home / VAULT).open("rb") as file:
            data = file.read(_VAULT_BYTES_MAX + 1)
    except OSError as error:
        raise HomeInvalid(f"{home}: is no home of a device ({error.strerror})") from None
    try:
        return Vault.unlock(data, passphrase, random)
    except VaultWrongPassphrase:
        raise WrongPassphrase(f"{home}: the passphrase does not open this home") from None
    except (FormatError, VaultError) as error:
        raise HomeInvalid(f"{home}: {error}") from None


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
