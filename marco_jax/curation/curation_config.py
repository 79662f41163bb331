"""Fields of a curation config and their defaults."""

from __future__ import annotations

from ml_collections import ConfigDict

from marco_jax.curation.documents import FIELDS
from marco_jax.languages import language_code, names_in

SHARES = ("foreign_lines", "near_duplicate", "containment", "pair_similarity")


def curation_config() -> ConfigDict:
    """The default curation config."""
    c = ConfigDict()
    # Codes of the languages to keep, comma-separated; empty for all.
    c.languages = ""
    # Names of fields in JSON Lines and Parquet, where they differ: "text=body,id=doc_id";
    # "content" and "lang" need no entry. Of text, html, id, url and language.
    c.fields = ""
    # A file with one host per line; pages of these hosts and their subdomains are rejected.
    c.blocked_hosts = ""
    # Documents to keep per host; 0 for all.
    c.host_cap = 0
    # A short line that occurs in so many different documents is boilerplate; 0 to keep all.
    c.boilerplate_documents = 10
    # Pages with a larger share of text in lines of another language are rejected; in other pages
    # these lines are removed.
    c.foreign_lines = 0.3
    # A model (a workdir or a Hugging Face directory) that scores documents in bits per byte, and
    # the maximum: a number, or one per language as "kk=1.9,ne=1.7"; empty for none.
    c.perplexity_model = ""
    c.most_bits_per_byte = ""
    # Documents of this similarity (Jaccard, character 5-grams) are near-duplicates.
    c.near_duplicate = 0.6
    # A document of which a longer one contains this share is a near-duplicate of it.
    c.containment = 0.8
    # Write `weight` with each kept document: how often to repeat it, by its number of duplicates.
    c.rehydrate = False
    # Pairs with a smaller probability, 0 to 1, of being translations are rejected.
    c.pair_similarity = 0.5
    # Further good pairs to train the judge of pairs with: TSV files named as in en-kk.tsv,
    # comma-separated.
    c.lexicon_pairs = ""
    # Benchmark items to keep out: JSONL files, comma-separated; every text field is matched.
    c.benchmarks = ""
    c.mask_personal_data = True
    # Directory of a tokenizer that counts tokens for the report; empty for no counts.
    c.tokenizer = ""
    # Files per language.
    c.shards = 1
    return c


def check(config: ConfigDict) -> None:
    """Checks the values of a curation config.

    Raises:
        ValueError: a value is invalid; the message gives the field, its value and the remedy.
    """
    for name in SHARES:
        if not 0 <= config[name] <= 1:
            raise ValueError(f"config.{name}={config[name]}: write a number from 0 to 1")
    for name, least in (("shards", 1), ("host_cap", 0), ("boilerplate_documents", 0)):
        if config[name] < least:
            raise ValueError(f"config.{name}={config[name]}: write {least} or more")
    if bool(config.perplexity_model) != bool(config.most_bits_per_byte):
        raise ValueError(
            "config.perplexity_model and config.most_bits_per_byte belong together: set both or "
            "neither"
        )
    bits_by_language(config.most_bits_per_byte)
    codes(config.languages)
    field_names(config.fields)


def codes(text: str) -> frozenset[str]:
    """Language codes of a comma-separated list, in any form that `language_code` reads.

    Raises:
        ValueError: an item is not a language.
    """
    found = {name: language_code(name) for name in names_in(text)}
    for name, code in found.items():
        if not code:
            raise ValueError(f"config.languages={text!r}: {name!r} is not a language: write kk,ne")
    return frozenset(found.values())


def field_names(text: str) -> dict[str, str]:
    """Parses "text=body,id=doc_id" into a record's names for the fields of a document.

    Raises:
        ValueError: an item is malformed or names another field.
    """
    names = {}
    for item in names_in(text):
        field, _, name = (part.strip() for part in item.partition("="))
        if field not in FIELDS or not name or field in names:
            raise ValueError(
                f"config.fields={text!r}: {item!r} cannot be used: write text=body,id=doc_id, each "
                f"of {', '.join(FIELDS)} at most once"
            )
        names[field] = name
    return names


def bits_by_language(text: str) -> dict[str, float]:
    """Parses bounds by language from "2.0" or "kk=1.9,ne=1.7"; "" is every other language.

    Raises:
        ValueError: a bound is not a number.
    """
    bounds = {}
    for part in names_in(str(text)):
        code, _, number = part.rpartition("=")
        try:
            bounds[code] = float(number)
        except ValueError:
            message = f"config.most_bits_per_byte={text!r}: {part!r} is not a number"
            raise ValueError(f"{message}: write 2.0, or kk=1.9,ne=1.7") from None
    return bounds
