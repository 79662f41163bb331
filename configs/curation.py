"""Curation of web pages: the cascade of Marco-LLM, with FineWeb2's thresholds by language.

    marco curate --input='raw/*.jsonl.gz' --out=CORPUS --config=configs/curation.py --workers=8 \
        --config.benchmarks=items.jsonl

It runs on a CPU with the extra `curation`; docs/curation.md describes the steps, and
marco_jax/curation/curation_config.py the fields. Results: CORPUS/docs and CORPUS/pairs, which
--config.data=CORPUS of `marco train` reads, and CORPUS/report.html, what was removed and why.
"""

from ml_collections import ConfigDict

from marco_jax.curation.curation_config import curation_config


def get_config() -> ConfigDict:
    """The recipe: every field."""
    c = curation_config()

    # Addresses: no host is blocked or capped.
    c.blocked_hosts = ""
    c.host_cap = 0

    # Content: a short line of ten different documents is boilerplate.
    c.boilerplate_documents = 10

    # Language: all are kept. Lines in another language are removed, up to 30% of a page.
    c.languages = ""
    c.foreign_lines = 0.3

    # Perplexity: no model judges documents.
    c.perplexity_model = ""
    c.most_bits_per_byte = ""

    # Duplicates: Jaccard similarity of character 5-grams, and the share that lies in a longer one.
    c.near_duplicate = 0.6
    c.containment = 0.8
    c.rehydrate = False

    # Pairs: the least probability of being translations, by a judge that these pairs train.
    c.pair_similarity = 0.5
    c.lexicon_pairs = ""

    # Personal data, and benchmark items: none, until --config.benchmarks names files of them.
    c.mask_personal_data = True
    c.benchmarks = ""

    # Output: one file a language. The report counts tokens where a tokenizer is given.
    c.tokenizer = ""
    c.shards = 1
    return c
