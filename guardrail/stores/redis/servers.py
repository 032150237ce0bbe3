"""The servers that an address means: which of them has a slot, and how a connection is opened.

All but the waiting, which is yielded in steps: `blocking` and `pipelined` do that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from functools import partial
from inspect import signature
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from redis import exceptions as said
from redis.backoff import NoBackoff

from guardrail.errors import StoreError
from guardrail.stores.redis.address import Address, Place
from guardrail.stores.redis.cluster import NAMELESS, SlotTable
from guardrail.stores.redis.faults import MOVED_AWAY, refusal, unreachable
from guardrail.stores.redis.protocol import Call, Command, Commands, answered, packed
from guardrail.stores.redis.server_state import ServerState
from guardrail.stores.steps import Steps

ANY = Place("", 0)
"""Whichever server of a cluster answers: the first call goes there, and is sent on."""
ASKING = packed(("ASKING",))
"""Sent ahead of a call that follows a slot on its way to another server."""
REDIRECTS = 5
"""How many servers of a cluster may send a call on before it fails."""
TRY_AGAIN_AFTER = 0.002
"""Seconds until a call is sent again whose records are on their way to another server."""
CHECK_PRIMARY = 1.0
"""Seconds between two questions to the sentinels which server is the primary."""
PATIENCE = 2
"""Deadlines of silence after which a connection that owes a reply is given up."""
LOOK_EVERY = 0.001
"""Seconds between two looks at whether what is owed has come, when a store is closed."""

OnLate = Callable[[Call, object], None]
"""Is handed the reply to a call that nobody waits for any more."""


class Library(NamedTuple):
    """What of redis-py waits in one way: the module of its connections, and its sentinels.

    `close` names the method that closes a client.
    """

    connections: Any
    retry: Any
    sentinel: Any
    close: str


class Connected(Protocol):
    """What calls to one server go through: a pool of connections, or one that is shared.

    It is made from what opens a connection, how errors name the server, the deadline in seconds,
    and `on_late`. `lost` counts the calls whose replies never came.
    """

    where: str
    lost: int

    def ask(self, commands: Sequence[bytes], call: Call, until: float) -> Any:
        """Send packed commands; return the reply to the last, or await it, also if it is an error.

        Raises:
            StoreError: it did not come until then, by the servers' time.
        """
        ...

    def owes(self) -> bool:
        """Tell whether replies are still to come that nobody waits for, after taking in others."""
        ...

    def retire(self, moment: float) -> None:
        """Have nothing used any more that was opened by a moment, by the servers' time."""
        ...


C = TypeVar("C", bound=Connected)


class Servers(ABC, Generic[C]):
    """What calls go through to each server of an address; a subclass says how to wait.

    `deadline` and `timeout` (of opening a connection) are in seconds. `on_late` is handed replies
    that came after their deadline. `only` is the way to the one server there is, None in a cluster.
    `time` is what deadlines go by, `sleep` waits for seconds.
    """

    library: ClassVar[Library]
    adopt: ClassVar[Any]
    """Makes one of our connections of one of redis-py that has just logged in."""
    connected: ClassVar[Any]
    """Makes what calls to a server go through: a `Connected`."""
    performed: ClassVar[Any]
    """Performs steps, or has them performed when it is awaited."""

    def __init__(
        self,
        address: Address,
        state: ServerState,
        deadline: float,
        timeout: float,
        on_late: OnLate,
        *,
        time: Callable[[], float],
        sleep: Callable[[float], Any],
    ) -> None:
        self.address = address
        self.state = state
        self.deadline = deadline
        self.timeout = timeout
        self.on_late = on_late
        self.time = time
        self.sleep = sleep
        self.is_cluster = address.kind == "cluster"
        self.is_sentinel = address.kind == "sentinel"
        self._connected: dict[Place, C] = {}
        self._table: SlotTable | None = None
        self._stale = True
        self._checked = time()
        self._primary: Place | None = None
        self.only = None if self.is_cluster else self.at_place(address.places[0])

    @abstractmethod
    def in_background(self, steps: Steps[None]) -> None:
        """Have steps performed beside whatever else is done."""

    @abstractmethod
    def close(self) -> Any:
        """Close every connection."""

    @property
    def lost(self) -> int:
        """Replies that never came."""
        return sum(connected.lost for connected in self.every())

    def every(self) -> list[C]:
        """Return what calls have gone through."""
        return list(self._connected.values())

    def at(self, slot: int) -> C:
        """Return the way to the server that has a slot, or to one that knows who has."""
        if self.only is not None:
            return self.only
        place = None if self._table is None else self._table.place(slot)
        return self.at_place(place or ANY)

    def at_place(self, place: Place) -> C:
        """Return the way to a server."""
        connected = self._connected.get(place)
        if connected is None:
            opener = partial(self.open, place)
            made = self.connected(opener, self._spelled(place), self.deadline, self.on_late)
            connected = self._connected.setdefault(place, made)
        return connected

    def open(self, place: Place) -> Any:
        """Return a connection to a server, or await it: asking the way to it may take long."""
        return self.performed(self.opening(place))

    def drained(self) -> Steps[None]:
        """Wait for what the servers owe, no longer than a deadline."""
        until = self.time() + self.deadline
        while any(each.owes() for each in self.every()) and self.time() < until:
            yield self.sleep, (LOOK_EVERY,)

    def forget_table(self) -> None:
        """Ask for the slots again with the next connection that is opened."""
        self._stale = True

    def send(self, until: float, call: Call) -> Steps[object]:
        """Send a call, wherever its slot is by now; return the reply.

        Raises:
            StoreError: no reply came until then, or the reply is an error.
        """
        connected = self.at(call.slot)
        reply = yield connected.ask, ((call.command(),), call, until)
        return (yield from self.answered(until, call, reply, connected))

    def answered(self, until: float, call: Call, reply: object, connected: C) -> Steps[object]:
        """Return the reply to a call; where it is an error, see what can be done about it.

        Raises:
            StoreError: nothing can, or no reply came until then.
        """
        if not isinstance(reply, Exception):
            return reply
        if isinstance(reply, said.NoScriptError):
            reply = yield connected.ask, ((call.whole(),), call, until)
        if self.is_cluster:
            reply, connected = yield from self._sent_on(call, until, reply, connected)
        if not isinstance(reply, Exception):
            return reply
        if isinstance(reply, MOVED_AWAY):
            self.forget_table()
        if str(reply).startswith(("AHEAD ", "EPOCH")):
            self.state.invalidate()
        raise refusal(reply, connected.where)

    def _sent_on(
        self, call: Call, until: float, reply: object, connected: C
    ) -> Steps[tuple[object, C]]:
        """Send a call on to where a server of a cluster says, and again while records move."""
        ahead: tuple[bytes, ...] = ()
        redirects = 0
        while True:
            if isinstance(reply, said.AskError):  # and so is redis-py's MovedError
                redirects += 1
                if redirects == REDIRECTS:
                    raise StoreError(f"{connected.where} sent a call on too often")
                place = self._told(reply, connected)
                ahead = (ASKING,)
                if isinstance(reply, said.MovedError):
                    ahead = ()
                    if self._table is not None:
                        self._table.move(call.slot, place)
                connected = self.at_place(place)
            elif isinstance(reply, said.TryAgainError) and until - self.time() > self.deadline / 5:
                yield self.sleep, (TRY_AGAIN_AFTER,)
            else:
                return reply, connected
            reply = yield connected.ask, ((*ahead, call.command()), call, until)
            if isinstance(reply, said.NoScriptError):
                reply = yield connected.ask, ((*ahead, call.whole()), call, until)

    def _told(self, reply: Any, connected: C) -> Place:
        """Return which server another one names: it may know no host, but only the port."""
        if reply.host not in NAMELESS:
            return Place(reply.host, reply.port)
        places = set() if self._table is None else self._table.places()
        known = [place for place in places if place.port == reply.port]
        if len(known) == 1:
            return known[0]
        told_by = next(at for at, each in self._connected.items() if each is connected)
        return Place(told_by.host or self.address.places[0].host, reply.port)

    def opening(self, place: Place) -> Steps[Any]:
        """Open a connection to a server that may be trusted with counters, wherever it is now.

        Raises:
            StoreError, SettingError: the server is not fit for it.
            RedisError, OSError: it cannot be reached.
        """
        if self.is_sentinel:
            place = self._primary = yield from self._finding_primary()
        elif place is ANY or (self.is_cluster and self._stale):
            told = yield from self._learning(doubtful=place)
            place = told if place is ANY else place
        try:
            opened = yield from self._connecting(place)
            try:
                yield from self._exchanged(opened, self.state.check(), str(place))
                if not self.state.known and not self.is_cluster:
                    yield from self._exchanged(opened, self.state.refresh(), str(place))
            except BaseException:
                opened.close()
                raise
        except (said.RedisError, OSError):
            self.forget_table()
            raise
        return opened

    def look(self) -> None:
        """Ask the sentinels now and then, in the background, whether the primary is another one.

        One that was replaced by order may go on as if it had not been, for ten seconds.
        """
        if self.is_sentinel and self.time() - self._checked > CHECK_PRIMARY:
            self._checked = self.time()
            self.in_background(self._following())

    def _following(self) -> Steps[None]:
        began = self.time()
        try:
            primary = yield from self._finding_primary()
        except (said.RedisError, OSError):
            return
        if self._primary not in (None, primary):
            for connected in self.every():
                connected.retire(began)

    def _learning(self, doubtful: Place) -> Steps[Place]:
        """Ask the cluster for its slots, at any server that answers; return which did."""
        problem = StoreError("no server of the cluster is named")
        known = [] if self._table is None else sorted(self._table.places(), key=str)
        every = dict.fromkeys((*known, *self.address.places))
        for place in sorted(every, key=lambda each: each == doubtful):
            try:
                opened = yield from self._connecting(place)
                try:
                    yield from self._exchanged(opened, self._slots(place), str(place))
                finally:
                    opened.close()
            except StoreError as error:
                problem = error
            except (said.RedisError, OSError) as error:
                problem = unreachable(error, str(place))
            else:
                return place
        raise problem

    def _connecting(self, place: Place) -> Steps[Any]:
        """Connect to a server, and log in."""
        library, address = self.library, self.address
        settings = {
            **_quiet(signature(library.connections.AbstractConnection).parameters),
            "username": address.username,
            "password": address.password,
            "db": address.database,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "protocol": 2,
            "client_name": "guardrail",
            "health_check_interval": 0,
            "retry": library.retry(NoBackoff(), 0),
        }
        if place.path:
            kind = library.connections.UnixDomainSocketConnection
            connection = kind(path=place.path, **settings)
        else:
            kind = library.connections.Connection
            if address.tls:
                kind = library.connections.SSLConnection
                settings |= _secured(address)
            connection = kind(host=place.host, port=place.port, socket_keepalive=True, **settings)
        yield connection.connect, ()
        return self.adopt(connection)

    def _finding_primary(self) -> Steps[Place]:
        """Ask the sentinels where the primary of the service is now."""
        library, timeout = self.library, self.timeout
        asked = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": library.retry(NoBackoff(), 0),
            **({"ssl": True, **_secured(self.address)} if self.address.tls else {}),
        }
        places = [(place.host, place.port) for place in self.address.places]
        sentinel = library.sentinel(places, sentinel_kwargs=asked)
        try:
            host, port = yield sentinel.discover_master, (self.address.service,)
        finally:
            for client in sentinel.sentinels:
                yield getattr(client, library.close), ()
        return Place(host, port)

    def _slots(self, place: Place) -> Commands:
        self._table = SlotTable.read((yield ("CLUSTER", "SLOTS")), place)
        self._stale = False

    def _exchanged(self, opened: Any, commands: Commands, where: str) -> Steps[None]:
        """Have commands answered over a connection just opened."""

        def ask(command: Command) -> Steps[object]:
            reply = yield opened.exchange, (packed(command), self.timeout)
            if isinstance(reply, Exception):
                raise refusal(reply, where) from reply
            return reply

        yield from answered(commands, ask)

    def _spelled(self, place: Place) -> str:
        """Return how errors name a server."""
        named = ", ".join(map(str, self.address.places))
        if self.is_sentinel:
            return f"`{self.address.service}` of the sentinels {named}"
        return f"the cluster of {named}" if place is ANY else str(place)


def _secured(address: Address) -> dict[str, Any]:
    """Return how a connection with TLS believes a server, and is believed."""
    # Before version 6, redis-py takes a certificate for any name.
    own = {"ssl_certfile": address.certificate, "ssl_keyfile": address.key}
    return {"ssl_check_hostname": True, **own}


def _quiet(taken: Container[str]) -> dict[str, Any]:
    """Return what keeps a connection from saying more at its start than its name.

    `taken` is what this version of redis-py lets a connection be made with.
    """
    quiet: dict[str, Any] = {}
    if "maint_notifications_config" in taken:
        from redis.maint_notifications import MaintNotificationsConfig

        quiet["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    if "driver_info" in taken:
        return {**quiet, "driver_info": None}
    return {**quiet, "lib_name": None, "lib_version": None}
