"""Other spellings of one model's name, by which hosts serve the same model.

Gateways take the provider before a name (`openai/large`, `bedrock/us.anthropic.large`), Gemini its
collection (`models/large`), Bedrock a region (`eu.anthropic.large`) or a whole resource
(`arn:aws:bedrock:…:foundation-model/large`), Ollama a tag that says nothing (`large:latest`), and
some take any case. A rule that names a model means all of these. A snapshot
(`large-2026-03-01`), a fine-tuned model (`ft:large:org::id`) and a name behind an organisation
that is no provider are other models, whose prices may differ: those are for `aliases` and
`unlisted_model`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from guardrail.model.policy import Model

COLLECTION = "models/"
PROVIDERS = frozenset(
    "models openai azure azure_ai anthropic bedrock converse invoke vertex_ai vertex_ai_beta "
    "gemini google mistral mistralai codestral cohere cohere_chat groq deepseek xai x-ai together "
    "together_ai fireworks_ai openrouter perplexity ollama ollama_chat hosted_vllm vllm "
    "litellm_proxy text-completion-openai text-completion-codestral huggingface nvidia_nim "
    "sambanova cerebras databricks sagemaker sagemaker_chat watsonx replicate deepinfra "
    "meta-llama qwen moonshotai moonshot z-ai zai amazon nvidia minimax".split()
)
"""What stands before a slash and only says who serves a model, or who made it, in lower case."""

REGIONS = frozenset("us us-gov eu apac ap jp au ca sa me af global".split())
"""What stands before a dot in Bedrock's names and says where a model may run."""

_MAKERS = frozenset(
    "anthropic amazon ai21 cohere deepseek google luma meta minimax mistral moonshot moonshotai "
    "nvidia openai qwen stability twelvelabs writer zai".split()
)
_RESOURCE = re.compile(r"arn:(?:[^:/]*:){4}([^:/]+)/(.+)", re.DOTALL)
_NAMING = ("foundation-model", "inference-profile")
_SAME = (":latest",)
_LONGEST = 6


def is_alike(name: str, other: str) -> bool:
    """Tell whether two names are one but for the collection that Gemini writes before it."""
    return name.removeprefix(COLLECTION) == other.removeprefix(COLLECTION)


def bare(name: str) -> str:
    """Return a model's name in lower case, without what hosts take before and after it."""
    text = name.lower()
    for _ in range(_LONGEST):
        before, slash, rest = text.partition("/")
        if not (slash and rest and before in PROVIDERS):
            break
        text = rest
    resource = _RESOURCE.fullmatch(text)
    if resource is not None and resource[1] in _NAMING:
        text = resource[2]
    region, _, rest = text.partition(".")
    if region in REGIONS and rest.partition(".")[0] in _MAKERS:
        text = rest
    for ending in _SAME:
        text = text.removesuffix(ending)
    return text


def stands_for_another(name: str) -> bool:
    """Tell whether a name is a resource of Amazon's that stands for a model it does not name.

    A prompt, a profile of one's own, bought capacity, a router: what is behind it is the host's to
    know.
    """
    found = name.lower().find("arn:")
    if found < 0 or (found and name[found - 1] != "/"):
        return False
    resource = _RESOURCE.fullmatch(name[found:].lower())
    return resource is not None and resource[1] not in _NAMING


class Spellings:
    """The names of the models that a policy set lists, found by any of their spellings."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        whose = {name: m.name for m in models.values() for name in (m.name, *m.aliases)}
        self.names = frozenset(whose)
        """The names and aliases themselves."""
        self._by_bare: dict[str, str] = {}
        for name in whose:
            self._by_bare.setdefault(bare(name), name)
        for name, model in whose.items():
            known = self._by_bare.get(bare(name))
            if known is not None and whose[known] != model:
                del self._by_bare[bare(name)]  # two models: neither is meant for certain

    def listed(self, name: str) -> str:
        """Return the listed name or alias that `name` spells, itself where it spells none."""
        if name in self.names:
            return name
        return self._by_bare.get(bare(name), name)
