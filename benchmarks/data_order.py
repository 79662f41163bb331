"""The data's order at the size of the paper's run: 300 billion tokens, resumed at any step.

    python -m benchmarks.data_order --tokens=300e9 --sources=35

Sources are indexes of document lengths alone; their tokens are made up when read. Printed: seconds
to count the sequences once, seconds from nothing to the batch of a far step, bytes of the state
that a checkpoint keeps, and how far the realised shares are from those asked for. There is nothing
beside it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile

import numpy as np

from benchmarks.common import Times
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.mixtures import Mixture
from marco_jax.data.store import TEXTS


class Lengths:
    """Enough of a token store: an index of lengths on disk, and ids by arithmetic."""

    kind, languages = TEXTS, ()

    def __init__(self, directory: pathlib.Path) -> None:
        """Opens what `write` has written."""
        self.directory = directory
        self.lengths = np.load(directory / "lengths.npy", mmap_mode="r")
        self.targets = int(self.lengths.sum(dtype=np.int64)) + len(self.lengths)
        self.fingerprint = directory.name

    @staticmethod
    def write(directory: pathlib.Path, tokens: float, mean: float, seed: int) -> None:
        """Log-normal lengths with a mean, in all about `tokens` tokens."""
        directory.mkdir()
        count = max(1, int(tokens / mean))
        lengths = np.random.default_rng(seed).lognormal(np.log(mean) - 0.32, 0.8, count)
        np.save(directory / "lengths.npy", lengths.astype(np.int32))

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Ids of a document."""
        return (document + np.arange(start, stop)).astype(np.int32) % 1000

    def read_loss_mask(self, document: int) -> np.ndarray:
        """All tokens are targets."""
        return np.ones(int(self.lengths[document]), np.float32)

    def language(self, document: int) -> int:
        """None is named."""
        return 0


def open_feed(root: pathlib.Path, shares: dict[str, float], args: argparse.Namespace) -> Feed:
    """The feed of a run that reads all tokens once."""
    stores = {name: Lengths(root / name) for name in shares}
    rows = int(args.tokens / args.length / args.steps)
    half = args.steps // 2
    stages = [
        Stage("stage1", Mixture("stage1", shares), half),
        Stage("stage2", Mixture("stage2", shares), args.steps - half),
    ]
    return build_feed(stores, stages, length=args.length, batch_rows=rows, seed=0, separator=0)


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=float, default=300e9)
    parser.add_argument("--sources", type=int, default=35)
    parser.add_argument("--length", type=int, default=4096, help="tokens a row")
    parser.add_argument("--steps", type=int, default=1_200_000)
    parser.add_argument("--step", type=int, default=1_000_000, help="where to resume")
    parser.add_argument("--mean", type=float, default=20_000, help="tokens a document")
    args = parser.parse_args()
    values = np.random.default_rng(1).dirichlet(np.full(args.sources, 2.0))
    shares = {f"source{n:02d}": float(value) for n, value in enumerate(values)}
    count, resume = Times(), Times()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for number, (name, share) in enumerate(shares.items()):
            Lengths.write(root / name, args.tokens * share, args.mean, number)
        state = count.call(lambda: open_feed(root, shares, args).state(args.step))

        def resumed() -> tuple[dict[str, np.ndarray], list[str]]:
            feed, changes = open_feed(root, shares, args).resumed(state, args.step)
            return feed.batch(args.step), changes

        batch, changes = resume.call(resumed)
    used = np.array([source["used"] for source in state["rows"].values()], float)
    result = {
        "tokens": args.tokens,
        "documents": int(args.tokens / args.mean),
        "step": args.step,
        "changes": changes,
        "seconds_to_count_rows_once": round(count.median, 1),
        "seconds_to_resume_and_read_a_batch": round(resume.median, 2),
        "state_bytes": len(json.dumps(state)),
        "batch_tokens": int(batch["loss_weights"].sum()),
        "largest_error_of_a_share": float(np.abs(used / used.sum() - values).max()),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
