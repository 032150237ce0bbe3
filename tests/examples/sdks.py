"""What the tests of the official SDKs do alike: their clients, and calls that are refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import Any

import pytest

from tests.examples.asking import ASK, until_throttled
from tests.http.servers import PATIENCE


@contextmanager
def clients(sdk, kinds, url):
    """Give a function that makes clients of a module for a key, with their own retries on.

    `kinds` are the classes of clients, the first of which waits for its answers; an asynchronous
    one is closed by whoever uses it.
    """
    # Without reading certificates, which takes longer than most tests.
    connections = dict(
        zip(kinds, (sdk.DefaultHttpxClient, sdk.DefaultAsyncHttpxClient), strict=True)
    )
    made: list[Any] = []

    def make(key="sk-verified", kind=kinds[0], **options):
        options |= {"base_url": url, "timeout": PATIENCE}
        made.append(kind(api_key=key, http_client=connections[kind](verify=False), **options))
        return made[-1]

    yield make
    for client in made:
        if isinstance(client, kinds[0]):
            client.close()


def awaited(client, create, **ask):
    """Return what an asynchronous client creates, or all events of it if it is a stream."""

    async def run():
        async with client:
            made = await create(**{**ASK, **ask})
            return [event async for event in made] if ask.get("stream") else made

    return asyncio.run(run())


def tried_once(example, error, call) -> Any:
    """Return the SDK's error that a call is refused with, at its first attempt."""
    before = example.attempts()
    with pytest.raises(error) as caught:
        call()

    assert example.attempts() == before + 1
    return caught.value


def served_after_its_wait(example, error, impatient, patient) -> Any:
    """Return the error that an impatient client gets, and what a patient one is served then."""
    refused = until_throttled(impatient, error)
    before, asked = example.attempts(), time.monotonic()
    made = patient()
    waited = time.monotonic() - asked

    assert refused.response.headers["retry-after"] == "1"
    assert example.attempts() == before + 2
    assert waited > 0.5
    return refused, made
