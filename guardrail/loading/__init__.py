"""Loading: from YAML files to a compiled policy set, with everything that is wrong in them.

Other files of the language (directories of identities, traffic maps, settings) are read with the
same parts: nodes that know their place, shapes, findings and suggestions.
"""

from __future__ import annotations

from guardrail.loading.catalogue import CATALOGUE
from guardrail.loading.findings import Findings, Place, Scope
from guardrail.loading.lint import accepted, ending_soon, idle_comments, lint
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of, plain
from guardrail.loading.notation import NotationError, read_amount, read_duration, share_of, typed
from guardrail.loading.schema import policy_schema
from guardrail.loading.schema_closed import closed_schema
from guardrail.loading.sets import load_policies, load_text
from guardrail.loading.shapes import Shape, Texts
from guardrail.loading.shaping import shaped
from guardrail.loading.suggest import did_you_mean, nearest
from guardrail.loading.text import quoted
from guardrail.loading.yaml import read_yaml

__all__ = [
    "CATALOGUE",
    "Entry",
    "Findings",
    "ListNode",
    "MapNode",
    "Node",
    "NotationError",
    "Place",
    "Scalar",
    "Scope",
    "Shape",
    "Texts",
    "accepted",
    "closed_schema",
    "did_you_mean",
    "ending_soon",
    "idle_comments",
    "kind_of",
    "lint",
    "load_policies",
    "load_text",
    "nearest",
    "plain",
    "policy_schema",
    "quoted",
    "read_amount",
    "read_duration",
    "read_yaml",
    "shaped",
    "share_of",
    "typed",
]
