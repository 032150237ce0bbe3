"""Loading: from YAML files to a compiled policy set, with everything that is wrong in them."""

from __future__ import annotations

from guardrail.loading.load import load_policies, load_text
from guardrail.loading.schema import policy_schema

__all__ = ["load_policies", "load_text", "policy_schema"]
