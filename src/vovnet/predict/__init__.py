"""From files and streams to drawn and listed detections."""

from vovnet.images.drawing import draw_detections as draw_detections
from vovnet.predict.row import Row as Row
from vovnet.predict.run import predict_files as predict_files
from vovnet.predict.sources import Sources as Sources
from vovnet.predict.sources import expand_sources as expand_sources
from vovnet.predict.sources import find_sources as find_sources
from vovnet.predict.stream import stream as stream
