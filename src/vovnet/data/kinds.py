"""Every kind of fault that the doctor knows: what it is, what it does to training, the mend.

Ids are stable: one that is no longer used is never given to another fault.
"""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "info"]


class Kind(NamedTuple):
    """One kind of fault. `fix` is what a cleaned copy does about it, "" if it leaves it."""

    id: str
    name: str
    severity: Severity
    meaning: str
    mend: str
    fix: str = ""


_TABLE = (
    # ---- 1xx: image files
    Kind(
        "VD101", "image-missing", "error",
        "an annotation or a list names an image that is not there",
        "bring the file back, or take the entry out", "image left out",
    ),
    Kind(
        "VD102", "image-empty-file", "error",
        "the image file has 0 bytes",
        "copy or download it again", "image left out",
    ),
    Kind(
        "VD103", "image-unreadable", "error",
        "not a readable picture of a format that is known here",
        "replace the file, or convert it", "image left out",
    ),
    Kind(
        "VD104", "image-truncated", "error",
        "the header is intact, but the pixels end early or are damaged",
        "copy or download it again", "image left out",
    ),
    Kind(
        "VD105", "image-too-large", "error",
        "more pixels than are opened safely",
        "shrink the image, and its boxes with it", "image left out",
    ),
    Kind(
        "VD106", "image-size-differs", "error",
        "the size in the annotation is not the image's",
        "correct the size; the boxes too if the image was resized",
        "boxes scaled if the proportions agree, else image left out",
    ),
    Kind(
        "VD107", "image-stored-masks", "error",
        "masks are drawn on the stored pixels, which EXIF turns for display",
        "remove the orientation from the file's EXIF", "saved as stored, without EXIF",
    ),
    Kind(
        "VD108", "image-stored-boxes", "warning",
        "boxes are drawn on the stored pixels, which EXIF turns for display",
        "remove the orientation from the file's EXIF", "saved upright, boxes turned",
    ),
    Kind(
        "VD109", "image-turned", "warning",
        "EXIF turns the image for display; programs that ignore it see it on its side",
        "save the image upright, without EXIF", "saved upright",
    ),
    Kind(
        "VD110", "image-wrong-suffix", "warning",
        "the file is of another format than its suffix says",
        "rename or convert it", "renamed, or converted to PNG",
    ),
    Kind(
        "VD111", "image-depth", "warning",
        "CMYK, or pixels of more than 8 bits, which programs read differently",
        "convert to 8-bit RGB or grey", "converted to 8-bit RGB",
    ),
    Kind(
        "VD112", "image-palette-or-alpha", "info",
        "a palette or transparency; it is shown on white",
        "convert to RGB if white is not meant",
    ),
    Kind(
        "VD113", "image-animated", "info",
        "several frames, of which only the first is used",
        "save the frames as images of their own",
    ),
    Kind(
        "VD114", "image-tiny", "warning",
        "a side of fewer than 16 pixels",
        "leave it out, or find the original",
    ),
    Kind(
        "VD115", "image-duplicate", "warning",
        "the same file, byte for byte, under another name in the same split",
        "keep one of them", "the one with most objects kept",
    ),
    Kind(
        "VD116", "image-no-objects", "info",
        "no object in the image: it trains as background",
        "check that nothing on it should be labelled",
    ),
    Kind(
        "VD117", "image-not-annotated", "warning",
        "an image in the folder that no annotation names",
        "annotate it, or move it away", "not copied",
    ),
    Kind(
        "VD118", "image-crowded", "info",
        "more than 300 objects, more than a detector returns",
        "cut the image into tiles",
    ),
    Kind(
        "VD119", "image-white-unknown", "error",
        "integers of 32 bits, or floats outside 0 to 1: nobody knows which of them is white",
        "save it with 8 or 16 bits", "image left out",
    ),
    # ---- 2xx: boxes
    Kind(
        "VD201", "box-not-numbers", "error",
        "no box, or a coordinate that is missing, no number, NaN or infinite",
        "draw the box again", "object left out",
    ),
    Kind(
        "VD202", "box-inverted", "error",
        "the right edge lies left of the left one, or the lower above the upper one",
        "swap the corners", "corners swapped",
    ),
    Kind(
        "VD203", "box-no-area", "error",
        "zero width or height",
        "draw the box again, or delete it", "object left out",
    ),
    Kind(
        "VD204", "box-outside", "error",
        "wholly outside the image",
        "draw the box again; check that the annotation is this image's", "object left out",
    ),
    Kind(
        "VD205", "box-partly-outside", "warning",
        "leaves the image by more than a rounding",
        "clip the box to the image", "clipped",
    ),
    Kind(
        "VD206", "box-zero-based", "info",
        "a corner of 0 where VOC counts pixels from 1",
        "add 1 to all corners if the whole set was written so", "clipped",
    ),
    Kind(
        "VD207", "box-fractions", "error",
        "coordinates in fractions of the image where pixels are expected",
        "multiply by width and height", "scaled to pixels",
    ),
    Kind(
        "VD208", "box-pixels", "error",
        "coordinates in pixels where fractions of the image are expected",
        "divide by width and height", "divided if that lies in the image, else object left out",
    ),
    Kind(
        "VD209", "box-tiny", "warning",
        "a side under 2 pixels when the image is shrunk to 640, or to --imgsz",
        "train at a larger --imgsz or on tiles, or delete the box",
    ),
    Kind(
        "VD210", "box-whole-image", "info",
        "as large as the image",
        "check that it is an object, not a label of the image",
    ),
    Kind(
        "VD211", "box-duplicate", "warning",
        "the same box of the same class again",
        "delete one", "the later one left out",
    ),
    Kind(
        "VD212", "box-two-classes", "warning",
        "the same box with another class",
        "decide for one class",
    ),
    Kind(
        "VD213", "boxes-as-corners", "error",
        "boxes that leave their images, and lie inside if read as two corners",
        "write x, y, width, height (COCO) or centre, width, height (YOLO)", "read as corners",
    ),
    # ---- 3xx: classes and ids
    Kind(
        "VD301", "class-unknown", "error",
        "a class number or category id without a name",
        "add the class, or correct the number", "object left out",
    ),
    Kind(
        "VD302", "class-without-name", "error",
        "an empty class name",
        "name the class", "called class_<id>; a VOC object left out",
    ),
    Kind(
        "VD303", "class-name-twice", "error",
        "two classes with the same name",
        "rename one, or make them one", "made one class",
    ),
    Kind(
        "VD304", "class-names-alike", "warning",
        "class names that differ only in case, spaces, hyphens or underscores",
        "make them one class if the same is meant",
    ),
    Kind(
        "VD305", "class-unused", "warning",
        "a declared class without any box",
        "label it, or take it out of the names",
    ),
    Kind(
        "VD306", "class-not-in-split", "warning",
        "a class with boxes elsewhere, but none in this split",
        "split the images anew, so that every class is in every split",
    ),
    Kind(
        "VD307", "classes-differ", "error",
        "splits with different lists of classes",
        "give all splits the same categories and ids", "one list for all splits",
    ),
    Kind(
        "VD308", "class-id-gap", "info",
        "category ids that are not 1, 2, 3, …",
        "nothing here; programs that use ids as labels need one to one numbers",
    ),
    Kind(
        "VD309", "class-numbering", "error",
        "names that are not numbered from 0 without gaps, or not as many as nc says",
        "number the names 0, 1, 2, … and the label files with them", "numbered anew",
    ),
    Kind(
        "VD310", "class-id-zero", "warning",
        "category id 0, which many programs take for the background",
        "count categories from 1", "numbered anew",
    ),
    Kind(
        "VD311", "class-imbalance", "warning",
        "the most frequent class has over 100 times the boxes of the rarest",
        "gather more of the rare class, or train with balance in the recipe",
    ),
    Kind(
        "VD312", "class-rare", "warning",
        "fewer than 5 boxes to train a class on",
        "label more of it",
    ),
    Kind(
        "VD313", "annotation-id-zero", "warning",
        "annotation id 0, which pycocotools takes for no match",
        "count annotations from 1", "numbered anew",
    ),
    Kind(
        "VD314", "annotation-id-twice", "error",
        "two annotations with the same id: pycocotools reads one of them twice",
        "number the annotations anew", "numbered anew",
    ),
    Kind(
        "VD315", "image-id-twice", "error",
        "two images with the same id: nobody knows whose the annotations are",
        "number the images, and annotate them anew", "both images left out",
    ),
    Kind(
        "VD316", "category-id-twice", "error",
        "two categories with the same id",
        "number the categories anew", "the first name kept",
    ),
    Kind(
        "VD317", "id-not-whole", "error",
        "an id that is missing or no whole number",
        "number the entries anew", "numbered anew, or left out if it is needed",
    ),
    Kind(
        "VD318", "annotation-of-no-image", "error",
        "an annotation of an image id that no image has",
        "correct the id, or delete the annotation", "object left out",
    ),
    Kind(
        "VD319", "image-listed-twice", "warning",
        "the same image twice in one split",
        "list it once", "listed once, with all its objects",
    ),
    Kind(
        "VD320", "class-group", "info",
        "a category without objects that only stands for all the others, as Roboflow writes one",
        "nothing; it is no class", "left out",
    ),
    Kind(
        "VD321", "class-not-asked-for", "warning",
        "objects of a class that the model does not know",
        "add the class to the model's, or leave them out on purpose",
    ),
    Kind(
        "VD322", "class-not-in-set", "warning",
        "classes of the model that the set does not have: what it shows of them is background",
        "label them there too, or leave the set out",
    ),
    Kind(
        "VD323", "classes-without-names", "error",
        "label files with class numbers, and no names of classes anywhere",
        "add a data.yaml with names:, or a classes.txt", "called class_<number>",
    ),
    # ---- 4xx: splits
    Kind(
        "VD401", "leak", "error",
        "the same image in a split to train on and in one to judge by",
        "take it out of one of them", "left out of the later split",
    ),
    Kind(
        "VD402", "leak-near", "warning",
        "nearly the same picture in two splits",
        "look at both; keep pictures of one scene in one split",
    ),
    Kind(
        "VD403", "splits-overlap", "warning",
        "two splits share images, and neither is put together of whole others",
        "never train on one and judge by the other",
    ),
    Kind(
        "VD404", "split-empty", "error",
        "a split without any image",
        "fill it, or take it away", "not copied",
    ),
    Kind(
        "VD405", "split-no-val", "info",
        "nothing to judge by: no split called val, valid or test",
        "set a part of the images aside",
    ),
    Kind(
        "VD406", "split-few-images", "info",
        "fewer than 4 images, or 2 % of the set: too few to train on or to judge by",
        "split the images anew",
    ),
    Kind(
        "VD407", "split-not-there", "warning",
        "data.yaml names a split whose folder or list does not exist",
        "bring it back, or take the line out", "not copied",
    ),
    Kind(
        "VD408", "split-untrainable", "error",
        "images to train on without a single object to learn",
        "check that labels lie where the images' paths lead", "not copied",
    ),
    Kind(
        "VD409", "train-not-there", "error",
        "data.yaml names images to train on that do not exist",
        "bring them back, or correct the line", "not copied",
    ),
    # ---- 5xx: masks
    Kind(
        "VD501", "mask-few-points", "error",
        "a polygon of fewer than three points",
        "draw it again, or delete it", "polygon left out",
    ),
    Kind(
        "VD502", "mask-malformed", "error",
        "a segmentation that is neither polygons nor a run-length code that fills its size",
        "draw it again, or delete it", "mask left out",
    ),
    Kind(
        "VD503", "mask-size-differs", "error",
        "a run-length code for another image size",
        "code the mask anew, at the image's size", "mask left out",
    ),
    Kind(
        "VD504", "mask-outside-box", "warning",
        "the mask reaches further than its box, or fills only a part of it",
        "make the box that of the mask",
    ),
    Kind(
        "VD505", "area-differs", "warning",
        "the area is not that of the mask, or larger than the box",
        "compute it anew", "computed anew",
    ),
    Kind(
        "VD506", "crowd-without-rle", "warning",
        "a crowd whose mask is not run-length coded, as COCO's are",
        "code it, or set iscrowd to 0",
    ),
    # ---- 6xx: annotation files, and the set as a whole
    Kind(
        "VD601", "annotation-unreadable", "error",
        "an annotation file or list that cannot be parsed",
        "mend the file", "left out",
    ),
    Kind(
        "VD602", "annotation-missing", "error",
        "an image in a list without its annotation file",
        "annotate it, or take it out of the list", "image left out",
    ),
    Kind(
        "VD603", "annotation-malformed", "error",
        "a line or an entry that is no object",
        "mend or delete it", "left out",
    ),
    Kind(
        "VD604", "annotation-without-image", "warning",
        "an annotation file whose image is not there, in no list",
        "bring the image back, or delete the file", "not copied",
    ),
    Kind(
        "VD605", "annotation-unlisted", "info",
        "an annotated image that is in no split",
        "add it to a list if it is meant to be used", "not copied",
    ),
    Kind(
        "VD606", "label-file-missing", "info",
        "an image without a label file counts as background",
        "add an empty label file if that is meant",
    ),
    Kind(
        "VD607", "name-leaves-folder", "error",
        "a file name or link that leads out of the data set",
        "put the file into the data set", "left out",
    ),
    Kind(
        "VD608", "annotation-of-another", "info",
        "<filename> names another image than the file's own name",
        "check that the annotation is this image's",
    ),
    Kind(
        "VD609", "sizes-mixed", "info",
        "images of several sizes",
        "nothing; choose --imgsz with the smaller ones in mind",
    ),
    Kind(
        "VD610", "label-file-shared", "warning",
        "images whose names differ in the suffix only have one label file",
        "rename one, and give it a label file of its own", "a label file for each",
    ),
    Kind(
        "VD611", "label-key-points", "error",
        "a line that reads as a box with key points, which data.yaml does not announce",
        "write kpt_shape: [points, numbers each] into data.yaml", "object left out",
    ),
    Kind(
        "VD612", "labels-key-points", "error",
        "lines that all read as a box with key points, which data.yaml does not announce",
        "write kpt_shape: [points, numbers each] into data.yaml, or task: segment or obb",
        "key points left out",
    ),
    Kind(
        "VD613", "key-points-unused", "info",
        "key points, which detectors here do not learn",
        "nothing; the boxes are used", "key points left out",
    ),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.id: kind for kind in _TABLE}
