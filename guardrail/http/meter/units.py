"""Units of a policy's own that responses tell of: seconds of sound, pictures.

Which ones these are is public (`FED_UNITS`): a policy may declare others, but the middleware then
never learns how much of them was used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from guardrail.model.cells import TOP

FED_UNITS = frozenset({"audio_seconds", "images"})
"""The declared units that the middleware settles by what a response tells.

`audio_seconds` is the length of the sound that was transcribed or translated, in whole seconds
rounded up: `usage.seconds`, the `duration` of a `verbose_json` answer, Mistral's
`usage.prompt_audio_seconds`. `images` are the pictures in a response of the images API, or made by
its tool; it is reserved as the `n` of a request for pictures.
"""

_PICTURES = ("image_generation.completed", "image_edit.completed")
_SECONDS = ("seconds", "audio_seconds", "prompt_audio_seconds")


def unfed_units(units: Iterable[str]) -> tuple[str, ...]:
    """Return those of some declared units that the middleware never learns anything of."""
    return tuple(unit for unit in units if unit not in FED_UNITS)


def unfed_notes(units: Iterable[str]) -> tuple[str, ...]:
    """Return a warning for each declared unit that no response tells, in words for operators."""
    known = " and ".join(f"`{unit}`" for unit in sorted(FED_UNITS))
    return tuple(
        f"no response tells the middleware how much `{unit}` a request used: each request counts 1 "
        f"of it, unless a classifier or `guardrail.http.fastapi` states an estimate; what responses "
        f"tell is {known}"
        for unit in unfed_units(units)
    )


@dataclass(slots=True)
class Fed:
    """What a response told of seconds and pictures."""

    seconds: float | None = None
    pictures: int = 0

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
        output = document.get("output")
        for one in output if isinstance(output, list) else ():
            if isinstance(one, dict):
                self.pictures += one.get("type") == "image_generation_call"

    def listed(self, pictures: int) -> None:
        """Take in how many pictures the list in a whole response has."""
        self.pictures = max(self.pictures, pictures)

    def amounts(self, units: Collection[str]) -> dict[str, int]:
        """Return what was told of those of some units that are used."""
        amounts: dict[str, int] = {}
        if "audio_seconds" in units and self.seconds is not None:
            amounts["audio_seconds"] = min(math.ceil(self.seconds), TOP)
        if "images" in units and self.pictures:
            amounts["images"] = min(self.pictures, TOP)
        return amounts

    def _heard(self, value: object) -> None:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return
        if value.__class__ not in (int, float) or not 0 <= value <= TOP:  # type: ignore[operator]
            return
        self.seconds = max(self.seconds or 0.0, float(value))  # type: ignore[arg-type]
