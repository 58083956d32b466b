import pytest
from PIL import Image


@pytest.fixture(scope="module")
def picture():
    picture = Image.new("RGB", (96, 96), "white")
    picture.paste("red", (10, 10, 40, 40))
    return picture
