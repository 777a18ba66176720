"""The pictures that came as URL or data: URI, kept in a folder of the input folder for as long as a job uses them.

Each server has a mark of its own, which its files' names begin with, and a file of that name that it holds a lock on.
So a server that starts can tell what was left behind by one that is gone from what another still uses. A file is
removed only if its name and its beginning say that it was written here.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


FOLDER = "nag-pag"  # in the input folder
SOFTWARE = ("Software", "nag-pag-flux")  # the text that each file begins with
_HEAD = 256  # bytes in which it is
_LOCK_WORDS = b"held by a running server of nag-pag-flux, whose pictures begin with this file's name"
_LOCK_NAME = re.compile(r"([0-9a-f]{8})\.lock")


class Store:
    """The folder's pictures of this server, and how many use each."""

    def __init__(self, input_folder: Path):
        self.input_folder, self.mark = input_folder, secrets.token_hex(4)
        self._uses: Counter[str] = Counter()
        self._files: dict[str, str] = {}  # of each name in use, which may be one of several for one file
        self._changing = threading.Lock()
        self._held: IO[bytes] | None = None

    def name(self, digest: str) -> str:
        """The name in the input folder of the picture with this digest."""
        return f"{FOLDER}/{self.mark}-{digest[:32]}.png"

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Use the picture of this name: it stays until `release`, or until something is raised inside."""
        with self._changing:
            self._uses[name] += 1
            self._files.setdefault(name, self._file(name))
        try:
            yield
        except BaseException:
            self.release(name)
            raise

    def release(self, name: str) -> None:
        """Use it no more. The last use of a picture that was written here removes it; others' pictures stay."""
        with self._changing:
            self._uses[name] -= 1
            if self._uses[name] > 0:
                return
            del self._uses[name]
            file = self._files.pop(name)
            if file not in self._files.values() and file.startswith(self._file(f"{FOLDER}/{self.mark}-")):
                _remove(self.input_folder / FOLDER / Path(file).name)

    def _file(self, name: str) -> str:
        """The same for all names that lead to one file, by links or as case does not matter.

        Where case does matter, files that differ in nothing else count as one. Ours are lower case, and stay so.
        """
        try:
            return os.path.realpath(self.input_folder / name).casefold()
        except (OSError, ValueError):  # no name for this file system
            return name

    @contextlib.contextmanager
    def part(self, suffix: str) -> Iterator[Path]:
        """A file beside the pictures, gone afterwards unless it was moved away."""
        folder = self.input_folder / FOLDER
        folder.mkdir(exist_ok=True)
        with self._changing:
            self._hold(folder)
        number, name = tempfile.mkstemp(dir=folder, prefix=f"{self.mark}-", suffix=f".part{suffix}")
        os.close(number)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _hold(self, folder: Path) -> None:
        if self._held is None:
            self._held = (folder / f"{self.mark}.lock").open("wb", buffering=0)
            self._held.write(_LOCK_WORDS)
            with contextlib.suppress(OSError):  # a file system without locks
                _lock(self._held)


def remove_left_behind(input_folder: Path) -> None:
    """Remove what servers that are gone have left here. Raises OSError where the folder is not ours to change."""
    folder = input_folder / FOLDER
    for lock in list(folder.iterdir()) if folder.is_dir() else []:
        if (found := _LOCK_NAME.fullmatch(lock.name)) and _is_abandoned(lock):
            for left in [*folder.glob(f"{found[1]}-*.png"), *folder.glob(f"{found[1]}-*.part.*")]:
                _remove(left)
            lock.unlink(missing_ok=True)


def _is_abandoned(lock: Path) -> bool:
    """True for a lock of ours that no server holds."""
    try:
        with lock.open("rb+") as file:
            ours = file.read(_HEAD) == _LOCK_WORDS
            _lock(file)
            return ours
    except OSError:
        return False


def _remove(path: Path) -> None:
    """Remove a file of ours: one that says so itself, or one that was being written."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if ".part." in path.name or b"\0".join(word.encode() for word in SOFTWARE) in head:
            path.unlink(missing_ok=True)
    except OSError:  # gone already, or held by a reader: the next start tries again
        pass
