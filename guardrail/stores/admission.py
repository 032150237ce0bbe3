"""From what each cell says to what is charged: the part of `acquire` that all stores share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from guardrail.model.cells import Charge


def admission(
    charges: Sequence[Charge], refused: list[bool], left_out: Collection[int]
) -> tuple[bool, list[bool]]:
    """Return whether the request is admitted, and which charges to apply.

    `refused` tells of each charge whether one of its cells refuses; what was never tried is taken
    back in it. `left_out` are charges that neither refuse nor count.
    """
    admitted = not any(
        refused[i]
        for i, charge in enumerate(charges)
        if charge.binding and charge.after is None and i not in left_out
    )
    # What was never tried was not refused either: nothing may follow from it.
    for i, charge in enumerate(charges):
        if i in left_out or (charge.after is not None and not refused[charge.after]):
            refused[i] = False
    applied = [
        (admitted if charge.after is None else refused[charge.after])
        and not (refused[i] or i in left_out)
        for i, charge in enumerate(charges)
    ]
    return admitted, applied
