"""What the clients of the examples ask: the model repeats it."""

from __future__ import annotations

from typing import Any


def asking(text, cap=100) -> Any:
    """Return a chat, or messages, of one text."""
    return {"model": "small", "max_tokens": cap, "messages": [{"role": "user", "content": text}]}


ASK = asking("Say this.")
LONG = asking("Say this. " * 1000, cap=4000)
LARGE = asking("x" * 1_100_000)
SPENDING = asking("word" * 4096, cap=4096)
ABROAD: Any = {"extra_headers": {"x-forwarded-for": "175.45.176.1"}}
"""What a proxy in front of the examples says of a client in North Korea."""


def until_throttled(call, error) -> Any:
    """Call until a call is refused with most of its wait to come; return the SDK's `error`."""
    for _ in range(1000):
        try:
            call()
        except error as refused:
            if int(refused.response.headers.get("retry-after-ms", 1000)) > 700:
                return refused
    raise AssertionError("never throttled")
