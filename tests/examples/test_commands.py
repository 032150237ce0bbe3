"""What the documents say of the examples is what the examples say themselves."""

from __future__ import annotations

import re

import pytest

from tests.examples.starting import EXAMPLES, command_of
from tests.http.servers import ROOT

LINES = {
    "server/fastapi_app.py": "app.add_middleware(GuardrailMiddleware",
    "server/flask_app.py": "app.wsgi_app = GuardrailMiddleware(",
    "server/django_app.py": "application = GuardrailMiddleware(",
    "vllm/serve.sh": "--middleware guardrail.asgi.GuardrailMiddleware",
    "litellm/config.yaml": "callbacks: [guardrail.http.litellm.guard]",
}


def test_the_commands_of_the_document_are_those_of_the_files():
    text = (EXAMPLES / "README.md").read_text("utf-8")
    commands = [command_of(EXAMPLES / path) for path in LINES]

    assert re.findall(r"^    (GUARDRAIL_.+)$", text, re.MULTILINE) == commands


@pytest.mark.parametrize("path", LINES)
def test_a_host_gets_the_guard_by_the_line_that_the_readme_gives(path):
    readme = (ROOT / "README.md").read_text("utf-8")

    assert LINES[path] in (EXAMPLES / path).read_text("utf-8")
    assert LINES[path] in readme.partition("| Host |")[2].partition("\n\n")[0]
