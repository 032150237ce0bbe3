"""What a model wrote, as far as it passes: how many tokens that is about, and at least.

No tokenizer is run. An *estimate* counts four bytes as a token, and each piece of a stream as at
least one. What passed *at least* is a bound that no usual tokenizer goes under: none joins words
across blanks. What is told to be less than that is not believed. Where a host sends token ids or
log probabilities, they are counted instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from guardrail.http.documents import object_of, objects_of
from guardrail.http.parsing.media import is_base64

BYTES_PER_TOKEN = 4
"""How many bytes of text count as a token where no usage tells."""


# Text that is surely the model's own, by the names of the members that lead to it.
_WRITTEN = frozenset(
    "content text thinking reasoning reasoning_content reasoning_text reasoningContent "
    "reasoningText refusal arguments input partial_json args transcript response completion "
    "generated_text generation code tool_plan outputText delta message parts functionCall "
    "executableCode tool_calls function function_call output outputs toolUse output_text".split()
)
# Members that frame text, or that carry bytes: pictures, sound, signatures, vectors.
_NOT_TEXT = frozenset(
    "id type role name index call_id signature thoughtSignature thought_signature status object "
    "model data b64_json inlineData inline_data url uri image_url bytes blob embedding embeddings "
    "encrypted_content redactedContent partial_image_b64 bytesBase64Encoded file_data obfuscation "
    "finish_reason finishReason native_finish_reason stop_reason stop_sequence stopReason "
    "logprobs logprobsResult token_ids tokens annotations citations citation citationMetadata "
    "groundingMetadata safetyRatings mimeType mime_type system_fingerprint created created_at "
    "service_tier modelVersion responseId done_reason event event_type expires_at usage "
    "usageMetadata meta_info prompt_token_ids prompt_logprobs toolUseId media_type "
    "codeExecutionResult results".split()
)
_CALLED_WITH = frozenset({"input", "args", "arguments", "parameters"})
_TOOL_RESULT = ("_result", "_output")
ROOTS = (
    "choices candidates delta message content text output outputs response completion "
    "generated_text generation generations token outputText results".split()
)
"""The members of a response that hold what a model wrote."""
_PIECES = ("content", "text", "arguments")
_WHOLE_TYPES = frozenset({"message", "completion"})
_FRAGMENT = 1_024
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\r\n-]+\Z")
_MOST_NODES = 200_000


_MEDIA_RUN = 1_024
"""How long a run of base64 is at least that is taken for media where nothing is read."""
_MEDIA_SHARE = 16
"""How many bytes of media count as one of text there."""
_RUN_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-\\"
_RUN = re.compile(rb"(?<![A-Za-z0-9+/=_\\-])[A-Za-z0-9+/=_\\-]{%d,}+" % _MEDIA_RUN)


class Unread:
    """Counts bytes that are not read, cut anywhere: long runs of base64 are pictures or sound."""

    text = media = run = 0

    @property
    def size(self) -> int:
        """About how many bytes of text that is worth."""
        text, media = self._with_run()
        return text + media // _MEDIA_SHARE

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        rest = data.lstrip(_RUN_BYTES)
        self.run += len(data) - len(rest)
        if not rest:
            return
        self.text, self.media = self._with_run()
        inner = rest.rstrip(_RUN_BYTES)
        media = sum(map(len, _RUN.findall(inner)))
        self.text += len(inner) - media
        self.media += media
        self.run = len(rest) - len(inner)

    def _with_run(self) -> tuple[int, int]:
        """Return both counts with the run that is open, as if it ended here."""
        if self.run < _MEDIA_RUN:
            return self.text + self.run, self.media
        return self.text, self.media + self.run


def tokens_listed(document: Mapping[str, object]) -> int:
    """Return how many tokens a document lists one by one, 0 if it does not.

    vLLM's `token_ids`, the log probabilities of OpenAI's APIs and of Gemini, llama.cpp's `tokens`.
    """
    count = 0
    for name in ("choices", "candidates"):
        listed = document.get(name)
        if isinstance(listed, list):
            count += sum(_of_choice(choice) for choice in listed if isinstance(choice, dict))
    if count:
        return count
    kind = document.get("type")
    if kind is None:
        return max(_length(document.get("tokens")), _length(document.get("token_ids")))
    if kind == "response.output_text.delta":
        return _length(document.get("logprobs"))
    return 0


def _of_choice(choice: Mapping[str, object]) -> int:
    tokens = _length(choice.get("token_ids"))
    told = choice.get("logprobs")
    if isinstance(told, dict):
        parts = _length(told.get("content")) + _length(told.get("refusal"))
        tokens = max(tokens, parts, _length(told.get("tokens")))
    chosen = choice.get("logprobsResult")
    if isinstance(chosen, dict):
        tokens = max(tokens, _length(chosen.get("chosenCandidates")))
    return tokens


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def reasoning_shown(document: Mapping[str, object]) -> bool:
    """Whether a document carries reasoning itself, as hosts of open models send it."""
    if document.get("type") == "response.reasoning_text.delta":
        return True
    for choice in objects_of(document, "choices"):
        if any(_shows(object_of(choice, name)) for name in ("delta", "message")):
            return True
    message = document.get("message")
    said = (message if isinstance(message, dict) else document).get("thinking")
    return isinstance(said, str) and bool(said)


def _shows(message: Mapping[str, object]) -> bool:
    """Whether a message shows reasoning, and not a summary or a sealed copy of it."""
    for one in objects_of(message, "reasoning_details"):
        if one.get("type") in ("reasoning.summary", "reasoning.encrypted"):
            return False
    shown = message.get("reasoning_content") or message.get("reasoning")
    return isinstance(shown, str) and bool(shown)


def texts_of(document: Mapping[str, object]) -> Iterator[tuple[str, bool]]:
    """Yield each text that a document adds, and whether it is surely the model's own."""
    kind = document.get("type")
    roots: list[tuple[str, object]] = []
    sure = True
    if isinstance(kind, str) and kind not in _WHOLE_TYPES:
        # What the other members of typed events hold came, or comes, in pieces of its own.
        if kind.endswith("audio.delta") or "_output" in kind.replace("output_text", ""):
            return
        sure = "summary" not in kind
        roots = [("delta", document.get("delta"))]
        if "delta" not in document and kind.endswith(".delta"):  # Mistral's
            roots = [(name, document.get(name)) for name in _PIECES]
    elif "token" in document:
        roots = [("token", document["token"])]  # the last one repeats the whole text beside it
    else:
        roots = [(name, document[name]) for name in ROOTS if name in document]
        # An object under `response` wraps a whole response that came in pieces.
        roots = [root for root in roots if root[0] != "response" or isinstance(root[1], str)]
        if not roots and kind is None and not _is_known_frame(document):
            roots, sure = list(document.items()), False
    yield from _walk(roots, sure)


def text_so_far(document: Mapping[str, object]) -> str | None:
    """Return what a document of DashScope's streams says, None for another document.

    Each of them may repeat the text of those before it, or go on where they ended.
    """
    output = document.get("output")
    if not isinstance(output, dict) or "type" in document or "object" in document:
        return None
    text = output.get("text")
    choices = output.get("choices")
    if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict):
        said = choices[0].get("message")
        if not isinstance(said, dict) or said.get("tool_calls"):
            return None
        thought, text = said.get("reasoning_content"), said.get("content")
        if isinstance(text, list):
            parts = [part.get("text") for part in objects_of(said, "content")]
            text = "".join(part for part in parts if isinstance(part, str))
        if isinstance(thought, str) and isinstance(text, str):
            text = thought + text
    return text if isinstance(text, str) else None


def _is_known_frame(document: Mapping[str, object]) -> bool:
    """Whether a document tells something about the response, and is no part of it."""
    return "error" in document or "object" in document or "usageMetadata" in document


def _walk(roots: list[tuple[str, object]], sure: bool) -> Iterator[tuple[str, bool]]:
    stack = [(name, value, sure, False) for name, value in reversed(roots)]
    left = _MOST_NODES
    while stack and left:
        left -= 1
        name, value, known, called = stack.pop()
        if isinstance(value, str):
            if value and not (not called and _is_media(name, value)):
                yield value, known
        elif isinstance(value, list):
            stack += [(name, inner, known, called) for inner in reversed(value)]
        elif isinstance(value, dict):
            if called:
                stack += [(key, inner, known, True) for key, inner in reversed(value.items())]
                continue
            skipped = _of_tools(value)
            if skipped is None:
                continue
            for key, inner in reversed(value.items()):
                if key not in _NOT_TEXT and key not in skipped:
                    opens = key in _CALLED_WITH and not isinstance(inner, str)
                    stack.append((key, inner, known and key in _WRITTEN, opens))


def _of_tools(block: Mapping[str, object]) -> tuple[str, ...] | None:
    """Return the members that repeat others or that a tool wrote, None where all is a tool's."""
    kind = block.get("type")
    if isinstance(kind, str):
        if kind.endswith(_TOOL_RESULT) or kind == "mcp_list_tools":
            return None
        if kind.endswith("_call"):
            return ("output", "outputs")
    if "reasoning" in block:
        return ("reasoning_content", "reasoning_details")
    return ("reasoning_details",) if "reasoning_content" in block else ()


def _is_media(name: str, text: str) -> bool:
    if name in ("audio", "image", "images"):
        return is_base64(text.partition(";base64,")[2] or text)
    if text.startswith("data:") and ";base64," in text[:128]:
        return is_base64(text.partition(";base64,")[2])
    return len(text) >= _FRAGMENT and name not in _WRITTEN and _BASE64.match(text) is not None
