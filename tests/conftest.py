"""What every test shares: a printed seed, no network, a host on a tiny model, and each module of ours loaded
once.
"""

import contextlib
import csv
import gc
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
BENCHMARKS = TESTS.parent / "benchmarks"
# The legacy environment has no lmms-eval, and these import it.
collect_ignore = [] if importlib.util.find_spec("lmms_eval") else ["eval_tasks"]
SEED = int(os.environ.get("SPR_TEST_SEED", "0"))
# A loaded machine is no failure.
settings.register_profile("spr", deadline=None, print_blob=True)
# make test-fast: a quarter of the examples, of whatever draws its own too.
settings.register_profile("fast", settings.get_profile("spr"), max_examples=25)
settings.load_profile("spr")

# Offline by default, here and in every process a test starts.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_DISABLED="true",
    CUDA_VISIBLE_DEVICES="",
    DS_ACCELERATOR="cpu",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_report_header():
    return f"seed: {SEED} (SPR_TEST_SEED)"


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    """What asks for a LLaVA takes seconds: a process writes it, and its package is loaded."""
    for item in items:
        if "random_llava" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """What collection loaded stays: whoever collects garbage need not walk through torch for it."""
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, in any order."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        # The processor's alone: torch.manual_seed notes the stack for each accelerator that is not there.
        sys.modules["torch"].default_generator.manual_seed(SEED)


@pytest.fixture
def clean_state(monkeypatch):
    """What this process knows of its SPR run, set back afterwards."""
    from spr_plugin import process
    from spr_plugin.process import State

    monkeypatch.setattr(process, "_shared", bytearray(2))
    for name, value in vars(State).items():
        if not name.startswith("__"):
            monkeypatch.setattr(State, name, value)
    return State


@pytest.fixture(scope="session", autouse=True)
def each_module_once():
    """A module of ours under two names would be a second copy, with hooks of its own: ``hooks`` and
    ``eval_tasks`` at the top level, or a file that two ways led to. A fixture, as pytest-xdist's workers have
    no exit status.
    """
    yield
    names: dict[str, list[str]] = {}
    for name, module in list(sys.modules.items()):
        if file := getattr(module, "__file__", None):
            names.setdefault(os.path.realpath(file), []).append(name)
    ours = tuple(f"{TESTS.parent / folder}{os.sep}" for folder in ("spr_plugin", "hooks", "eval_tasks"))
    doubled = [those for file, those in names.items() if len(those) > 1 and file.startswith(ours)]
    top = sorted({"hooks", "eval_tasks"} & sys.modules.keys())
    assert not doubled and not top, f"run pytest with --import-mode=importlib: {doubled or top}"


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory):
    """``tiny_world(sft=…, spr=…, val=…, test=…)`` → folder with so many scenes of each kind, one of what is
    not named.
    """
    from tests.examples.world import load

    def write(**sizes) -> Path:
        sizes = {"sft": 1, "spr": 1, "val": 1, "test": 1, **sizes}
        folder = tmp_path_factory.mktemp("world")
        load("scenes").write_world(folder, **sizes)
        return folder

    return write


@pytest.fixture(scope="session")
def posed_world(tmp_path_factory):
    """``posed_world(scenes=…, views=…, layout=…, seed=…)`` → folder of posed scenes, each as it is asked for
    once; copy it to change it.
    """
    from tests.examples.world import load

    made = {}

    def write(**sizes) -> Path:
        key = tuple(sorted(sizes.items()))
        if key not in made:
            made[key] = load("posed").write_posed(tmp_path_factory.mktemp("posed"), **sizes)
        return made[key]

    return write


@pytest.fixture(scope="session")
def random_llava(tmp_path_factory) -> Path:
    """Folder with llm/, clip/, data.json and images/ of a tiny LLaVA with random weights."""
    folder = tmp_path_factory.mktemp("random_llava")
    subprocess.run([sys.executable, TESTS / "random_llava.py", folder], check=True, capture_output=True)
    return folder


class LlavaCommand:
    """LLaVA's published fine-tuning command, made tiny."""

    def __init__(self, world: Path, folder: Path):
        self.world, self.folder, self.record = world, folder, folder / "record.jsonl"
        self.output = folder / "llava"

    def arguments(self) -> list:
        """Everything that finetune.sh passes, old flag names included."""
        text = f"""
            --model_name_or_path {self.world}/llm --version v1 --data_path {self.world}/data.json --image_folder {self.world}/images
            --vision_tower {self.world}/clip --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False
            --mm_use_im_patch_token False --image_aspect_ratio pad --group_by_modality_length True --bits 16 --bf16 False
            --output_dir {self.output} --max_steps 2 --per_device_train_batch_size 2 --gradient_accumulation_steps 1
            --evaluation_strategy no --save_strategy steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-4
            --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --tf32 False --model_max_length 256
            --dataloader_num_workers 0 --lazy_preprocess True --report_to none --use_cpu True
        """  # noqa: E501
        return text.split()

    def run(
        self, *extra, launcher=(sys.executable, "-m"), without="", timeout=600
    ) -> subprocess.CompletedProcess:
        """Run it with ``extra`` flags and tests/stub_stage in place of the SPR stage, ``without`` one shim's
        change of a class.
        """
        environment = dict(
            os.environ,
            SPR_STUB_RECORD=str(self.record),
            SPR_STUB_WITHOUT=without,
            PYTHONPATH=str(TESTS / "stub_stage"),
        )
        command = [*map(str, launcher), "llava.train.train", *self.arguments(), *map(str, extra)]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout
        )

    def records(self) -> list[dict]:
        """What the stub stage saw, one record a rank."""
        return (
            [json.loads(line) for line in self.record.read_text().splitlines()]
            if self.record.exists()
            else []
        )


@pytest.fixture
def llava_command(random_llava, tmp_path) -> LlavaCommand:
    return LlavaCommand(random_llava, tmp_path)


@pytest.fixture
def live_llava(random_llava, tmp_path):
    """``live_llava(**settings)`` → host with an untrained model, and its config; see
    :func:`tests.dpo.live.build`.
    """
    from tests.dpo import live

    return lambda **settings: live.build(random_llava, tmp_path / "llava-out", **settings)


@pytest.fixture
def pairs(random_llava):
    """Preference pairs on the pictures of the random LLaVA; answers of different lengths."""
    from tests.dpo import live

    return lambda count=4: live.make_pairs(random_llava, count)


@pytest.fixture(scope="session")
def embedded_llava():
    """``embedded_llava(world, out)`` → host with the tiny world's own model, as the benchmarks load it."""
    spec = importlib.util.spec_from_file_location("live_llava", BENCHMARKS / "live_llava.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tiny_llava


@pytest.fixture
def chat_server():
    """The module of the HTTP server that speaks OpenAI's chat completions."""
    from tests.sampling import chat_server

    return chat_server


@pytest.fixture
def write_queries():
    """``write_queries(folder, config, form, data_path, image_folder)`` → what a run leaves of its
    first stage, unless it is there.
    """
    from spr_plugin.queries import find_queries, log_queries
    from spr_plugin.recipes.base import Source
    from spr_plugin.recipes.find import find_recipe

    def write(folder, config, form, data_path=None, image_folder=None):
        recipe = find_recipe(config, form)
        queries, skipped = find_queries(folder, config, recipe, Source(data_path, image_folder))
        if skipped is not None:
            log_queries(folder, recipe, queries, skipped)
        return queries

    return write


@pytest.fixture
def objects_csv():
    """``objects_csv(world, out)`` → that file, in which the world's objects stand as examples/lab_plugin
    writes them.
    """

    def write(world, out) -> str:
        coco = json.loads((world / "spr.json").read_text())
        names = {row["id"]: row["file_name"] for row in coco["images"]}
        labels = {row["id"]: row["name"] for row in coco["categories"]}
        with open(out, "w", newline="") as file:
            csv.writer(file).writerow("file label x1 y1 x2 y2".split())
            for row in coco["annotations"]:
                x, y, width, height = row["bbox"]
                corners = [x, y, x + width, y + height]
                csv.writer(file).writerow([names[row["image_id"]], labels[row["category_id"]], *corners])
        return str(out)

    return write


@pytest.fixture
def launcher():
    """``launcher(2)`` → the words that start a module in two processes."""
    return lambda ranks: [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(ranks),
        "-m",
    ]


@pytest.fixture
def lock_held():
    """``with lock_held(folder) as other``: another process holds the folder's lock, until a line is written
    to it or it is killed.
    """

    @contextlib.contextmanager
    def hold(folder):
        code = f"from spr_plugin.runs.lock import lock; lock({str(folder)!r}); print('held', flush=True)"
        words = [sys.executable, "-c", f"{code}; input()"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"held\n"
            yield other

    return hold


@pytest.fixture
def ordinary_user(tmp_path):
    """Context manager: inside, this process has no more rights than anybody."""
    if os.geteuid():
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def as_nobody():
        for path in tmp_path.parents:  # pytest's own folders are for their owner alone
            if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o055)  # for good: another worker's tests lie below too
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return as_nobody()


@pytest.fixture(scope="session")
def finished_output(tiny_world, tmp_path_factory):
    """``finished_output(output, regions, **flags)`` → an OUTPUT_DIR as a run leaves it; see
    :func:`tests.runs.finished.write`.
    """
    pytest.importorskip("transformers")
    from tests.runs import finished

    world, written = tiny_world(spr=24), {}

    def write(output, regions=12, **flags) -> Path:
        key = regions, *flags.items()
        if key not in written:
            written[key] = finished.write(world, tmp_path_factory.mktemp("finished"), regions, **flags)
        shutil.copytree(written[key], output, dirs_exist_ok=True)
        return Path(output)

    return write
