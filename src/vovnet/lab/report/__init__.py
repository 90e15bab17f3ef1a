"""Reports of `vovnet bench` and `pick`: one self-contained HTML page, and its figures as PNG."""

from vovnet.lab.report.choice import write_choice
from vovnet.lab.report.page import render_page, write_figures, write_report

__all__ = ["render_page", "write_choice", "write_figures", "write_report"]
