"""What tools a request hands to the model, and what kind of request they make it.

The rules, kept few so that they can be explained:

* Tools with which a model acts make a request *agentic*: functions, custom tools, shells, code
  execution, editors, computers, browsers, remote servers (MCP), and every type we do not know.
* Tools that only look things up (web and file search, maps) leave a request what it is.
* A tool that makes pictures makes it *image*.

Tool types carry dates that grow (`web_search_20250305`); they are known by what stands before.
Whether a model of a certain name counts as code is for policies, by `request.model`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

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
_LISTS = ("tools", "functions", "mcp_servers", "mcpServers", "skills")
_MEMBERS = frozenset({*_LISTS, "web_search_options", "container"})


def may_have_tools(document: Mapping[str, object]) -> bool:
    """Tell whether a body has any member from which `tools_in` reads."""
    return not _MEMBERS.isdisjoint(document)


def tools_in(document: Mapping[str, object]) -> Iterator[object]:
    """Yield the tools a body hands to the model, each as its vendor writes it.

    Gemini writes several in one object: each of its members is one, each function declared is one.
    """
    for name in _LISTS:
        if name not in document:
            continue
        listed = document[name]
        if isinstance(listed, list):
            for tool in listed:
                yield from _spread(tool)
        elif listed is not None and listed != {}:
            yield listed
    if document.get("web_search_options") is not None:
        yield {"type": "web_search_options"}
    container = document.get("container")
    if isinstance(container, dict):
        yield from tools_in({"skills": container.get("skills")})


def _spread(tool: object) -> Iterator[object]:
    if not tool or not isinstance(tool, dict) or "type" in tool or "name" in tool:
        yield tool
        return
    for name, value in tool.items():
        if name in {"functionDeclarations", "function_declarations"} and isinstance(value, list):
            yield from value
        else:
            yield {"type": name, name: value}


def family(tool: object) -> str:
    """Return a tool's type without its date, empty if it has none that is a name."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return _DATE.sub("", kind).lower() if isinstance(kind, str) else ""


def capability_with(tools: Iterable[object], capability: str) -> str:
    """Return what kind of request one is, given what it would be without tools."""
    for tool in tools:
        kind = family(tool)
        if kind in LOOKUP:
            continue
        capability = strictest(capability, "image" if kind in PICTURES else "agentic")
    return capability


def strictest(*capabilities: str) -> str:
    """Return the most restricted of several capabilities."""
    return max(capabilities, key=RANKS.__getitem__)
