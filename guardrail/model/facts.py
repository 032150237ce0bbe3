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


def _vocabulary() -> Mapping[str, Fact]:
    client, server = Source.CLIENT, Source.SERVER
    string, integer = FactType.STRING, FactType.INTEGER
    rows: list[tuple[str, FactType, Source, tuple[str, ...]]] = [
        ("request.capability", FactType.ENUM, client, CAPABILITIES),
        ("request.model", string, client, ()),
        ("request.endpoint", string, client, ()),
        ("request.tools", integer, client, ()),
        ("request.stream", FactType.BOOL, client, ()),
        ("request.reasoning", FactType.BOOL, client, ()),
        ("request.template", string, client, ()),
        ("request.toolset", string, client, ()),
        ("client.agent", string, client, ()),
        ("account.id", string, server, ()),
        ("account.org", string, server, ()),
        ("account.tier", FactType.LEVEL, server, ()),
        ("account.created", FactType.TIMESTAMP, server, ()),
        ("account.age", FactType.DURATION, server, ()),
        ("account.signup", string, server, ()),
        ("credential.id", string, server, ()),
        ("enforcement.status", FactType.ENUM, server, ENFORCEMENT_STATUSES),
        ("kyc.subject", string, server, ()),
        ("payment.fingerprint", string, server, ()),
        ("payment.country", FactType.COUNTRY, server, ()),
        ("device.fingerprint", string, server, ()),
        ("client.ip", FactType.IP, server, ()),
        ("client.network", string, server, ()),
        ("geo.country", FactType.COUNTRY, server, ()),
        ("geo.asn", integer, server, ()),
        ("network.kind", FactType.ENUM, server, NETWORK_KINDS),
        ("time.hour", integer, server, ()),
        ("time.weekday", FactType.ENUM, server, WEEKDAYS),
        ("actor.id", string, server, ()),
        ("actor.accounts", integer, server, ()),
        ("actor.trusted_accounts", integer, server, ()),
    ]
    return MappingProxyType(
        {
            name: Fact(name=name, type=kind, source=source, values=values)
            for name, kind, source, values in rows
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
