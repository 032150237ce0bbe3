"""Every example of a vendor's own documentation is read, and those that generate are not free."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from itertools import pairwise

import pytest

from tests.http.meters import metered
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
        for name, given in fields:
            text = re.sub(r";type=[\w/]+$", "", given)
            kind = '; filename="f"' if text.startswith("@") else ""
            lines += ["--b", f'Content-Disposition: form-data; name="{name}"{kind}', "", text]
        body = "\r\n".join([*lines, "--b--", ""]).encode()
        headers = [(name, value) for name, value in headers if name != b"content-type"]
        headers.append((b"content-type", b"multipart/form-data; boundary=b"))
    elif body is not None and all(name != b"content-type" for name, _ in headers):
        # Some commands leave it out, with which curl would call JSON a form.
        headers.append((b"content-type", b"application/json"))
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


def test_recorded_exchanges_are_read_and_metered_as_they_say_themselves(test_data):
    folder = test_data / "conformance" / "anthropic-streams" / "exchanges"
    seen = streamed = 0
    for path in sorted(folder.glob("*.json")):
        for exchange in json.loads(path.read_text("utf-8")):
            sent, answer = exchange["request"], exchange["response"]
            headers = [(name.encode(), value.encode()) for name, value in sent["headers"].items()]

            request = asked("/v1/messages", sent["body"], headers=headers)

            assert request.facts["request.model"] == sent["body"]["model"]
            assert request.facts["request.tools"] == len(sent["body"].get("tools", []))
            assert request.estimate["output_tokens"] == sent["body"]["max_tokens"]
            text, told = answer_of(answer["body"])
            kind = b"application/json" if isinstance(answer["body"], dict) else b"text/event-stream"
            used = metered(request.usage_format, [text], headers=((b"content-type", kind),))
            charged = (used.usage["input_tokens"], used.usage["output_tokens"])
            if told == (0, 0):  # a fixture that tells nothing of the text it carries
                assert charged[1] > 0
            else:
                assert charged == told
            assert used.ended
            seen += 1
            streamed += request.streams

    assert (seen, streamed) == (11, 4)


def answer_of(body):
    """Return a response as bytes, and its input and output by its own last word."""
    if isinstance(body, dict):
        usages, text = [body["usage"]], json.dumps(body).encode()
    else:
        text = body.encode()
        usages = [
            json.loads(found)
            for found in re.findall(r'"usage":({[^{}]*(?:{[^{}]*}[^{}]*)*})', body)
        ]
    merged = {name: value for usage in usages for name, value in usage.items() if value is not None}
    cached = merged.get("cache_read_input_tokens", 0) + merged.get("cache_creation_input_tokens", 0)
    return text, (merged["input_tokens"] + cached, merged["output_tokens"])
