"""The input pipeline alone, beside plain `datasets` and `tokenizers` doing the same work.

    python -m benchmarks.feed --data=../shared/corpora --length=2048 --rounds=3

Both sides start from the same texts in memory and the same tokenizer (--tokenizer: a directory with
tokenizer.json; by default SentencePiece is trained on the data), tokenise them, shuffle documents,
make rows of --length tokens and hand out numpy batches of one epoch. Ours packs whole documents,
writes them to disk on the way and keeps sources apart; the other side joins and cuts, in one
stream. Sides take turns; what is printed is a ratio of medians. Reading what is tokenised already
is timed as well: that is what a run does from its second start on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np
import tokenizers

from marco_jax.data.corpus import TRAIN, Corpus
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Mixture, Within, get_mixture
from marco_jax.data.prepare import prepare_stores
from marco_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece

BATCH_ROWS = 8


def make_feed(corpus: Corpus, tokenizer: Tokenizer, length: int, cache: pathlib.Path) -> Feed:
    """Tokenises what is missing; the feed of about one epoch of everything."""
    names = corpus.sources()
    stores = prepare_stores(corpus, tokenizer, names, cache)
    sizes = {name: store.targets for name, store in stores.items()}
    # Every source by its size: each is read once.
    mixture = get_mixture("all", corpus.infos(), Within("proportional"), sizes)
    large = {name: share for name, share in mixture.shares.items() if share > 1e-5}
    total = sum(large.values())
    mixture = Mixture("all", {name: share / total for name, share in large.items()})
    options = {"length": length, "batch_rows": BATCH_ROWS, "seed": 0}
    options["separator"] = tokenizer.eos_id
    rows = sum(sizes.values()) / length
    steps = max(1, round(rows / BATCH_ROWS))
    return build_feed(stores, [Stage("all", mixture, steps)], **options)


def read(feed: Feed) -> tuple[int, int]:
    """Target tokens and places of all batches of a feed."""
    tokens = places = 0
    (stage,) = feed.describe()["stages"]
    for batch in feed.iterate(0, stage["steps"]):
        tokens += int(batch["loss_weights"].sum())
        places += batch["loss_weights"].size
    return tokens, places


def their_epoch(texts: list[str], tokenizer_file: str, length: int, separator: int) -> int:
    """Tokens of an epoch through `datasets`: map, shuffle, join and cut, batches of numpy."""
    import datasets

    datasets.disable_progress_bars()
    backend = tokenizers.Tokenizer.from_file(tokenizer_file)

    def tokenise(rows: dict) -> dict:
        encoded = backend.encode_batch(rows["text"], add_special_tokens=False)
        return {"ids": [[*one.ids, separator] for one in encoded]}

    def join(rows: dict) -> dict:
        ids = np.concatenate(rows["ids"])
        whole = len(ids) // length * length
        return {"tokens": ids[:whole].reshape(-1, length)}

    data = datasets.Dataset.from_dict({"text": texts})
    data = data.map(tokenise, batched=True, remove_columns=["text"]).shuffle(seed=0)
    data = data.map(join, batched=True, batch_size=1000, remove_columns=["ids"])
    tokens = 0
    for batch in data.with_format("numpy").iter(BATCH_ROWS):
        tokens += batch["tokens"].size
    return tokens


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="default", help="as config.data")
    parser.add_argument("--tokenizer", default="", help="a directory; empty: train one")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    corpus = load_corpus(args.data)
    texts = [
        document.text for source in corpus.sources() for document in corpus.documents(source, TRAIN)
    ]
    rates: dict[str, list[float]] = {"marco_jax": [], "datasets": [], "marco_jax_again": []}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        directory = args.tokenizer or root / "tokenizer"
        if not args.tokenizer:
            step = max(1, len(texts) // 20_000)
            train_sentencepiece(iter(texts[::step]), 8192, directory)
        tokenizer = load_tokenizer(directory)
        tokenizer.save(root / "saved")
        # TensorFlow's import is no part of the work.
        make_feed(load_corpus("default"), tokenizer, args.length, root / "warm").batch(0)
        for number in range(args.rounds):
            cache = root / f"cache{number}"
            begin = time.perf_counter()
            feed = make_feed(corpus, tokenizer, args.length, cache)
            tokens, places = read(feed)
            rates["marco_jax"].append(tokens / (time.perf_counter() - begin))
            begin = time.perf_counter()
            file = str(root / "saved/tokenizer.json")
            theirs = their_epoch(texts, file, args.length, tokenizer.eos_id)
            rates["datasets"].append(theirs / (time.perf_counter() - begin))
            begin = time.perf_counter()
            tokens, places = read(make_feed(corpus, tokenizer, args.length, cache))
            rates["marco_jax_again"].append(tokens / (time.perf_counter() - begin))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(
        json.dumps(
            {
                "data": args.data,
                "sources": len(feed.sources),
                "tokens": tokens,
                "length": args.length,
                "tokens_per_second": {name: round(value) for name, value in medians.items()},
                "ratio": round(medians["marco_jax"] / medians["datasets"], 3),
                "padding": round(1 - tokens / places, 4),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
