"""Vega-Lite as what draws: a specification in, a piece of SVG for the inside of a page out.

Vega-Lite writes colours as attributes, so that they may be variables of the page's style, text as
text, and of every mark what it stands for. Nothing is read from a network or from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from guardrail.errors import not_installed

Spec = Mapping[str, Any]

_VERSION = "5.20"
"""The version of Vega-Lite that specifications are written for."""
_FRAMES = ("background", "foreground")
"""The classes of outlines of groups, none of which is drawn."""
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_CONFIG: Spec = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "gridColor": "var(--rule)",
        "labelColor": "var(--soft)",
        "labelFontSize": 12,
        "labelOverlap": False,
        "labelPadding": 6,
        "tickColor": "var(--rule)",
        "title": None,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": 0,
        "symbolSize": 900,
        "symbolStrokeWidth": 2.5,
        "title": None,
    },
}


def check_drawing(what: str) -> None:
    """Make sure that plots can be drawn; `what` needs them.

    Raises:
        SettingError: the extra `report` is not installed.
    """
    try:
        import vl_convert  # noqa: F401
    except ImportError as problem:
        raise not_installed(problem, what, "report") from problem


def drawn(spec: Spec, title: str, told: str) -> str:
    """Return a specification as an `svg` element that is named by `title` and described by `told`.

    What a mark stands for is shown where a pointer rests on it.

    Raises:
        SettingError: the extra `report` is not installed.
    """
    check_drawing("a page with plots")
    import vl_convert

    whole = {"background": None, "config": _CONFIG, **spec}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(whole, vl_version=_VERSION))
    for element in list(root.iter()):
        for frame in [one for one in element if one.get("class") in _FRAMES]:
            element.remove(frame)
        element.tag = element.tag.removeprefix(_NAMESPACE)
        named = element.get("aria-label")
        if named and element.get("aria-roledescription") == "point":
            element.set("class", "point")
            ElementTree.SubElement(element, "title").text = named
        # The picture is one thing with one name; its figures are in the table behind it.
        for name in [name for name in element.attrib if name == "role" or name[:5] == "aria-"]:
            del element.attrib[name]
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": title,
    }
    described = ElementTree.Element("desc")
    described.text = told
    root.insert(0, described)
    return ElementTree.tostring(root, encoding="unicode")
