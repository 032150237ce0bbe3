"""The real proxy of LiteLLM, over real connections, before a model's API of our own."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
import yaml

from tests.http import servers
from tests.http.servers import PATIENCE, free_port, until

LONG = 300.0
"""How many seconds LiteLLM has to start: it imports for ten where nothing else runs."""


@pytest.fixture(autouse=True, scope="session")
def _patience():
    """Give servers as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "PATIENCE", LONG)
        yield


@pytest.fixture(autouse=True)
def _no_task_is_lost():
    """Let tasks be lost: LiteLLM starts some that it never looks after."""


@pytest.fixture(autouse=True, scope="module")
def _no_task_was_lost():
    """Let tasks be lost, those of a module too."""


NOTHING = {"requests": 0, "input_tokens": 0, "output_tokens": 0}


@contextmanager
def served(app, port):
    """Serve an app in a thread until the block ends; yield its event loop."""
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="warning", proxy_headers=False)
    server, loops = uvicorn.Server(config), []

    async def serve():
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the server did not start"
        yield loops[0]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


@pytest.fixture(scope="session")
def upstream():
    """The address of the model's API."""
    from tests.litellm.upstream import app

    port = free_port()
    with served(app, port):
        yield f"http://127.0.0.1:{port}"


class Proxy:
    """The running proxy, its guard, and clients for it."""

    def __init__(self, url, loop, entry):
        self.url = url
        self.entry = entry
        self.clock = entry.CLOCK
        self._loop = loop
        self._names = iter(range(10**6))

    def client(self, name=None):
        """Return a client of an account, of a new one unless it is named."""
        name = name or f"user-{next(self._names)}"
        headers = {"authorization": f"Bearer sk-{name}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE)
        client.name = name  # type: ignore[attr-defined]
        return client

    def used(self, name):
        """Return what an account has used: of each limit of its own, by the rule's id."""

        async def ask():
            guard = self.entry.guard.guard
            decision = await guard.decide({"account.id": name, "account.tier": "free"}, NOTHING)
            used = {limit.rule: limit.used for limit in decision.limits}
            await guard.release(decision)
            # The one that asks holds a place itself, if there is one.
            used["places"] -= decision.allowed
            return used

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(PATIENCE)

    def settled(self, name):
        """Return what an account has used once none of its calls is open."""

        def ended():
            used = self.used(name)
            return used if used["places"] == 0 else None

        return until(ended)

    def spent(self, name):
        """Return what LiteLLM itself has counted of a key's budget, set aside or spent."""
        from litellm.proxy._types import hash_token
        from litellm.proxy.proxy_server import spend_counter_cache

        key = f"spend:key:{hash_token(f'sk-{name}')}"
        return spend_counter_cache.in_memory_cache.get_cache(key)

    def place_of(self, name):
        """Return how many places in flight an account holds."""
        return self.used(name)["places"]


@pytest.fixture(scope="session")
def proxy(upstream, tmp_path_factory):
    """The proxy, as its own command serves it, on a clock that tests move."""
    folder = tmp_path_factory.mktemp("proxy")
    os.environ |= {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "CONFIG_FILE_PATH": str(folder / "config.yaml"),
        "OPENAI_API_KEY": "none",
        "OPENAI_API_BASE": f"{upstream}/v1",
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_API_BASE": upstream,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration(upstream)))
    from litellm.proxy.proxy_server import app

    from tests.litellm import entry

    port = free_port()
    with served(app, port) as loop:
        # It was read by now; the commands of other tests read their own.
        del os.environ["CONFIG_FILE_PATH"]
        yield Proxy(f"http://127.0.0.1:{port}", loop, entry)


def configuration(upstream):
    """Return the proxy's configuration: models at `upstream`, and the guard."""
    here = {"api_base": f"{upstream}/v1", "api_key": "none"}
    models = {
        "small": {"model": "openai/small", **here},
        "large": {"model": "openai/large", **here},
        "dear": {"model": "openai/dear", **here},
        "closed": {"model": "openai/closed", **here},
        "claude": {"model": "anthropic/claude", "api_base": upstream, "api_key": "none"},
        "ranks": {"model": "cohere/ranks", "api_base": f"{upstream}/v1/rerank", "api_key": "none"},
        "moderates": {"model": "openai/omni-moderation-latest", **here},
        "draws": {"model": "openai/gpt-image-1", **here},
        "hears": {"model": "openai/gpt-4o-transcribe", **here},
        "speaks": {"model": "openai/tts-1", **here},
        "talks": {"model": "openai/gpt-4o-realtime-preview", "api_base": upstream, "api_key": "n"},
    }
    through = [{"path": "/mine", "target": f"{upstream}/v1/chat/completions", "auth": True}]
    listed = [{"model_name": name, "litellm_params": params} for name, params in models.items()]
    price = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.001}
    priced = {"model_name": "priced", "litellm_params": models["small"], "model_info": price}
    return {
        "model_list": [*listed, priced],
        "litellm_settings": {"callbacks": ["tests.litellm.entry.guard"], "num_retries": 0},
        "general_settings": {
            "master_key": "sk-master",
            "custom_auth": "tests.litellm.entry.authenticate",
            "custom_auth_run_common_checks": True,
            "pass_through_endpoints": through,
        },
        "files_settings": [{"custom_llm_provider": "openai", **here}],
    }
