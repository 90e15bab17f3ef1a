"""The dataset doctor: every fault that ruins training, found before the first epoch."""

from vovnet.data.doctor.copy import write_clean_copy
from vovnet.data.doctor.examine import PIXELS_UP_TO, USUAL_VIEW, Examined, examine
from vovnet.data.doctor.report import Report
from vovnet.data.finding import Finding
from vovnet.data.kinds import KINDS, Kind

__all__ = [
    "KINDS",
    "PIXELS_UP_TO",
    "USUAL_VIEW",
    "Examined",
    "Finding",
    "Kind",
    "Report",
    "examine",
    "write_clean_copy",
]
