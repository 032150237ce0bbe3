"""Which accounts act as one: evidence, the forest of links, and the facts that follow."""

from __future__ import annotations

from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.forest import Forest, Join, Own, Part
from guardrail.links.linking import Linking, Standing
from guardrail.links.memory import Index, MemoryLinks, memory_forest
from guardrail.links.signal import ACTOR_FACTS, SCORE_FACTS, LinkSignal, LinkStore, actor_id
from guardrail.links.stored import StoredLinks

__all__ = [
    "ACTOR_FACTS",
    "SCORE_FACTS",
    "Evidence",
    "Forest",
    "Index",
    "Join",
    "LinkSignal",
    "LinkStore",
    "Linking",
    "MemoryLinks",
    "Own",
    "Part",
    "Sighting",
    "Standing",
    "StoredLinks",
    "actor_id",
    "memory_forest",
]
