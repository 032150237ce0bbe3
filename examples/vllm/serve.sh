#!/bin/sh
# vLLM behind the guard. Start it from the project's folder, with options of vLLM's own or without:
#
#     GUARDRAIL_HASH_KEY=example-hash-key sh examples/vllm/serve.sh

# vLLM makes its middleware without arguments: the settings are in the file that this names.
GUARDRAIL_CONFIG=$(dirname "$0")/guardrail.toml
export GUARDRAIL_CONFIG

# `small` is what the policies call the model.
exec vllm serve Qwen/Qwen3-0.6B --served-model-name small \
    --middleware guardrail.asgi.GuardrailMiddleware "$@"
