"""A model that repeats what it is told. It counts its tokens truly: one for four characters."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LOG = logging.getLogger("model")
CHARACTERS = 4
LONGEST = 4096


@dataclass
class Reply:
    """What the model says to a prompt, token by token; `written` counts those said so far.

    With a `tool`, it calls that instead of speaking. `cut` tells that it reached its cap.
    """

    prompt_tokens: int
    tokens: list[str]
    cut: bool
    tool: str | None = None
    written: int = 0

    def stream(self) -> Iterator[str]:
        """Say it, until the end or until nobody listens any more; log what was used."""
        try:
            for token in self.tokens:
                self.written += 1
                yield token
        finally:
            LOG.info("used %d input tokens, %d output tokens", self.prompt_tokens, self.written)

    def whole(self) -> str:
        """Say it all at once."""
        return "".join(self.stream())


def reply_to(
    prompt: object, cap: int | None, tools: Sequence[Mapping[str, Any]] = (), told: bool = False
) -> Reply:
    """Answer a prompt in at most `cap` tokens; first by calling a tool, unless it has `told`."""
    words = " ".join(texts_of(prompt))
    said, tool = words or "Say something.", None
    if tools and not told:
        tool = tools[0]["name"]
        parameters = (tools[0].get("parameters") or {}).get("properties") or {}
        said = json.dumps(dict.fromkeys(parameters, words))
    tokens = tokens_of(said)
    most = min(LONGEST, LONGEST if cap is None else cap)
    prompt_tokens = len(tokens_of(words)) + len(tokens_of(json.dumps(tools))) * bool(tools)
    return Reply(prompt_tokens, tokens[:most], len(tokens) > most, tool)


def tokens_of(text: str) -> list[str]:
    """Cut a text into tokens."""
    return [text[at : at + CHARACTERS] for at in range(0, len(text), CHARACTERS)]


def texts_of(prompt: object) -> Iterator[str]:
    """Find the texts in a prompt, however the API nests them."""
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        for part in prompt:
            yield from texts_of(part)
    elif isinstance(prompt, dict):
        for name in ("text", "content", "output"):
            yield from texts_of(prompt.get(name))
