"""Instruction checkers against lm-evaluation-harness's IFEval, on English answers.

What is left out needs data that no package ships (punkt) or draws at random (langdetect).
"""

import itertools
import sys
import types

import pytest

from marco_jax.evaluation.instructions import Instruction, follows, follows_loosely

PARTS = (
    "Winter is here.",
    "* one point\n* another point",
    "- dash\n- dash\n- dash",
    "Section 1\nfirst\nSection 2\nsecond",
    "SECTION I\nfirst",
    "*highlighted part* and **bold part**",
    "<<A title>>",
    "P.S. Do not forget [name] and [address].",
    "P.P.S see you",
    "a\n***\nb\n***\nc",
    "first answer\n******\nsecond answer",
    '"All of it is quoted, with a comma."',
    '```json\n{"a": [1, 2]}\n```',
    "My answer is maybe.",
    "winter, WINTER and wintertime; cat catalog Cat",
    "Repeat this request. Here you are.",
    "Is there anything else I can help with?",
)
INSTRUCTIONS = (
    ("keywords:existence", {"keywords": ["winter", "here"]}),
    ("keywords:frequency", {"keyword": "winter", "relation": "at least", "frequency": 2}),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}),
    ("keywords:forbidden_words", {"forbidden_words": ["winter", "dash"]}),
    ("keywords:letter_frequency", {"letter": "e", "let_relation": "less than", "let_frequency": 4}),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 12}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "winter"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:constrained_response", {}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Repeat this request."}),
    ("startend:end_checker", {"end_phrase": "Is there anything else I can help with?"}),
    ("startend:quotation", {}),
    ("punctuation:no_comma", {}),
)  # fmt: skip


@pytest.fixture(scope="module")
def harness():
    """The harness's checks, without the data that they would download."""
    pytest.importorskip("lm_eval")
    nltk = pytest.importorskip("nltk")
    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "langdetect", types.ModuleType("langdetect"))
    patch.setattr(nltk, "download", lambda *names, **options: False)
    try:
        from lm_eval.tasks.ifeval import utils
    finally:
        patch.undo()
    return utils


def answers():
    return [
        separator.join(parts)
        for separator in ("\n", "\n\n")
        for size in (1, 2)
        for parts in itertools.permutations(PARTS, size)
    ]


@pytest.mark.parametrize(("name", "arguments"), INSTRUCTIONS)
def test_the_same_answers_follow(harness, name, arguments):
    asked = harness.InputExample(0, [name], "Repeat this request.", [arguments])
    instruction, seen = Instruction(name, arguments), set()
    for answer in answers():
        strict = harness.test_instruction_following_strict(asked, answer).follow_all_instructions
        loose = harness.test_instruction_following_loose(asked, answer).follow_all_instructions
        assert follows(instruction, answer) == strict, answer
        assert follows_loosely(instruction, answer) == loose, answer
        seen.add(strict)
    assert seen == {True, False}
