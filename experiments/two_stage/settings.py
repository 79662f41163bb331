"""The fields of a chain: one config, of which every part is a training config."""

from __future__ import annotations

from ml_collections import ConfigDict


def chain_config(pretrain: ConfigDict, sft: ConfigDict, dpo: ConfigDict) -> ConfigDict:
    """A chain of three runs; `--config.sft.steps=100` sets a field of one of them.

    Args:
        pretrain: base, Stage-I and Stage-II, or what of them its `stages` name.
        sft: fine-tuning. Where its `data` is empty, the chain makes translation requests from the
            pairs of the pretraining corpus.
        dpo: preferences. Where its `data` is empty, the chain lets the fine-tuned model answer
            such requests several times, and ranks its answers by chrF++.
    """
    return ConfigDict(
        {
            "pretrain": pretrain,
            "sft": sft,
            "dpo": dpo,
            # Of data that the chain makes, counts a language: pairs to learn, requests to answer
            # with so many samples each, held-out requests. Answers to one request whose chrF++
            # differs by less than `least_gap` do not make a pair.
            "own_data": {
                "pairs": 400,
                "requests": 60,
                "samples": 6,
                "temperature": 1.0,
                "least_gap": 3.0,
                "held_out": 20,
            },
            # Of the exported weights; empty: as they are stored.
            "export_dtype": "",
        }
    )
