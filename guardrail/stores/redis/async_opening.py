"""Connections of redis-py for event loops, opened as those for threads are."""

from __future__ import annotations

from typing import Any

from redis.asyncio import connection as kinds
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.bearings import Bearings, Sampling
from guardrail.stores.redis.faults import refusal
from guardrail.stores.redis.link import ANSWERS, command
from guardrail.stores.redis.opening import login


async def reach(address: Address, place: Place, timeout: float) -> Any:
    """Return a connection to one server, logged in.

    Raises:
        RedisError, OSError: it cannot be reached, or does not let us in.
    """
    settings = {**login(address, timeout, kinds.AbstractConnection), "retry": Retry(NoBackoff(), 0)}
    if place.path:
        by_path: Any = kinds.UnixDomainSocketConnection
        connection = by_path(path=place.path, **settings)
    else:
        kind: Any = kinds.SSLConnection if address.tls else kinds.Connection
        connection = kind(host=place.host, port=place.port, socket_keepalive=True, **settings)
    await connection.connect()
    return connection


async def master_of(address: Address, timeout: float) -> Place:
    """Return where the primary of a Sentinel service is now.

    Raises:
        RedisError: no sentinel knows it.
    """
    places = [(place.host, place.port) for place in address.places]
    kwargs = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    service: Any = Sentinel
    sentinel = service(places, sentinel_kwargs={**kwargs, "retry": Retry(NoBackoff(), 0)})
    try:
        host, port = await sentinel.discover_master(address.service)
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
    return Place(host, port)


async def converse(connection: Any, sampling: Sampling, where: str) -> None:
    """Have a sampling's commands answered over a connection.

    Raises:
        StoreError: the server refused one.
        RedisError, OSError: the connection broke.
    """
    try:
        asked = next(sampling)
        while True:
            await connection.send_packed_command([command(asked)], check_health=False)
            try:
                reply = await connection.read_response(disable_decoding=True)
            except ANSWERS as answer:
                raise refusal(answer, where) from answer
            asked = sampling.send(reply)
    except StopIteration:
        return


async def greeted(address: Address, place: Place, bearings: Bearings, timeout: float) -> Any:
    """Return a connection to a server that may be trusted with counters.

    Raises:
        StoreError, SettingError: the server is not fit for it.
        RedisError, OSError: it cannot be reached.
    """
    connection = await reach(address, place, timeout)
    try:
        await converse(connection, bearings.greeting(), str(place))
        if not bearings.known and address.kind != "cluster":
            await converse(connection, bearings.sampling(), str(place))
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection
