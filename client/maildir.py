"""Delivery of mail into a Maildir: written, flushed and renamed, so that a mail reader sees it whole or not at all.

The device keeps a message, shows it and then acknowledges it; a crash in between makes it show the message again. A
mail's file name is therefore a hash of the sender's device and the message id: the second delivery finds the first, in
`new` or, with whatever flags a mail reader has given it, in `cur`, and does nothing. (Once a person deletes the mail,
or a mail reader moves it to another folder, nothing here remembers it; the device's own seen-marks do.)

Rules (https://cr.yp.to/proto/maildir.html):

* written in `tmp`, fsynced, linked into `new`, the folder fsynced: only then does `deliver` return;
* names say nothing of sender, subject or time, and nothing of them comes from a message, so none leaves the folder;
* folders are made 0700, files 0600; everything is opened relative to the Maildir's own folders, links are not followed.
"""

import contextlib
import errno
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Final

from wire.errors import FormatError
from wire.hashing import label
from wire.limits import ID_BYTES, KEY_BYTES

__all__ = ["Maildir"]

_FOLDERS: Final = ("tmp", "new", "cur")
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_TMP: Final = re.compile(r"bp1-[0-9a-f]{32}\.[0-9]+")
# "36 hours" is the Maildir convention for what nobody will finish any more.
_ABANDONED_S: Final = 36 * 3_600
# File systems without hard links say so in several ways.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Maildir:
    """A Maildir that one device delivers to.

    Use it as a context manager, or call `close`. Making one creates the folders that are not there, and removes from
    `tmp` what a crash of ours left there more than 36 hours ago.

    Args:
        path: the Maildir.
        now_s: Unix time in seconds.

    Raises:
        FormatError: the path, or one of its three folders, is there and is no folder.
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: Path, now_s: int) -> None:
        self.path = path
        self._folders: dict[str, int] = {}
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _FOLDERS:
                with contextlib.suppress(FileExistsError):
                    (path / name).mkdir(mode=0o700)
                self._folders[name] = os.open(path / name, _FOLDER_FLAGS)
        except (FileExistsError, NotADirectoryError):
            self.close()
            raise FormatError("maildir", f"{path} or one of {', '.join(_FOLDERS)} in it is no folder") from None
        except OSError as error:
            self.close()
            if error.errno == errno.ELOOP:
                raise FormatError("maildir", f"one of {', '.join(_FOLDERS)} in {path} is a link") from None
            raise
        self._remove_abandoned(now_s)

    def __enter__(self) -> "Maildir":
        """The Maildir itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the folders."""
        self.close()

    def close(self) -> None:
        """Close the folders; what was delivered stays."""
        for descriptor in self._folders.values():
            os.close(descriptor)
        self._folders.clear()

    def deliver(self, mail: bytes, message_id: bytes, sender_device: bytes) -> Path | None:
        """Put one mail into `new`, durably.

        Args:
            mail: the bytes, written as they are.
            message_id: the content's message id, 16 bytes.
            sender_device: the device key of the session that it came in, 32 bytes; a message id alone is the sender's
                choice, and somebody else could choose the same.

        Returns:
            The file in `new`, or None if this message was delivered before.

        Raises:
            FormatError: an id or key of the wrong length.
            OSError: it could not be made durable; nothing is in `new` then.
        """
        name = file_name(message_id, sender_device)
        if self._is_delivered(name):
            return None
        temporary = f"{name}.{os.getpid()}"
        try:
            self._write(temporary, mail)
            if not self._publish(temporary, name):
                return None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._folders["tmp"])
        os.fsync(self._folders["new"])
        return self.path / "new" / name

    def _is_delivered(self, name: str) -> bool:
        # A mail reader moves `name` to `name:2,FLAGS`; some use another separator than the colon.
        return any(
            entry == name or (entry.startswith(name) and not entry[len(name)].isalnum())
            for folder in ("new", "cur")
            for entry in os.listdir(self._folders[folder])
        )

    def _write(self, temporary: str, mail: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            # Left by a process of the same number that crashed: half a mail.
            os.unlink(temporary, dir_fd=self._folders["tmp"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._folders["tmp"])
        with os.fdopen(descriptor, "wb") as file:
            file.write(mail)
            file.flush()
            os.fsync(file.fileno())

    def _publish(self, temporary: str, name: str) -> bool:
        """Whether it is now in `new`; False if another process was first. `link` never overwrites, `rename` would."""
        tmp, new = self._folders["tmp"], self._folders["new"]
        try:
            os.link(temporary, name, src_dir_fd=tmp, dst_dir_fd=new, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.rename(temporary, name, src_dir_fd=tmp, dst_dir_fd=new)
        return True

    def _remove_abandoned(self, now_s: int) -> None:
        tmp = self._folders["tmp"]
        for entry in os.listdir(tmp):
            if not _OWN_TMP.fullmatch(entry):
                continue
            with contextlib.suppress(FileNotFoundError):
                if now_s - os.stat(entry, dir_fd=tmp, follow_symlinks=False).st_mtime > _ABANDONED_S:
                    os.unlink(entry, dir_fd=tmp)


def file_name(message_id: bytes, sender_device: bytes) -> str:
    """The name of a mail's file: `bp1-` and 32 hex digits of a hash over both.

    Raises:
        FormatError: the message id has not 16 bytes, or the device key not 32.
    """
    if len(message_id) != ID_BYTES:
        raise FormatError("message_id", f"has {len(message_id)} bytes, not {ID_BYTES}", ID_BYTES)
    if len(sender_device) != KEY_BYTES:
        raise FormatError("sender_device", f"has {len(sender_device)} bytes, not {KEY_BYTES}", KEY_BYTES)
    return "bp1-" + sha256(label("maildir") + sender_device + message_id).hexdigest()[:32]
