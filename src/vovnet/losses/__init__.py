"""Criteria: network outputs and targets to named loss terms."""

from vovnet.losses.target import InstanceMasks as InstanceMasks
from vovnet.losses.target import Target as Target
from vovnet.losses.term import Term as Term
from vovnet.losses.term import means as means
