"""Which strings of a body are bytes for a host to decode, and which are words for a model to read.

What a member is called is a hint, and what it holds is looked at: the whole of it has to be base64
whose bytes are no text. What a model is told word for word (arguments and results of calls,
schemas of tools) is text, whatever it is called.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import lru_cache

from guardrail.http.documents import bytes_in

_LINKS = frozenset(
    "url image_url file_url video_url audio_url document_url uri fileUri file_uri".split()
)
# Members that hold bytes as base64, whatever stands beside them; in `_TYPED` a text may stand too.
_SEALED = frozenset(
    "file_data b64_json bytesBase64Encoded encrypted_content encrypted_reasoning signature "
    "thoughtSignature thought_signature imageBytes image_bytes videoBytes video_bytes audioBytes "
    "partial_image_b64 images image image_data audio_data video_data mask audios videos bytes "
    "prompt_embeds image_embeds".split()
)
_TYPED = frozenset({"data", "result"})
MEDIA_MEMBERS = _LINKS | _SEALED | _TYPED | {"input_reference", "source"}
"""Members that may hold media, however short."""
# What others are called that hold bytes; text in them is told by its blanks, unless it is short.
_LIKELY = re.compile(
    "image|img|picture|photo|frame|audio|video|wav|mp3|b64|base64|bytes|encrypted|signature"
    "|redacted|embeds|mask|blob|screenshot|pcm|multimodal",
    re.IGNORECASE,
)
LONG = 1 << 10
"""From how many characters on a member of any other name may be media."""
# Thoughts under seal are as long as what they say: few are worth a picture.
_THOUGHTS = re.compile("encrypted|signature|redacted", re.IGNORECASE)
_SEALING = ("redacted_thinking", "image_generation_call", "base64", "reasoning.encrypted")
# A link beside one of these is told to a model, or is where it finds tools: nothing is fetched.
_TOLD = frozenset({"title", "cited_text", "start_index", "name", "server_label"})
_LONGEST_LINK = 8 << 10
_LONGEST_REMEMBERED = 64
_LONGEST_HEAD = 256

_WORDS = frozenset(
    "args arguments json function functionDeclarations function_declarations functions toolSpec "
    "parameters parametersJsonSchema parameters_json_schema input_schema inputSchema schema "
    "json_schema responseSchema response_schema responseJsonSchema response_json_schema "
    "guided_json".split()
)
READ_MEMBERS = _WORDS | {"input", "response", "source"}
"""Members that `is_read` has to be asked about."""
_TEXT_FORMATS = frozenset("txt md csv html".split())
_TEXT_FILES = re.compile(
    r"\.(?:txt|text|log|md|rst|tex|csv|tsv|jsonl?|ya?ml|toml|xml|html?|svg|css|sql|sh|py|js|ts|"
    r"java|c|h|cc|cpp|cs|go|rs|rb|php|swift|kt|scala|ipynb|eml|srt|vtt)$",
    re.IGNORECASE,
)
_TEXT_TYPES = re.compile(
    r"\s*(?:text/.*|\s*|[^;]*[/+.-](?:json|xml|ya?ml|csv|rtf|sql|toml|sh|(?:java|type|ecma)script)"
    r")\s*",
    re.IGNORECASE,
)
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_\r\n"
_PADDING = (b"", b"=", b"==")
_URL_SAFE = str.maketrans("-_", "+/", "\r\n")
_PAGES = b"%PDF"
_VIDEO = "data:video/jpeg"
_SPACES = b"\t\n\r\f"
_BLANK = 32


def is_media(key: str, value: str, node: Mapping[str, object]) -> bool:
    """Tell whether a member of an object holds bytes, or where they are, and nothing to be read."""
    if value[:5].lower() == "data:":
        return (_is_named(key) or key.endswith(("url", "uri"))) and _is_data_url(key, value, node)
    if key in _LINKS and value.startswith(("http://", "https://", "gs://", "s3://")):
        whole = len(value) <= _LONGEST_LINK and not any(map(str.isspace, value))
        return whole and _TOLD.isdisjoint(node)
    if key in _TYPED:
        sealed = _says_bytes(node)
    else:
        sealed = key in _SEALED or (len(value) >= LONG and _is_named(key))
    return sealed and not _is_text_file(node) and is_base64(value) and not _reads_as_text(value)


SHOWING = "inputs"
"""The member in which TGI shows pictures in Markdown, `![](…)`, among what is to be read."""


class ShownPictures:
    """Tells pictures from words in a text that shows some in Markdown; fed piece by piece.

    `text` counts the bytes of words, `media` those of pictures, and `pictures` how many there are.
    What stands where a picture would, and is neither its bytes nor a link to it, is words, and so
    is what follows very many of them.
    """

    OPENS, CLOSES = "![](", ")"
    MOST = 1_000

    def __init__(self) -> None:
        self.text = self.media = self.pictures = 0
        self._opened = 0
        self._is_open = self._is_picture = False

    def take(self, piece: str) -> None:
        """Take the next piece of the text."""
        at = 0
        while at < len(piece):
            sign = self.CLOSES if self._is_open else self.OPENS
            found = piece.find(sign, at) if self._opened <= self.MOST else -1
            part = piece[at:] if found < 0 else piece[at:found]
            if self._is_open:
                self._show(part)
            else:
                self._add(part)
            if found < 0:
                return
            at = found + len(sign)
            self.text += len(sign)
            self._is_open = not self._is_open
            if self._is_open:
                self._opened += 1
                self._is_picture = _begins_picture(piece[at : at + _LONGEST_HEAD])
                self.pictures += self._is_picture

    def _show(self, part: str) -> None:
        payload = part[part.find(",") + 1 :] if part[:5].lower() == "data:" else part
        if self._is_picture and (is_base64(payload) or _is_link(part)):
            self.media += len(part)
        else:
            self._add(part)

    def _add(self, words: str) -> None:
        self.text += bytes_in(words)


def _begins_picture(text: str) -> bool:
    if _is_link(text.partition(ShownPictures.CLOSES)[0]):
        return True
    head, comma, payload = text.partition(",")
    return (
        head[:11].lower() == "data:image/"
        and bool(comma)
        and head.lower().endswith(";base64")
        and not _reads_as_text(payload.partition(ShownPictures.CLOSES)[0])
    )


def _is_link(text: str) -> bool:
    return text.startswith(("http://", "https://")) and not any(map(str.isspace, text))


WORDED_LISTS = frozenset("content contents input messages parts stop tools".split())
"""Members that `may_list_media` need not be asked about: what they list is read."""


def may_list_media(key: str) -> bool:
    """Tell whether a list of that name may hold the bytes of media."""
    return key in _SEALED or _is_likely(key)


def is_thought(key: str, node: Mapping[str, object]) -> bool:
    """Tell whether bytes are what a model thought, under seal."""
    kind = node.get("type")
    return _THOUGHTS.search(key) is not None or kind in ("redacted_thinking", "reasoning.encrypted")


def is_read(key: str, node: Mapping[str, object]) -> bool:
    """Tell whether all within a member is told to a model word for word."""
    if key == "args":
        # Calls have an object of them; a list is of settings, such as ControlNet's pictures.
        return not isinstance(node.get(key), list)
    if key in _WORDS:
        return True
    if key == "input":
        return "toolUseId" in node or str(node.get("type")).endswith(("tool_use", "tool_call"))
    if key == "response":
        return "name" in node
    return key == "source" and node.get("format") in _TEXT_FORMATS


def is_base64(text: str, *, frames: bool = False) -> bool:
    """Tell whether a text, or a piece of one, is base64 to its end.

    With `frames` it may be several, with commas between them: so vLLM takes those of a video.
    """
    rest = text.encode().translate(None, _ALPHABET) if text.isascii() else None
    return rest in _PADDING or (frames and rest is not None and not rest.strip(b"=,"))


def shows_frames(value: str) -> bool:
    """Tell whether a text, or the beginning of one, is the link to a video by its frames."""
    return value[: len(_VIDEO)].lower() == _VIDEO


def _is_named(key: str) -> bool:
    return key in MEDIA_MEMBERS or _is_likely(key)


def _is_likely(key: str) -> bool:
    # Clients choose names: only short ones are remembered.
    short = len(key) <= _LONGEST_REMEMBERED
    return _is_known_likely(key) if short else _LIKELY.search(key) is not None


@lru_cache(1024)
def _is_known_likely(key: str) -> bool:
    return _LIKELY.search(key) is not None


def _is_data_url(key: str, value: str, node: Mapping[str, object]) -> bool:
    head, comma, _ = value[:_LONGEST_HEAD].partition(",")
    kind, _, coding = head[len("data:") :].partition(";")
    if not comma or not f";{coding}".lower().endswith(";base64") or _TEXT_TYPES.fullmatch(kind):
        return False
    if (key in _TYPED and not _says_bytes(node)) or node.get("type") == "search_result":
        return False
    payload = value[len(head) + 1 :]
    encoded = is_base64(payload, frames=shows_frames(value))
    return not _is_text_file(node) and encoded and not _reads_as_text(payload.partition(",")[0])


def _says_bytes(node: Mapping[str, object]) -> bool:
    """Tell whether an object says of itself that it holds bytes."""
    if node.get("type") in _SEALING:
        return True
    kinds = (node.get(name) for name in ("media_type", "mimeType", "mime_type", "mediaType"))
    kind = next((kind for kind in kinds if kind is not None), None)
    if kind is None:
        return "format" in node or "transcript" in node or node.keys() == {"data", "id"}
    read = isinstance(kind, str) and _TEXT_TYPES.fullmatch(kind[:_LONGEST_HEAD].partition(";")[0])
    return not read and node.get("type") != "text"


def _is_text_file(node: Mapping[str, object]) -> bool:
    name = node.get("filename")
    return isinstance(name, str) and _TEXT_FILES.search(name) is not None


def _reads_as_text(encoded: str) -> bool:
    """Tell whether the bytes are text themselves, by how they begin; pages of PDF begin so too."""
    start = encoded[:LONG].translate(_URL_SAFE).rstrip("=")
    try:
        content = base64.b64decode(start[: len(start) // 4 * 4])
    except ValueError:  # a sign that only ends base64 stands within
        return True
    if not content or content.startswith(_PAGES):
        return False
    if any(byte < _BLANK and byte not in _SPACES for byte in content):
        return False
    try:
        content.decode()
    except UnicodeDecodeError as problem:
        # The last character may be cut.
        return problem.reason == "unexpected end of data"
    return True
