"""What a report tells of a replay: figures that are added up, and the page made of them."""

from __future__ import annotations

from guardrail.replay.report.changes import changes_page
from guardrail.replay.report.figures import ReportFigures, report_divisions
from guardrail.replay.report.page import report_page

__all__ = ["ReportFigures", "changes_page", "report_divisions", "report_page"]
