"""Small releases in exactly the original layouts, and what the tasks read of what was made of them."""

import io
import json
import pickle

from PIL import Image

from spr_plugin.eval_tasks import data, releases
from spr_plugin.eval_tasks.catalogue import CATALOGUE


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote its ``str``: bytes under the opcode U."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        content = text.encode()
        self.write(b"U" + bytes([len(content)]) + content)
        self.memoize(text)

    dispatch[str] = save_str


def python2_pickle(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def picture(file, size=(100, 80)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)


def refer_tree(root):
    """refer's layout: two refs of val, one of testA, one of train; one picture has a box over its edge."""
    names = [f"COCO_train2014_{n:012d}.jpg" for n in (1, 2)]
    for name in names:
        picture(root / releases.REC_PICTURES / name)
    images = [
        {"id": n, "file_name": name, "width": 100, "height": 80, "license": 1}
        for n, name in enumerate(names, 1)
    ]
    annotations = [
        {"id": 10 + n, "image_id": 1 + n % 2, "bbox": [10.5, 20, 30, 65], "category_id": 1, "iscrowd": 0}
        for n in range(4)
    ]
    for name, by, splits in (
        ("refcoco", "unc", ("val", "val", "testA", "train")),
        ("refcocog", "umd", ("val", "val", "test", "train")),
    ):
        refs = []
        for n, split in enumerate(splits):
            sentences = [
                {"raw": f"Cat {n}!", "sent": f"cat {n} {k} café", "sent_id": 10 * n + k, "tokens": ["cat"]}
                for k in range(2)
            ]
            refs.append({"ref_id": 50 + n, "ann_id": 10 + n, "category_id": 1, "image_id": 1 + n % 2, "split": split, "sent_ids": [1, 2],  # noqa: E501
                         "file_name": names[n % 2].replace(".jpg", f"_{n}.jpg"), "sentences": sentences})  # fmt: skip  # noqa: E501
        refs.append({**refs[0], "ref_id": 60, "split": "testB" if name == "refcoco" else "none"})
        (root / name).mkdir(parents=True)
        (root / name / f"refs({by}).p").write_bytes(python2_pickle(refs))
        (root / name / "instances.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": []})
        )


def documents(root, task):
    return data.read_folder(str(root), CATALOGUE[task])


XML = """<annotation><filename>7.jpg</filename><size><width>100</width><height>80</height><depth>3</depth></size>
<object><name>11</name><name>12</name><bndbox><xmin>1</xmin><ymin>11</ymin><xmax>50</xmax><ymax>80</ymax></bndbox></object>
<object><name>12</name><bndbox><xmin>60</xmin><ymin>11</ymin><xmax>90</xmax><ymax>40</ymax></bndbox></object>
<object><name>13</name><nobndbox>1</nobndbox></object>
<object><name>14</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""  # noqa: E501


SENTENCES = """[/EN#11/people A man] and [/EN#12/animals two dogs] in [/EN#14/scene a park] , [/EN#0/notvisual it] seems .
[/EN#13/other Nothing] boxed here .
[/EN#12/animals The dogs] run .
"""  # noqa: E501


def lvis(tmp_path):
    images = [{"id": n, "coco_url": f"http://images.cocodataset.org/{part}/{n:012d}.jpg", "width": 100, "height": 80, "neg_category_ids": [3],  # noqa: E501
               "not_exhaustive_category_ids": [4]} for n, part in ((1, "val2017"), (2, "train2017"))]  # fmt: skip  # noqa: E501
    square = [10, 10, 50, 10, 50, 50, 10, 50]
    annotations = [
        {
            "id": 5,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 40, 40],
            "area": 1600,
            "segmentation": [square],
        },
        {
            "id": 6,
            "image_id": 1,
            "category_id": 1,
            "bbox": [60, 10, 10, 10],
            "area": 100,
            "segmentation": [square],
        },
        {"id": 7, "image_id": 1, "category_id": 2, "bbox": [60, 10, 20, 20], "area": 400, "segmentation": []},
        {"id": 8, "image_id": 2, "category_id": 2, "bbox": [60, 10, 20, 20], "area": 400, "segmentation": []},
    ]
    categories = [
        {"id": n, "name": name, "synonyms": [name, name + "_x"]}
        for n, name in ((1, "tea_cup"), (2, "dog"), (3, "cat"), (4, "sky"))
    ]
    (tmp_path / "lvis_v1_val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    picture(tmp_path / "val2017/000000000001.jpg")


BROKEN = [float("nan"), float("inf"), -float("inf"), 10**400]
