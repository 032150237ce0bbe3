"""Work written once for who blocks and who awaits: what has to wait is yielded as a step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

Step = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function that waits and its arguments: one that blocks, or one whose result is awaited."""
Steps = Generator[Step, Any, T]
"""Steps to perform, each of which is sent what its function returned or thrown what it raised."""


def performed(steps: Steps[T]) -> T:
    """Perform steps whose functions block; return what comes of them."""
    try:
        function, arguments = next(steps)
        while True:
            try:
                found = function(*arguments)
            except BaseException as problem:
                function, arguments = steps.throw(problem)
            else:
                function, arguments = steps.send(found)
    except StopIteration as end:
        return cast(T, end.value)


async def awaited(steps: Steps[T]) -> T:
    """Perform steps whose functions are awaited; return what comes of them."""
    try:
        function, arguments = next(steps)
        while True:
            try:
                found = await function(*arguments)
            except BaseException as problem:
                function, arguments = steps.throw(problem)
            else:
                function, arguments = steps.send(found)
    except StopIteration as end:
        return cast(T, end.value)
