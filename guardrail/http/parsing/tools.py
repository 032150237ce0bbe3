"""What tools a request hands to the model, and what kind of request they make it.

The rules, kept few so that they can be explained:

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
from collections.abc import Iterable, Iterator

from guardrail.http.parsing.members import TOOL_LISTS, TOOL_MEMBERS, Members

LOOKUP = frozenset(
    "web_search web_search_preview web_fetch file_search google_search googlesearch "
    "google_search_retrieval googlesearchretrieval url_context urlcontext google_maps googlemaps "
    "enterprise_web_search enterprisewebsearch retrieval filesearch "
    "web_search_options".split()
)
"""Families of tools with which a model finds what it reads."""
PICTURES = frozenset({"image_generation"})
"""Families of tools with which a model draws."""

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
_MEMBERS = frozenset(TOOL_MEMBERS)


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
