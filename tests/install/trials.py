"""What is run in an environment that has an extra: the promises of that extra, at a tiny size."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

# Modules that need an extra, by the beginning of their names; all others are core.
ROOMS = {
    "marco_jax.curation": "curation",
    "marco_jax.data.builtin_sources": "demo",
    "marco_jax.data.knowledge": "demo",
    "marco_jax.evaluation.lm_eval_adapter": "harness",
}
CORE = "core"
ALL = "all"
# Extras that are installed and used; ALL is these together.
USER = (
    "demo",
    "plan",
    "curation",
    "sweep",
    "quantize",
    "hf",
    "wandb",
    "mlflow",
    "harness",
    "gcs",
    "s3",
)
# Extras that are resolved alone: machines without an accelerator cannot use them, or the tests do.
RESOLVED = ("tpu", "gpu", "docs", "test")

TEXTS = {
    "en": "the run saves its state and the next step reads a new batch of text",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін тоқтайды",
}
# Raw pages that curation keeps; between Malay and Indonesian a model of its own decides.
PAGES = {
    "text": "The river runs through the old market town. Every morning the teacher walks along its "
    "bank with a letter in her hand. She meets the people of the garden and talks about the "
    "winter. They like to remember how the bridge was built, long before the railway came to the "
    "valley.",
    "html": "My grandmother kept bees behind the house, and she knew what the weather would be by "
    "the sound of them. In the spring we carried the boxes up to the meadow where the clover was. "
    "It took the whole day, because we had to go slowly and the path was steep. When we came back "
    "in the evening there was bread with honey on the table, and she told us about her brothers.",
    "malay": "Nenek saya memelihara lebah di belakang rumah, dan dia tahu cuaca daripada bunyinya. "
    "Pada musim bunga kami membawa kotak itu ke padang tempat bunga tumbuh. Perjalanan itu memakan "
    "masa sehari kerana jalannya curam dan kami perlu berjalan perlahan. Apabila kami pulang pada "
    "waktu petang, ada roti dengan madu di atas meja, dan dia bercerita tentang abangnya.",
}
_SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
SMALL = (
    "--config.steps=3",
    "--config.log_every=1",
    "--config.evaluation.tasks=",
    "--config.batch.length=128",
    "--config.batch.sequences_per_chip=1",
    *(f"--config.model.{name}={value}" for name, value in _SIZE.items()),
)
DATA = ("--config.data=corpus.jsonl", "--config.tokenizer.vocab_size=320")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A command, its exit code, and what its output has to contain."""

    command: tuple[str, ...]
    code: int = 0
    says: str = ""


def write_files(folder: pathlib.Path) -> None:
    """Writes what the trials read: a corpus, conversations and raw pages."""
    rng = random.Random(0)
    rows = [
        {"id": f"{code} {n}", "language": code, "text": " ".join(rng.choices(text.split(), k=20))}
        for code, text in TEXTS.items()
        for n in range(200)
    ]
    chat = [
        {
            "messages": [
                {"role": "user", "content": f"write {n}"},
                {"role": "assistant", "content": f"the step {n}"},
            ]
        }
        for n in range(12)
    ]
    paragraphs = "".join(f"<p>{part}.</p>" for part in PAGES["html"].split("."))
    pages = [
        {"id": "text", "text": f"{PAGES['text']} Call +44 20 7946 0958."},
        {"id": "html", "text": f"<!DOCTYPE html><html><body>{paragraphs}</body></html>"},
        {"id": "malay", "text": PAGES["malay"]},
        {"id": "short", "text": "Click here"},
    ]
    source = {"name": "own", "kind": "chat", "language": "en", "files": "chat.jsonl"}
    for name, lines in {"corpus": rows, "chat": chat, "raw": pages}.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "chat.json").write_text(json.dumps({"sources": [{**source, "held_out": 0.0}]}))


def trials(name: str) -> list[Trial]:
    """The trials of core, of a user's extra, or of all of them; `marco` stands for our command."""
    extras = USER if name == ALL else () if name == CORE else (name,)
    found = [_imports(extras), *_TRAINED]
    if name in (CORE, ALL):
        found += _TUNED
    for extra in extras:
        found += _TRIALS[extra]
    if name == CORE:
        found += [*_MISSING, _REMEDY]
    return found


def _imports(extras: tuple[str, ...]) -> Trial:
    allowed = [room for room, extra in ROOMS.items() if extra not in extras]
    code = f"""
import importlib, pkgutil, marco_jax, marco_jax.extras
names = [m.name for m in pkgutil.walk_packages(marco_jax.__path__, "marco_jax.")]
names = [n for n in names if not n.startswith(tuple({allowed})) and not n.endswith("__main__")]
for extra in {list(extras)}:
    names += marco_jax.extras.EXTRAS[extra].modules
for name in names:
    importlib.import_module(name)
print(len(names), "modules imported")
"""
    return _python(code, "modules imported")


def _python(code: str, says: str = "") -> Trial:
    return Trial(("python", "-c", code), says=says)


def _missing(extra: str, *command: str) -> Trial:
    """One line with the remedy is all that a command without its extra says."""
    return Trial(command, code=2, says=f"[{extra}]'")


_TRAIN = ("marco", "train", f"--config={CONFIGS / 'demo.py'}", *SMALL)
_TRAINED = [
    Trial((*_TRAIN, "--workdir=run", *DATA)),
    Trial(("marco", "export", "--model=run", "--out=hf")),
    Trial(
        (
            *("marco", "eval", "--model=hf", "--tasks=bits_per_byte", "--languages=en,kk"),
            *("--data_dir=corpus.jsonl", "--limit=2", "--out=eval.json"),
        )
    ),
]
_TUNED = [
    Trial(("marco", "import", "--hf=hf", "--out=imported")),
    Trial(("marco", "report", "--workdir=run"), says="report.html"),
    Trial(
        (
            *("marco", "train", f"--config={CONFIGS / 'sft.py'}", "--workdir=sft", *SMALL),
            *("--config.init_from=run", "--config.data=chat.json", "--config.model.preset="),
            *("--config.dtype=float32", "--config.remat=none"),
        )
    ),
]
_PLAN = (
    *("marco", "plan", f"--config={CONFIGS / 'qwen2_0_5b.py'}", "--topology=v5e:2x2"),
    *("--config.model.preset=small", "--config.batch.length=512", "--config.mesh.fsdp=-1"),
)
_CURATE = (
    *("marco", "curate", f"--config={CONFIGS / 'curation.py'}", "--input=raw.jsonl"),
    "--out=curated",
)
_WANDB = (*_TRAIN, *DATA, "--workdir=watched", "--config.wandb.project=marco")
_MLFLOW = (
    *(*_TRAIN, *DATA, "--workdir=tracked", "--config.trackers=mlflow"),
    "--config.mlflow.tracking_uri=mlruns",
)
_QUANTIZED = (*_TRAIN, *DATA, "--workdir=rounded", "--config.quantize=int8")
_HARNESS = ("python", "-m", "marco_jax.lm_eval", "--help")
_SWEEP = (
    *("marco", "sweep", f"--config={CONFIGS / 'mixture_ablation.py'}", "--dry_run"),
    *("--workdir=sweep", "--config.data=corpus.jsonl", "--config.sweep.fit=lightgbm"),
    *("--config.tokenizer.path=run/tokenizer", "--config.sweep.units=sources"),
    *("--config.sweep.runs=16", "--config.sweep.max_epochs=1000000"),
)
_FIT = """
import numpy as np
from marco_jax.ablation import trees
weights = np.random.default_rng(0).dirichlet(np.ones(4), 24)
print("predicts", trees.fit_trees(weights, weights @ np.arange(4.0)).predict(weights[0]))
"""
_TOKENIZERS = """
import transformers
from marco_jax.tokenizers.tokenizer import load_tokenizer
text = "the run reads жаңа мәтін"
theirs = transformers.AutoTokenizer.from_pretrained("hf").encode(text)
assert theirs == load_tokenizer("hf").encode(text), theirs
print(transformers.AutoConfig.from_pretrained("hf").model_type)
"""
_SCORES = """
from lm_eval.api.instance import Instance
from marco_jax.evaluation.lm_eval_adapter import EngineLM
from marco_jax.lm_eval import load_engine
engine, params = load_engine("hf", 128, 512, "float32")
asked = Instance("loglikelihood", {}, ("the run", " saves its state"), 0)
print("scores", EngineLM(engine, params).loglikelihood([asked]))
"""
_RUNS = """
from mlflow import MlflowClient
from marco_jax.files import read_json_object, as_path
run = read_json_object(as_path("tracked/mlflow_run.json"))["id"]
history = MlflowClient(tracking_uri="mlruns").get_metric_history(run, "train/loss")
print(len(history), "steps")
"""
_PATH = """
from marco_jax.files import as_path
path = as_path("{0}://bucket") / "run"
print(path, type(path.files).__name__)
"""
_TRIALS = {
    "demo": [
        _python(
            "from marco_jax.data.load import load_corpus\n"
            "print(len(load_corpus('default').sources()), 'sources')",
            "31 sources",
        )
    ],
    "plan": [Trial(_PLAN, says="not measured on a chip")],
    "curation": [Trial(_CURATE, says="kept 3 of 4 documents")],
    "sweep": [
        Trial(_SWEEP, says="runs of 100 steps"),
        _python(_FIT, "predicts"),
    ],
    "quantize": [Trial(_QUANTIZED)],
    "hf": [_python(_TOKENIZERS, "qwen2")],
    "wandb": [Trial(_WANDB)],
    "mlflow": [Trial(_MLFLOW), _python(_RUNS, "3 steps")],
    "harness": [Trial(_HARNESS, says="--model_args"), _python(_SCORES, "scores")],
    # Without a network: the libraries are found, and take a path.
    "gcs": [_python(_PATH.format("gs"), "gs://bucket/run")],
    "s3": [_python(_PATH.format("s3"), "s3://bucket/run")],
}
_MISSING = [
    *(Trial(("marco", name, "--help"), says="usage:") for name in ("curate", "plan", "sweep")),
    _missing("demo", *_TRAIN, "--workdir=other"),
    _missing("plan", *_PLAN),
    _missing("curation", *_CURATE),
    _missing("sweep", *_SWEEP),
    _missing("quantize", *_QUANTIZED),
    _missing("wandb", *_WANDB),
    _missing("mlflow", *_MLFLOW),
    _missing("harness", *_HARNESS),
    _missing("gcs", "marco", "export", "--model=gs://bucket/run", "--out=other"),
    _missing("s3", "marco", "export", "--model=run", "--out=s3://bucket/run"),
]
# The command of such a line is one that pip takes.
_REMEDY = _python(
    "import subprocess\n"
    "from marco_jax.extras import install_command\n"
    "command = install_command('plan') + ' --dry-run -qq'\n"
    "print(command, subprocess.run(command, shell=True, check=True).returncode)",
    "[plan]",
)

assert set(_TRIALS) == set(USER), sys.exit("trials.py: an extra of USER has no trial")
