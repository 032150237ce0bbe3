"""The first steps of the README, taken as they are written there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import httpx

from tests.http.servers import PATIENCE, ROOT, free_port, until
from tests.test_docs import blocks


def test_the_first_requests_are_served_and_the_fourth_is_told_when_to_come_again(tmp_path):
    text = (ROOT / "README.md").read_text("utf-8")
    section = text[text.index("## Install it") : text.index("## Two commands")]
    parts = {block.language: block.text for block in blocks(section)}
    (tmp_path / "policy.yaml").write_text(parts["yaml"])
    (tmp_path / "app.py").write_text(parts["python"])
    shown = parts["text"].replace("\\\n", "")
    command, body = re.findall(r"^\$ (uvicorn .*)$|-d '([^']*)'", shown, re.MULTILINE)
    sent = re.findall(r"-H '([^']*)'", shown)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command[0]), "--port", str(port)], cwd=tmp_path
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:

            def asked():
                return client.post(
                    "/v1/chat/completions",
                    content=body[1],
                    headers=dict(header.split(": ") for header in sent),
                )

            def answers():
                try:
                    return client.get("/docs-are-not-the-api").status_code
                except httpx.TransportError:
                    return None

            until(answers)
            found = [asked() for _ in range(4)]
    finally:
        server.terminate()
        server.wait()

    assert [answer.status_code for answer in found] == [200, 200, 200, 429]
    assert found[3].headers["retry-after"] == "60"
    assert f'"{found[3].json()["error"]["message"]}"' in shown
