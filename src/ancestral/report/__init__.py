"""The page of a run: everything its directory holds, in one HTML file that needs nothing else."""

from ancestral.report.page import write_report

__all__ = ["write_report"]
