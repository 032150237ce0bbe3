"""Which endpoint a path leads to, whatever it is mounted below, and how its bodies are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

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


class CapRules(NamedTuple):
    """The members that cap, written `within.name`; a missing cap is set as the first of them.

    `zero` tells that a cap of 0 is one; some hosts take it for none.
    """

    names: tuple[str, ...] = ()
    zero: bool = False

    def hold(self, document: Mapping[str, object]) -> bool:
        """Whether a body's output is capped; of several settings in a list, each has to be."""
        for dotted in self.names:
            if "." not in dotted:
                if dotted in document and self._caps(document[dotted]):
                    return True
                continue
            within, _, name = dotted.rpartition(".")
            settings = document.get(within)
            every = settings if isinstance(settings, list) else [settings]
            if every and all(isinstance(one, dict) and self._caps(one.get(name)) for one in every):
                return True
        return False

    def _caps(self, value: object) -> bool:
        if value.__class__ is not int:
            return value is not None
        return value > 0 or (value == 0 and self.zero)


class Endpoint(NamedTuple):
    """An endpoint: its name (the fact `request.endpoint`), and what a request to it is.

    `model` is the one the path names, `streams` tells that it asks for a stream. `takes` are the
    media types of bodies that its API documents, empty where any may be taken. `posts` tells
    whether stored things are changed here by `POST`. `vague` marks what nobody documents below the
    path of a known API: it may be anything. `unnamed` marks a path that names a model in a way that
    cannot be told. `perhaps` is a model that the path may name or not: below `models/NAME/` some
    hosts serve that one whatever the body says, and others are only mounted there.

    `caps` are the members that cap output, None where the form of its responses tells which.
    `streams_by_default` tells that it streams unless it is told not to, `unlabelled` that its host
    takes whatever it is sent for JSON, `goes_on` that it goes on with what the host keeps: a
    thread, an assistant, a session set up before.
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
    caps: CapRules | None = None
    streams_by_default: bool = False
    unlabelled: bool = False
    goes_on: bool = False


_FORMATS = {"-": UsageFormat.NONE} | {one.value.split()[-1]: one for one in UsageFormat}

# Name, dialect, kind, usage, capability. `*` stands for one segment; the longest match counts.
# After these what bodies are, where they are not JSON alone: `form` is a multipart form, `sdp` the
# description of a session, `any` whatever is sent. Then `post` marks stored things that are changed
# by POST, `cap=` names the members that cap output (`zero`: 0 is a cap, too), and the other words
# say what members of `Endpoint` do: `stream`, `by-default` (it streams), `unlabelled`, `goes-on`.
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
/v1/threads/runs                    openai    generate chat        agentic goes-on
/v1/threads/*                       openai    control  -           other post
/v1/threads/*/messages              openai    control  -           other post
/v1/threads/*/runs                  openai    generate chat        agentic goes-on
/v1/threads/*/runs/*                openai    control  -           other post
/v1/threads/*/runs/*/cancel         openai    control  -           other post
/v1/threads/*/runs/*/submit_tool_outputs openai generate chat      agentic goes-on
/v1/assistants                      openai    control  -           other post
/v1/assistants/*                    openai    control  -           other post
/v1/embeddings                      openai    embed    embeddings  embedding
/v1/multimodalembeddings            openai    embed    embeddings  embedding
/v1/contextualizedembeddings        openai    embed    embeddings  embedding
/v1/moderations                     openai    embed    -           other
/v1/chat/moderations                openai    embed    -           other
/v1/classifications                 openai    embed    embeddings  embedding
/v1/chat/classifications            openai    embed    embeddings  embedding
/v1/ocr                             openai    generate chat        chat cap=
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
/v1/realtime/calls                  openai    generate -           audio form,sdp goes-on
/v1/realtime/calls/*/accept         openai    generate -           audio goes-on
/v1/realtime/calls/*/hangup         openai    control  -           other post
/v1/realtime/calls/*/refer          openai    control  -           other post
/v1/realtime/calls/*/reject         openai    control  -           other post
/v1/realtime/sessions               openai    generate -           audio
/v1/realtime/client_secrets         openai    generate -           audio
/v1/realtime/transcription_sessions openai    generate -           audio
/v1/realtime/translations           openai    generate -           audio
/v1/realtime/translations/calls     openai    generate -           audio form,sdp goes-on
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
/v1/interactions gemini generate gemini chat cap=generation_config.max_output_tokens
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
/v1/complete                        anthropic generate anthropic   chat cap=max_tokens_to_sample
/v2/chat                            other     generate chat        chat cap=max_tokens
/v2/embed                           other     embed    embeddings  embedding
/generate openai generate native chat cap=sampling_params.max_new_tokens
/generate_stream openai generate native chat cap=parameters.max_new_tokens by-default
/vertex_generate openai generate native chat cap=parameters.max_new_tokens
/inference/v1/generate openai generate native chat cap=sampling_params.max_tokens
/invocations                        openai    generate chat        chat
/api/chat other generate native chat cap=options.num_predict by-default unlabelled
/api/generate other generate native chat cap=options.num_predict by-default unlabelled
/api/embed                          other     embed    native      embedding unlabelled
/api/embeddings                     other     embed    native      embedding unlabelled
/completion                         openai    generate native      chat cap=n_predict zero
/infill                             openai    generate native      code cap=n_predict zero
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
/agents/*/agentaliases/*/sessions/*/text other generate -          agentic goes-on
/flows/*/aliases/*                  other     generate -           agentic goes-on
/retrieveandgenerate                other     generate -           chat
/retrieveandgeneratestream          other     generate -           chat
/tokenize                           openai    count    -           other
/detokenize                         openai    count    -           other
"""

# Methods of Gemini and of Vertex, after the colon; what Bedrock does with `model/NAME/`, and Triton
# with `v2/models/NAME/`, or with a version of it.
_METHOD_TABLE = """
/v1/models:generatecontent             gemini    generate gemini     chat
/v1/models:streamgeneratecontent       gemini    generate gemini     chat stream
/v1/models:batchgeneratecontent        gemini    batch    -          batch
/v1/models:counttokens                 gemini    count    -          other
/v1/models:asyncbatchembedcontent      gemini    batch    -          batch
/v1/models:embedcontent                gemini    embed    gemini     embedding
/v1/models:batchembedcontents          gemini    embed    gemini     embedding
/v1/models:cancel                      gemini    control  -          other post
/v1/models:predict                     gemini    generate media      image
/v1/models:predictlongrunning          gemini    generate -          image
/v1/models:rawpredict                  anthropic generate anthropic  chat
/v1/models:streamrawpredict            anthropic generate anthropic  chat stream
/model/*/invoke                        other     generate native     chat
/model/*/invoke-with-response-stream   other     generate native     chat stream
/model/*/converse other generate chat chat cap=inferenceConfig.maxTokens
/model/*/converse-stream other generate chat chat stream cap=inferenceConfig.maxTokens
/model/*/count-tokens                  other     count    -          other
/model/*/invoke-with-bidirectional-stream other  unknown  -          agentic stream any
/v2/models/*/generate openai generate native chat cap=max_tokens,parameters.max_tokens
/v2/models/*/generate_stream openai generate native chat stream cap=max_tokens,parameters.max_tokens
/v2/models/*/infer                     other     unknown  -          agentic any
"""

# Models whose names say so make vectors of texts and pictures at Vertex's `predict`.
_EMBEDDING = "embedding"
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


def _endpoints(table: str) -> Iterator[Endpoint]:
    for line in table.strip().splitlines():
        name, dialect, kind, usage, capability, *more = line.split()
        taken = next((what for what in more if what.split(",")[0] in _TAKEN), "json").split(",")
        caps = None
        for what in more:
            if what.startswith("cap="):
                names = filter(None, what.removeprefix("cap=").split(","))
                caps = CapRules(tuple(names), zero="zero" in more)
        yield Endpoint(
            name,
            Dialect(dialect),
            Kind(kind),
            _FORMATS[usage],
            capability,
            streams="stream" in more,
            takes=sum((_TAKEN[what] for what in taken), ()),
            posts="post" in more,
            caps=caps,
            streams_by_default="by-default" in more,
            unlabelled="unlabelled" in more,
            goes_on="goes-on" in more,
        )


ENDPOINTS: Mapping[tuple[str, ...], Endpoint] = {
    tuple(_segments(endpoint.name.removeprefix("/v1/"))): endpoint
    for endpoint in _endpoints(_TABLE)
}
"""Endpoints by the last segments of their paths; `*` stands for any one."""
DOCUMENTED = {endpoint.name: endpoint for endpoint in ENDPOINTS.values()}
"""Endpoints by the paths that their APIs document; `endpoint_of` knows all others, too."""
_METHODS = {endpoint.name: endpoint for endpoint in _endpoints(_METHOD_TABLE)}
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
        return found._replace(model=None, unnamed=True)
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
        return endpoint._replace(perhaps=within) if within else endpoint
    name = "/".join(segments[found[0] + 1 : end]) if len(found) == 1 else ""
    if _EXTENDED in lowered[found[0] :]:
        name = ""
    return endpoint._replace(model=name or None, unnamed=not name)


def _method_of(segments: Sequence[str], lowered: tuple[str, ...]) -> Endpoint | None:
    """Return the endpoint of `models/NAME:method` or `model/NAME/method`, None for other paths.

    The name is all between the first part and the method, with slashes if it has some.
    """
    last, colon, method = segments[-1].rpartition(":") if segments else ("", "", "")
    shown = f"/v1/models:{method}" if colon else f"/model/*/{method.lower()}"
    known, collection = _METHODS.get(shown.lower()), "models" if colon else "model"
    at = [place for place, segment in enumerate(lowered[:-1]) if segment == collection]
    if known is None or not (colon or at):
        return None
    name = "/".join((*segments[at[0] + 1 : -1], *([last] if colon else ()))) if at else ""
    if len(at) > 1 or (colon and not last):
        name = ""
    if method.lower() == "predict" and _EMBEDDING in name.lower():
        usage = UsageFormat.OPENAI_EMBEDDINGS
        known = known._replace(kind=Kind.EMBED, usage=usage, capability=_EMBEDDING)
    if method.lower() == "rawpredict" and name.lower() == _COUNTING:
        counting = f"/v1/models/{_COUNTING}"
        return Endpoint(counting, known.dialect, Kind.COUNT, UsageFormat.NONE, capability="other")
    vague = _STORED_PROMPT in name.lower() or known.kind is Kind.UNKNOWN
    if not colon and stands_for_another(name):
        name = ""
    return known._replace(name=shown, model=name or None, vague=vague, unnamed=not name)


def _inference_of(segments: Sequence[str], lowered: tuple[str, ...]) -> Endpoint | None:
    """Return the endpoint of `v2/models/NAME/generate` and its like, None for other paths."""
    known = _METHODS.get(f"/v2/models/*/{lowered[-1]}") if lowered else None
    if known is None or lowered.count("models") != 1:
        return None
    at = lowered.index("models")
    named = segments[at + 1 : -1]
    if not at or lowered[at - 1] != "v2" or not named:
        return None
    if len(named) > 2 and named[-2].lower() == "versions":
        named = named[:-2]
    name = named[0] if len(named) == 1 else ""
    return known._replace(model=name or None, unnamed=not name)


def _name_of_unknown(lowered: tuple[str, ...]) -> str:
    """Return a path as a name: what has a digit may be an id and shows as `*`, but for `v1`."""
    shown = [
        "*" if _DIGIT.search(segment) and not _VERSION.fullmatch(segment) else segment
        for segment in lowered
    ]
    return ("/" + "/".join(shown))[:_LONGEST_NAME]
