"""Texts that are not what they look like: quotes, comments, commas and patterns in values."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from ipaddress import ip_interface

from guardrail.loading.lint.written import TESTING, Tested, Written, lists_in, scalars_in
from guardrail.loading.lists import list_name
from guardrail.loading.nodes import ListNode, MapNode, Scalar
from guardrail.loading.text import Source, place_of, quoted
from guardrail.model.facts import FactType

_OPENING = "\u201c\u201e\u201f\u2018\u201a\u00ab\u2039\u301d"
_CLOSING = "\u201d\u201c\u2019\u2018\u00bb\u203a\u201e\u201a\u00ab\u301e"
_QUOTES = re.compile(f"[{_OPENING}{_CLOSING}]")
_AROUND = re.compile(f"[{_OPENING}{_CLOSING}][^{_OPENING}{_CLOSING}]*[{_CLOSING}]")
_PROSE = ("message", "reason", "description")
_SENTENCE_ENDS = (".", "!", "?", ":", ";", "…", ")")
_COMMENT = re.compile(r"[ \t]+#(.?)")
_REGULAR = re.compile(r"^\^|\$$|\.\*|\.\+|\\[dwsb]|\[[^\]]+\][*+?]?|\([^)]*\|[^)]*\)")
_IDENTIFIERS = (
    "account.id",
    "credential.id",
    "kyc.subject",
    "payment.fingerprint",
    "device.fingerprint",
    "client.network",
    "request.model",
)
"""The facts whose values hold no space."""


def lint_texts(written: Written) -> None:
    """Report the texts of a set that say something else than they seem to."""
    sources = {source.file: source for source in written.scope.findings.sources()}
    if any(_QUOTES.search(source.text) for source in sources.values()):
        _typographic(written)
    _cut_short(written, sources)
    _twice(written)
    _starred_models(written)
    for tested in written.tested():
        _unseen(written, tested)
        _pattern(written, tested)
        _network(written, tested)
        _endpoint(written, tested)
        if tested.in_list:
            _comma(written, tested)


def _bare(line: str) -> str:
    """Return the value in a line that is written as in YAML, in JSON or in a CSV."""
    value = re.sub(r"^-\s+", "", line).rstrip(",").strip()
    is_quoted = len(value) > 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value


def _typographic(written: Written) -> None:
    for _, section in written.sections():
        for _, node in scalars_in(section):
            text = node.text
            one_word = not re.search(r"\s", text) and text[:1] in _OPENING + _CLOSING
            if text and not node.quoted and (_AROUND.fullmatch(text) or one_word):
                message = f"{quoted(text)} has typographic quotes, which are part of the text"
                help = f'write `"{text.strip(_OPENING + _CLOSING)}"`, with straight quotes'
                written.scope.findings.report("GR224", node, message, help=help)


def _cut_short(written: Written, sources: dict[str, Source]) -> None:
    for node in _prose(written):
        if node.quoted or node.span.line != node.span.end_line:
            continue
        comment = _COMMENT.match(sources[node.span.file].rest(node.span.line, node.span.end_column))
        if comment is None:
            continue
        if comment[1].strip() or not node.text.endswith(_SENTENCE_ENDS):
            message = "the text ends here: ` #` starts a comment"
            label = f"only {quoted(node.text)} is sent"
            help = "put the text in quotes, or end it with a full stop before a comment"
            written.scope.findings.report("GR225", node, message, label=label, help=help)


def _prose(written: Written) -> Iterator[Scalar]:
    for _, section in written.sections("rules", "exemptions"):
        for name, node in scalars_in(section):
            if name in _PROSE or name.startswith("x-"):
                yield node


def _twice(written: Written) -> None:
    """Report a value that stands in one list a second time, in whatever section it is."""
    for name, section in written.sections("lists", *TESTING):
        for node in lists_in(section) if name != "expect" else ():
            seen: dict[str, Scalar] = {}
            for part in node.parts:
                if not isinstance(part, Scalar):
                    continue
                first = seen.setdefault(part.text, part)
                if first is not part:
                    message = f"{quoted(part.text)} is in the list twice"
                    label = f"first in {place_of(first.span)}"
                    help = "leave it out, or write the value that was meant"
                    written.scope.findings.report("GR231", part, message, label=label, help=help)


def _starred_models(written: Written) -> None:
    """Report names of models that are meant for several."""
    for _, section in written.sections("models"):
        for entry in section.entries if isinstance(section, MapNode) else ():
            named = entry.value.get("aliases") if isinstance(entry.value, MapNode) else None
            aliases = named.parts if isinstance(named, ListNode) else ()
            for node in (entry.key, *aliases):
                if isinstance(node, Scalar) and "*" in node.text:
                    message = f"{quoted(node.text)} is the name of one model: a name knows no stars"
                    help = "list each, and say with `unlisted_model` what others count as"
                    written.scope.findings.report("GR223", node, message, help=help)


def _unseen(written: Written, tested: Tested) -> None:
    """Report a value that a fact is compared with for what nobody sees of it."""
    text = tested.node.text
    if tested.fact.type not in (FactType.STRING, FactType.LIST) or list_name(tested.node):
        return
    bare = "".join(c for c in text if c.isprintable() or unicodedata.category(c) == "Cn").strip()
    hidden = next((c for c in text.strip() if not c.isprintable()), None)
    if tested.operator == "prefix" and hidden is None:
        # `Mozilla/5.0 ` is a start that ends where a word does.
        bare, text = bare.lstrip(), text.rstrip()
    if text == bare:
        return
    message = f"{quoted(text)} begins or ends with a space, which is part of it"
    if hidden is not None:
        message = f"{quoted(bare)} has a character that is not seen: U+{ord(hidden):04X}"
    help = f'write `"{bare}"`' if bare else "leave it out"
    written.scope.findings.report("GR232", tested.node, message, help=help)


def _pattern(written: Written, tested: Tested) -> None:
    text = tested.node.text
    if tested.fact.type not in (FactType.STRING, FactType.LIST) or list_name(tested.node):
        return
    # An endpoint's name has a star for a part that differs: `/model/*/converse`, `/v1/files/*`.
    named = tested.fact.name == "request.endpoint" and tested.operator != "prefix"
    star = "*" in (re.sub(r"/\*(?=/|$)", "/", text) if named else text) or text.endswith("?")
    if tested.operator not in ("in", "not_in", "prefix"):
        return
    if (meant := _expression(tested)) is not None:
        message = f"{quoted(text)} is compared as it stands: a value knows no signs"
        written.scope.findings.report("GR223", tested.node, message, help=meant)
        return
    if not (star or _REGULAR.search(text)):
        return
    message = f"{quoted(text)} is compared as it stands: a test knows no patterns"
    plain = re.sub(r"^\^|(\.?\*|\.\+)?\$?$", "", text)
    help = "list the values with `in`, or use `prefix` for those that start alike"
    if plain and not re.search(r"[*?\\^$\[\](|)+]", plain):
        help = f"write `{{prefix: {plain}}}` for all that start so"
        begins = text[0] == "^" and text[-1] != "$"
        if not (begins or re.search(r"[*+]\$?$", text)):
            help = f"write `{plain}`"
    written.scope.findings.report("GR223", tested.node, message, help=help)


def _expression(tested: Tested) -> str | None:
    """Return what a value means that begins with a sign, or that parts others by one."""
    text, name = tested.node.text, tested.fact.name
    signed = _SIGNED.fullmatch(text)
    if signed is not None and tested.operator != "prefix":
        negates = signed[1] in ("!", "!=", "<>")
        if tested.in_list or tested.operator == "not_in":
            listed = negates and tested.operator == "in"
            return f"leave `{signed[1]}` out" + (", and write `not_in`" if listed else "")
        return (
            f"write `{name}: {{not: {signed[2]}}}`" if negates else f"write `{name}: {signed[2]}`"
        )
    if name not in (*_IDENTIFIERS, "client.agent"):
        return None
    if re.fullmatch(r"/[^/]+/[a-z]*", text):
        return "list the values with `in`, or use `prefix` for those that start alike"
    parts = text.split("|")
    if len(parts) > 1 and all(re.fullmatch(r"\s*[\w.:/-]+\s*", part) for part in parts):
        return f"write `{name}: {{in: [{', '.join(part.strip() for part in parts)}]}}`"
    return None


_SIGNED = re.compile(r"(!=?|==?|=~|<>|~)\s*([\w.:/-]+)")


def _network(written: Written, tested: Tested) -> None:
    """Report a network that is not written as that of one client, where it is to be equal."""
    if tested.fact.name != "client.network" or tested.operator not in ("in", "not_in", "cidr"):
        return
    text = tested.node.text
    try:
        network = ip_interface(text).network
    except ValueError:
        return
    length = 32 if network.version == 4 else 64
    is_part = network.prefixlen > length
    own = network.supernet(new_prefix=length) if is_part else network
    meant = str(own.network_address) if length == 32 else str(own)
    message = f"{quoted(text)} is compared as it stands, and no client has all of it"
    label = "`client.network` is an address of IPv4, or a /64 of IPv6"
    help = f"write {quoted(meant)}"
    if tested.operator == "cidr":
        if not is_part:
            return
        message = f"{quoted(text)} is a part of what a client has, and holds none of them"
    elif own.prefixlen < length:
        help = f"write `client.network: {{cidr: [{own}]}}`"
        if tested.operator == "not_in":
            help = f"write `not: {{client.network: {{cidr: [{own}]}}}}`"
    elif text == meant:
        return
    elif not is_part:
        message = f"{quoted(text)} is compared as it stands, and no client's is written so"
    written.scope.findings.report("GR223", tested.node, message, label=label, help=help)


def _endpoint(written: Written, tested: Tested) -> None:
    """Report a path that is written as no endpoint is: with a host, a method or a query."""
    if tested.fact.name != "request.endpoint" or tested.operator not in ("in", "not_in", "prefix"):
        return
    text = tested.node.text
    found = _ADDRESS.fullmatch(text)
    if found is None or list_name(tested.node):
        return
    path = "/" + found[1].lstrip("/")
    if tested.operator != "prefix":
        path = path.rstrip("/")
    if path in ("", text):
        return
    message = f"{quoted(text)} is compared as it stands, and no endpoint is written so"
    label = "a path, with neither host nor method nor query"
    help = f"write {quoted(path)}"
    written.scope.findings.report("GR223", tested.node, message, label=label, help=help)


_ADDRESS = re.compile(
    r"(?:(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)\s+)?(?:https?://[^/\s]+)?"
    r"([^\s?#:]*/[^\s?#]*)(?:[?#]\S+)?",
    re.IGNORECASE,
)
"""A path, and what may stand around it elsewhere."""


def _comma(written: Written, tested: Tested) -> None:
    text = tested.node.text
    if tested.fact.type not in (FactType.STRING, FactType.LIST):
        return
    spaced = tested.fact.name in _IDENTIFIERS and re.search(r"\S\s+\S", text)
    if tested.from_file and (bare := _bare(text)) != text and not re.search(r"[\s,]", bare):
        message = f"{quoted(text)} is one value, with all that stands around it"
        help = f"a list's file has a value a line, as it is: write {quoted(bare)}"
        written.scope.findings.report("GR226", tested.node, message, help=help)
        return
    # A browser calls itself by sentences with commas; values that follow each other are words.
    if not spaced and not re.fullmatch(r"[^\s,]+(?:\s*,\s*[^\s,]+)+,?", text):
        return
    parts = [part for part in re.split(r"\s*,\s*|\s+" if spaced else r"\s*,\s*", text) if part]
    message = f"{quoted(text)} is one entry of the list"
    help = f"write a comma between entries: `[{', '.join(parts[:4])}]`"
    if tested.from_file:
        help = "write each in a line of its own"
    elif tested.node.quoted and len(parts) > 1:
        help = f"quote each entry on its own: `[{', '.join(parts[:4])}]`"
    written.scope.findings.report("GR226", tested.node, message, help=help)
