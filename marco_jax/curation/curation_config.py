"""Fields of a curation config and their defaults."""

from __future__ import annotations

from ml_collections import ConfigDict

from marco_jax.languages import names_in

SHARES = ("foreign_lines", "near_duplicate", "containment", "pair_similarity")


def curation_config() -> ConfigDict:
    """Every field with its default."""
    c = ConfigDict()
    # Codes of the languages to keep, comma-separated; empty for all.
    c.languages = ""
    # Hosts to leave out, with their subdomains: a file, a host a line.
    c.blocked_hosts = ""
    # Documents to keep of one host; 0 for all.
    c.host_cap = 0
    # A short line that stands in so many different documents is boilerplate; 0 to keep all.
    c.boilerplate_documents = 10
    # The largest share of a page in lines of another language; fewer lines are taken out.
    c.foreign_lines = 0.3
    # A model (a workdir or a Hugging Face directory) whose bits a byte judge documents, and the
    # most that are allowed: a number, or one a language as "kk=1.9,ne=1.7"; empty for none.
    c.perplexity_model = ""
    c.most_bits_per_byte = ""
    # Documents as similar as this (Jaccard, character 5-grams) are one.
    c.near_duplicate = 0.6
    # A document of which this share lies in a longer one is a copy of it.
    c.containment = 0.8
    # Write how often a kept document of a group of copies is worth reading, as `weight`.
    c.rehydrate = False
    # Pairs whose words translate one another less than this, 0 to 1, are no translations.
    c.pair_similarity = 0.5
    # Good pairs to learn such words from besides: TSV files named as in en-kk.tsv, comma-separated.
    # From less than a thousand pairs in all nothing is learnt, and nothing judged.
    c.lexicon_pairs = ""
    # Benchmark items to keep out: JSONL files, comma-separated; every text field is an item's.
    c.benchmarks = ""
    c.mask_personal_data = True
    # A tokenizer's directory: the report then counts tokens.
    c.tokenizer = ""
    # Files a language.
    c.shards = 1
    return c


def check(config: ConfigDict) -> None:
    """Tells of values that make no sense.

    Raises:
        ValueError: a field, its value and what it should be.
    """
    for name in SHARES:
        if not 0 <= config[name] <= 1:
            raise ValueError(f"config.{name}={config[name]} is no share: write one of 0 to 1")
    for name, least in (("shards", 1), ("host_cap", 0), ("boilerplate_documents", 0)):
        if config[name] < least:
            raise ValueError(f"config.{name}={config[name]}: write {least} or more")
    if bool(config.perplexity_model) != bool(config.most_bits_per_byte):
        raise ValueError(
            "config.perplexity_model and config.most_bits_per_byte go together: set both or none"
        )
    bits_by_language(config.most_bits_per_byte)


def codes(text: str) -> frozenset[str]:
    """Codes of a comma-separated list."""
    return frozenset(names_in(text))


def bits_by_language(text: str) -> dict[str, float]:
    """Bounds by language from "2.0" or "kk=1.9,ne=1.7"; "" stands for every other language.

    Raises:
        ValueError: no number.
    """
    bounds = {}
    for part in names_in(str(text)):
        code, _, number = part.rpartition("=")
        try:
            bounds[code] = float(number)
        except ValueError:
            message = f"config.most_bits_per_byte={text!r}: {part!r} is no number"
            raise ValueError(f"{message}: write 2.0, or kk=1.9,ne=1.7") from None
    return bounds
