"""What is wrong with text that is not YAML: a sentence for each error of the parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml
from yaml.error import Mark

from guardrail.errors import Diagnostic
from guardrail.loading.foreign_values import NO_ENVIRONMENT
from guardrail.loading.text import Source, quoted

_WORD = re.compile(r"\\.|[^\s\[\]{},:]{1,40}|\S")
_ESCAPE_BEFORE = re.compile(r"\\[xuU]?\Z")
_LONGEST_KEY = 1024
_INDENT = "start every key or `-` of one map or list in the same column"
_CLOSE = "close it, or put text that starts with a bracket in quotes"
_CUT = "put the text in quotes: ` #` starts a comment, which hides the bracket that closes this"
_QUOTED = re.compile(r"'[^']*'|" r'"(?:[^"\\]|\\.)*"')
_HIDDEN = re.compile(r"[ \t]#.*[\]}]")
_ESCAPE = "write `\\\\` for a backslash, or use single quotes, which have no escapes"
MAX_LEVELS = 64
TOO_DEEP = f"maps and lists are nested more than {MAX_LEVELS} levels deep"
NEST_LESS = "nest less, and look for brackets that are never closed"
NO_TAGS = "remove it; values need no tags, and text stays text in quotes"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sentence:
    """Our words for an error of the parser whose problem and context hold these fragments.

    In `message`, `{found}` is what stands where the parser stopped, `{where}` names its line if
    that is another than the one where it began, `{line}`, and `{start}` is what stands there.
    `at_start` says that the beginning is to blame.
    """

    problem: str
    context: str = ""
    message: str
    help: str | None = None
    label: str | None = None
    at_start: bool = False
    code: str = "GR100"


# The first that fits counts. The two parsers of PyYAML word some errors differently.
_SENTENCES = (
    # libyaml reads ahead of us, and stops by itself at a depth of its own.
    _Sentence(problem="maximum nesting depth", message=TOO_DEEP, help=NEST_LESS),
    _Sentence(
        problem="cannot start any token",
        message="unquoted text cannot start with {found}",
        help="put the text in quotes",
    ),
    _Sentence(
        problem="mapping values are not allowed",
        message="this key is read as part of the text above it",
        help="write `key: value` with a space after the colon, and indent keys of one map alike",
    ),
    _Sentence(
        problem="sequence entries are not allowed",
        message="a list cannot start here",
        help="put each `- ` on a line of its own below the key",
    ),
    _Sentence(
        problem="mapping keys are not allowed",
        message="`?` cannot stand here",
        help="put text that starts with `?` in quotes",
    ),
    _Sentence(
        problem="could not find expected ':'",
        message="{start} is neither a `key: value` nor an entry of a list",
        help="write `key: value` with a space after the colon, or `- value` with one after the `-`",
        at_start=True,
    ),
    _Sentence(
        problem="",
        context="while parsing a block mapping",
        message="{found} does not continue the map that starts in line {line}",
        label="a key of the map, or its end, is expected here",
        help=_INDENT,
    ),
    _Sentence(
        problem="",
        context="while parsing a block collection",
        message="{found} does not continue the list that starts in line {line}",
        label="a `-`, or the end of the list, is expected here",
        help=_INDENT,
    ),
    _Sentence(
        problem="",
        context="while parsing a flow sequence",
        message="the list that opens here is not closed: expected `,` or `]` before {found}{where}",
        help=_CLOSE,
        at_start=True,
    ),
    _Sentence(
        problem="",
        context="while parsing a flow mapping",
        message="the map that opens here is not closed: expected `,` or `}}` before {found}{where}",
        help=_CLOSE,
        at_start=True,
    ),
    _Sentence(
        problem="found unexpected",
        context="quoted scalar",
        message="the quoted text that starts here is not closed",
        help="end it with the quotation mark it starts with",
        at_start=True,
    ),
    _Sentence(
        problem="found unknown escape",
        message="{found} is not an escape that YAML knows",
        help=_ESCAPE,
    ),
    _Sentence(
        problem="",
        context="quoted scalar",
        message="this escape does not name a character",
        help=_ESCAPE,
    ),
    _Sentence(
        problem="",
        context="while scanning an a",
        message="{start} needs a name after it",
        help="put text that starts with `*` or `&` in quotes",
        at_start=True,
    ),
    _Sentence(
        problem="indentation indicator",
        context="block scalar",
        message="the indentation of a text block is a number from 1 to 9, or left out",
    ),
    _Sentence(
        problem="",
        context="block scalar",
        message="{found} cannot stand in the line that opens a text block",
        help="start the text in the next line, indented",
    ),
    _Sentence(
        problem="",
        context="directive",
        message="this directive cannot be read",
        help="remove the line; a policy file needs no `%` directives",
        at_start=True,
    ),
    _Sentence(
        problem="incompatible YAML document",
        message="this version of YAML is not supported",
        help="remove the `%YAML` line; policy files are YAML 1.2",
    ),
    _Sentence(
        problem="duplicate",
        message="this directive is there twice",
        help="remove the line; a policy file needs no `%` directives",
    ),
    _Sentence(
        problem="undefined tag handle",
        message="the tag {found} is not allowed",
        help=NO_TAGS,
        code="GR109",
    ),
    _Sentence(
        problem="",
        context="a tag",
        message="this tag cannot be read",
        help=NO_TAGS,
        at_start=True,
        code="GR109",
    ),
    _Sentence(
        problem="document start",
        message="{found} stands after the end of the document",
        help=f"{_INDENT}, and close each quote and bracket once",
    ),
    _Sentence(
        problem="node content",
        message="a value is expected here, not {found}",
        help="write a value, close open brackets, or put text that starts with a sign in quotes",
    ),
)
_ELSE = _Sentence(
    problem="", message="this is not valid YAML", help="check quotes, brackets and indentation here"
)
_NO_CHARACTER = _Sentence(
    problem="", message="an escape after this place does not name a character", help=_ESCAPE
)
_NO_TAG = _Sentence(
    problem="", message="a tag after this place cannot be read", help=NO_TAGS, code="GR109"
)
_NO_SPACE = _Sentence(
    problem="",
    message="a space is missing after this colon",
    help="write `key: value` with a space after the colon",
)
_TAB = _Sentence(
    problem="", message="a tab stands in the indentation", help="indent with spaces only"
)
_LONG_KEY = _Sentence(
    problem="",
    message="a key cannot have more than 1,024 characters",
    help="put the text in quotes, or look for a quotation mark that is missing",
)
_SECOND_COLON = _Sentence(
    problem="",
    message="unquoted text cannot hold a `: `",
    help="put the value in quotes, or start a new line for the key",
)
_ENVIRONMENT = _Sentence(
    problem="",
    message="`${{…}}` is not filled in from anywhere, and its brackets are read as a map",
    help=NO_ENVIRONMENT,
)
_AFTER_VALUE = _Sentence(
    problem="",
    message="{found} stands after the end of a value",
    help="put the whole value in quotes; inside single quotes, write `''` for one",
)


def syntax_error(
    error: yaml.YAMLError | ValueError | OverflowError, source: Source, reached: tuple[int, int]
) -> Diagnostic:
    """Return the finding for what PyYAML's parser raised on a file's text.

    `reached` is the line and column of the last value read, for errors that have no place.
    """
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        sentence = _ELSE if isinstance(error, yaml.YAMLError) else _NO_CHARACTER
        # libyaml hands on tags undecoded; everything else it has checked.
        sentence = _NO_TAG if isinstance(error, UnicodeDecodeError) else sentence
        return source.error(
            sentence.code, sentence.message, source.span(*reached), help=sentence.help
        )
    at = _place(error.problem_mark, source)
    mark = error.context_mark or error.problem_mark
    start = (mark.line + 1, mark.column + 1)
    sentence = _sentence(error.problem or "", error.context or "", source, at)
    message = sentence.message.format(
        found=_shown(source, *at),
        where="" if at[0] == start[0] else f" in line {at[0]}",
        start=_shown(source, *start),
        line=start[0],
    )
    line, column = start if sentence.at_start else at
    word = _WORD.match(source.rest(line, column))
    span = source.span(line, column, len(word.group()) if word else 1)
    help = sentence.help
    if help == _CLOSE and _closed_in_comment(source, start, at[0]):
        help = _CUT
    return source.error(sentence.code, message, span, label=sentence.label, help=help)


def _closed_in_comment(source: Source, start: tuple[int, int], last: int) -> bool:
    """Tell whether a comment holds a closing bracket, from where a bracket opens to a line."""
    texts = [source.rest(*start), *(source.rest(line, 1) for line in range(start[0] + 1, last + 1))]
    return any(_HIDDEN.search(_QUOTED.sub("", text)) for text in texts)


def _place(mark: Mark, source: Source) -> tuple[int, int]:
    """Return where the parser stopped, at an escape's backslash if it names what follows that."""
    line, column = mark.line + 1, mark.column + 1
    escape = _ESCAPE_BEFORE.search(source.rest(line, 1)[: column - 1])
    return line, column - len(escape.group()) if escape else column


def _sentence(problem: str, context: str, source: Source, at: tuple[int, int]) -> _Sentence:
    line, column = at
    rest = source.rest(line, column)
    before = source.rest(line, 1)[: column - 1]
    if "tab character" in problem or ("any token" in problem and rest.startswith("\t")):
        return _TAB
    if "while parsing a flow mapping" in context and rest.startswith("{") and before.endswith("$"):
        return _ENVIRONMENT
    if "mapping values" in problem and re.search(r":\s", before):
        return _SECOND_COLON
    if "mapping values" in problem and len(before) > _LONGEST_KEY:
        return _LONG_KEY
    if "document start" in problem and re.match(r":\S", rest):
        return _NO_SPACE
    if "block mapping" in context and before.strip(" -") and rest:
        return _AFTER_VALUE
    return next(
        (s for s in _SENTENCES if s.problem in problem and s.context in context),
        _ELSE,
    )


def _shown(source: Source, line: int, column: int) -> str:
    word = _WORD.match(source.rest(line, column))
    if word is not None:
        return quoted(word.group())
    return "the end of the line" if line < len(source.lines) else "the end of the file"
