"""Which endpoint a path leads to, whatever it is mounted below, and how its bodies are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from guardrail.http.dialects import Dialect, UsageFormat
from guardrail.model.spellings import stands_for_another

JSON, FORM, MULTIPART, SDP = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/sdp",
)
"""Media types of bodies, as endpoints take them."""
JSON_FIELDS = ((b"content-type", JSON.encode()),)
"""The header of a body that is JSON."""


class Kind(Enum):
    """How the body of an endpoint is read.

    `GENERATE` has caps and multipliers; `EMBED` input alone; `COUNT` counts tokens and makes
    none; `BATCH` holds many requests or names a file that does; `UPLOAD` may be such a file;
    `CONTROL` looks after stored things; `UNKNOWN` is read as `GENERATE`, for it may be that.
    """

    GENERATE = "generate"
    EMBED = "embed"
    COUNT = "count"
    BATCH = "batch"
    UPLOAD = "upload"
    CONTROL = "control"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint: its name (the fact `request.endpoint`), and what a request to it is.

    `model` is the one the path names, `streams` tells that it asks for a stream. `takes` are the
    media types of bodies that its API documents, empty where any may be taken. `posts` tells
    whether stored things are changed here by `POST`. `vague` marks what nobody documents below the
    path of a known API: it may be anything. `unnamed` marks a path that names a model in a way that
    cannot be told. `perhaps` is a model that the path may name or not: below `models/NAME/` some
    hosts serve that one whatever the body says, and others are only mounted there.
    """

    name: str
    dialect: Dialect
    kind: Kind
    usage: UsageFormat
    capability: str
    model: str | None = None
    streams: bool = False
    takes: tuple[str, ...] = (JSON,)
    posts: bool = False
    vague: bool = False
    unnamed: bool = False
    perhaps: str | None = None


_OPENAI_FORMATS = {
    "chat": UsageFormat.OPENAI_CHAT,
    "completions": UsageFormat.OPENAI_COMPLETIONS,
    "responses": UsageFormat.OPENAI_RESPONSES,
    "embeddings": UsageFormat.OPENAI_EMBEDDINGS,
    "media": UsageFormat.OPENAI_MEDIA,
    "anthropic": UsageFormat.ANTHROPIC,
    "gemini": UsageFormat.GEMINI,
    "native": UsageFormat.NATIVE,
    "-": UsageFormat.NONE,
}

# Name, dialect, kind, usage, capability. `*` stands for one segment; the longest match counts.
# After these what bodies are, where they are not JSON alone: `form` is a multipart form, `sdp` the
# description of a session, `any` whatever is sent. `post` marks stored things that are changed by
# POST.
_TABLE = """
/v1/chat/completions                openai    generate chat        chat
/v1/chat/completions/batch          openai    generate chat        chat
/v1/chat/completions/render         openai    count    -           other
/v1/chat/completions/*              openai    control  -           other post
/v1/chat/completions/*/messages     openai    control  -           other
/v1/chat/deferred-completion/*      openai    control  -           other
/v1/completions                     openai    generate completions chat
/v1/completions/render              openai    count    -           other
/v1/fim/completions                 openai    generate completions code
/v1/responses                       openai    generate responses   chat
/v1/responses/compact               openai    generate responses   chat
/v1/responses/input_tokens          openai    count    -           other
/v1/responses/*                     openai    control  -           other
/v1/responses/*/cancel              openai    control  -           other post
/v1/responses/*/input_items         openai    control  -           other
/v1/conversations                   openai    control  -           other post
/v1/conversations/*                 openai    control  -           other post
/v1/conversations/*/items           openai    control  -           other post
/v1/conversations/*/restart         openai    control  -           other post
/v1/threads                         openai    control  -           other post
/v1/threads/runs                    openai    generate chat        agentic
/v1/threads/*                       openai    control  -           other post
/v1/threads/*/messages              openai    control  -           other post
/v1/threads/*/runs                  openai    generate chat        agentic
/v1/threads/*/runs/*                openai    control  -           other post
/v1/threads/*/runs/*/cancel         openai    control  -           other post
/v1/threads/*/runs/*/submit_tool_outputs openai generate chat      agentic
/v1/assistants                      openai    control  -           other post
/v1/assistants/*                    openai    control  -           other post
/v1/embeddings                      openai    embed    embeddings  embedding
/v1/multimodalembeddings            openai    embed    embeddings  embedding
/v1/contextualizedembeddings        openai    embed    embeddings  embedding
/v1/moderations                     openai    embed    -           other
/v1/chat/moderations                openai    embed    -           other
/v1/classifications                 openai    embed    embeddings  embedding
/v1/chat/classifications            openai    embed    embeddings  embedding
/v1/ocr                             openai    generate chat        chat
/v1/agents/completions              openai    generate chat        agentic
/v1/rerank                          openai    embed    embeddings  embedding
/v1/score                           openai    embed    embeddings  embedding
/v1/classify                        openai    embed    embeddings  embedding
/v1/pooling                         openai    embed    embeddings  embedding
/v1/encode                          openai    embed    embeddings  embedding
/v1/images/generations              openai    generate media       image
/v1/images/edits                    openai    generate media       image json,form
/v1/images/variations               openai    generate media       image form
/v1/videos                          openai    generate media       image json,form
/v1/videos/edits                    openai    generate media       image json,form
/v1/videos/extensions               openai    generate media       image json,form
/v1/videos/generations              openai    generate media       image
/v1/videos/sync                     openai    generate media       image json,form
/v1/videos/characters               openai    control  -           other post json,form
/v1/videos/characters/*             openai    control  -           other
/v1/video/generations/jobs          openai    generate media       image json,form
/v1/video/generations/jobs/*        openai    control  -           other
/v1/videos/*                        openai    control  -           other
/v1/videos/*/remix                  openai    generate media       image json,form
/v1/audio/speech                    openai    generate media       audio
/v1/audio/voices                    openai    control  -           other post json,form
/v1/audio/voices/*                  openai    control  -           other
/v1/audio/voice_consents            openai    control  -           other post json,form
/v1/audio/voice_consents/*          openai    control  -           other post
/v1/audio/transcriptions            openai    generate media       audio form
/v1/audio/translations              openai    generate media       audio form
/v1/realtime                        openai    generate -           audio
/v1/realtime/calls                  openai    generate -           audio form,sdp
/v1/realtime/calls/*/accept         openai    generate -           audio
/v1/realtime/calls/*/hangup         openai    control  -           other post
/v1/realtime/calls/*/refer          openai    control  -           other post
/v1/realtime/calls/*/reject         openai    control  -           other post
/v1/realtime/sessions               openai    generate -           audio
/v1/realtime/client_secrets         openai    generate -           audio
/v1/realtime/transcription_sessions openai    generate -           audio
/v1/realtime/translations           openai    generate -           audio
/v1/realtime/translations/calls     openai    generate -           audio form,sdp
/v1/realtime/translations/client_secrets openai generate -         audio
/v1/audio/transcriptions/realtime   openai    generate -           audio
/v1/batches                         openai    batch    -           batch
/v1/batches/*                       openai    control  -           other
/v1/batches/*/cancel                openai    control  -           other post
/v1/batch/jobs                      openai    batch    -           batch
/v1/batch/jobs/*                    openai    control  -           other
/v1/batch/jobs/*/cancel             openai    control  -           other post
/v1/batchpredictionjobs             gemini    batch    -           batch
/v1/batchpredictionjobs/*           gemini    control  -           other
/v1/interactions                    gemini    generate gemini      chat
/v1/interactions/*                  gemini    control  -           other
/v1/interactions/*/cancel           gemini    control  -           other post
/v1/files                           openai    upload   -           other form
/v1/uploads                         openai    control  -           other post
/v1/uploads/*/parts                 openai    upload   -           batch form
/v1/uploads/*/complete              openai    control  -           other post
/v1/uploads/*/cancel                openai    control  -           other post
/v1/vector_stores/*/files           openai    control  -           other post
/v1/files/*                         openai    control  -           other
/upload/*/files                     gemini    upload   -           other any
/v1/files/*/content                 openai    control  -           other
/v1/threads/*/messages/*            openai    control  -           other post
/v1/threads/*/runs/*/steps          openai    control  -           other
/v1/threads/*/runs/*/steps/*        openai    control  -           other
/v1/conversations/*/items/*         openai    control  -           other
/v1/videos/*/content                openai    control  -           other
/v1/containers                      openai    control  -           other post
/v1/containers/*                    openai    control  -           other
/v1/containers/*/files              openai    control  -           other post json,form
/v1/containers/*/files/*            openai    control  -           other
/v1/containers/*/files/*/content    openai    control  -           other
/v1/vector_stores                   openai    control  -           other post
/v1/vector_stores/*                 openai    control  -           other post
/v1/vector_stores/*/search          openai    control  -           other post
/v1/vector_stores/*/files/*         openai    control  -           other post
/v1/vector_stores/*/files/*/content openai    control  -           other
/v1/vector_stores/*/file_batches    openai    control  -           other post
/v1/vector_stores/*/file_batches/*  openai    control  -           other
/v1/vector_stores/*/file_batches/*/cancel openai    control  -           other post
/v1/vector_stores/*/file_batches/*/files openai    control  -           other
/v1/fine_tuning/jobs                openai    control  -           other
/v1/fine_tuning/jobs/*              openai    control  -           other
/v1/fine_tuning/jobs/*/cancel       openai    control  -           other post
/v1/fine_tuning/jobs/*/pause        openai    control  -           other post
/v1/fine_tuning/jobs/*/resume       openai    control  -           other post
/v1/fine_tuning/jobs/*/events       openai    control  -           other
/v1/fine_tuning/jobs/*/checkpoints  openai    control  -           other
/v1/evals                           openai    control  -           other
/v1/evals/*                         openai    control  -           other post
/v1/evals/*/runs                    openai    control  -           other
/v1/evals/*/runs/*                  openai    control  -           other post
/v1/evals/*/runs/*/output_items     openai    control  -           other
/v1/evals/*/runs/*/output_items/*   openai    control  -           other
/v1/skills                          openai    control  -           other post json,form
/v1/skills/*                        openai    control  -           other post
/v1/skills/*/versions               openai    control  -           other post json,form
/v1/skills/*/versions/*             openai    control  -           other
/v1/skills/*/versions/*/content     openai    control  -           other
/v1/skills/*/content                openai    control  -           other
/v1/chatkit/sessions/*/cancel       openai    control  -           other post
/v1/chatkit/threads                 openai    control  -           other
/v1/chatkit/threads/*               openai    control  -           other
/v1/chatkit/threads/*/items         openai    control  -           other
/v1/cachedcontents                  openai    control  -           other post
/v1/cachedcontents/*                openai    control  -           other
/v1/operations/*                    openai    control  -           other
/v1/models                          openai    control  -           other
/v1/models/*                        openai    control  -           other
/v1/messages                        anthropic generate anthropic   chat
/v1/messages/count_tokens           anthropic count    -           other
/v1/messages/batches                anthropic batch    -           batch
/v1/messages/batches/*              anthropic control  -           other
/v1/messages/batches/*/cancel       anthropic control  -           other post
/v1/messages/batches/*/results      anthropic control  -           other
/v1/complete                        anthropic generate anthropic   chat
/v2/chat                            other     generate chat        chat
/v2/embed                           other     embed    embeddings  embedding
/generate                           openai    generate native      chat
/generate_stream                    openai    generate native      chat
/vertex_generate                    openai    generate native      chat
/inference/v1/generate              openai    generate native      chat
/invocations                        openai    generate chat        chat
/api/chat                           other     generate native      chat
/api/generate                       other     generate native      chat
/api/embed                          other     embed    native      embedding
/api/embeddings                     other     embed    native      embedding
/completion                         openai    generate native      chat
/infill                             openai    generate native      code
/embedding                          openai    embed    embeddings  embedding
/embed                              openai    embed    embeddings  embedding
/embed_all                          openai    embed    embeddings  embedding
/embed_sparse                       openai    embed    embeddings  embedding
/reranking                          openai    embed    embeddings  embedding
/apply-template                     openai    count    -           other
/chat_tokenize                      openai    count    -           other
/async-invoke                       other     generate -           image
/async-invoke/*                     other     control  -           other
/model-invocation-job               other     batch    -           batch
/model-invocation-job/*             other     control  -           other
/model-invocation-job/*/stop        other     control  -           other post
/agents/*/agentaliases/*/sessions/*/text other generate -          agentic
/flows/*/aliases/*                  other     generate -           agentic
/retrieveandgenerate                other     generate -           chat
/retrieveandgeneratestream          other     generate -           chat
/tokenize                           openai    count    -           other
/detokenize                         openai    count    -           other
"""

_Method = tuple[Dialect, Kind, UsageFormat, str, bool]
# Methods of Gemini and of Vertex, after the colon: dialect, kind, usage, capability, streams.
_METHODS: Mapping[str, _Method] = {
    "generatecontent": (Dialect.GEMINI, Kind.GENERATE, UsageFormat.GEMINI, "chat", False),
    "streamgeneratecontent": (Dialect.GEMINI, Kind.GENERATE, UsageFormat.GEMINI, "chat", True),
    "batchgeneratecontent": (Dialect.GEMINI, Kind.BATCH, UsageFormat.NONE, "batch", False),
    "counttokens": (Dialect.GEMINI, Kind.COUNT, UsageFormat.NONE, "other", False),
    "asyncbatchembedcontent": (Dialect.GEMINI, Kind.BATCH, UsageFormat.NONE, "batch", False),
    "embedcontent": (Dialect.GEMINI, Kind.EMBED, UsageFormat.GEMINI, "embedding", False),
    "batchembedcontents": (Dialect.GEMINI, Kind.EMBED, UsageFormat.GEMINI, "embedding", False),
    "cancel": (Dialect.GEMINI, Kind.CONTROL, UsageFormat.NONE, "other", False),
    "predict": (Dialect.GEMINI, Kind.GENERATE, UsageFormat.OPENAI_MEDIA, "image", False),
    "predictlongrunning": (Dialect.GEMINI, Kind.GENERATE, UsageFormat.NONE, "image", False),
    "rawpredict": (Dialect.ANTHROPIC, Kind.GENERATE, UsageFormat.ANTHROPIC, "chat", False),
    "streamrawpredict": (Dialect.ANTHROPIC, Kind.GENERATE, UsageFormat.ANTHROPIC, "chat", True),
}

# What Bedrock does with `model/NAME/`.
_ACTIONS: Mapping[str, _Method] = {
    "invoke": (Dialect.OTHER, Kind.GENERATE, UsageFormat.NATIVE, "chat", False),
    "invoke-with-response-stream": (
        Dialect.OTHER,
        Kind.GENERATE,
        UsageFormat.NATIVE,
        "chat",
        True,
    ),
    "converse": (Dialect.OTHER, Kind.GENERATE, UsageFormat.OPENAI_CHAT, "chat", False),
    "converse-stream": (Dialect.OTHER, Kind.GENERATE, UsageFormat.OPENAI_CHAT, "chat", True),
    "count-tokens": (Dialect.OTHER, Kind.COUNT, UsageFormat.NONE, "other", False),
    "invoke-with-bidirectional-stream": (
        Dialect.OTHER,
        Kind.UNKNOWN,
        UsageFormat.NONE,
        "agentic",
        True,
    ),
}
# What Triton does with `v2/models/NAME/`, and with a version of it.
_INFERENCES: Mapping[str, _Method] = {
    "generate": (Dialect.OPENAI, Kind.GENERATE, UsageFormat.NATIVE, "chat", False),
    "generate_stream": (Dialect.OPENAI, Kind.GENERATE, UsageFormat.NATIVE, "chat", True),
    "infer": (Dialect.OTHER, Kind.UNKNOWN, UsageFormat.NONE, "agentic", False),
}
# What models whose names say so make of texts and pictures at Vertex's `predict`.
_EMBEDDING = "embedding"
_EMBEDS: _Method = (Dialect.GEMINI, Kind.EMBED, UsageFormat.OPENAI_EMBEDDINGS, _EMBEDDING, False)
_COUNTING = "count-tokens"  # Vertex's: in the place of a model, the tokens of any are counted
_STORED_PROMPT = ":prompt/"  # Bedrock's: in the place of a model, which what is stored names

_TAKEN = {"json": (JSON,), "form": (MULTIPART,), "sdp": (SDP,), "any": ()}
_LONGEST_NAME = 128
LONGEST_MODEL = 256
"""The longest name of a model that is believed, in characters."""
_DIGIT = re.compile(r"[0-9]")
# Below these only the APIs above are served: what is none of theirs is new, or meant to look so.
_VERSION = re.compile(r"v[0-9]\w{0,8}")
_NAMING = ("deployments", "engines")
# Below these a host may serve what the path names; below the others, models of Databricks' and
# SageMaker's alone.
_SERVING = ("models", "serving-endpoints", "endpoints")
_EXTENDED = "extensions"  # Azure's: before it the name ends, but not for every host


def _segments(path: str) -> list[str]:
    """Return the segments of a path, without their parameters, which some hosts pass over."""
    every = [segment.partition(";")[0] for segment in path.split("/")]
    return [segment for segment in every if segment not in {"", "."}]


def _table() -> Iterator[tuple[tuple[str, ...], Endpoint]]:
    for line in _TABLE.strip().splitlines():
        name, dialect, kind, usage, capability, *more = line.split()
        parts = tuple(_segments(name.removeprefix("/v1/")))
        taken = next((what for what in more if what != "post"), "json").split(",")
        yield (
            parts,
            Endpoint(
                name,
                Dialect(dialect),
                Kind(kind),
                _OPENAI_FORMATS[usage],
                capability,
                takes=sum((_TAKEN[what] for what in taken), ()),
                posts="post" in more,
            ),
        )


ENDPOINTS: Mapping[tuple[str, ...], Endpoint] = dict(_table())
"""Endpoints by the last segments of their paths; `*` stands for any one."""
DOCUMENTED = {endpoint.name: endpoint for endpoint in ENDPOINTS.values()}
"""Endpoints by the paths that their APIs document; `endpoint_of` knows all others, too."""
_DEEPEST = max(map(len, ENDPOINTS))
_WITH_STARS = {
    length: [parts for parts in ENDPOINTS if len(parts) == length and "*" in parts]
    for length in range(1, _DEEPEST + 1)
}


PLAIN_NAME = re.compile(rf"[A-Za-z0-9._:/@+-]{{1,{LONGEST_MODEL}}}")
"""What nearly all names of models consist of; `is_name` need not be asked about them."""


def is_name(text: str) -> bool:
    """Tell whether a text can be a model's name: what cannot be seen hosts may cut off, or not."""
    return 0 < len(text) <= LONGEST_MODEL and text.isprintable() and text == text.strip()


def endpoint_of(path: str) -> Endpoint:
    """Return the endpoint a decoded path leads to, of kind `UNKNOWN` if it is none we know.

    Empty segments, a slash at the end, parameters after a semicolon, case and whatever stands
    before the known part make no difference: a host may be mounted anywhere, and its router may
    forgive more than we know. A path that climbs (`..`) leads nowhere that is known.
    """
    known = DOCUMENTED.get(path)
    if known is not None:
        return known
    found = _found(path)
    name = found.model
    if name is not None and (";" in path or "%" in name or not is_name(name)):
        # Hosts take parameters, and what is encoded twice, for a part of the name, or not.
        return replace(found, model=None, unnamed=True)
    return found


def _found(path: str) -> Endpoint:
    segments = _segments(path)
    lowered = tuple(segment.lower() for segment in segments)
    if ".." in segments:
        return _unknown(lowered, vague=True)
    method = _method_of(segments, lowered) or _inference_of(segments, lowered)
    if method is not None:
        return method
    found_vague: Endpoint | None = None
    for length in range(min(_DEEPEST, len(lowered)), 0, -1):
        tail = lowered[-length:]
        found = ENDPOINTS.get(tail) or _starred(tail)
        if found is None:
            continue
        if not found.name.endswith("*"):
            return _named(found, segments, lowered, length)
        # `models/*` may be a model, or a host mounted at `models`: what generates goes first.
        found_vague = found_vague or found
    if found_vague is not None:
        return found_vague
    return _unknown(lowered, vague=any(_VERSION.fullmatch(segment) for segment in lowered[:-1]))


def _unknown(lowered: tuple[str, ...], *, vague: bool) -> Endpoint:
    return Endpoint(
        _name_of_unknown(lowered),
        Dialect.OTHER,
        Kind.UNKNOWN,
        UsageFormat.NONE,
        "agentic" if vague else "other",
        takes=(),
        vague=vague,
    )


def _starred(tail: tuple[str, ...]) -> Endpoint | None:
    for parts in _WITH_STARS[len(tail)]:
        if all(part in ("*", segment) for part, segment in zip(parts, tail, strict=True)):
            return ENDPOINTS[parts]
    return None


def _named(
    endpoint: Endpoint, segments: Sequence[str], lowered: tuple[str, ...], tail: int
) -> Endpoint:
    """Return the endpoint with the model that `deployments/NAME/` or `engines/NAME/` names.

    The name is all that stands before the known tail. Where two of these words stand in a path,
    it cannot be told where the name begins, and there is none.
    """
    end = len(segments) - tail
    if end and lowered[end - 1] == "v1":
        end -= 1
    found = [at for at in range(end) if lowered[at] in _NAMING]
    if not found:
        words = _SERVING if endpoint.name == "/invocations" else _SERVING[:1]
        at = next((place for place in range(end) if lowered[place] in words), end)
        within = "/".join(segments[at + 1 : end])
        return replace(endpoint, perhaps=within) if within else endpoint
    name = "/".join(segments[found[0] + 1 : end]) if len(found) == 1 else ""
    if _EXTENDED in lowered[found[0] :]:
        name = ""
    return replace(endpoint, model=name or None, unnamed=not name)


def _method_of(segments: Sequence[str], lowered: tuple[str, ...]) -> Endpoint | None:
    """Return the endpoint of `models/NAME:method` or `model/NAME/method`, None for other paths.

    The name is all between the first part and the method, with slashes if it has some.
    """
    last, colon, method = segments[-1].rpartition(":") if segments else ("", "", "")
    known, collection, shown = _METHODS.get(method.lower()), "models", f"/v1/models:{method}"
    if not colon:
        known, collection, shown = _ACTIONS.get(method.lower()), "model", f"/model/*/{method}"
    at = [place for place, segment in enumerate(lowered[:-1]) if segment == collection]
    if known is None or not (colon or at):
        return None
    dialect, kind, *_ = known
    name = "/".join((*segments[at[0] + 1 : -1], *([last] if colon else ()))) if at else ""
    if len(at) > 1 or (colon and not last):
        name = ""
    if method.lower() == "predict" and _EMBEDDING in name.lower():
        known = _EMBEDS
    if method.lower() == "rawpredict" and name.lower() == _COUNTING:
        return Endpoint(
            f"/v1/models/{_COUNTING}", dialect, Kind.COUNT, UsageFormat.NONE, capability="other"
        )
    stored = _STORED_PROMPT in name.lower()
    if not colon and stands_for_another(name):
        name = ""
    return _named_by_path(
        shown if colon else shown.lower(),
        known,
        name,
        vague=stored or kind is Kind.UNKNOWN,
    )


def _inference_of(segments: Sequence[str], lowered: tuple[str, ...]) -> Endpoint | None:
    """Return the endpoint of `v2/models/NAME/generate` and its like, None for other paths."""
    known = _INFERENCES.get(lowered[-1]) if lowered else None
    if known is None or lowered.count("models") != 1:
        return None
    at = lowered.index("models")
    named = segments[at + 1 : -1]
    if not at or lowered[at - 1] != "v2" or not named:
        return None
    if len(named) > 2 and named[-2].lower() == "versions":
        named = named[:-2]
    name = named[0] if len(named) == 1 else ""
    return _named_by_path(f"/v2/models/*/{lowered[-1]}", known, name, vague=False)


def _named_by_path(shown: str, known: _Method, name: str, *, vague: bool) -> Endpoint:
    """Return an endpoint whose path names the model, or (an empty name) cannot be told to."""
    dialect, kind, usage, capability, streams = known
    return Endpoint(
        shown,
        dialect,
        kind,
        usage,
        capability,
        name or None,
        streams,
        takes=() if kind is Kind.UNKNOWN else (JSON,),
        posts=kind is Kind.CONTROL,
        vague=vague,
        unnamed=not name,
    )


def _name_of_unknown(lowered: tuple[str, ...]) -> str:
    """Return a path as a name: what has a digit may be an id and shows as `*`, but for `v1`."""
    shown = [
        "*" if _DIGIT.search(segment) and not re.fullmatch(r"v[0-9]\w{0,8}", segment) else segment
        for segment in lowered
    ]
    return ("/" + "/".join(shown))[:_LONGEST_NAME]
