"""The offline page: runs overlaid in one HTML file that opens without a network."""

from typing import TYPE_CHECKING

from thalweg.core.lazy import attach

if TYPE_CHECKING:
    from thalweg.reports.page import report as report
else:
    __getattr__, __dir__, __all__ = attach(__name__, {"report": "thalweg.reports.page"})
