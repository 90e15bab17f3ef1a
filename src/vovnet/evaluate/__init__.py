"""Detection metrics as pure functions of `Detections` and `Record`s."""

from vovnet.evaluate.coco import ClassAP, CocoResult, coco_ap
from vovnet.evaluate.voc import VocResult, average_precision, voc_ap

__all__ = ["ClassAP", "CocoResult", "VocResult", "average_precision", "coco_ap", "voc_ap"]
