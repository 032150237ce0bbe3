"""What became of claims as text and findings, and requests as the command line takes them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence

from guardrail.analysis import UNANSWERED, Proof, Witness
from guardrail.cli.figures import moment, plural
from guardrail.cli.inert import inert
from guardrail.errors import Diagnostic, finding
from guardrail.model.amounts import SECOND


def request_text(witness: Witness) -> str:
    """Return the facts of a request as `--request` takes them."""
    return json.dumps(witness.facts, ensure_ascii=True)


def explain_line(witness: Witness, paths: Sequence[str]) -> str:
    """Return the command that shows the decision on a request under the policies of some paths."""
    words = ["guardrail", "explain", *paths, "--request", request_text(witness)]
    if witness.at is not None:
        words += ["--at", moment(witness.at / SECOND)]
    return inert(shlex.join(words))


def witness_fields(witness: Witness | None) -> dict[str, object] | None:
    """Return a request as JSON takes it."""
    if witness is None:
        return None
    at = None if witness.at is None else moment(witness.at / SECOND)
    return {"facts": dict(witness.facts), "at": at}


def proof_findings(proofs: Sequence[Proof], paths: Sequence[str]) -> list[Diagnostic]:
    """Return a finding for each claim that does not hold."""
    found = []
    for proof in proofs:
        if proof.failure is None:
            continue
        help = "correct the rules, or the claim"
        if proof.is_open:
            help = "split the claim, or write those conditions with fewer choices within each other"
        if proof.witness is not None:
            help += f"; look at such a request with: {explain_line(proof.witness, paths)}"
        message = f"claim `{proof.claim.id}` {proof.failure}"
        found.append(finding("GR501", message, proof.claim.span, help))
    return found


def proofs_line(proofs: Sequence[Proof]) -> str:
    """Return in one line how many claims hold."""
    held = sum(proof.failure is None for proof in proofs)
    if held == len(proofs):
        return f"{plural(held, 'claim')} proved of all requests"
    told = f"{held:,} of {plural(len(proofs), 'claim')} proved of all requests"
    left = sum(proof.is_open for proof in proofs)
    return f"{told}, {left:,} left unanswered" if left else told


def open_line(found: Iterable[Diagnostic]) -> str | None:
    """Return in one line how many questions about all requests were given up, None if none was."""
    left = sum(max(1, len(one.about)) for one in found if one.code == UNANSWERED)
    if not left:
        return None
    return f"{plural(left, 'question')} about all requests left unanswered ({UNANSWERED})"


def proof_fields(proof: Proof) -> dict[str, object]:
    """Return what became of a claim as JSON takes it."""
    return {
        "id": proof.claim.id,
        "holds": proof.failure is None,
        "failure": proof.failure,
        "answered": not proof.is_open,
        "request": witness_fields(proof.witness),
    }
