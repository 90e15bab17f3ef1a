"""What a network costs to run: counted, and measured."""

from vovnet.environment import environment
from vovnet.lab.count import Counts, LayerCount, count
from vovnet.lab.table import count_models

__all__ = ["Counts", "LayerCount", "count", "count_models", "environment"]
