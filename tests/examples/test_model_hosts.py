"""The vLLM and the LiteLLM example: configurations alone, no code of the host's own.

`tests/litellm` runs the latter.
"""

from __future__ import annotations

import sys

import pytest
import yaml

from tests.examples.asking import ASK
from tests.examples.starting import EXAMPLES, started
from tests.http.servers import ROOT

LITELLM = EXAMPLES / "litellm" / "config.yaml"


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    """The vLLM example, with a `vllm` that loads its middleware as the real one does."""
    folder = tmp_path_factory.mktemp("vllm")
    command = folder / "vllm"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.examples.serving_vllm "$@"\n')
    command.chmod(0o755)
    with started(
        EXAMPLES / "vllm" / "serve.sh", folder, place="--port {}", path_first=folder
    ) as running:
        yield running


def complete(host, key, path="/v1/chat/completions", **headers):
    headers = {"authorization": f"Bearer {key}", **headers}
    return host.client.post(path, json=ASK, headers=headers)


def test_vllm_is_guarded_by_its_configuration_alone(vllm):
    served, paid = vllm.charged("sk-verified", lambda: complete(vllm, "sk-verified"))
    refused = complete(vllm, "sk-nobody")

    assert served.status_code == 200
    assert paid == served.json()["usage"]["total_tokens"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_paths_that_only_vllm_has_are_guarded_too(vllm):
    refused = complete(vllm, "sk-on-hold", path="/invocations")

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "account_on_hold")


def test_a_browser_may_read_a_refusal_of_vllm(vllm):
    refused = complete(vllm, "sk-nobody", origin="http://localhost:3000")

    assert refused.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_the_litellm_example_names_a_callback_that_is_there():
    settings = yaml.safe_load(LITELLM.read_text("utf-8"))["litellm_settings"]
    (callback,) = settings["callbacks"]
    module, _, name = callback.rpartition(".")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8")

    assert f'if name == "{name}":' in source
