"""Connections of redis-py, opened for guardrail: logged in, without retries, looked at once."""

from __future__ import annotations

from collections.abc import Container
from inspect import signature
from typing import Any, cast

from redis import exceptions as said
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.connection import Connection as TcpConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from guardrail.errors import GuardrailError
from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.bearings import Bearings, Sampling
from guardrail.stores.redis.faults import refusal
from guardrail.stores.redis.link import ANSWERS, Connection, command, read


def login(address: Address, timeout: float, kind: type) -> dict[str, Any]:
    """Return what every connection to an address is made with; `timeout` in seconds.

    `kind` is redis-py's class for all of them: what it takes differs by version.
    """
    return {
        **_quiet(signature(kind).parameters),
        "username": address.username,
        "password": address.password,
        "db": address.database,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,
        "client_name": "guardrail",
        "health_check_interval": 0,
    }


def _quiet(taken: Container[str]) -> dict[str, Any]:
    """Return what keeps a connection from saying more at its start than its name."""
    quiet: dict[str, Any] = {}
    if "maint_notifications_config" in taken:
        from redis.maint_notifications import MaintNotificationsConfig

        quiet["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    if "driver_info" in taken:
        return {**quiet, "driver_info": None}
    return {**quiet, "lib_name": None, "lib_version": None}


def reach(address: Address, place: Place, timeout: float) -> Connection:
    """Return a connection to one server, logged in.

    Raises:
        RedisError, OSError: it cannot be reached, or does not let us in.
    """
    settings = {**login(address, timeout, AbstractConnection), "retry": Retry(NoBackoff(), 0)}
    if place.path:
        by_path: Any = UnixDomainSocketConnection
        connection = by_path(path=place.path, **settings)
    else:
        kind: Any = SSLConnection if address.tls else TcpConnection
        connection = kind(host=place.host, port=place.port, socket_keepalive=True, **settings)
    connection.connect()
    return cast(Connection, connection)


def master_of(address: Address, timeout: float) -> Place:
    """Return where the primary of a Sentinel service is now.

    Raises:
        RedisError: no sentinel knows it.
    """
    places = [(place.host, place.port) for place in address.places]
    kwargs = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    service: Any = Sentinel
    sentinel = service(places, sentinel_kwargs={**kwargs, "retry": Retry(NoBackoff(), 0)})
    try:
        host, port = sentinel.discover_master(address.service)
    finally:
        for client in sentinel.sentinels:
            client.close()
    return Place(host, port)


def converse(connection: Connection, sampling: Sampling, timeout: float, where: str) -> None:
    """Have a sampling's commands answered over a connection.

    Raises:
        StoreError: the server refused one.
        RedisError, OSError: the connection broke.
    """
    try:
        asked = next(sampling)
        while True:
            connection.send_packed_command([command(asked)], check_health=False)
            try:
                reply = read(connection, timeout)
            except ANSWERS as answer:
                raise refusal(answer, where) from answer
            asked = sampling.send(reply)
    except StopIteration:
        return


def greeted(address: Address, place: Place, bearings: Bearings, timeout: float) -> Connection:
    """Return a connection to a server that may be trusted with counters.

    Raises:
        StoreError, SettingError: the server is not fit for it.
        RedisError, OSError: it cannot be reached.
    """
    connection = reach(address, place, timeout)
    try:
        converse(connection, bearings.greeting(), timeout, str(place))
        if not bearings.known and address.kind != "cluster":
            converse(connection, bearings.sampling(), timeout, str(place))
    except (GuardrailError, said.RedisError, OSError):
        connection.disconnect()
        raise
    return connection
