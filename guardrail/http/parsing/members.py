"""Where in a body a host may look for what is asked of it, and where nothing is ever asked.

Gateways, SDKs and servers put settings into one another: `extra_body`, `session`, `parameters`. So
what is called like a setting counts as one wherever it stands, but where it is shown to be
something else: in a schema, in the arguments of a call, in labels.

What tools a request hands to the model makes it what it is. The rules are few, so that they can be
explained:

* Tools with which a model acts make a request *agentic*: functions, custom tools, shells, code
  execution, editors, computers, browsers, remote servers (MCP), and every type we do not know.
  So does whatever carries a function or a schema, whatever its type says.
* Tools that only look things up (web and file search, maps) leave a request what it is.
* A tool that makes pictures makes it *image*.

Tool types carry dates that grow (`web_search_20250305`); they are known by what stands before.
Whether a model of a certain name counts as code is for policies, by `request.model`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from guardrail.http.parsing.values import UnreadableError, shown

SETTINGS = frozenset(
    "sampling_params generationConfig generation_config parameters options extra_body extraBody "
    "session response setup config inferenceConfig inference_config optional_params "
    "litellm_params model_kwargs additionalModelRequestFields google generateContentRequest "
    "generate_content_request chat_template_kwargs compound_custom".split()
)
"""Members that hold settings of their own, each read as those beside it are."""
TOOL_LISTS = tuple(
    "tools functions mcp_servers mcpServers skills additional_tools functionDeclarations "
    "function_declarations builtin_tools server_tools".split()
)
"""Members that list the tools of a model."""
TOOL_MEMBERS = (
    *TOOL_LISTS,
    *"web_search_options search_parameters enable_search plugins multi_agent".split(),
)
"""Members that hand tools to a model: lists of them, settings of a search, agents it may start."""
INLINE_TOOL = "definition"
"""What holds a tool in the course of a conversation, in an object of the type `tool_definition`."""
TOOL_CHOICES = tuple(
    "tool_choice toolChoice function_call parallel_tool_calls max_tool_calls toolConfig "
    "tool_config".split()
)
"""Members that say how tools are to be used, and mean nothing without any."""
CAPS = tuple(
    "max_tokens max_completion_tokens max_output_tokens maxOutputTokens max_new_tokens "
    "max_tokens_to_sample num_predict n_predict maxTokens".split()
)
"""Members that cap output, over all vendors; hosts disagree on which wins, so the largest does."""
FLOORS = ("min_tokens", "min_new_tokens", "thinking_token_budget")
"""Members that ask for at least so much output."""
MULTIPLIERS = frozenset(
    "n best_of candidateCount candidate_count sampleCount sample_count num_return_sequences "
    "numberOfImages number_of_images numberOfVideos number_of_videos num_images "
    "num_completions num_generations num_outputs num_images_per_prompt n_samples num_samples "
    "n_cmpl n_variants beam_width num_beams".split()
)
"""Members that ask for several completions."""
MODELS = ("model", "modelId", "model_name")
"""Members that name the model."""
ALSO_MODELS = ("engine", "deployment_id", "model_id")
"""Members that name it with some hosts, and something else with others."""
OTHER_MODELS = tuple(
    "models fallbacks fallback_models context_window_fallbacks content_policy_fallbacks "
    "preset lora lora_path lora_adapter lora_name lora_request adapter_id adapter_name "
    "routingConfig routing_config modelSelectionConfig model_selection_config".split()
)
"""Members that name models which may answer instead, or what makes another of the model."""
STORED = tuple(
    "previous_response_id previous_interaction_id conversation conversation_id "
    "cachedContent cached_content assistant_id thread_id agent agent_id prompt_id "
    "promptVariables workflow thread".split()
)
"""Members that refer to what the host keeps: input, and tools that are not seen here."""

STORED_ANYWHERE = frozenset(
    "previous_response_id previous_interaction_id cachedContent cached_content assistant_id "
    "prompt_id".split()
)
"""Those of them that are called so nowhere else: they count wherever they stand."""
STORED_FILES = ("file_id", "input_file_id")
"""Members that refer to a file that the host keeps: input, but no settings."""

REASONING = tuple(
    "reasoning_effort think thinking_level thinkingLevel reasoning reasoning_config "
    "reasoningConfig thinking thinkingConfig thinking_config enable_thinking "
    "thinking_budget reasoning_budget prompt_mode".split()
)
"""Members that may ask for reasoning, and for nothing else."""
OUTPUT_CONFIG = "output_config"
"""What may hold an effort of reasoning, and other settings."""

DECIDING = SETTINGS.union(
    TOOL_MEMBERS, CAPS, FLOORS, MULTIPLIERS, MODELS, ALSO_MODELS, OTHER_MODELS
).union(STORED, STORED_FILES, REASONING, (OUTPUT_CONFIG, INLINE_TOOL, "container"))
"""Members that decide wherever they stand."""
_SPELLED = DECIDING | frozenset(
    "messages prompt input contents stream requests batch purpose system instructions".split()
)
_FOLDED = {name.casefold(): name for name in sorted(_SPELLED)}
# What stands there is described for a model, told to it as data, or kept for the caller; choices
# among tools name those that are handed over elsewhere.
_APART = frozenset(
    "schema json_schema responseSchema response_schema responseJsonSchema response_json_schema "
    "guided_json structured_outputs input_schema inputSchema parametersJsonSchema properties $defs "
    "definitions patternProperties metadata labels arguments args functionCall function_call "
    "functionResponse function_response toolUse toolResult tool_choice toolChoice "
    "logit_bias".split()
).union(TOOL_LISTS)
_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use", "custom_tool_call")


class Members(NamedTuple):
    """An object in a body: how it is reached, and whether by members that hold settings alone."""

    where: str
    of: Mapping[str, object]
    settles: bool


def members_in(
    document: Mapping[str, object], names: Collection[str] | None = None
) -> list[Members]:
    """Return a body and every object in it that may set something, the body first.

    `names` are the keys of all objects within it, where they are known: most bodies have none that
    decides anything below the first level, which is seen at once.
    """
    if names is not None and DECIDING.isdisjoint(names) and SETTINGS.isdisjoint(document):
        return [Members("", document, settles=True)]
    return list(_walked(document))


def _walked(document: Mapping[str, object]) -> Iterator[Members]:
    stack: list[tuple[str, object, bool]] = [("", document, True)]
    top = True
    while stack:
        where, node, settles = stack.pop()
        if isinstance(node, list):
            stack += [(where, one, settles) for one in node if one.__class__ in (dict, list)]
            continue
        if not isinstance(node, dict):
            continue
        yield Members(where, node, settles)
        called = not top and node.get("type") in _CALLS
        top = False
        for name, value in node.items():
            if value.__class__ not in (dict, list) or name in _APART:
                continue
            if name == "input" and called:
                continue
            within = settles and name in SETTINGS
            stack.append((f"{where}{name}." if within else where, value, within))


def check_spelling(every: Iterable[Members]) -> None:
    """Refuse a setting whose name differs from a known one in upper and lower case alone.

    Some hosts, those in Go for one, read names in any case, a long s and the sign of Kelvin among
    them, and take the last.

    Raises:
        UnreadableError: there is one.
    """
    for members in every:
        if not members.settles or _SPELLED.issuperset(members.of):
            continue
        for name in members.of:
            if name not in _SPELLED and (meant := _FOLDED.get(name.casefold())) is not None:
                raise UnreadableError(
                    f"`{shown(name)}` is `{meant}` in other letters, which hosts read differently; "
                    f"send `{meant}`",
                    param=shown(name),
                )


LOOKUP = frozenset(
    "web_search web_search_preview web_fetch file_search google_search googlesearch "
    "google_search_retrieval googlesearchretrieval url_context urlcontext google_maps googlemaps "
    "enterprise_web_search enterprisewebsearch retrieval filesearch x_search collections_search "
    "parallel_ai_search parallelaisearch exa_ai_search exaaisearch "
    "web_search_options".split()
)
"""Families of tools with which a model finds what it reads."""
PICTURES = frozenset({"image_generation"})
"""Families of tools with which a model draws."""

ASKING = ("advisor", "fusion")
"""How the families of tools end by which a host asks further models in the course of an answer."""
_PANELS = ("analysis_models", "models")
# Tools of the client's, whose members the host does nothing with, and those that draw.
_ASKING_NONE = frozenset({"", "function", "custom"}) | PICTURES

RANKED = ("other", "chat", "embedding", "audio", "image", "batch", "code", "agentic")
"""Capabilities, the most restricted last."""
RANKS = {capability: rank for rank, capability in enumerate(RANKED)}

_DATE = re.compile(r"_(?:[0-9]{8}|[0-9]{4}_[0-9]{2}_[0-9]{2}|[0-9]{4}-[0-9]{2}-[0-9]{2})$")
_SEVERAL = ("functionDeclarations", "function_declarations", "functions", "tools")
# What carries one of these is called by the model, whatever its type says it is.
_CALLED = frozenset(
    "function functions custom parameters input_schema inputSchema schema parametersJsonSchema "
    "parameters_json_schema toolSpec functionDeclarations function_declarations server_url "
    "connector_id tools".split()
)
_MEMBERS = frozenset({*TOOL_MEMBERS, INLINE_TOOL})


def tools_in(every: Iterable[Members]) -> Iterator[object]:
    """Yield the tools a body hands to the model, each as its vendor writes it.

    Gemini writes several in one object: each of its members is one, each function declared is one.
    """
    for _, members, _ in every:
        if _MEMBERS.isdisjoint(members):
            continue
        for name in TOOL_LISTS:
            listed = members.get(name)
            if isinstance(listed, list):
                yield from _listed(listed)
            elif listed is not None and listed != {}:
                yield listed
        for name in ("web_search_options", "search_parameters"):
            if members.get(name) is not None:
                yield {"type": "web_search_options"}
        if members.get("enable_search") is True:
            yield {"type": "web_search_options"}
        agents = members.get("multi_agent")
        if agents and not (isinstance(agents, dict) and agents.get("enabled") is False):
            yield {"type": "multi_agent"}
        if INLINE_TOOL in members and members.get("type") == "tool_definition":
            yield from _listed([members[INLINE_TOOL]])
        plugins = members.get("plugins")
        for plugin in plugins if isinstance(plugins, list) else ():
            web = isinstance(plugin, dict) and plugin.get("id") == "web"
            yield {"type": "web_search_options"} if web else plugin


def _listed(listed: Iterable[object]) -> Iterator[object]:
    # Lists in lists are gone through without recursion: how deep they are is the client's to say.
    stack = list(listed)[::-1]
    while stack:
        tool = stack.pop()
        if isinstance(tool, list) and tool:
            stack += tool[::-1]
            continue
        if not tool or not isinstance(tool, dict):
            yield tool
            continue
        several = [name for name in _SEVERAL if isinstance(tool.get(name), list)]
        for name in several:
            stack += tool[name][::-1]
        if "type" in tool or "name" in tool:
            yield tool
            continue
        for name, value in tool.items():
            if name not in several:
                yield {"type": name, name: value}


def family(tool: object) -> str:
    """Return a tool's type without its date, empty if it has none that is a name."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return _DATE.sub("", kind).lower() if isinstance(kind, str) else ""


def models_asked(tool: object) -> Iterator[str]:
    """Yield the models that the host asks in the course of a tool; one that is not told is empty.

    What draws pictures is a model of another kind, which the capability tells.
    """
    if not isinstance(tool, dict):
        return
    kind = family(tool) or str(tool.get("id", ""))
    if kind in _ASKING_NONE:
        return
    told: list[object] = []
    for settings in (tool, tool.get("parameters")):
        if isinstance(settings, dict):
            told += [settings.get(name) for name in MODELS]
            for name in _PANELS:
                panel = settings.get(name)
                told += panel if isinstance(panel, list) else []
    named = [name for name in told if isinstance(name, str) and name]
    yield from named
    if not named and kind.endswith(ASKING):
        yield ""


def capability_with(tools: Iterable[object], capability: str) -> str:
    """Return what kind of request one is, given what it would be without tools."""
    for tool in tools:
        kind = family(tool)
        if isinstance(tool, dict) and not _CALLED.isdisjoint(tool):
            kind = "function"
        if kind in LOOKUP:
            continue
        capability = strictest(capability, "image" if kind in PICTURES else "agentic")
    return capability


def strictest(*capabilities: str) -> str:
    """Return the most restricted of several capabilities."""
    return max(capabilities, key=RANKS.__getitem__)
