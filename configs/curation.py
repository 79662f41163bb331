"""Curation of web pages: the cascade of Marco-LLM with FineWeb2's thresholds by language.

Fields are those of marco_jax/curation/curation_config.py, e.g. `--config.benchmarks=items.jsonl`.
"""

from ml_collections import ConfigDict

from marco_jax.curation.curation_config import curation_config


def get_config() -> ConfigDict:
    """The defaults."""
    return curation_config()
