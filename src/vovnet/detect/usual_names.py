"""Class names that detectors without names of their own usually mean, by how many there are."""

_COCO = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
_VOC = """
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of COCO's ids 1..90


def usual_names(count: int) -> tuple[list[str], str]:
    """So many names, and whose they are: COCO's 80, or by their ids (90, or 91 from 0 on), PASCAL
    VOC's 20; else numbers."""
    coco = _listed(_COCO)
    if count == 80:
        return coco, "COCO's 80"
    if count in (90, 91):
        left = iter(coco)
        by_id = [f"unused {i}" if i in _UNUSED else next(left) for i in range(1, 91)]
        return ["unused 0"] * (count - 90) + by_id, "COCO's by their ids"
    if count == 20:
        return _listed(_VOC), "PASCAL VOC's 20"
    return [f"class{i}" for i in range(count)], "mere numbers"


def _listed(text: str) -> list[str]:
    return [" ".join(name.split()) for name in text.split(",")]
