"""Checks whether an answer follows the verifiable instructions of Marco-Bench-MIF and IFEval.

An instruction is a name such as "length_constraints:number_words" with its arguments. The rules
follow Marco-Bench-MIF's evaluation script (AIDC-AI/Marco-LLM, Marco-Bench-MIF, Apache-2.0), which
adapts IFEval (arXiv 2311.07911) to 30 languages. This module differs where that script is random,
needs data that no package ships, or fails for scripts without spaces:

- Languages are identified by py3langid, not by langdetect, which is random.
- Sentences end at the end marks of all scripts; the script uses punkt for English, which knows
  only ASCII marks. Words in capitals are found by a pattern, not by punkt.
- A letter outside a-z is counted; the script replaces it by a random letter.
- Words with combining marks and words of scripts without spaces are found; in the script their
  ends do not count as word boundaries. Keywords are texts, not patterns.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import regex

from marco_jax.evaluation import instruction_texts as texts
from marco_jax.evaluation.metrics import is_in_language

IDS, ARGUMENTS = "instruction_id_list", "kwargs"


class Instruction(NamedTuple):
    """A verifiable instruction: a key of CHECKERS, and the checker's arguments."""

    name: str
    arguments: Mapping[str, Any]


def instructions_of(fields: Mapping[str, Any], location: str) -> tuple[Instruction, ...]:
    """Reads the instructions of a record with `instruction_id_list` and `kwargs`.

    Arguments that are None are left out: some files list every argument for every instruction.

    Raises:
        ValueError: the record at `location` has no instructions, names an unknown one, or lacks
            an argument.
    """
    names, arguments = fields.get(IDS), fields.get(ARGUMENTS)
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise ValueError(f'{location} has no list "{IDS}" of instructions')
    if not isinstance(arguments, Sequence) or len(arguments) != len(names):
        raise ValueError(
            f'{location}: "{ARGUMENTS}" does not hold an object for each of {len(names)} names'
        )
    found = []
    for name, given in zip(names, arguments, strict=True):
        if name not in CHECKERS:
            raise ValueError(f"{location}: the instruction {name!r} is unknown")
        given = {key: value for key, value in (given or {}).items() if value is not None}
        instruction = Instruction(name, given)
        try:
            follows(instruction, "0")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{location}: {name} has arguments {given}: {error}") from None
        found.append(instruction)
    return tuple(found)


def follows(instruction: Instruction, answer: str) -> bool:
    """Whether an answer strictly follows an instruction; an empty answer never does."""
    return bool(answer.strip()) and CHECKERS[instruction.name](answer, **instruction.arguments)


def follows_loosely(instruction: Instruction, answer: str) -> bool:
    """Whether an answer follows an instruction with or without asterisks, first and last line."""
    lines = answer.split("\n")
    variants = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    variants += [variant.replace("*", "") for variant in variants]
    return any(follows(instruction, variant) for variant in dict.fromkeys(variants))


def _compares(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == "less than" else count >= bound


def _occurrences(word: str, text: str, *, whole: bool) -> int:
    """Counts a word in a text, ignoring case; `whole` counts whole words in scripts with spaces."""
    pattern = regex.escape(word.strip())
    if whole and not texts.UNSPACED.search(word):
        pattern = rf"(?<![\w\p{{M}}]){pattern}(?![\w\p{{M}}])"
    return len(regex.findall(pattern, text, flags=regex.IGNORECASE))


def _first_word(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = answer.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if count != num_paragraphs or nth_paragraph > count:
        return False
    start = paragraphs[nth_paragraph - 1].strip().lstrip(texts.PUNCTUATION + " ")
    return start.lower().startswith(first_word.lower())


def _paragraphs(answer: str, num_paragraphs: int) -> bool:
    parts = [part.strip() for part in regex.split(r"\s?\*\*\*\s?", answer)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def _highlights(answer: str, num_highlights: int) -> bool:
    single = regex.findall(r"\*[^\n\*]*\*", answer)
    double = regex.findall(r"\*\*[^\n\*]*\*\*", answer)
    count = sum(bool(part.strip("*").strip()) for part in single)
    count += sum(bool(part.removeprefix("**").removesuffix("**").strip()) for part in double)
    return count >= num_highlights


def _sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    mark = regex.escape(section_spliter.strip())
    found = regex.findall(rf"(?<![\w\p{{M}}]){mark}\s*(?:\d+|[IVX]+)\b", answer)
    return len(found) >= num_sections


def _bullets(answer: str, num_bullets: int) -> bool:
    stars = regex.findall(r"^\s*\*[^\*].*$", answer, flags=regex.MULTILINE)
    dashes = regex.findall(r"^\s*-.*$", answer, flags=regex.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def _json(answer: str) -> bool:
    text = answer.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _postscript(answer: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = known.get(marker, regex.escape(marker.lower()))
    return bool(regex.search(pattern, answer.lower()))


def _two_answers(answer: str) -> bool:
    parts = [part.strip() for part in answer.split("******")]
    given = [part for part in parts if part]
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


def _capital_words(answer: str, capital_relation: str, capital_frequency: int) -> bool:
    words = regex.findall(r"[\w\p{M}]+(?:[-.&/][\w\p{M}]+)*", answer)
    return _compares(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def _quoted(answer: str) -> bool:
    text = answer.strip()
    return len(text) > 1 and (text[0], text[-1]) in texts.QUOTES


CHECKERS: Mapping[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": _capital_words,
    # Language identification is trained on few texts in capitals.
    "change_case:english_capital": lambda answer: (
        answer.isupper() and is_in_language(answer.lower(), "en")
    ),
    "change_case:english_lowercase": lambda answer: (
        answer.islower() and is_in_language(answer, "en")
    ),
    "combination:repeat_prompt": lambda answer, prompt_to_repeat: (
        answer.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "combination:two_responses": _two_answers,
    "detectable_content:number_placeholders": lambda answer, num_placeholders: (
        len(regex.findall(r"\[.*?\]", answer)) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": lambda answer: any(
        fixed in answer for fixed in texts.FIXED_ANSWERS
    ),
    "detectable_format:json_format": _json,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": lambda answer: any(
        title.lstrip("<").rstrip(">").strip() for title in regex.findall(r"<<[^\n]+>>", answer)
    ),
    "keywords:existence": lambda answer, keywords: all(
        _occurrences(word, answer, whole=False) for word in keywords
    ),
    "keywords:forbidden_words": lambda answer, forbidden_words: (
        not any(_occurrences(word, answer, whole=True) for word in forbidden_words)
    ),
    "keywords:frequency": lambda answer, keyword, relation, frequency: _compares(
        _occurrences(keyword, answer, whole=False), relation, frequency
    ),
    "keywords:letter_frequency": lambda answer, letter, let_relation, let_frequency: _compares(
        collections.Counter(answer.lower())[letter.strip().lower()], let_relation, let_frequency
    ),
    "language:response_language": lambda answer, language: is_in_language(
        answer, language.partition("-")[0]
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_sentences": lambda answer, relation, num_sentences: _compares(
        texts.count_sentences(answer), relation, num_sentences
    ),
    "length_constraints:number_words": lambda answer, relation, num_words: _compares(
        texts.count_words(answer), relation, num_words
    ),
    "punctuation:no_comma": lambda answer: not regex.search("[,，،]", answer),
    "startend:end_checker": lambda answer, end_phrase: (
        answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
    "startend:quotation": _quoted,
}
