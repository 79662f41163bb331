"""Makes the folder that a machine with a GPU and no network needs, and cuts it into pieces.

    python -m benchmarks.gpu.prepare --model=QWEN2_5_0_5B --data=CORPUS --benchmarks=BENCHMARKS \
        --out=runs/gpu_kit --python=3.12

The machine has jax, flax, optax and orbax-checkpoint. The kit has the other packages that training
and evaluation import, as wheels; the package itself; the model in bfloat16; the corpus, and its
tokens, so that neither TensorFlow nor SeqIO is imported there; and the benchmarks of the study.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from benchmarks.gpu.pieces import cut

# Besides what comes with JAX, Flax and Orbax.
PACKAGES = (
    *("ml-collections", "regex", "scipy", "threadpoolctl", "py3langid", "langcodes", "sacrebleu"),
    *("tensorboardX", "tqdm", "PyYAML", "portalocker", "tabulate", "colorama", "tokenizers"),
    *("jinja2", "MarkupSafe", "huggingface-hub", "lxml", "packaging"),
    "protobuf",
)
SOURCE = ("marco_jax", "benchmarks", "experiments", "configs")
BENCHMARKS = ("xcopa", "belebele")
CONFIG = "configs/real_base.py"


def save_wheels(folder: pathlib.Path, python: str) -> None:
    """Downloads the wheels of PACKAGES for Linux on x86-64 and a version of Python."""
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (28, 27, 26, 24, 17)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder)]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    command += [*platforms, "--platform=manylinux2014_x86_64", *PACKAGES]
    subprocess.run(command, check=True)


def save_model(model: str, folder: pathlib.Path) -> None:
    """The model in bfloat16, the type that it is published in."""
    command = [sys.executable, "-m", "marco_jax", "export", f"--model={model}", f"--out={folder}"]
    subprocess.run([*command, "--dtype=bfloat16"], check=True)


def save_tokens(model: pathlib.Path, data: pathlib.Path, folder: pathlib.Path) -> None:
    """The tokens of the corpus, in a cache that runs of the study read."""
    from experiments.real_base.commands import DEVICES
    from marco_jax.data.load import load_corpus
    from marco_jax.data.run_tokenizer import find_tokenizer
    from marco_jax.data.training_data import TrainingData
    from marco_jax.training.config import load_config, plan_run
    from marco_jax.weights.models import find_model

    given = {**DEVICES["gpu"], "data": data, "data_cache": folder, "init_from": model}
    config = load_config(CONFIG, [f"{name}={value}" for name, value in given.items()])
    corpus = load_corpus(config.data, config.seed)
    with tempfile.TemporaryDirectory() as workdir:
        tokenizer = find_tokenizer(
            config, corpus, pathlib.Path(workdir), find_model(str(model)).tokenizer
        )
        plan = plan_run(config, config.batch.sequences_per_chip)
        TrainingData(config, pathlib.Path(workdir), corpus, tokenizer, plan).close()


def main() -> None:
    """Makes the kit in OUT/kit, and its pieces in OUT/pieces."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a Hugging Face directory")
    parser.add_argument("--data", required=True, type=pathlib.Path, help="a directory of corpora")
    parser.add_argument("--benchmarks", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--python", default="3.12", help="version of the machine's Python")
    parser.add_argument("--megabytes", type=int, default=60, help="of a piece, in MiB")
    given = parser.parse_args()
    kit = given.out / "kit"
    if given.out.exists() and any(given.out.iterdir()):
        sys.exit(f"--out is {given.out}, which has files: name an empty folder")
    save_wheels(kit / "wheels", given.python)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCE:
        shutil.copytree(name, kit / "source" / name, ignore=ignored)
    shutil.copytree(given.data, kit / "corpus", ignore=ignored)
    for name in BENCHMARKS:
        shutil.copytree(given.benchmarks / name, kit / "benchmarks" / name)
    save_model(given.model, kit / "model")
    save_tokens(kit / "model", kit / "corpus", kit / "data")
    names = cut(kit, given.out / "pieces", given.megabytes << 20)
    print(f"{len(names)} pieces of at most {given.megabytes} MiB in {given.out / 'pieces'}")


if __name__ == "__main__":
    main()
