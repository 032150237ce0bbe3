"""What a forked process does with what its parent made: let go of it, and begin anew."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial


def call_in_children(method: Callable[[], None]) -> None:
    """Have a method called in each process that is forked from here on, while its object lives.

    Python calls it where it forks by itself, and servers in C that run it do as well.
    Some hundred bytes stay for each call when the object is gone, as Python takes nothing back
    that it was told to call: it is for what is made a few times a process.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (living := reference()) is not None:
            living()

    if hasattr(os, "register_at_fork"):  # else processes do not fork
        os.register_at_fork(after_in_child=call)


def call_around_forks(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """Have methods called before each fork, and after it in both; see `call_in_children`."""
    references = [weakref.WeakMethod(method) for method in (before, in_parent, in_child)]

    def call(which: int) -> None:
        if (living := references[which]()) is not None:
            living()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=partial(call, 0),
            after_in_parent=partial(call, 1),
            after_in_child=partial(call, 2),
        )
