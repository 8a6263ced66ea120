"""The doctor: what is wrong with a dataset, found before it is trained on."""

from .checked import Checked, check_document, strangers
from .datasets import diagnose
from .document import check_kind, read_document
from .examine import Part, examine, part_of_json, part_of_source
from .files import check_files
from .findings import Finding, Findings
from .report import Report
from .rules import RULES

__all__ = [
    "RULES",
    "Checked",
    "Finding",
    "Findings",
    "Part",
    "Report",
    "check_document",
    "check_files",
    "check_kind",
    "diagnose",
    "examine",
    "part_of_json",
    "part_of_source",
    "read_document",
    "strangers",
]
