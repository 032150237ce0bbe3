"""The facts a request is described by: their types, their sources, the standard vocabulary."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class FactType(enum.Enum):
    """The type of a fact's value, as a policy file writes it."""

    STRING = "string"
    BOOL = "bool"
    INTEGER = "integer"
    NUMBER = "number"
    COUNTRY = "country"
    IP = "ip"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    ENUM = "enum"
    LEVEL = "level"
    LIST = "list"


class Source(enum.Enum):
    """Who establishes a fact: the caller, who may lie, or the server."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """The declaration of one fact.

    `values` lists an enum's values, or a level's from lowest to highest; it is empty for other
    types. `default` (None for none) fills a missing fact. A `required` fact blocks a request
    that lacks it.
    """

    name: str
    type: FactType
    source: Source
    values: tuple[str, ...] = ()
    default: object | None = None
    required: bool = False
    declared: bool = False


CAPABILITIES = ("chat", "code", "agentic", "embedding", "image", "audio", "batch", "other")
ENFORCEMENT_STATUSES = ("unrestricted", "pending", "restricted", "banned")
NETWORK_KINDS = ("residential", "mobile", "business", "hosting", "vpn", "proxy", "tor", "other")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


_Row = tuple[str, FactType, Source, tuple[str, ...]]

_CLIENT: tuple[_Row, ...] = (
    ("request.capability", FactType.ENUM, Source.CLIENT, CAPABILITIES),
    ("request.model", FactType.STRING, Source.CLIENT, ()),
    ("request.endpoint", FactType.STRING, Source.CLIENT, ()),
    ("request.tools", FactType.INTEGER, Source.CLIENT, ()),
    ("request.stream", FactType.BOOL, Source.CLIENT, ()),
    ("request.reasoning", FactType.BOOL, Source.CLIENT, ()),
    ("request.template", FactType.STRING, Source.CLIENT, ()),
    ("request.toolset", FactType.STRING, Source.CLIENT, ()),
    ("client.agent", FactType.STRING, Source.CLIENT, ()),
)

_SERVER: tuple[_Row, ...] = (
    ("account.id", FactType.STRING, Source.SERVER, ()),
    ("account.org", FactType.STRING, Source.SERVER, ()),
    ("account.tier", FactType.LEVEL, Source.SERVER, ()),
    ("account.created", FactType.TIMESTAMP, Source.SERVER, ()),
    ("account.age", FactType.DURATION, Source.SERVER, ()),
    ("account.signup", FactType.STRING, Source.SERVER, ()),
    ("credential.id", FactType.STRING, Source.SERVER, ()),
    ("enforcement.status", FactType.ENUM, Source.SERVER, ENFORCEMENT_STATUSES),
    ("kyc.subject", FactType.STRING, Source.SERVER, ()),
    ("payment.fingerprint", FactType.STRING, Source.SERVER, ()),
    ("payment.country", FactType.COUNTRY, Source.SERVER, ()),
    ("device.fingerprint", FactType.STRING, Source.SERVER, ()),
    ("client.ip", FactType.IP, Source.SERVER, ()),
    ("client.network", FactType.STRING, Source.SERVER, ()),
    ("geo.country", FactType.COUNTRY, Source.SERVER, ()),
    ("geo.asn", FactType.INTEGER, Source.SERVER, ()),
    ("network.kind", FactType.ENUM, Source.SERVER, NETWORK_KINDS),
    ("time.hour", FactType.INTEGER, Source.SERVER, ()),
    ("time.weekday", FactType.ENUM, Source.SERVER, WEEKDAYS),
    ("actor.id", FactType.STRING, Source.SERVER, ()),
    ("actor.accounts", FactType.INTEGER, Source.SERVER, ()),
    ("actor.trusted_accounts", FactType.INTEGER, Source.SERVER, ()),
)


def _vocabulary() -> Mapping[str, Fact]:
    return MappingProxyType(
        {
            name: Fact(name=name, type=kind, source=source, values=values)
            for name, kind, source, values in (*_CLIENT, *_SERVER)
        }
    )


STANDARD_FACTS = _vocabulary()
"""The built-in vocabulary by name; `account.tier` lists no values until a policy set does."""

COUNTRIES = frozenset(
    (
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ "
        "BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM "
        "DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS "
        "GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN "
        "KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ "
        "MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
        "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV "
        "SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI "
        "VN VU WF WS XK YE YT ZA ZM ZW"
    ).split()
)
"""ISO 3166-1 alpha-2 codes, and XK for Kosovo."""
