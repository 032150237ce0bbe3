"""What the documents of one response have told so far: usage, model, text, errors, the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.figures import Figures, figures_of

BYTES_PER_TOKEN = 4
"""How many bytes of text count as a token where no usage tells; see `Tally.streamed`."""

_MOST_SEQUENCES = 4_096
_ENDINGS = frozenset(
    "response.completed response.incomplete response.failed message_stop transcript.text.done "
    "speech.audio.done image_generation.completed image_edit.completed".split()
)
_GOING_ON = frozenset({"queued", "in_progress"})
_NAMES = frozenset({"id", "type", "role", "name", "index", "call_id", "signature"})


@dataclass(slots=True)
class Tally:
    """Adds documents up, one response's, in order.

    `ended` tells that the response said it is over, `settled` that its usage is the final one,
    `deferred` that the work goes on after it.
    """

    usage_format: UsageFormat
    ended: bool = False
    settled: bool = False
    deferred: bool = False
    failed: bool = False
    model: str | None = None
    usage: dict[str, object] = field(default_factory=dict)
    sequences: dict[int, Figures] = field(default_factory=dict)
    documents: int = 0
    deltas: int = 0
    text_bytes: int = 0

    def copy(self) -> Tally:
        """Return a tally that goes on from here by itself."""
        return replace(self, usage=dict(self.usage), sequences=dict(self.sequences))

    @property
    def figures(self) -> Figures:
        """The usage told so far, of all sequences together."""
        if not self.sequences:
            return figures_of(self.usage, self.usage_format)
        total: Figures = {}
        for sequence in self.sequences.values():
            for unit, amount in sequence.items():
                total[unit] = total.get(unit, 0) + amount
        return total

    @property
    def streamed(self) -> int:
        """About how many output tokens the text seen is: four bytes each, and one a delta."""
        return max(self.deltas, -(-self.text_bytes // BYTES_PER_TOKEN))

    def add(
        self, document: Mapping[str, object], *, whole: bool = False, listed: bool = False
    ) -> None:
        """Take in a document: an event's of a stream, the whole body, or one in a list."""
        self.documents += 1
        within = _inner(document, "response") or _inner(document, "message") or {}
        model = _text_of(document, "model", "modelVersion") or _text_of(within, "model")
        if model is not None:
            self.model = model
        kind = document.get("type")
        self.failed |= document.get("error") not in (None, {}) or kind == "error"
        self.ended |= whole or (isinstance(kind, str) and kind in _ENDINGS)
        if self.usage_format is UsageFormat.NATIVE:
            self._native(document, listed)
        self.deferred |= whole and document.get("status") in _GOING_ON
        usage = document.get("usageMetadata") or document.get("usage") or within.get("usage")
        if isinstance(usage, dict):
            self.usage |= {name: value for name, value in usage.items() if value is not None}
            self.settled |= whole or self._is_last(document)
        if self.usage_format is UsageFormat.GEMINI and _finished(document):
            self.ended = True
            self.settled |= bool(self.usage)
        if not whole and kind not in _ENDINGS:
            size = sum(map(len, _delta_texts(document)))
            self.deltas += size > 0
            self.text_bytes += size

    def end(self) -> None:
        """Take in the mark that ends a stream of OpenAI's kind."""
        self.ended = True
        self.settled |= bool(self.usage or self.sequences)

    def _is_last(self, document: Mapping[str, object]) -> bool:
        """Whether no usage follows the one in this document of a stream."""
        kind = document.get("type")
        if isinstance(kind, str) and kind in _ENDINGS:
            return True
        if self.usage_format is UsageFormat.ANTHROPIC:
            delta = _inner(document, "delta") or {}
            return kind == "message_delta" and delta.get("stop_reason") is not None
        if self.usage_format in (UsageFormat.OPENAI_CHAT, UsageFormat.OPENAI_COMPLETIONS):
            return document.get("choices") == []
        return False

    def _native(self, document: Mapping[str, object], listed: bool) -> None:
        """Take in the running totals that SGLang gives for each sequence, and Ollama at the end."""
        meta = _inner(document, "meta_info")
        if meta is not None and len(self.sequences) < _MOST_SEQUENCES:
            index = document.get("index")
            name = index if isinstance(index, int) else self.documents if listed else 0
            self.sequences[name] = figures_of(meta, self.usage_format)
            self.settled |= self.ended
        if document.get("done") is True:
            self.usage |= document
            self.end()


def _inner(document: Mapping[str, object], name: str) -> Mapping[str, object] | None:
    inner = document.get(name)
    return inner if isinstance(inner, dict) else None


def _text_of(document: Mapping[str, object], *names: str) -> str | None:
    for name in names:
        value = document.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _finished(document: Mapping[str, object]) -> bool:
    candidates = document.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    return isinstance(first, dict) and first.get("finishReason") is not None


def _delta_texts(document: Mapping[str, object]) -> Iterator[bytes]:
    """Yield the text a streamed document adds, what frames it left out."""
    level = [document.get("delta")]
    for name in ("choices", "candidates"):
        listed = document.get(name)
        if isinstance(listed, list):
            for choice in listed:
                if isinstance(choice, dict):
                    level += (choice.get("delta"), choice.get("text"), choice.get("content"))
    if "type" not in document:
        level += (document.get("text"), document.get("response"), document.get("message"))
    while level:
        value = level.pop()
        if isinstance(value, str):
            yield value.encode("utf-8", "replace")
        elif isinstance(value, list):
            level += value
        elif isinstance(value, dict):
            level += [inner for name, inner in value.items() if name not in _NAMES]
