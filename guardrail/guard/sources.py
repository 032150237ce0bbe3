"""The signals every guard has: the country and the network of an address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from guardrail.signals import ClientNetworkSignal, Signal


def standard_signals(geo: str | Path | None, environ: Mapping[str, str]) -> tuple[Signal, ...]:
    """Return the signals that need no configuration but, perhaps, a database's path.

    Raises:
        DataError: the database cannot be read.
        SettingError: an environment variable about it is not usable.
    """
    # Importing the reader of databases costs a third of importing guardrail: only where it is used.
    from guardrail.signals.geo import GeoSignal

    return (GeoSignal.configured(geo, environ), ClientNetworkSignal())
