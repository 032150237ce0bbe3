"""Whose API a request speaks, and in whose words its response tells what was used."""

from __future__ import annotations

from enum import Enum


class Dialect(Enum):
    """Whose error bodies and header names the client reads."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    OTHER = "other"

    __hash__ = object.__hash__  # each is there once: as a key it needs no call


class UsageFormat(Enum):
    """Where a response tells what was used, and what its figures include.

    `OPENAI_MEDIA` are images, transcriptions and speech; `NATIVE` are the bodies of SGLang's own
    endpoints and of those that speak Ollama's; `NONE` tells nothing.
    """

    OPENAI_CHAT = "openai chat"
    OPENAI_COMPLETIONS = "openai completions"
    OPENAI_RESPONSES = "openai responses"
    OPENAI_EMBEDDINGS = "openai embeddings"
    OPENAI_MEDIA = "openai media"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    NATIVE = "native"
    NONE = "none"

    __hash__ = object.__hash__  # as above
