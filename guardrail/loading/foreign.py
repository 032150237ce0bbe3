"""What authors write who know other tools: their word, and what it is called here.

Each sentence says what to write instead, never the opposite of what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from guardrail.loading.foreign_values import boolean
from guardrail.loading.nodes import ListNode, MapNode, Node, Scalar
from guardrail.loading.shapes import VERBS
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source

_STRONGEST = "leave it out: every rule is evaluated, and the strongest effect wins"
_NO_ALLOW = "leave the rule out: what no rule refuses is served; `exemptions` spare someone a rule"
_VERBS = "write `rate` for a pace, `budget` for an amount in a window"
_WHEN = "write `when`"
_NOT_WHEN = "write `when: {not: {…}}`"
_OFF, _SHADOW = "write `mode: off`", "write `mode: shadow`"
_ZONE_WORDS: Mapping[str, str] = dict.fromkeys(
    ("timezone", "time_zone", "timeZone", "tz", "zone"),
    "write `defaults: {timezone: Europe/Berlin}` in one file: it holds for the whole set",
)

VERB_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("deny", "reject", "forbid", "refuse", "drop", "ban"), "write `block: {}`"),
    **dict.fromkeys(("allow", "permit", "accept", "pass"), _NO_ALLOW),
    **dict.fromkeys(
        ("limit", "limits", "quota", "rate_limit", "ratelimit", "rateLimit", "limiter"), _VERBS
    ),
    **dict.fromkeys(
        ("action", "effect", "then", "do", "decision", "verdict"),
        "write what is done as a key: `block: {}`, or `budget: {…}`",
    ),
    **dict.fromkeys(
        ("max_concurrent", "max_parallel", "parallel", "in_flight", "max_in_flight"),
        "write `concurrency: {max: 8, key: account.id}`",
    ),
    **dict.fromkeys(("downgrade", "fallback", "reroute"), "write `degrade: {model: …}`"),
    "throttle": "write `rate: {requests: 60/minute, key: account.id}`: a limit throttles by itself",
}
"""Keys of a rule that are meant as its verb."""

CONDITION_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("if", "match", "matches", "condition", "conditions", "where", "on"), _WHEN),
    **dict.fromkeys(("unless", "except", "exclude", "if_not", "when_not"), _NOT_WHEN),
}
"""Keys of a rule that are meant as its condition."""

_RULE_WORDS: Mapping[str, str] = {
    **_ZONE_WORDS,
    **VERB_WORDS,
    **CONDITION_WORDS,
    **dict.fromkeys(("priority", "order", "weight", "precedence", "salience"), _STRONGEST),
    **dict.fromkeys(("stop", "final", "continue", "break", "last"), _STRONGEST),
    **dict.fromkeys(("name", "rule", "key_name"), "write `id`"),
    "title": "write `id`, or `description` for a sentence",
    "comment": "write `description`, or a comment after `#`",
    "enabled": "write `mode: enforce`, or `mode: off`",
    "active": "write `mode: enforce`, or `mode: off`",
    **dict.fromkeys(("disabled", "skip"), _OFF),
    **dict.fromkeys(("dry_run", "dryrun", "dryRun", "shadow", "audit", "test_mode"), _SHADOW),
    **dict.fromkeys(("expires", "expiry", "expire", "end", "to"), "write `until`"),
    **dict.fromkeys(("start", "since", "begin"), "write `from`"),
    **dict.fromkeys(("missing", "on_missing", "default"), "write `unknown: match`, or `skip`"),
    **dict.fromkeys(("tags", "metadata", "annotations"), "write `labels: {…}`"),
    **dict.fromkeys(("sample", "percent", "percentage", "canary"), "write `rollout: 5%`"),
    **dict.fromkeys(
        (
            "on_exceed",
            "on_exceeded",
            "exceeded",
            "when_exceeded",
            "on_limit",
            "on_over",
            "overflow",
        ),
        "write `over`",
    ),
}
_LIMIT_WORDS: Mapping[str, str] = {
    **_ZONE_WORDS,
    **dict.fromkeys(
        ("limit", "max", "amount", "count", "quota", "maximum", "value", "rate"),
        "write the amount under its unit, such as `requests`",
    ),
    **dict.fromkeys(
        ("by", "scope", "group_by", "identifier", "partition", "per_key", "on", "for", "subject"),
        "write `key`",
    ),
    **dict.fromkeys(("usd", "cost", "dollars", "money", "spend", "price"), "write `cost_usd`"),
    **dict.fromkeys(("input", "prompt_tokens", "tokens_in"), "write `input_tokens`"),
    **dict.fromkeys(("output", "completion_tokens", "tokens_out"), "write `output_tokens`"),
    **dict.fromkeys(("hits", "calls", "reqs"), "write `requests`"),
}
_WINDOW_WORDS = ("window", "period", "interval", "duration", "every", "ttl", "time", "timeout")
_REFUSAL_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("code", "status_code", "http_status"), "write `status`"),
    **dict.fromkeys(("text", "description", "detail", "body"), "write `message`"),
    **dict.fromkeys(("action", "fix", "help", "hint"), "write `remedy`"),
    "error": "write `reason`, or `message` for people",
}
_FILE_WORDS: Mapping[str, str] = {
    **_ZONE_WORDS,
    **dict.fromkeys(("version", "apiVersion", "api_version"), "write `guardrail: 1`"),
    **dict.fromkeys(("namespace", "name", "kind"), "write `policy: NAME`"),
    **dict.fromkeys(("policies", "limits", "rate_limits", "rule"), "write `rules`, a list"),
    **dict.fromkeys(("exceptions", "allow", "allowlist", "whitelist"), "write `exemptions`"),
    **dict.fromkeys(("spec", "metadata"), "write what stands below it without it"),
    **dict.fromkeys(("include", "import", "imports"), "leave it out: a folder is one set"),
    **dict.fromkeys(("vars", "variables", "env"), "write `lists`, `conditions` or `tables`"),
}

COMBINATOR_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("or", "any_of", "anyOf", "one_of", "oneOf", "some", "||"), "write `any`"),
    **dict.fromkeys(("and", "all_of", "allOf", "every", "&&"), "write `all`"),
    **dict.fromkeys(("none", "none_of", "noneOf", "nor"), "write `not: {any: […]}`"),
    **dict.fromkeys(("unless", "except", "!", "is_not"), "write `not: {…}`"),
    **dict.fromkeys(("condition", "conditions", "ref", "$ref"), "write `use: NAME`"),
    "if": "leave it out: what stands below it is the condition",
    "when": "leave it out: what stands below it is the condition",
    "<<": "write `use: NAME` with a named condition",
}
"""Keys of a condition that combine others elsewhere."""

_FACT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("user", "user_id", "user.id", "userid", "account", "customer", "customer.id", "uid"),
        "account.id",
    ),
    **dict.fromkeys(
        ("api_key", "apikey", "key", "key.id", "token", "api_key.id", "consumer"), "credential.id"
    ),
    **dict.fromkeys(("ip", "remote_addr", "client_ip", "source.ip", "ip_address"), "client.ip"),
    **dict.fromkeys(("user_agent", "useragent", "user.agent", "agent"), "client.agent"),
    **dict.fromkeys(("country", "country_code", "geo.country_code"), "geo.country"),
    **dict.fromkeys(("region", "state", "subdivision"), "geo.region"),
    **dict.fromkeys(("tenant", "org", "organization", "team", "tenant.id"), "account.org"),
    **dict.fromkeys(("plan", "tier", "role", "user.tier", "group"), "account.tier"),
    **dict.fromkeys(("model", "model.name"), "request.model"),
    **dict.fromkeys(("path", "route", "url", "uri", "endpoint"), "request.endpoint"),
    "asn": "geo.asn",
}
_OWNERS = frozenset("account caller client customer principal request subject user".split())
_TIME_WORDS = frozenset(
    "time date day now datetime timestamp time.date time.now time.day request.time".split()
)

_CHOICE_WORDS: Mapping[str, Mapping[str, str]] = {
    "type": {
        **dict.fromkeys(("int", "int64", "long", "count"), "integer"),
        **dict.fromkeys(("float", "double", "decimal", "money"), "number"),
        **dict.fromkeys(("str", "text", "char"), "string"),
        **dict.fromkeys(("date", "datetime", "date-time", "time"), "timestamp"),
        **dict.fromkeys(("array", "set", "strings"), "list"),
        **dict.fromkeys(("ordered", "rank"), "level"),
        **dict.fromkeys(("address", "ipv4", "ipv6"), "ip"),
        "timedelta": "duration",
    },
    "mode": {
        **dict.fromkeys(("dry-run", "dry_run", "dryrun", "audit", "monitor", "report"), "shadow"),
        **dict.fromkeys(("log", "test", "warn", "dry"), "shadow"),
        **dict.fromkeys(("on", "active", "enabled", "live", "block", "deny"), "enforce"),
        **dict.fromkeys(("disabled", "inactive", "none"), "off"),
    },
    "on_store_error": {
        **dict.fromkeys(("ignore", "open", "fail-open", "fail_open", "pass"), "allow"),
        **dict.fromkeys(("block", "closed", "fail-closed", "fail_closed", "throttle"), "deny"),
        **dict.fromkeys(("memory", "in-memory", "fallback"), "local"),
    },
    "source": {
        **dict.fromkeys(("host", "backend", "trusted", "internal"), "server"),
        **dict.fromkeys(("user", "caller", "request", "untrusted"), "client"),
    },
}
"""Under each key the words that other tools have for one of its choices."""


_EFFECT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("deny", "denied", "reject", "rejected", "forbid", "refuse", "drop"), "block"),
    **dict.fromkeys(("403", "401", "451", "blocked", "fail", "ban", "banned"), "block"),
    **dict.fromkeys(("limit", "limited", "rate_limit", "rate_limited", "429"), "throttle"),
    **dict.fromkeys(("throttled", "slow", "wait", "retry"), "throttle"),
    **dict.fromkeys(("permit", "accept", "pass", "ok", "200", "allowed", "serve"), "allow"),
    **dict.fromkeys(("downgrade", "degraded", "weaker", "fallback", "reroute"), "degrade"),
}


def effect(word: str) -> str | None:
    """Return the advice on an effect by another name."""
    meant = _EFFECT_WORDS.get(word.lower().replace("-", "_"))
    return None if meant is None else f"did you mean `{meant}`?"


def whole_section(name: str, wanted: str, value: Node) -> str | None:
    """Return the advice on a section of another kind than the `wanted` one."""
    if wanted == "a list" and isinstance(value, Scalar):
        return f"write `{name}: [{value.text}]`" if len(value.text) < 40 else None
    if wanted == "a list" and name == "units" and isinstance(value, MapNode):
        return f"write `units: [{', '.join(entry.key.text for entry in value.entries[:6])}]`"
    if wanted == "a list" and name == "tests" and isinstance(value, MapNode) and value.entries:
        first = value.entries[0].key.text
        if isinstance(value.entries[0].value, MapNode) and first != "facts":
            return f"write `- name: {first}`, and below it what stands below `{first}`"
    if wanted == "a list":
        return "write `- ` before each, also where there is one alone"
    if wanted == "a map" and isinstance(value, ListNode):
        return "write `NAME: …` for each, without `- ` before it"
    return None


def rule_key(name: str, value: Node | None) -> str | None:
    """Return the advice on a key of a rule that other tools have."""
    if name == "enabled" and isinstance(value, Scalar) and isinstance(value.value, bool):
        return "leave it out: a rule is enforced unless it says `mode`" if value.value else _OFF
    if name in ("disabled", "skip") and isinstance(value, Scalar) and value.value is False:
        return "leave it out: a rule is enforced unless it says `mode`"
    if name in ("action", "effect", "then", "do", "decision") and isinstance(value, Scalar):
        word = str(value.value).lower()
        return VERB_WORDS.get(word) or (
            f"write `{word}: {{…}}`" if word in ("block", "degrade", "rate", "budget") else None
        )
    if name in STANDARD_FACTS or name in ("any", "all", "not", "use"):
        return f"it is a condition: write `when: {{{name}: …}}`"
    return _RULE_WORDS.get(name)


def rule_under_its_name(name: str, value: Node | None) -> str | None:
    """Return the advice on a rule that is the value of its own name."""
    inner = {entry.key.text for entry in value.entries} if isinstance(value, MapNode) else set()
    if inner & {"when", *VERBS}:
        return f"write `- id: {name}`, and what stands below it beside that"
    return None


def limit_key(verb: str, name: str) -> str | None:
    """Return the advice on a key of a limit that other tools have."""
    if name in _WINDOW_WORDS or (name == "per" and verb == "rate"):
        if verb == "rate":
            return "write the time into the amount: `requests: 60/minute`"
        return "write `lease`" if verb == "concurrency" else "write `per`"
    if name == "burst":
        return "leave it out: only a `rate` has one; of a `budget` all may be used at once"
    if name in ("strategy", "algorithm", "window_type", "sliding", "rolling", "calendar", "fixed"):
        return "leave it out: `per: 24h` is a window that rolls, `per: day` one of the calendar"
    if name.startswith("cost_"):
        return "write `cost_usd`: money is counted in dollars"
    if name in ("limit", "amount", "count", "maximum", "most") and verb in (
        "concurrency",
        "distinct",
    ):
        return "write `max`"
    return _LIMIT_WORDS.get(name)


def remaining(name: str) -> bool:
    """Tell whether a row of a table is called as all others are called elsewhere."""
    return name.lower() in ("default", "other", "others", "otherwise", "rest", "any", "*", "_")


def missing_window(node: Node) -> str | None:
    """Return the advice on a budget without a window whose amounts have one: `100/day`."""
    for entry in node.entries if isinstance(node, MapNode) else ():
        found = _PACED.fullmatch(entry.value.text) if isinstance(entry.value, Scalar) else None
        if found is not None:
            return f"write `{entry.key.text}: {found[1]}, per: {found[2]}`"
    return None


_PACED = re.compile(r"([\d.]+[kMG]?)\s*(?:/|\s+per\s+|\s+an?\s+)\s*(hour|day|week|month)")


def undeclared_unit(name: str) -> str:
    """Return the advice on an amount under a name that may be a unit of the author's own."""
    return f"a unit of your own is declared at the top of a file: `units: [{name}]`"


def refusal_key(name: str) -> str | None:
    """Return the advice on a key of a refusal that other tools have."""
    return _REFUSAL_WORDS.get(name)


def file_key(name: str) -> str | None:
    """Return the advice on a section that other tools have."""
    return _FILE_WORDS.get(name)


def fact_name(name: str, known: Mapping[str, Fact], value: Node | None = None) -> str | None:
    """Return the advice on a name that is no fact: other tools' names, and maps of their parts."""
    if isinstance(value, MapNode):
        inner = [e.key.text for e in value.entries if f"{name}.{e.key.text}" in known]
        if inner:
            shown = ", ".join(f"{name}.{part}: …" for part in inner)
            return f"write `{{{shown}}}`: a fact's name is one word with dots"
    lowered = name.lower().replace("-", "_")
    if lowered in _TIME_WORDS:
        return "write `from` and `until` beside `when`; `time.hour` and `time.weekday` are facts"
    meant = _FACT_WORDS.get(lowered)
    if meant in known or meant in STANDARD_FACTS:
        return f"did you mean `{meant}`?"
    owner, _, last = lowered.partition(".")
    meant = _FACT_WORDS.get(last) if owner in _OWNERS else None
    if meant in known or meant in STANDARD_FACTS:
        return f"did you mean `{meant}`? Else declare it: {declaration(name)}"
    return None


def declaration(name: str) -> str:
    """Return how a fact is declared that may be meant by a name.

    What is told of accounts, cards and networks is a server's, as all that is built in of these is.
    """
    return f"`{name}: {{type: string{_source(name)}}}`"


def _source(name: str) -> str:
    return ", source: server" if name.partition(".")[0] in _SERVERS else ""


_SERVERS = {name.partition(".")[0] for name in STANDARD_FACTS} - {
    name.partition(".")[0] for name, fact in STANDARD_FACTS.items() if fact.source is Source.CLIENT
}


def choice(key: str, word: str) -> str | None:
    """Return which choice of a key another tool's word stands for, None if that is not known."""
    return _CHOICE_WORDS.get(key, {}).get(word.lower())


def value_of(fact: Fact, text: str) -> str | None:
    """Return the advice on a text that is none of the values of a fact."""
    other = _NEGATED.fullmatch(text)
    if other is not None:
        return f"write `{fact.name}: {{not: {other[1]}}}`" if other[1] in fact.values else None
    word = text.lower().replace("-", "_").replace(" ", "_")
    if fact.name == "time.weekday" and word in _DAYS:
        return f"write `time.weekday: {_DAYS[word]}`"
    if (between := _between(fact, text)) is not None:
        return f"these are several: write `{{in: [{', '.join(between)}]}}`"
    meant = _VALUE_WORDS.get(fact.name, {}).get(word)
    return None if meant is None else f"did you mean `{meant}`?"


def _between(fact: Fact, text: str) -> Sequence[str] | None:
    """Return the values that a span such as `mon-fri` goes through; a week begins anew."""
    ends = _SPAN.fullmatch(text)
    if ends is None or not (fact.type is FactType.LEVEL or fact.name == "time.weekday"):
        return None
    known = {value.lower(): at for at, value in enumerate(fact.values)}
    if fact.name == "time.weekday":
        known |= {day: known[short] for day, short in _VALUE_WORDS[fact.name].items()}
    first, last = (known.get(end.lower()) for end in ends.groups())
    if first is None or last is None:
        return None
    if first <= last:
        return fact.values[first : last + 1]
    if fact.name == "time.weekday":
        return (*fact.values[first:], *fact.values[: last + 1])
    return fact.values[last : first + 1]


_SPAN = re.compile(r"(.+?)\s*(?:-|–|\.\.\.?|\sto\s)\s*(.+)")


def negated(text: str) -> bool:
    """Tell whether a text says elsewhere what a value is not."""
    return _NEGATED.fullmatch(text) is not None


_NEGATED = re.compile(r"(?:!=?|<>|not\s)\s*(.+)")
_DAYS: Mapping[str, str] = {
    **dict.fromkeys(("weekend", "weekends"), "{in: [sat, sun]}"),
    **dict.fromkeys(("weekday", "weekdays", "workday", "workdays"), "{not_in: [sat, sun]}"),
}
_VALUE_WORDS: Mapping[str, Mapping[str, str]] = {
    "time.weekday": {
        name: name[:3]
        for name in "monday tuesday wednesday thursday friday saturday sunday".split()
    },
    "network.kind": {
        **dict.fromkeys(("datacenter", "data_center", "cloud", "server", "hoster"), "hosting"),
        **dict.fromkeys(("cellular", "cell", "wireless", "lte"), "mobile"),
        **dict.fromkeys(("home", "isp", "broadband"), "residential"),
        **dict.fromkeys(("corporate", "company", "office", "enterprise"), "business"),
    },
    "enforcement.status": {
        **dict.fromkeys(("ban", "blocked", "block", "closed", "terminated"), "banned"),
        **dict.fromkeys(("ok", "active", "good", "normal", "clear"), "unrestricted"),
        **dict.fromkeys(("review", "in_review", "under_review"), "pending"),
    },
    "request.capability": {
        **dict.fromkeys(("completion", "completions", "text", "llm"), "chat"),
        **dict.fromkeys(("speech", "voice", "tts", "stt", "transcription", "sound"), "audio"),
        **dict.fromkeys(("coding", "programming"), "code"),
        **dict.fromkeys(("agent", "agents", "tools", "tool_use"), "agentic"),
        **dict.fromkeys(("picture", "pictures", "images", "drawing"), "image"),
        **dict.fromkeys(("embeddings", "vectors"), "embedding"),
        **dict.fromkeys(("batches", "bulk"), "batch"),
    },
}
"""Under each fact the words that others have for one of its values."""


def operator(fact: Fact, name: str, value: Node) -> str | None:
    """Return the advice on an operator that other tools have, or that other types of facts have."""
    if name == "between" and isinstance(value, ListNode) and len(value.parts) == 2:
        ends = [part for part in value.parts if isinstance(part, Scalar)]
        low, high = (part.text if isinstance(part, Scalar) else "…" for part in value.parts)
        numbers = [end.value for end in ends if isinstance(end.value, int | float)]
        if len(numbers) == 2 and numbers[0] > numbers[1]:
            return (
                f"write `any: [{{{fact.name}: {{gte: {low}}}}}, {{{fact.name}: {{lt: {high}}}}}]`"
            )
        return f"write `{fact.name}: {{gte: {low}, lte: {high}}}`"
    if name in _MISSING or name in _PRESENT:
        negated = isinstance(value, Scalar) and value.value is False
        there = (name in _PRESENT) is not negated
        return f"write `{fact.name}: {{exists: {str(there).lower()}}}`"
    return _compared(fact, name, value.text if isinstance(value, Scalar) and value.text else "…")


def _compared(fact: Fact, name: str, shown: str) -> str | None:
    sign = _SIGNS.get(name, name)
    if fact.type is FactType.ENUM and fact.name not in STANDARD_FACTS and sign in _ORDERS:
        return (
            f"declare `{fact.name}` with `type: level`, its values from the lowest to the highest"
        )
    if fact.type is FactType.LEVEL and sign in _ORDERS:
        return _of_level(fact, sign, shown)
    if fact.type is FactType.TIMESTAMP and sign in ("lt", "gt"):
        return f"write `{fact.name}: {{{'before' if sign == 'lt' else 'after'}: {shown}}}`"
    if fact.type is FactType.TIMESTAMP and sign in ("lte", "gte"):
        word = "after" if sign == "lte" else "before"
        return f"write `not: {{{fact.name}: {{{word}: {shown}}}}}`"
    ordered = fact.type in (FactType.INTEGER, FactType.NUMBER, FactType.DURATION)
    if sign != name and (sign == "not" or (ordered and sign in _ORDERS)):
        return f"write `{fact.name}: {{{sign}: {shown}}}`"
    if name in _EQUALS:
        return f"write `{fact.name}: {shown}`"
    return _OPERATOR_WORDS.get(name)


_ORDERS = ("lt", "lte", "gt", "gte")
_SIGNS: Mapping[str, str] = {
    "!=": "not",
    "<>": "not",
    "ne": "not",
    "neq": "not",
    "is_not": "not",
    "not_equals": "not",
    "<": "lt",
    "less_than": "lt",
    "below": "lt",
    "max": "lte",
    "<=": "lte",
    "le": "lte",
    "at_most": "lte",
    ">": "gt",
    "greater_than": "gt",
    "above": "gt",
    ">=": "gte",
    "ge": "gte",
    "min": "gte",
    "at_least": "gte",
}
_EQUALS = ("eq", "equals", "equal", "is", "=", "==")
_PRESENT = ("present", "is_set", "set", "not_null", "is_not_null", "defined")
_MISSING = ("missing", "absent", "is_null", "null", "unset", "undefined", "not_exists")
_NO_SEARCH = "list the values with `in`, or use `prefix` for how they start"
_OPERATOR_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("nin", "notin", "notIn", "not in", "none_of"), "write `not_in: […]`"),
    **dict.fromkeys(("exclude", "excludes", "exclude_any"), "write `not_in: […]`"),
    **dict.fromkeys(("one_of", "any_of", "oneOf", "includes", "anyOf"), "write `in: […]`"),
    **dict.fromkeys(("startswith", "starts_with", "startsWith", "begins_with"), "write `prefix`"),
    **dict.fromkeys(("matches", "match", "regex", "regexp", "like", "glob", "=~", "~"), _NO_SEARCH),
    **dict.fromkeys(("contains", "endswith", "ends_with", "endsWith", "suffix"), _NO_SEARCH),
    **dict.fromkeys(("network", "subnet", "ip_range", "in_cidr"), "write `cidr: […]`"),
}


def _of_level(fact: Fact, sign: str, level: str) -> str | None:
    if level not in fact.values:
        return "write `below` or `at_least` with one of its levels"
    if sign in ("lte", "gt"):
        above = fact.values[fact.values.index(level) + 1 :]
        if not above:
            told = f"`{level}` is the highest level"
            return f"leave it out: {told}" if sign == "lte" else f"no level is above: {told}"
        level = above[0]
    return f"write `{fact.name}: {{{'below' if sign in ('lt', 'lte') else 'at_least'}: {level}}}`"


_EXPRESSION = re.compile(
    r"\s*(?P<fact>[a-z][a-z0-9_.]*)\s*(?P<sign>==?|!=|<=?|>=?)\s*[\"']?(?P<value>[\w.-]+)[\"']?\s*"
)


def expression(text: str, known: Mapping[str, Fact]) -> str | None:
    """Return the advice on a condition that is written as an expression of signs."""
    found = _EXPRESSION.fullmatch(text)
    if found is None or found["fact"] not in known:
        words = re.search(r"[=<>!&|()]|\b(?:and|or|not|in)\b", text)
        return "there are no expressions: write `{FACT: VALUE}`, or `{any: […]}`" if words else None
    fact, value = known[found["fact"]], found["value"]
    advice = _compared(fact, found["sign"], value) or ""
    return re.sub(r"^write `(.*)`$", r"write `{\1}`", advice) or None


def always(text: str) -> bool:
    """Tell whether a word says elsewhere that a condition holds always."""
    return text.lower() in ("all", "any", "true", "*", "everyone", "everything", "default", "yes")


def map_of(name: str, value: Scalar) -> str | None:
    """Return the advice on a single value where a verb takes a map."""
    text = value.text
    if name == "block":
        return _block(value)
    if name == "rate":
        return f"write `rate: {{requests: {text}, key: account.id}}`"
    if name == "concurrency":
        return f"write `concurrency: {{max: {text}, key: account.id}}`"
    if name == "budget":
        return f"write `budget: {{tokens: {text}, per: day, key: account.id}}`"
    if name == "degrade" and isinstance(value.value, str):
        return f"write `degrade: {{model: {text}}}`"
    if name == "price":
        return f"write `price: {{input: {text}, output: {text}}}`: USD per million tokens"
    if name == "at_most":
        amount = re.match(r"\d[\d.]*[kMG]?", text)
        return f"write `at_most: {{tokens: {amount[0] if amount else '1M'}}}`"
    if name == "window":
        return f"write `window: {{strong: {text}, weak: {text}}}`"
    return None


def _block(value: Scalar) -> str:
    if isinstance(value.value, int) and not isinstance(value.value, bool):
        return f"write `block: {{status: {value.text}}}`"
    if isinstance(value.value, str) and boolean(value.text) is None:
        told = f'"{value.text}"' if len(value.text) < 40 else "…"
        return f"write `block: {{message: {told}}}`"
    return "write `block: {}`" if value.value is not False else "leave the rule out"


def fact(name: str, value: Node) -> str | None:
    """Return the advice on a fact that is declared by its type, or by its values, alone."""
    if isinstance(value, ListNode):
        listed = [part.text for part in value.parts if isinstance(part, Scalar)]
        values = ", ".join(listed[:8])
        return f"write `{name}: {{type: enum, values: [{values}]{_source(name)}}}`"
    word = value.text if isinstance(value, Scalar) else ""
    kind = choice("type", word) or (word if word in {kind.value for kind in FactType} else None)
    return None if kind is None else f"write `{name}: {{type: {kind}{_source(name)}}}`"


def higher(name: str, keys: Iterable[str], owner: str) -> str | None:
    """Return the advice on a key that belongs one level up, beside `owner`."""
    return f"it stands beside `{owner}`, one level up" if name in set(keys) else None


def lower(name: str, keys: Mapping[str, Iterable[str]]) -> str | None:
    """Return the advice on a key that belongs into one of some maps, by the name of each."""
    into = [f"`{owner}: {{{name}: …}}`" for owner, inner in keys.items() if name in set(inner)]
    return f"it stands one level down: write {' or '.join(into)}" if into else None
