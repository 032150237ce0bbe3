"""A campaign against a policy set: honest customers, operators of many accounts, virtual time."""

from __future__ import annotations

from guardrail.simulate.modes import Baseline, Job, Mode, run, run_all
from guardrail.simulate.running import Options, names_of
from guardrail.simulate.skills import Attack, Prices

__all__ = ["Attack", "Baseline", "Job", "Mode", "Options", "Prices", "names_of", "run", "run_all"]
