"""Tokenising a JSONL file with several processes, beside `datasets` and `tokenizers` doing it.

    python -m benchmarks.preparation --megabytes=40 --workers=2 --rounds=3

Both sides read the same file (seeded random words of four scripts), tokenise it with the same
byte-level BPE tokenizer of Qwen2's kind, trained on it, and write ids to disk. A is
`prepare_stores`, which also hashes sentences to keep held-out texts out, and writes checksums; B is
`load_dataset` and `map(batched=True, num_proc=...)`. The sides take turns; `ratio` is A's tokens a
second over B's, by medians. A's processes are started once: the seconds for that are printed.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import random
import tempfile
import time

import tokenizers

from benchmarks.common import OURS, print_json, read_flags, take_turns
from marco_jax.data.load import load_corpus
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.workers import Context, Workers
from marco_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer, qwen2_tokenizer

# First letters of scripts, and how many follow.
SCRIPTS = {"en": ("a", 26), "kk": ("а", 32), "he": ("א", 27), "ko": ("가", 800)}
DOCUMENT_WORDS = (20, 800)


def write_corpus(path: pathlib.Path, size: int) -> None:
    """About `size` bytes of JSONL: words by Zipf's law, sentences, one language a document."""
    rng = random.Random(0)
    words = {code: _make_words(rng, first, count) for code, (first, count) in SCRIPTS.items()}
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(20_000)))
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            code = rng.choice(list(SCRIPTS))
            count = rng.randint(*DOCUMENT_WORDS)
            chosen = rng.choices(words[code], cum_weights=weights, k=count)
            for end in range(12, count, 17):
                chosen[end] += "."
            row = {"text": " ".join(chosen), "language": code}
            line = json.dumps(row, ensure_ascii=False) + "\n"
            written += len(line.encode())
            file.write(line)


def _make_words(rng: random.Random, first: str, count: int) -> list[str]:
    letters = [chr(ord(first) + n) for n in range(count)]
    return ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(20_000)]


def train(path: pathlib.Path, directory: pathlib.Path, entries: int) -> Tokenizer:
    """A tokenizer with the parts of Qwen2's, trained on the first documents of a file."""
    backend = qwen2_tokenizer({}, []).backend
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.normalizer, trained.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=entries,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with path.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in itertools.islice(file, 2000)]
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    qwen2_tokenizer(model["vocab"], [tuple(merge) for merge in model["merges"]]).save(directory)
    return load_tokenizer(directory)


def their_tokens(path: pathlib.Path, file: str, cache: pathlib.Path, processes: int) -> int:
    """Tokenises with `datasets`; how many tokens there are."""
    import datasets

    datasets.disable_progress_bars()
    backend = tokenizers.Tokenizer.from_file(file)

    def tokenise(rows: dict) -> dict:
        encoded = backend.encode_batch(rows["text"], add_special_tokens=False)
        return {"ids": [one.ids for one in encoded]}

    options = {"split": "train", "cache_dir": str(cache)}
    data = datasets.load_dataset("json", data_files=str(path), **options)
    columns = data.column_names
    data = data.map(tokenise, batched=True, num_proc=processes, remove_columns=columns)
    lists = (chunk for chunk in data.data.column("ids").chunks)
    return sum(len(chunk.flatten()) for chunk in lists)


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        megabytes=(40.0, "of JSONL"),
        workers=(2, "processes of each side"),
        rounds=(3, "turns of each side"),
        vocabulary=(16_000, "entries of the tokenizer"),
    )
    try:
        import datasets  # noqa: F401
    except ImportError:
        print("skipped: the package datasets is not installed (pip install datasets)")
        return
    # The processes are the parallelism.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        path = root / "texts.jsonl"
        write_corpus(path, int(args.megabytes * 1e6))
        tokenizer = train(path, root / "tokenizer", args.vocabulary)
        source = {"name": "texts", "kind": "text", "language": "kk", "files": "texts.jsonl"}
        # Nothing is held out, so that both sides have the same tokens.
        (root / "data.json").write_text(json.dumps({"sources": [source | {"held_out": 0.0}]}))
        corpus = load_corpus(str(root / "data.json"))
        folders = (root / str(number) for number in itertools.count())
        with Workers(args.workers, Context(corpus, tokenizer)) as workers:

            def our_tokens() -> int:
                stores = prepare_stores(
                    corpus, tokenizer, ["texts"], next(folders), workers=workers
                )
                return stores["texts"].tokens

            begin = time.perf_counter()
            waits = [0.2] * (4 * args.workers)
            for _ in workers.map("benchmarks.preparation:wait", waits):
                pass
            started = time.perf_counter() - begin
            file = str(root / "tokenizer/tokenizer.json")
            sides = {
                OURS: our_tokens,
                "datasets": lambda: their_tokens(path, file, next(folders), args.workers),
            }
            times = take_turns(sides, args.rounds)
    tokens = {name: found.answer for name, found in times.items()}
    if tokens[OURS] != tokens["datasets"]:
        raise SystemExit(f"the sides disagree about the tokens: {tokens}")
    rates = {name: found.answer / found.median for name, found in times.items()}
    result = {
        "tokens": tokens[OURS],
        "seconds_to_start_processes": round(started, 1),
        "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(rates[OURS] / rates["datasets"], 3),
    }
    print_json(result)


def wait(context: Context, seconds: float) -> None:
    """Keeps a process busy until the others have started."""
    del context
    time.sleep(seconds)


if __name__ == "__main__":
    main()
