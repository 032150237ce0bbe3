"""What the documents of one response have told so far: usage, model, text, errors, the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import msgspec

from guardrail.engine import as_count
from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import UNDECODABLE, bytes_in, object_of, objects_of, text_of
from guardrail.http.metering.streams import Event
from guardrail.http.metering.texts import (
    BYTES_PER_TOKEN,
    ROOTS,
    reasoning_shown,
    text_so_far,
    texts_of,
    tokens_listed,
)
from guardrail.http.metering.usage_formats import (
    BESIDE,
    Fed,
    Figures,
    add_figures,
    beside,
    figures_of,
    merge_usage,
)

_ANTHROPIC = UsageFormat.ANTHROPIC
_GEMINI = UsageFormat.GEMINI
_NATIVE = UsageFormat.NATIVE
_CHAT = UsageFormat.OPENAI_CHAT
_MEDIA = UsageFormat.OPENAI_MEDIA
_MOST_SEQUENCES = 4_096
_ENDINGS = frozenset(
    "response.completed response.incomplete response.failed response.cancelled message_stop "
    "transcript.text.done speech.audio.done image_generation.completed image_edit.completed "
    "message-end conversation.response.done interaction.complete interaction.completed".split()
)
# A host may send anything in these places: what is looked up in a tuple need not be hashable.
_FOR_CLIENT = "requires_action"
_GOING_ON = ("queued", "in_progress", "cancelling", _FOR_CLIENT)
_RUN = "thread.run"
_REASONING_BLOCKS = ("reasoning", "thinking", "redacted_thinking")
_NO_EFFORT = (None, "none")
DONE = b"[DONE]"
"""What ends a stream of OpenAI's kind."""
_LONGEST_SHOWN = 1 << 16
"""How many characters of a text are kept that the next document may repeat."""
_SILENT = (UsageFormat.OPENAI_EMBEDDINGS,)
"""What makes no model write: the texts in its responses are the client's own."""


_LONGEST_TOKEN = 16
"""Characters without a blank that one token holds at most, on the average of a text."""
_LONGEST_PIECE = 8
"""The same where each piece of a stream may be a token of its own."""
_SAID_ELSEWHERE = frozenset({*ROOTS, "type", "token", "token_ids", "tokens"}) - {"choices"}
_PLAIN_CHOICE = frozenset(
    "delta finish_reason index logprobs message native_finish_reason stop_reason".split()
)
_PLAIN_SAID = frozenset("content refusal role".split())


class Passed:
    """Counts what passed: text, pieces of it, and tokens that were listed one by one."""

    listed = pieces = size = words = characters = dense = 0
    open_word = False

    @property
    def estimate(self) -> int:
        """About how many tokens passed: four bytes each, and one a piece."""
        return self.listed + max(self.pieces, -(-self.size // BYTES_PER_TOKEN))

    @property
    def least(self) -> int:
        """How many tokens it was at the very least."""
        if not self.size:
            return self.listed
        pieces = min(self.pieces, self.characters // _LONGEST_PIECE)
        return self.listed + max(self.words, pieces, self.dense // _LONGEST_TOKEN)

    @property
    def mark(self) -> tuple[int, int, int]:
        """Where the counts stand; see `since`."""
        return self.listed, self.pieces, self.size

    def since(self, mark: tuple[int, int, int]) -> int:
        """Return about how many tokens passed since a mark."""
        listed, pieces, size = mark
        rest = max(self.pieces - pieces, -(-(self.size - size) // BYTES_PER_TOKEN))
        return self.listed - listed + rest

    def take(self, document: Mapping[str, object]) -> None:
        """Count what a document of a response adds."""
        text = _plain_text(document)
        if text is not None:
            if text:
                self.take_piece(text)
            return
        tokens = tokens_listed(document)
        if tokens:
            self.listed += tokens
            return
        size = 0
        for text, sure in texts_of(document):
            size += len(text) if text.isascii() else bytes_in(text)
            if sure:
                self._count(text)
        self.size += size
        self.pieces += size > 0

    def take_piece(self, text: str) -> None:
        """Count a piece of a stream that is text and nothing else; of sound, the text is empty."""
        self.pieces += 1
        self.size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        self._count(text)

    def take_pieces(self, texts: Sequence[str]) -> None:
        """Count several such pieces, none of them empty, in order."""
        text = "".join(texts)
        self.pieces += len(texts)
        self.size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        self._count(text)

    def take_unread(self, size: int) -> None:
        """Count bytes of a document too long, or too odd, to be read."""
        self.size += size
        self.pieces += size > 0

    def take_plain(self, chunk: bytes) -> None:
        """Count a part of a response that is text and nothing else."""
        self.size += len(chunk)
        self._count(chunk.decode("utf-8", "replace"))

    def _count(self, text: str) -> None:
        if not text:
            return
        words = text.split()
        self.characters += len(text)
        if words:
            joins = self.open_word and not text[0].isspace()
            self.words += len(words) - joins
            self.dense += sum(map(len, words))
        self.open_word = not text[-1].isspace()


def _plain_text(document: Mapping[str, object]) -> str | None:
    """Return the text of the commonest response, or of a piece of it, None if it is another."""
    choices = document.get("choices")
    if (
        choices.__class__ is not list
        or len(choices) > 1
        or not _SAID_ELSEWHERE.isdisjoint(document)
    ):
        return None
    if not choices:
        return ""
    choice = choices[0]
    if choice.__class__ is not dict or not choice.keys() <= _PLAIN_CHOICE or choice.get("logprobs"):
        return None
    said = choice.get("delta")
    if said is None:
        said = choice.get("message")
    elif "message" in choice:
        return None
    if said.__class__ is not dict or not said.keys() <= _PLAIN_SAID or said.get("refusal"):
        return None
    text = said.get("content")
    if text is None:
        return ""
    return text if isinstance(text, str) and not text.startswith("data:") else None


class Tally:
    """Adds documents up, one response's, in order.

    `reserved` is the input that was reserved for it, where that is known. `feeds` tells that a
    policy has units of its own, `reasons` that a model was asked to reason. `ended` tells that the
    response said it is over, `settled` that its usage is the final one, `deferred` that the work
    goes on after it, `hidden` that a model reasons without showing it.
    """

    # Most responses change few of these: an instance holds what is its own.
    ended = settled = deferred = failed = hidden = shows_reasoning = False
    model: str | None = None
    name: str | None = None
    mark: tuple[int, int, int] = (0, 0, 0)
    documents = 0
    shown = ""
    repeats: bool | None = None
    _figures: Figures | None = None

    def __init__(
        self,
        usage_format: UsageFormat,
        reserved: int | None = None,
        *,
        feeds: bool = False,
        reasons: bool = False,
    ) -> None:
        self.usage_format = usage_format
        self.reserved = reserved
        self.feeds = feeds
        self.reasons = reasons
        self.usage: dict[str, object] = {}
        self.beside: dict[str, dict[str, object]] = {}
        self.sequences: dict[int, Figures] = {}
        self.passed = Passed()
        self.whole = Passed()
        self.by_sequence: dict[int, Passed] = {}
        self.fed = Fed()

    def copy(self) -> Tally:
        """Return a tally that goes on from here by itself."""
        other = copy(self)
        other.usage = dict(self.usage)
        other.beside = {name: dict(used) for name, used in self.beside.items()}
        other.sequences, other.by_sequence = dict(self.sequences), dict(self.by_sequence)
        other.passed, other.whole, other.fed = copy(self.passed), copy(self.whole), copy(self.fed)
        return other

    @property
    def figures(self) -> Figures:
        """The usage told so far, of all sequences together; not to be changed."""
        if self._figures is None:
            self._figures = self._summed()
        return self._figures

    def _summed(self) -> Figures:
        total = figures_of(self.usage, self.usage_format, self.reserved)
        if not (self.sequences or self.beside):
            return total
        for figures in self.sequences.values():
            for unit, amount in figures.items():
                total[unit] = total.get(unit, 0) + amount
        for used in self.beside.values():
            add_figures(total, figures_of(used, self.usage_format))
        return total

    @property
    def estimate(self) -> int:
        """About how many output tokens passed."""
        passed = self.passed.estimate
        if self.by_sequence:
            passed += sum(one.estimate for one in self.by_sequence.values())
        return max(passed, self.whole.estimate)

    @property
    def since(self) -> int:
        """About how many output tokens passed since the usage was told last."""
        return self.passed.since(self.mark)

    @property
    def least(self) -> int:
        """How many output tokens passed at the very least."""
        if self.usage_format in _SILENT:
            return 0
        passed = self.passed.least
        if self.by_sequence:
            passed += sum(one.least for one in self.by_sequence.values())
        return max(passed, self.whole.least)

    def add(
        self,
        document: Mapping[str, object],
        *,
        whole: bool = False,
        listed: bool = False,
        kept: bool = False,
    ) -> None:
        """Take in a document: an event's of a stream, the whole body, or one in a list.

        Of one that is only `kept` in parts, what the model wrote is not there.
        """
        self.documents += 1
        self._figures = None
        kind = document.get("type")
        within = _NOTHING
        if not _WRAPPING.isdisjoint(document):
            within = next(filter(None, (object_of(document, name) for name in _WRAPPED)), _NOTHING)
        model = document.get("model") or document.get("modelVersion") or within.get("model")
        if isinstance(model, str):
            self.model = model
        if whole or within:
            for name in (within.get("id"), document.get("id")):
                if isinstance(name, str) and name:
                    self.name = name
                    break
        if document.get("error") not in (None, {}) or kind in ("error", "exception"):
            self.failed = True
        named = document.get("event_type") if kind is None else kind
        closes = isinstance(named, str) and named in _ENDINGS
        if whole or closes:
            self.ended = True
        if kind is not None or document.get("object") == _RUN or (whole and "status" in document):
            self._deferral(document, within, whole=whole)
            if kind is not None:
                self._reasoning(document, within)
        elif whole:
            self.deferred = False
        if self.feeds:
            self.fed.unread |= kept
            self.fed.take(document, media=self.usage_format is _MEDIA)
        if not kept:
            self._text(document, within, whole=whole, listed=listed, closes=closes)
        if self.usage_format is _NATIVE:
            self._native(document, whole=whole, listed=listed)
        told = _usages(document, within)
        for usage in told:
            if listed and self.usage_format is _CHAT:
                self._each(usage)
            elif self.usage or None in usage.values():
                merge_usage(self.usage, usage)
            else:
                self.usage = dict(usage)
        if told or (whole and self.usage):
            self.settled |= whole or self._is_last(document)
            if not whole and (self.figures.get("output_tokens") or 0) > 0:
                self.mark = self.passed.mark  # what is told covers what passed
        if closes and self.usage_format is not _ANTHROPIC:
            self.settled |= bool(self.usage)
        for told_in in (document, within):
            if not BESIDE.isdisjoint(told_in):
                for name, used in beside(told_in):
                    merge_usage(self.beside.setdefault(name, {}), used)
                self._figures = None
        if self.usage_format is _GEMINI and _finished(document):
            self.ended = True
            self.settled |= bool(self.usage)

    def take_event(self, event: Event, *, cut: bool = False) -> None:
        """Take in what an event holds; where it is `cut`, the stream ended within it."""
        if event.text is None:
            for kept in event.kept:
                self.add(kept, kept=True)
            if not self.ended:
                self.add_unread(event.size)
            return
        text = event.text
        if text.strip() == DONE:
            self.end()
            return
        try:
            document = msgspec.json.decode(text)
        except UNDECODABLE:
            if not cut:
                self.add_unread(len(text))
            return
        for part in document if isinstance(document, list) else (document,):
            if isinstance(part, dict):
                self.add(part)

    def take_plain(self, texts: Sequence[str], chunks: int, model: str | None) -> None:
        """Take in so many chunks that tell no more than a model, None for none, and these texts."""
        self.documents += chunks
        if model is not None:
            self.model = model
        if texts:
            self.passed.take_pieces(texts)

    def tell(self, usage: Mapping[str, object]) -> None:
        """Take in a usage that the head of the response tells."""
        self._figures = None
        merge_usage(self.usage, usage)

    def add_unread(self, size: int) -> None:
        """Take in that a part of the response passed that cannot be read."""
        self.passed.take_unread(size)

    def end(self) -> None:
        """Take in the mark that ends a stream of OpenAI's kind."""
        self.ended = True
        self.settled |= bool(self.usage or self.sequences)

    def _text(
        self,
        document: Mapping[str, object],
        within: Mapping[str, object],
        *,
        whole: bool,
        listed: bool,
        closes: bool,
    ) -> None:
        if (self.reasons or self.hidden) and not self.shows_reasoning:
            self.shows_reasoning = reasoning_shown(document)
        if self.usage_format is _NATIVE and "meta_info" in document:
            # SGLang repeats all text so far in each document of a sequence.
            passed = Passed()
            passed.take(document)
            name = self._sequence(document, listed)
            before = self.by_sequence.get(name)
            grows = before is not None and before.estimate < passed.estimate
            if grows or (before is None and len(self.by_sequence) < _MOST_SEQUENCES):
                self.by_sequence[name] = passed
        elif closes:
            self.whole.take({"output": within.get("output")})
        elif not whole and "output" in document and (text := text_so_far(document)) is not None:
            self._repeated(text)
        elif whole:
            self.whole.take(document)
        else:
            self.passed.take(document)

    def _repeated(self, text: str) -> None:
        """Count what a text adds to the one before it, where each repeats what came before."""
        before, added = self.shown, text
        if text and before and self.repeats is not False:
            grows = text.startswith(before) and (self.repeats or len(text) > len(before))
            self.repeats = grows
            added = text[len(before) :] if grows else text
        if added:
            self.passed.take_piece(added)
        if text:
            self.shown = text if len(text) <= _LONGEST_SHOWN else ""

    def _deferral(
        self, document: Mapping[str, object], within: Mapping[str, object], *, whole: bool
    ) -> None:
        """Notice work that goes on after the response, and that it has ended."""
        status = document.get("status") if whole else within.get("status")
        if within.get("background") is True or document.get("background") is True or whole:
            told = document.get("usage") or within.get("usage")
            self.deferred = status in _GOING_ON and not (told and status == _FOR_CLIENT)
        elif document.get("object") == _RUN:
            # A run goes on when its stream is left, but for one that waits for its client.
            status = document.get("status")
            self.deferred = status in _GOING_ON and status != _FOR_CLIENT
            self.name = text_of(document, "id") or self.name
        if self.ended and not whole:
            self.deferred = False

    def _reasoning(self, document: Mapping[str, object], within: Mapping[str, object]) -> None:
        item = object_of(document, "item") or object_of(document, "content_block")
        effort = object_of(within, "reasoning").get("effort")
        self.hidden |= item.get("type") in _REASONING_BLOCKS or effort not in _NO_EFFORT

    def _is_last(self, document: Mapping[str, object]) -> bool:
        """Whether no usage follows the one in this document of a stream."""
        kind = document.get("type") or document.get("event_type")
        if isinstance(kind, str) and kind in _ENDINGS:
            return True
        if self.usage_format is _ANTHROPIC:
            stopped = object_of(document, "delta").get("stop_reason") is not None
            return kind == "message_delta" and stopped
        if "metrics" in document or document.get("event_type") == "stream-end":
            return True  # Bedrock's, Cohere's
        if _generating(document):
            return True  # TGI's
        if "results" in document:
            return any(
                one.get("stop_reason") not in _UNSTOPPED for one in objects_of(document, "results")
            )
        if self.usage_format in (_CHAT, UsageFormat.OPENAI_COMPLETIONS):
            return document.get("choices") == []
        return False

    def _native(self, document: Mapping[str, object], *, whole: bool, listed: bool) -> None:
        """Take in the running totals that SGLang gives for each sequence, and Ollama at the end."""
        told = document.get("meta_info")
        meta: Mapping[str, object] | None = told if isinstance(told, dict) else None
        name = self._sequence(document, listed)
        if meta is None and "tokens_predicted" in document:
            # llama.cpp's, of each sequence so far
            meta = {name: document.get(name) for name in _PREDICTED}
            self.mark = self.passed.mark
            if document.get("stop") is True:
                self.end()
        if meta is not None and (name in self.sequences or len(self.sequences) < _MOST_SEQUENCES):
            figures = figures_of(meta, self.usage_format)
            ids = document.get("output_ids")
            if isinstance(ids, list):
                figures["output_tokens"] = max(figures.get("output_tokens", 0), len(ids))
            for unit, amount in self.sequences.get(name, {}).items():
                figures[unit] = max(amount, figures.get(unit, 0))
            self.sequences[name] = figures
            self.settled |= self.ended
        # An embedding of Ollama's tells its input, and is never done.
        embedded = whole and document.get("eval_count") is None
        if document.get("done") is True or embedded:
            merge_usage(self.usage, {name: document.get(name) for name in _OWN})
        if document.get("done") is True:
            self.end()

    def _each(self, usage: Mapping[str, object]) -> None:
        """Take in the usage of one of several responses in a list."""
        if len(self.sequences) < _MOST_SEQUENCES:
            self.sequences[self.documents] = figures_of(usage, self.usage_format)

    def _sequence(self, document: Mapping[str, object], listed: bool) -> int:
        index = document.get("index")
        return index if isinstance(index, int) else self.documents if listed else 0


_NOTHING: Mapping[str, object] = {}
_WRAPPED = ("response", "message", "interaction", "result")
_WRAPPING = frozenset(_WRAPPED)
_PREDICTED = ("tokens_evaluated", "tokens_predicted")
_OWN = ("prompt_eval_count", "eval_count", "prompt_token_count", "generation_token_count")
"""What bodies of Ollama's, and of Llama at Bedrock, tell beside what was written."""


_TOLD_IN = ("usageMetadata", "usage_metadata", "usage", "amazon-bedrock-invocationMetrics")
_READ = ("inputTextTokenCount", "input_token_count", "num_tokens_prompt_total")
_WRITTEN = ("totalOutputTextTokenCount", "num_tokens_generated")
_UNSTOPPED = (None, "not_finished")
_IN_RESULTS = ("tokenCount", "generated_token_count")
_COUNTING = frozenset({*_READ, *_WRITTEN, "results"})
"""Members in which Titan, watsonx and Aleph Alpha count what was read and written."""
_TELLING = (
    frozenset({*_TOLD_IN, "x_groq", "usage_breakdown", "meta", "metadata", "delta", "details"})
    - {"usage"}
) | _COUNTING
"""Members that may tell a usage, but for the commonest."""


def _usages(
    document: Mapping[str, object], within: Mapping[str, object]
) -> list[Mapping[str, object]]:
    """Return the usage objects in a document, from where the APIs put them and nowhere else."""
    choices = document.get("choices")
    places: list[object] = []
    for choice in choices if choices.__class__ is list else ():
        if choice.__class__ is dict and "usage" in choice:  # Moonshot's
            places.append(choice["usage"])
    if _TELLING.isdisjoint(document) and "usage" not in within and "meta" not in within:
        usage = document.get("usage")
        if not places:
            return [usage] if isinstance(usage, dict) and usage else []
        return [place for place in (*places, usage) if isinstance(place, dict) and place]
    places += [document[name] for name in _TOLD_IN if name in document]
    places.append(within.get("usage"))
    if "x_groq" in document:
        groq = object_of(document, "x_groq")
        places += [groq.get("usage"), _of_models(groq)]
    if "usage_breakdown" in document:
        places.append(_of_models(document))
    if document.get("type") == "message-end":
        places.append(object_of(document, "delta").get("usage"))
    if "metadata" in document and "event_type" in document:  # events of Gemini's interactions
        places.append(object_of(document, "metadata").get("total_usage"))
    if details := _generating(document):
        places.append(_generated(details))
    if not _COUNTING.isdisjoint(document):
        places.append(_counted(document))
    if "meta" in document or "meta" in within:
        metas = (object_of(document, "meta"), object_of(within, "meta"))
        places += [meta for meta in metas if "billed_units" in meta or "tokens" in meta]
    return [place for place in places if isinstance(place, dict) and place]


def _of_models(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return what Groq tells of all models that worked on an answer, together."""
    total: dict[str, object] = {}
    for model in objects_of(object_of(document, "usage_breakdown"), "models"):
        usage = object_of(model, "usage")
        for name in ("prompt_tokens", "completion_tokens"):
            count = as_count(usage.get(name))
            if count is not None:
                total[name] = count + (as_count(total.get(name)) or 0)
    return total


def _generating(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return the details in which TGI tells how much it generated, nothing if there are none."""
    details = object_of(document, "details")
    return details if details.get("generated_tokens") is not None else {}


def _generated(details: Mapping[str, object]) -> Mapping[str, object]:
    """Return what TGI tells in the details of a text, in the names of OpenAI's."""
    prefill = details.get("prefill")
    told = [one.get("generated_tokens") for one in objects_of(details, "best_of_sequences")]
    told.append(details.get("generated_tokens"))
    counts = [count for count in map(as_count, told) if count is not None]
    read = details.get("input_length") or (len(prefill) if isinstance(prefill, list) else 0)
    return {
        "prompt_tokens": read or None,
        "completion_tokens": sum(counts) if counts else None,
    }


def _counted(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return what is counted beside a text or within its results, in the names of OpenAI's."""
    listed = objects_of(document, "results")
    told = {
        "prompt_tokens": _added((document,), _READ) or _added(listed, _READ),
        "completion_tokens": _added((document,), _WRITTEN) or _added(listed, _IN_RESULTS),
    }
    return {name: count for name, count in told.items() if count is not None}


def _added(documents: Sequence[Mapping[str, object]], names: Sequence[str]) -> int | None:
    counts = [as_count(document.get(name)) for document in documents for name in names]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _finished(document: Mapping[str, object]) -> bool:
    candidates = document.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    return isinstance(first, dict) and first.get("finishReason") is not None
