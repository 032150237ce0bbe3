"""A policy file in an editor: a YAML language server completes, explains and warns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import pytest

SERVER = Path(sys.prefix) / "editor/node_modules/yaml-language-server/bin/yaml-language-server"
HEAD = "# yaml-language-server: $schema=./guardrail.schema.json\n"
POLICY = f"""{HEAD}guardrail: 1
policy: shop
rules:
  - id: pace
    when: always
    rate: {{requests: 20/minute, key: account.id}}
"""


class Editor:
    """A session with a language server: it opens a text, and asks about places in it."""

    def __init__(self, process, folder):
        self._process, self._folder, self._ids = process, folder, count(1)
        self._warnings = {}
        self._ask(
            "initialize",
            {
                "processId": None,
                "rootUri": folder.as_uri(),
                "capabilities": {"textDocument": {"hover": {"contentFormat": ["markdown"]}}},
            },
        )
        self._tell("initialized", {})

    def open(self, name, text):
        self._uri = (self._folder / name).as_uri()
        document = {"uri": self._uri, "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})

    def completions(self, line, character):
        found = self._ask("textDocument/completion", self._place(line, character))
        items = found["items"] if isinstance(found, dict) else found
        return {item["label"] for item in items}

    def hover(self, line, character):
        found = self._ask("textDocument/hover", self._place(line, character))
        return "" if found is None else json.dumps(found["contents"], ensure_ascii=False)

    def warnings(self):
        while self._uri not in self._warnings:
            self._take(self._read())
        return [warning["message"] for warning in self._warnings.pop(self._uri)]

    def _place(self, line, character):
        position = {"line": line, "character": character}
        return {"textDocument": {"uri": self._uri}, "position": position}

    def _ask(self, method, params):
        number = next(self._ids)
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == number and "method" not in message:
                return message["result"]
            self._take(message)

    def _tell(self, method, params):
        self._send({"method": method, "params": params})

    def _take(self, message):
        if message.get("method") == "textDocument/publishDiagnostics":
            self._warnings[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "id" in message and "method" in message:
            result = None
            if message["method"] == "workspace/configuration":
                settings = {"schemaStore": {"enable": False}, "validate": True, "hover": True}
                asked = message["params"]["items"]
                result = [settings if one.get("section") == "yaml" else {} for one in asked]
            self._send({"id": message["id"], "result": result})

    def _send(self, message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _read(self):
        size = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        assert size, "the language server has ended"
        return json.loads(self._process.stdout.read(size))


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js here, which the YAML language server runs on")
    if not SERVER.exists():
        pytest.skip("no yaml-language-server here: `make test` installs it where there is npm")
    folder = tmp_path_factory.mktemp("editor")
    schema = subprocess.run(
        [sys.executable, "-m", "guardrail", "schema"], capture_output=True, check=True
    ).stdout
    (folder / "guardrail.schema.json").write_bytes(schema)
    with subprocess.Popen(
        [node, str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    ) as process:
        watchdog = threading.Timer(90, process.kill)
        watchdog.start()
        yield Editor(process, folder)
        watchdog.cancel()
        process.kill()


def test_a_right_file_has_no_warnings(editor):
    editor.open("right.yaml", POLICY)

    assert editor.warnings() == []


def test_keys_of_a_rule_are_completed(editor):
    editor.open("keys.yaml", POLICY + "    \n")

    assert {"mode", "unknown", "from", "until", "exemptible"} <= editor.completions(7, 4)


def test_sections_are_completed(editor):
    editor.open("sections.yaml", POLICY + "\n")

    assert {"facts", "lists", "models", "exemptions", "tests", "links"} <= editor.completions(8, 0)


def test_values_of_a_closed_list_are_completed(editor):
    editor.open("values.yaml", POLICY + "    mode: \n")

    assert {"enforce", "shadow"} <= {label.strip('"') for label in editor.completions(7, 10)}


@pytest.mark.parametrize(("line", "character"), [(4, 5), (5, 5), (6, 5), (6, 12)])
def test_a_key_explains_itself(editor, line, character):
    editor.open("hover.yaml", POLICY)

    assert len(editor.hover(line, character)) > 40


def test_a_mistake_is_marked(editor):
    editor.open("wrong.yaml", POLICY.replace("when:", "wen:"))

    assert any("wen" in warning for warning in editor.warnings())
