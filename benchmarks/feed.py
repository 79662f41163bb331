"""The input pipeline alone, beside plain `datasets` and `tokenizers` doing the same work.

    python -m benchmarks.feed --data=../shared/corpora --length=2048 --rounds=3

Both sides start from the same texts in memory and the same tokenizer (--tokenizer: a directory with
tokenizer.json; by default SentencePiece is trained on the data), tokenise them, shuffle documents,
make sequences of --length tokens and hand out numpy batches of one epoch. A packs whole documents,
writes them to disk on the way and keeps sources apart; B joins and cuts, in one stream. The sides
take turns, an epoch each; `ratio` is A's tokens a second over B's, by medians. Reading what is
tokenised already is timed as well: that is what a run does from its second start on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import tempfile

import numpy as np
import tokenizers

from benchmarks.common import OURS, take_turns
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
    shares = get_mixture("all", corpus.infos(), Within("proportional"), sizes).shares
    large = {name: share for name, share in shares.items() if share > 1e-5}
    total = sum(large.values())
    mixture = Mixture("all", {name: share / total for name, share in large.items()})
    steps = max(1, round(sum(sizes.values()) / length / BATCH_ROWS))
    options = {"length": length, "batch_rows": BATCH_ROWS, "separator": tokenizer.eos_id}
    return build_feed(stores, [Stage("all", mixture, steps)], seed=0, **options)


def read(feed: Feed) -> tuple[int, int]:
    """Target tokens and positions of all batches of a feed."""
    tokens = positions = 0
    (stage,) = feed.describe()["stages"]
    for batch in feed.iterate(0, stage["steps"]):
        tokens += int(batch["loss_weights"].sum())
        positions += batch["loss_weights"].size
    return tokens, positions


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
    return sum(batch["tokens"].size for batch in data.with_format("numpy").iter(BATCH_ROWS))


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="default", help="as config.data")
    parser.add_argument("--tokenizer", default="", help="a directory; empty: train one")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    corpus, length = load_corpus(args.data), args.length
    texts = [
        document.text for source in corpus.sources() for document in corpus.documents(source, TRAIN)
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        directory = args.tokenizer or root / "tokenizer"
        if not args.tokenizer:
            step = max(1, len(texts) // 20_000)
            train_sentencepiece(iter(texts[::step]), 8192, directory)
        tokenizer = load_tokenizer(directory)
        tokenizer.save(root / "saved")
        file = str(root / "saved/tokenizer.json")
        # TensorFlow's import is not part of the work.
        make_feed(load_corpus("default"), tokenizer, length, root / "warm").batch(0)
        folders = itertools.count()

        def ours(number: int) -> tuple[int, int]:
            return read(make_feed(corpus, tokenizer, length, root / f"cache{number}"))

        sides = {
            OURS: lambda: ours(next(folders)),
            "datasets": lambda: their_epoch(texts, file, length, tokenizer.eos_id),
            "marco_jax_again": lambda: ours(0),
        }
        times = take_turns(sides, args.rounds)
        feed = make_feed(corpus, tokenizer, length, root / "cache0")
    tokens, positions = times[OURS].answer
    counts = {OURS: tokens, "datasets": times["datasets"].answer, "marco_jax_again": tokens}
    rates = {name: counts[name] / found.median for name, found in times.items()}
    result = {
        "data": args.data,
        "sources": len(feed.sources),
        "tokens": tokens,
        "length": length,
        "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(rates[OURS] / rates["datasets"], 3),
        "padding": round(1 - tokens / positions, 4),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
