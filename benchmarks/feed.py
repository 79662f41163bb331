"""The input pipeline alone, beside plain `datasets` and `tokenizers` doing the same work.

    python -m benchmarks.feed --data=../shared/corpora --length=2048 --rounds=3

Both sides start from the same texts in memory and the same tokenizer (SentencePiece, trained on the
data), tokenise them, shuffle documents, make sequences of --length tokens and hand out numpy
batches of one epoch. A packs whole documents,
writes them to disk on the way and keeps sources apart; B joins and cuts, in one stream. The sides
take turns, an epoch each; `ratio` is A's tokens a second over B's, by medians. Reading what is
tokenised already is timed as well: that is what a run does from its second start on.
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile

import numpy as np
import tokenizers

from benchmarks.common import OURS, print_json, read_flags, take_turns
from marco_jax.data.corpus import Corpus
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Within, get_mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.texts import TRAIN
from marco_jax.tokenizers.tokenizer import Tokenizer, train_sentencepiece

BATCH_ROWS = 8
AGAIN = "marco_jax_again"


def make_feed(corpus: Corpus, tokenizer: Tokenizer, length: int, cache: pathlib.Path) -> Feed:
    """Tokenises what is missing; the feed of about one epoch of everything."""
    names = corpus.sources()
    stores = prepare_stores(corpus, tokenizer, names, cache)
    sizes = {name: store.targets for name, store in stores.items()}
    # Every source by its size: each is read once.
    mixture = get_mixture("all", corpus.infos(), Within("proportional"), sizes)
    steps = max(1, round(sum(sizes.values()) / length / BATCH_ROWS))
    packed = pack_sources(stores, length=length, seed=0, eos_id=tokenizer.eos_id)
    stages = [Stage("all", mixture, steps)]
    return build_feed(packed, stages, length=length, batch_rows=BATCH_ROWS, seed=0)


def read(feed: Feed) -> tuple[int, int]:
    """Target tokens and positions of all batches of a feed."""
    tokens = positions = 0
    (stage,) = feed.describe()["stages"]
    for batch in feed.iterate(0, stage["steps"]):
        tokens += int(batch["loss_weights"].sum())
        positions += batch["loss_weights"].size
    return tokens, positions


def their_epoch(
    texts: list[str], tokenizer_file: str, length: int, separator: int
) -> tuple[int, int]:
    """The same of an epoch through `datasets`: map, shuffle, join and cut, batches of numpy."""
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
    tokens = sum(batch["tokens"].size for batch in data.with_format("numpy").iter(BATCH_ROWS))
    return tokens, tokens


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(
        __doc__,
        data=("default", "as config.data"),
        length=(2048, "tokens of a sequence"),
        rounds=(3, "turns of each side"),
        vocabulary=(8192, "entries of the tokenizer"),
    )
    corpus, length = load_corpus(args.data), args.length
    texts = [
        document.text for source in corpus.sources() for document in corpus.documents(source, TRAIN)
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        sample = texts[:: max(1, len(texts) // 20_000)]
        tokenizer = train_sentencepiece(iter(sample), args.vocabulary, root / "tokenizer")
        file = str(root / "tokenizer/tokenizer.json")
        # TensorFlow's import is not part of the work.
        make_feed(load_corpus("default"), tokenizer, length, root / "warm").batch(0)
        folders = itertools.count()
        sides = {
            OURS: lambda: read(make_feed(corpus, tokenizer, length, root / str(next(folders)))),
            "datasets": lambda: their_epoch(texts, file, length, tokenizer.eos_id),
            AGAIN: lambda: read(make_feed(corpus, tokenizer, length, root / "0")),
        }
        times = take_turns(sides, args.rounds)
    rates = {name: found.answer[0] / found.median for name, found in times.items()}
    tokens, positions = times[OURS].answer
    result = {
        "tokens": tokens,
        "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(rates[OURS] / rates["datasets"], 3),
        "padding": round(1 - tokens / positions, 4),
    }
    print_json(result)


if __name__ == "__main__":
    main()
