"""A recipe of a plugin's, whose questions show several pictures, from its queries to the report."""

import pytest
import transformers

from spr_plugin import follow, runs
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.hooks.transformers_vlm import TransformersHost
from spr_plugin.plugins import load_file, manager

from . import make_vlm
from .launch import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def lab():
    file = str(ROOT / "examples" / "lab_plugin" / "lab_spr.py")
    load_file(file)
    yield file
    manager().unregister(name=file)


def test_a_recipe_of_two_pictures_goes_through_a_whole_run(lab, tiny_world, tmp_path, objects_csv):
    """Under a host that shows several: sampled, judged, paired and trained on; one that shows one refuses at
    the start.
    """
    world = tiny_world(sft=4, spr=8)
    (tmp_path / "names.yaml").write_text("names: {together: 2}")
    model, processor = make_vlm.make("llava")
    arguments = transformers.TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to=[])
    trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
    flags = dict(
        spr_only=True, spr_plugin=[lab], spr_recipe="names", spr_recipe_config=str(tmp_path / "names.yaml"),
        spr_annotations=objects_csv(world, tmp_path / "objects.csv"), spr_image_folder=f"{world}/images",
        spr_samples=3, spr_max_new_tokens=24, spr_epochs=1.0, spr_batch_size=2,
    )  # fmt: skip
    follow.train(trainer, SPRConfig(**flags), {}, None)
    run = runs.open(tmp_path / "out", plugins=[lab])
    assert len(run.queries) == 4 and all(len(query.pictures) == 2 for query in run.queries.values())
    assert {record["recipe"] for record in run.records("scores").values()} == {"names"} and run.pairs
    assert all(len(pair.pictures) == 2 and pair.chosen_score > pair.rejected_score for pair in run.pairs)
    assert run.folder.exit.exists()
    assert run.folder.report.read_text().count("data:image/jpeg") == 4 * len(run.pairs)
    trainer.args.output_dir = str(tmp_path / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersHost, "most_pictures", 1)
        with pytest.raises(
            UserError, match="--spr_recipe names asks about 2 pictures at once, and .* shows one picture"
        ):
            follow.train(trainer, SPRConfig(**flags), {}, None)
