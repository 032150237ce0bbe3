"""What is closed before this process forks, so that no child inherits it."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that must not be inherited."""

    def before_fork(self) -> None:
        """Let go of files, and hold still."""
        ...

    def after_fork(self, child: bool) -> None:
        """Go on, in the parent or in the child."""
        ...


def watch_forks(watched: Forked) -> None:
    """Tell an object, for as long as it lives, of every fork of this process."""
    reference = weakref.ref(watched)

    def before() -> None:
        living = reference()
        if living is not None:
            living.before_fork()

    def after(child: bool) -> None:
        living = reference()
        if living is not None:
            living.after_fork(child)

    os.register_at_fork(
        before=before,
        after_in_parent=lambda: after(False),
        after_in_child=lambda: after(True),
    )
