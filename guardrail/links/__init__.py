"""Which accounts act as one: evidence, the forest of links, and the facts that follow."""

from __future__ import annotations

from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.forest import Forest, Join, Own, Part
from guardrail.links.linking import Linking, Standing
from guardrail.links.lookup import NO_LINKS, LinkLookup, NoLinks, Watch
from guardrail.links.memory import Index, MemoryLinks, memory_forest
from guardrail.links.signal import (
    ACTOR_FACTS,
    SCORE_FACTS,
    ActorSignal,
    LinkSignal,
    LinkStore,
    actor_id,
)
from guardrail.links.stored import StoredLinks

__all__ = [
    "ACTOR_FACTS",
    "NO_LINKS",
    "SCORE_FACTS",
    "ActorSignal",
    "Evidence",
    "Forest",
    "Index",
    "Join",
    "LinkLookup",
    "LinkSignal",
    "LinkStore",
    "Linking",
    "MemoryLinks",
    "NoLinks",
    "Own",
    "Part",
    "Sighting",
    "Standing",
    "StoredLinks",
    "Watch",
    "actor_id",
    "memory_forest",
]
