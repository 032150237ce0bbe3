"""The files of a store in one folder, and what becomes of them after a crash of the host.

Commits are not synced: a killed process loses nothing, since the kernel has its pages, but a host
that crashes may leave the data torn. So a file beside the data says in which boot it was last
opened, and whether the last process to close it synced it. Data from another boot that was never
closed are set aside, and the last hot copy takes their place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import lmdb

from guardrail.errors import SettingError
from guardrail.stores.lmdb.locks import FileLock
from guardrail.stores.naming import read_key_file

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PAGE = 4096


@dataclass(frozen=True, slots=True)
class State:
    """What is recorded beside the data: the boot it was opened in, and how it was left."""

    boot: str
    clean: bool = False
    damaged: bool = False


class Files:
    """The files of a store: data, the last hot copy, the state, the locks and the hash key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "counters.mdb"
        self.copy = folder / "copy.mdb"
        self.state = folder / "state.json"
        self.key = folder / "hash.key"
        self.writer = folder / "writer.lock"
        self.opening = folder / "opening.lock"
        self.copying = folder / "copying.lock"
        self.users = folder / "users.lock"

    def check(self) -> None:
        """Make sure that the folder is there and can be written to.

        Raises:
            SettingError: it is not, or it cannot.
        """
        if not self.folder.is_dir():
            raise SettingError(f"`{self.folder}` is no folder: run `mkdir -p {self.folder}`")
        try:
            self.writer.touch(0o600)
        except OSError as problem:
            raise SettingError(
                f"`{self.folder}` cannot be written to ({problem.strerror}): give it to the user "
                "that runs this process"
            ) from problem

    def hash_key(self) -> bytes:
        """Return the hash key of the folder, made at the first call of the first process.

        Raises:
            SettingError: others can read the file.
        """
        if not self.key.exists():
            draft = self._draft(self.key)
            try:
                with open(draft, "xb", opener=_private) as file:
                    file.write(secrets.token_hex(32).encode())
                sync(draft)
                # Fails if another process was first: there is one key, or none.
                with contextlib.suppress(FileExistsError):
                    os.link(draft, self.key)
            finally:
                draft.unlink(missing_ok=True)
            sync(self.folder)
        return read_key_file(self.key)

    @staticmethod
    def _draft(path: Path) -> Path:
        # Two processes may write the same file at once.
        return path.with_name(f".{path.name}.{secrets.token_hex(8)}")

    def read_state(self) -> State | None:
        """Return what is recorded beside the data, None if nothing is or it cannot be read."""
        try:
            stated = json.loads(self.state.read_text("utf-8"))
            return State(str(stated["boot"]), bool(stated["clean"]), bool(stated["damaged"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_state(self, state: State) -> None:
        """Record a state, whole or not at all."""
        with replacing(self.state, self._draft(self.state)) as draft:
            draft.write_text(json.dumps(asdict(state)), "utf-8")

    def set_aside(self, now: float) -> Path:
        """Rename the data, which are kept, and return their new name; `now` in seconds."""
        moment = datetime.fromtimestamp(now, UTC)
        aside = self.data.with_name(f"{self.data.name}.{moment:%Y-%m-%dT%H%M%S}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.data.with_name(f"{self.data.name}.{moment:%Y-%m-%dT%H%M%S}-{number}")
        self.data.rename(aside)
        # Its readers and its lock died with the boot.
        self.data.with_name(self.data.name + "-lock").unlink(missing_ok=True)
        sync(self.folder)
        return aside

    def restore(self) -> bool:
        """Put the last hot copy in the place of the data, and tell whether there was one."""
        if not self.copy.exists():
            return False
        with replacing(self.data, self._draft(self.data)) as draft:
            shutil.copyfile(self.copy, draft)
        return True


def boot_id() -> str:
    """Return what names this boot of the host, empty where the system does not tell.

    Without it every start of the store looks like one of the same boot.
    """
    try:
        return BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def replacing(path: Path, draft: Path) -> Iterator[Path]:
    """Let a draft beside a file be written, then put it in the file's place, whole or not at all.

    The order counts: the content is on the disk before the name leads to it.
    """
    try:
        yield draft
        os.chmod(draft, 0o600)
        sync(draft)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


LOG = logging.getLogger("guardrail.stores.lmdb")


class Copier:
    """Makes one copy at a time, in a thread that lives only as long as that takes."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a copy is being made."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, env: lmdb.Environment) -> None:
        """Start to make a copy, which takes the former one's place when it is whole."""
        thread = threading.Thread(target=self._make, args=(env,), daemon=True)
        try:
            thread.start()
        except RuntimeError as problem:  # the system has no thread to give now
            LOG.error("no copy of `%s` could be made: %s", self.files.data, problem)
        else:
            self._thread = thread

    def wait(self) -> None:
        """Wait until no copy is being made."""
        if self._thread is not None:
            self._thread.join()

    def _make(self, env: lmdb.Environment) -> None:
        lock = FileLock(self.files.copying)
        try:
            # Another process may still be at its copy, which then is as good.
            if lock.attempt():
                self._replace(env)
        finally:
            lock.close()

    def _replace(self, env: lmdb.Environment) -> None:
        draft = self.files.copy.with_name(f".{self.files.copy.name}")
        try:
            # What is left here is a killed process's.
            draft.unlink(missing_ok=True)
            env.reader_check()
            with replacing(self.files.copy, draft):
                env.copy(str(draft), compact=True)
        except (lmdb.Error, OSError) as problem:
            LOG.error("no copy of `%s` could be made: %s", self.files.data, problem)
