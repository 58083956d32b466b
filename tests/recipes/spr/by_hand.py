"""A picture of 100 x 100 with two objects: what can be scored by hand."""

from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.formats import llava
from spr_plugin.recipes.spr.regions import region_query

SPACE = Space.pixels(100, 100)
PICTURE = Image.new("RGB", (100, 100))
FORM = llava("square")


def query(boxes=((0, 0, 20, 20), (40, 40, 60, 60)), region=(0, 0, 100, 100)):
    annotations = tuple(Annotation(n, f"thing {n}", Box(*box, SPACE)) for n, box in enumerate(boxes))
    return region_query(AnnotatedImage("7", "/a.jpg", 100, 100, annotations), Box(*region, SPACE), 0)
