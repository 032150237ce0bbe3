"""Hot copies: a consistent copy of the data, on the disk, while all go on counting.

A copy reads one snapshot without any lock, so it stops nobody; meanwhile the file grows by what is
written, since no page of the snapshot can be used again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading

import lmdb

from guardrail.stores.lmdb.files import Files, sync_file, sync_folder
from guardrail.stores.lmdb.locks import FileLock

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
        self._thread = threading.Thread(target=self._make, args=(env,), daemon=True)
        self._thread.start()

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
            env.copy(str(draft), compact=True)
            os.chmod(draft, 0o600)
            sync_file(draft)
            draft.replace(self.files.copy)
            sync_folder(self.files.folder)
        except (lmdb.Error, OSError) as problem:
            LOG.error("no copy of `%s` could be made: %s", self.files.data, problem)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
