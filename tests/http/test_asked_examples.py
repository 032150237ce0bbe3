"""Every example of a vendor's own documentation is read, and those that generate are not free."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from itertools import pairwise

import pytest

from tests.http.requests import asked

GENERATING = re.compile(r"/(chat/completions|completions|responses|embeddings|images/\w+)(\?.*)?$")


@pytest.fixture(scope="module")
def examples(test_data):
    path = test_data / "conformance" / "openai-openapi" / "examples.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def parts_of(command):
    """Return the headers and the body of a curl command, with files that say nothing."""
    headers, fields, body = [], [], None
    try:
        words = shlex.split(re.sub(r">\([^)]*\)", "x", command or ""))
    except ValueError:
        words = []
    for flag, value in pairwise(words):
        if flag == "-H":
            name, _, text = value.partition(":")
            headers.append((name.strip().lower().encode(), text.strip().encode()))
        elif flag in {"-d", "--data"}:
            body = value.encode()
        elif flag in {"-F", "--form"}:
            fields.append(value.partition("=")[::2])
    if fields:
        lines = []
        for name, text in fields:
            kind = '; filename="f"' if text.startswith("@") else ""
            lines += ["--b", f'Content-Disposition: form-data; name="{name}"{kind}', "", text]
        body = "\r\n".join([*lines, "--b--", ""]).encode()
        headers = [(name, value) for name, value in headers if name != b"content-type"]
        headers.append((b"content-type", b"multipart/form-data; boundary=b"))
    return headers, body


def is_json(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def test_every_example_is_read(examples):
    read = generating = 0
    for example in examples:
        headers, body = parts_of(example["request"])
        path, _, query = f"/v1{example['path']}".partition("?")

        request = asked(
            path, body or b"", method=example["method"], headers=headers, query=query.encode()
        )

        sent = body is not None and (body.startswith(b"--b") or is_json(body))
        if sent:
            assert request.problem is None, (path, request.problem)
            read += 1
        if sent and example["method"] == "post" and GENERATING.search(example["path"]):
            generating += 1
            assert request.estimate["input_tokens"] > 0
            assert request.facts["request.capability"] != "other"
            if is_json(body):
                assert request.facts.get("request.model") == json.loads(body).get("model")

    assert (len(examples), read >= 120, generating >= 25) == (314, True, True)
