"""The hash keys that a door is given are those its store names counters by."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail.stores.naming import Naming, Timetable
from guardrail.wsgi import GuardrailMiddleware
from tests.cells.redis_stores import SERVERS
from tests.http.accounts import Accounts
from tests.http.driving import ASK, CHAT
from tests.http.test_endings import POLICY
from tests.http.wsgi_driving import Hosted, answering

ONE, OTHER = b"one key for tests, long enough..", b"another key for tests, as long.."


def given(kind: str, folder: Any, keys: list[bytes]) -> dict[str, Any]:
    """Return the arguments, or the environment, that give keys in one way."""
    files = []
    for number, key in enumerate(keys):
        path = folder / f"key{number}"
        path.write_bytes(key)
        path.chmod(0o600)
        files.append(path)
    ways: dict[str, dict[str, Any]] = {
        "hash_key": {"hash_key": keys if len(keys) > 1 else keys[0]},
        "hash_key_file": {"hash_key_file": files if len(files) > 1 else files[0]},
        "environment": {
            "environ": {
                "GUARDRAIL_HASH_KEY": keys[0].decode(),
                **({"GUARDRAIL_HASH_KEY_PREVIOUS": keys[1].decode()} if len(keys) > 1 else {}),
            }
        },
    }
    return ways[kind]


def asked(folder: Any, server: Any, **options: Any) -> int:
    """Send one request through a door over a server; return its status."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    app = GuardrailMiddleware(
        answering([b"{}"]),
        policies=policy,
        store=f"{server.uri}?deadline=20s",
        directory=Accounts(),
        **{"environ": {}, **options},
    )
    statuses: list[int] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append(int(status[:3]))

    response: Any = app(Hosted.environ(None, ASK, CHAT), start)  # type: ignore[arg-type]
    list(response)
    getattr(response, "close", lambda: None)()
    app.close()
    return statuses[0]


@pytest.mark.parametrize("kind", ["hash_key", "hash_key_file", "environment"])
def test_counters_are_named_by_the_keys_that_were_given(kind, tmp_path):
    server = SERVERS.empty("valkey 9")
    assert asked(tmp_path, server, **given(kind, tmp_path, [ONE])) == 200
    table = Timetable.read(server.client.get("gr:{meta}"))
    assert table.current == Naming(ONE, 1).epoch

    # Another key alone would start empty: it is refused, unless the former is given as well.
    with pytest.raises(SystemExit) as ended:
        asked(tmp_path, server, **given(kind, tmp_path, [OTHER]))
    assert "are made with the hash key" in str(ended.value.__cause__)
    assert Timetable.read(server.client.get("gr:{meta}")) == table
    assert asked(tmp_path, server, **given(kind, tmp_path, [OTHER, ONE])) == 200
    table = Timetable.read(server.client.get("gr:{meta}"))
    assert table.upcoming == Naming(OTHER, 1).epoch
