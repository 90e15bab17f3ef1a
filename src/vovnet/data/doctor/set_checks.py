"""Faults of a set as a whole: each check is a function of all splits and all files."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from vovnet.data.doctor.probe import Facts
from vovnet.data.finding import Finding
from vovnet.data.raw import RawImage, RawSet, judges, trains
from vovnet.text import one_line

_FEW_IMAGES, _FEW_OF_SET = 4, 0.02
_FEW_BOXES = 5
_IMBALANCE = 100
# Correlation of two pictures' 16×16 grey levels. Photographs of VOC stay above it when they are
# saved at quality 50, halved or brightened by a fifth; different ones stay below 0.97.
_ALIKE = 0.98
_FLAT = 4.0  # grey levels: a picture without contrast is like any other
_PAIRS = 20_000_000  # pictures compared at a time: 80 MB

FactsOf = Mapping[Path, Facts]


def identity(image: RawImage, facts: FactsOf) -> object:
    """What two images share if they are the same file, or files with the same bytes."""
    if image.path is None:
        return image.key
    of_file = facts.get(image.path)
    return of_file.digest if of_file and of_file.digest else image.path


def _duplicates(raw: RawSet, facts: FactsOf) -> Iterator[Finding]:
    same: dict[tuple[str, object], list[RawImage]] = defaultdict(list)
    for image in raw.images():
        if image.path is not None:
            same[image.split, identity(image, facts)].append(image)
    for images in same.values():
        best = max(images, key=lambda image: len(image.boxes))  # the first of equal ones
        for image in images:
            if image is not best:
                other = len(image.boxes) != len(best.boxes)
                what = f"the same bytes as {best.name}{', but fewer objects' if other else ''}"
                yield Finding("VD115", what, image.split, image.name)


def _leaks(raw: RawSet, facts: FactsOf) -> Iterator[Finding]:
    every = {
        split: {identity(image, facts): image for image in images if image.path is not None}
        for split, images in raw.splits.items()
    }
    for one, other in combinations([s for s in every if not _put_together(s, every)], 2):
        shared = every[one].keys() & every[other].keys()
        if not shared:
            continue
        early, late = (other, one) if judges(one) and trains(other) else (one, other)
        if trains(early) and judges(late):
            for image in raw.splits[late]:
                if (key := identity(image, facts)) in shared:
                    what = f"is {every[early][key].name} of {early}"
                    yield Finding("VD401", what, late, image.name)
        else:
            first = next(image.name for key, image in every[one].items() if key in shared)
            yield Finding("VD403", f"{one} and {other} share {len(shared)} images, {first} first")


def _put_together(split: str, every: Mapping[str, Mapping[object, RawImage]]) -> bool:
    """Whether the split is two or more others, such as trainval."""
    own = every[split].keys()
    parts = [other.keys() for other in every.values() if other.keys() < own]
    return len(parts) > 1 and set().union(*parts) == own


def _near_leaks(raw: RawSet, facts: FactsOf) -> Iterator[Finding]:
    images = [image for image in raw.images() if _contrast(image, facts) > _FLAT]
    if len({image.split for image in images}) < 2:
        return
    looks = np.stack([_look(image, facts) for image in images]).astype(np.float32)
    looks -= looks.mean(axis=1, keepdims=True)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    splits = np.array([image.split for image in images])
    rows = max(_PAIRS // len(images), 1)
    told: set[int] = set()  # each picture once: frames of one scene may be alike by the thousand
    for start in range(0, len(images), rows):
        alike = np.triu(looks[start : start + rows] @ looks[start:].T > _ALIKE, k=1)
        alike &= splits[start : start + rows, None] != splits[None, start:]
        for column in np.flatnonzero(alike.any(axis=0)).tolist():
            first, second = images[start + int(alike[:, column].argmax())], images[start + column]
            if start + column in told or identity(first, facts) == identity(second, facts):
                continue
            told.add(start + column)
            yield Finding(
                "VD402", f"looks like {first.name} of {first.split}", second.split, second.name
            )


def _look(image: RawImage, facts: FactsOf) -> np.ndarray:
    of_file = facts.get(image.path) if image.path else None
    if of_file is None or of_file.look is None:
        return np.zeros(1, np.float32)
    return of_file.look.ravel()


def _contrast(image: RawImage, facts: FactsOf) -> float:
    return float(_look(image, facts).std())


def _splits(raw: RawSet, _: FactsOf) -> Iterator[Finding]:
    total = sum(1 for _ in raw.images())
    if not raw.splits:
        yield Finding("VD404", "no split at all")
    for split, images in raw.splits.items():
        if not images:
            yield Finding("VD404", "no image", split)
        elif len(images) < max(_FEW_IMAGES, _FEW_OF_SET * total):
            yield Finding("VD406", f"{len(images)} of {total} images", split)
        if images and raw.learns(split) and not any(b.learned for i in images for b in i.boxes):
            unlike = any(image.boxes for image in images)
            yield Finding("VD408", "crowds and difficult ones only" if unlike else "none", split)
    if not raw.partial and not any(map(judges, raw.splits)):
        yield Finding("VD405", f"splits: {', '.join(map(one_line, raw.splits)) or 'none'}")


def _class_counts(raw: RawSet, _: FactsOf) -> Iterator[Finding]:
    counts = {split: _count(images) for split, images in raw.splits.items()}
    total = _count(tuple(raw.images()))
    for name in raw.names:
        if not total[name] and raw.partial:
            continue
        if not total[name]:
            yield Finding("VD305", f"class {one_line(name)!r} has no box")
            continue
        for split, found in counts.items():
            if found and not found[name]:
                what = f"class {one_line(name)!r} has {total[name]} boxes elsewhere, none here"
                yield Finding("VD306", what, split)
    for split, found in counts.items():
        if raw.learns(split):
            yield from _rare(split, found)
    if total and max(total.values()) > _IMBALANCE * min(total.values()):
        (most, many), (least, few) = total.most_common()[0], total.most_common()[-1]
        yield Finding("VD311", f"{one_line(most)} has {many} boxes, {one_line(least)} {few}")


def _count(images: tuple[RawImage, ...]) -> Counter[str]:
    return Counter(box.name for image in images for box in image.boxes if box.name is not None)


def _rare(split: str, counts: Counter[str]) -> Iterator[Finding]:
    for name, count in sorted(counts.items()):
        if count < _FEW_BOXES:
            yield Finding("VD312", f"class {one_line(name)!r} has {count} boxes", split)


def _class_names(raw: RawSet, _: FactsOf) -> Iterator[Finding]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in raw.names:
        alike["".join(char for char in name.casefold() if char not in " \t-_")].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield Finding("VD304", " and ".join(repr(one_line(name)) for name in names))


def _category_ids(raw: RawSet, _: FactsOf) -> Iterator[Finding]:
    told: list[dict[int, str]] = []
    for split, categories in raw.categories.items():
        if told and categories != told[0]:
            names, first = set(categories.values()), set(told[0].values())
            other = ", ".join(map(one_line, sorted(names ^ first)))
            yield Finding("VD307", f"other categories than {next(iter(raw.categories))}: "
                          f"{other or 'other ids'}", split)  # fmt: skip
        if categories not in told:
            told.append(categories)
            yield from _id_order(split, list(categories))


def _id_order(split: str, ids: list[int]) -> Iterator[Finding]:
    if 0 in ids:
        yield Finding("VD310", "a category has the id 0", split)
    if ids and ids != list(range(ids[0], ids[0] + len(ids))):
        missing = sorted(set(range(max(ids[0], 1), min(ids[-1], ids[0] + 1000))) - set(ids))
        listed = ", ".join(map(str, missing[:10]))
        yield Finding("VD308", f"no category has the id {listed}", split)


def _sizes(raw: RawSet, facts: FactsOf) -> Iterator[Finding]:
    headers = (facts[image.path].header for image in raw.images() if image.path in facts)
    sizes = Counter(header.size for header in headers if header is not None)
    if len(sizes) > 1:
        sides = [side for size in sizes for side in size]
        (height, width), count = sizes.most_common(1)[0]
        yield Finding("VD609", f"{len(sizes)} sizes, sides of {min(sides)} to {max(sides)} px; "
                      f"{count} images are {width}x{height}")  # fmt: skip


SET_CHECKS: tuple[Callable[[RawSet, FactsOf], Iterator[Finding]], ...] = (
    _duplicates,
    _leaks,
    _near_leaks,
    _splits,
    _class_names,
    _category_ids,
    _class_counts,
    _sizes,
)
