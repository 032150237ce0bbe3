"""Units of a policy's own that responses tell of: seconds of sound, pictures.

Which ones these are is public (`FED_UNITS`): a policy may declare others, but the middleware then
never learns how much of them was used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from guardrail.http.asked.values import FREE, Asked
from guardrail.model.cells import TOP

FED_UNITS = frozenset({"audio_seconds", "images"})
"""The declared units that the middleware settles by what a response tells.

`audio_seconds` is the length of the sound that was transcribed or translated, in whole seconds
rounded up: `usage.seconds`, the `duration` of a `verbose_json` answer, Mistral's
`usage.prompt_audio_seconds`. `images` are the pictures in a response of the images API, or made by
its tool; it is reserved as the `n` of a request for pictures.
"""

_PICTURES_API = "/v1/images/"
_PICTURES = ("image_generation.completed", "image_edit.completed")
_SECONDS = ("seconds", "audio_seconds", "prompt_audio_seconds")


def unfed_units(units: Iterable[str]) -> tuple[str, ...]:
    """Return those of some declared units that the middleware never learns anything of."""
    return tuple(unit for unit in units if unit not in FED_UNITS)


def unfed_notes(units: Iterable[str]) -> tuple[str, ...]:
    """Return a warning for each declared unit that no response tells, in words for operators."""
    known = " and ".join(f"`{unit}`" for unit in sorted(FED_UNITS))
    return tuple(
        f"no response tells the middleware how much of the unit `{unit}` was used: each request "
        f"counts 1, unless a classifier or `guardrail.http.fastapi` states an estimate; the units "
        f"that responses tell are {known}"
        for unit in unfed_units(units)
    )


def with_units(asked: Asked) -> Asked:
    """Return what a request asks for, with how much of these units it may use, where that is known.

    A request for pictures asks for as many as for completions; one that makes no model work, for
    none.
    """
    estimate = asked.estimate
    if str(asked.facts.get("request.endpoint", "")).startswith(_PICTURES_API):
        added = {"images": estimate.get("requests", 1), "audio_seconds": 0}
    elif estimate.items() >= FREE.items():
        added = {"images": 0, "audio_seconds": 0}
    else:
        return asked
    return asked._replace(estimate={**added, **estimate})


@dataclass(slots=True)
class Fed:
    """What a response told of seconds and pictures."""

    seconds: float | None = None
    pictures: int = 0
    unread: bool = False
    """Whether a part of the response was too long to be read."""

    def copy(self) -> Fed:
        """Return what goes on from here by itself."""
        return replace(self)

    def take(self, document: Mapping[str, object], *, media: bool) -> None:
        """Take in a document of the response; `media` tells that it is of pictures or sound."""
        usage = document.get("usage")
        if isinstance(usage, dict):
            for name in _SECONDS:
                self._heard(usage.get(name))
        if media:
            self._heard(document.get("duration"))
        if document.get("type") in _PICTURES:
            self.pictures += 1
        item = document.get("item")
        if document.get("type") == "response.output_item.done" and isinstance(item, dict):
            self.pictures += item.get("type") == "image_generation_call"
        for name in ("choices", "candidates"):
            listed = document.get(name)
            for choice in listed if isinstance(listed, list) else ():
                if isinstance(choice, dict):
                    self.pictures += _pictures_in(choice)
        output = document.get("output")
        for one in output if isinstance(output, list) else ():
            if isinstance(one, dict):
                self.pictures += one.get("type") == "image_generation_call"

    def listed(self, pictures: int) -> None:
        """Take in how many pictures the list in a whole response has."""
        self.pictures = max(self.pictures, pictures)

    def amounts(self, units: Collection[str], media: bool) -> dict[str, int]:
        """Return what was told of those of some units that are used.

        What a response of pictures or sound does not tell is left out; another has none of it.
        """
        if FED_UNITS.isdisjoint(units):
            return {}
        told = {"audio_seconds": math.ceil(self.seconds or 0), "images": self.pictures}
        complete = any(told.values()) if media else not self.unread
        return {
            unit: min(amount, TOP)
            for unit, amount in told.items()
            if unit in units and (amount or complete)
        }

    def _heard(self, value: object) -> None:
        """Take in a length in seconds; some hosts write it as text."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            return
        if 0 <= seconds <= TOP:
            self.seconds = max(self.seconds or 0.0, seconds)


def _pictures_in(choice: Mapping[str, object]) -> int:
    """Return how many pictures a choice of a chat has: OpenRouter's `images`, Gemini's parts."""
    count = 0
    for name in ("message", "delta", "content"):
        inner = choice.get(name)
        if not isinstance(inner, dict):
            continue
        images, parts = inner.get("images"), inner.get("parts")
        count += len(images) if isinstance(images, list) else 0
        for part in parts if isinstance(parts, list) else ():
            data = part.get("inlineData") if isinstance(part, dict) else None
            kind = data.get("mimeType") if isinstance(data, dict) else None
            count += isinstance(kind, str) and kind.startswith("image/")
    return count
