"""A campaign against a policy set: honest customers, operators of many accounts, virtual time."""

from __future__ import annotations

from guardrail.simulate.modes import Baseline, Job, Mode, baseline_policies, run, run_all
from guardrail.simulate.report import figures
from guardrail.simulate.running import Options, Result, names_of, simulate
from guardrail.simulate.skills import Attack, Prices

__all__ = [
    "Attack",
    "Baseline",
    "Job",
    "Mode",
    "Options",
    "Prices",
    "Result",
    "baseline_policies",
    "figures",
    "names_of",
    "run",
    "run_all",
    "simulate",
]
