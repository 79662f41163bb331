"""Fields of a curation config and their defaults."""

from __future__ import annotations

from ml_collections import ConfigDict


def curation_config() -> ConfigDict:
    """Every field with its default."""
    c = ConfigDict()
    # Hosts to leave out, with their subdomains: a file, a host a line.
    c.blocked_hosts = ""
    # The largest share of a page in lines of another language.
    c.foreign_lines = 0.2
    # Documents as similar as this (Jaccard, character 5-grams) are one.
    c.near_duplicate = 0.6
    # A document of which this share lies in a longer one is a copy of it.
    c.containment = 0.8
    # Benchmark items to keep out: JSONL files, comma-separated; every text field is an item's.
    c.benchmarks = ""
    c.mask_personal_data = True
    # Files a language.
    c.shards = 1
    return c


def check(config: ConfigDict) -> None:
    """Tells of values that make no sense.

    Raises:
        ValueError: a field, its value and what it should be.
    """
    for name in ("foreign_lines", "near_duplicate", "containment"):
        if not 0 < config[name] <= 1:
            raise ValueError(f"config.{name}={config[name]} is no share: write one of 0 to 1")
    if config.shards < 1:
        raise ValueError(f"config.shards={config.shards}: write 1 or more")
