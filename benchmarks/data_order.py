"""The data's order at the size of the paper's run: 300 billion tokens, resumed at any step.

    python -m benchmarks.data_order --tokens=300e9 --sources=35

Sources are indexes of document lengths alone; their tokens are made up when read. A plan of 300
billion tokens has 1,200,000 steps and is resumed at step 1,000,000; a smaller one has fewer, and is
resumed after the same part of them. Printed: seconds to count the sequences once, seconds from
nothing to the batch of a far step, bytes of the state that a checkpoint keeps, and how far the
realised shares are from those asked for. There is nothing beside it.
"""

from __future__ import annotations

import json
import pathlib
import tempfile

import numpy as np

from benchmarks.common import Times, print_json, read_flags
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.mixtures import Mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.store import TEXTS

LENGTH, STEPS, RESUMED = 4096, 1_200_000, 1_000_000
DOCUMENT = 20_000  # tokens, on average


class Lengths:
    """Enough of a token store: an index of lengths on disk, and ids by arithmetic."""

    kind, languages = TEXTS, ()

    def __init__(self, path: pathlib.Path) -> None:
        """Opens what `write` has written."""
        self.directory, self.fingerprint = path.parent, path.name
        self.lengths = np.load(path, mmap_mode="r")
        self.manifest = {"errors": {}}
        self.targets = int(self.lengths.sum(dtype=np.int64)) + len(self.lengths)

    @staticmethod
    def write(path: pathlib.Path, tokens: float, seed: int) -> None:
        """Log-normal lengths, in all about `tokens` tokens."""
        count = max(1, int(tokens / DOCUMENT))
        lengths = np.random.default_rng(seed).lognormal(np.log(DOCUMENT) - 0.32, 0.8, count)
        np.save(path, lengths.astype(np.int32))

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Ids of a document."""
        return (document + np.arange(start, stop)).astype(np.int32) % 1000

    def read_loss_mask(self, document: int) -> np.ndarray:
        """All tokens are targets."""
        return np.ones(int(self.lengths[document]), np.float32)

    def language(self, document: int) -> int:
        """None is named."""
        return 0


def open_feed(root: pathlib.Path, shares: dict[str, float], tokens: float) -> Feed:
    """The feed of a run that reads all tokens once, in STEPS steps unless there are too few."""
    stores = {name: Lengths(root / f"{name}.npy") for name in shares}
    rows = max(1, int(tokens / LENGTH / STEPS))
    steps = max(2, min(STEPS, int(tokens / LENGTH / rows)))
    packed = pack_sources(stores, length=LENGTH, seed=0, eos_id=0)
    mixture = Mixture("all", shares)
    stages = [Stage("stage1", mixture, steps // 2), Stage("stage2", mixture, steps - steps // 2)]
    return build_feed(packed, stages, length=LENGTH, batch_rows=rows, seed=0)


def share_error(feed: Feed, step: int, shares: dict[str, float]) -> float:
    """The largest difference between a realised share of target tokens and the one asked for."""
    described, state = feed.describe()["sources"], feed.state(step)
    # Mean target tokens of a row, times the rows that were read.
    read = {
        name: described[name]["tokens"] / described[name]["rows"] * state["rows"][name]["used"]
        for name in shares
    }
    total = sum(read.values())
    return max(abs(read[name] / total - share) for name, share in shares.items())


def main() -> None:
    """Measures and prints JSON."""
    args = read_flags(__doc__, tokens=(300e9, "of all sources"), sources=(35, "of random shares"))
    values = np.random.default_rng(1).dirichlet(np.full(args.sources, 2.0))
    shares = {f"source{n:02d}": float(value) for n, value in enumerate(values)}
    count, resume = Times(), Times()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for number, (name, share) in enumerate(shares.items()):
            Lengths.write(root / f"{name}.npy", args.tokens * share, number)
        feed = count.call(lambda: open_feed(root, shares, args.tokens))
        steps = sum(stage["steps"] for stage in feed.describe()["stages"])
        step = int(steps * RESUMED / STEPS)
        state = feed.state(step)
        resume.call(
            lambda: open_feed(root, shares, args.tokens).resumed(state, step)[0].batch(step)
        )
        error = share_error(feed, step, shares)
    result = {
        "steps": steps,
        "resumed_at_step": step,
        "seconds_to_count_rows_once": round(count.median, 1),
        "seconds_to_resume_and_read_a_batch": round(resume.median, 2),
        "state_bytes": len(json.dumps(state)),
        "largest_error_of_a_share": error,
    }
    print_json(result)


if __name__ == "__main__":
    main()
