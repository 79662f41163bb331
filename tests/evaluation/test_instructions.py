"""Whether answers follow verifiable instructions, in scripts with spaces and without."""

import json

import pytest

from marco_jax.decoding.requests import Generation
from marco_jax.evaluation.generation_suites import GenerationSuite, Judge, Question
from marco_jax.evaluation.instruction_texts import count_sentences, count_words
from marco_jax.evaluation.instructions import (
    Instruction,
    follows,
    follows_loosely,
    instructions_of,
)
from marco_jax.evaluation.scorers import load_scorer

WORDS = {"relation": "at least", "num_words": 3}


@pytest.mark.parametrize(
    ("name", "arguments", "right", "wrong"),
    [
        ("length_constraints:number_words", WORDS, "one two three", "one two"),
        ("length_constraints:number_words", WORDS, "我来了", "我来"),
        ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3},
         "我来了。你呢？", "我来了。你呢？好！"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb",
         "a\n***\n***\nb"),
        ("length_constraints:nth_paragraph_first_word",
         {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "太白金星"},
         "从前\n\n“太白金星说", "从前，太白金星\n\n说"),
        ("keywords:forbidden_words", {"forbidden_words": ["में"]}, "मेंढक", "घर में है"),
        ("keywords:forbidden_words", {"forbidden_words": ["бар"]}, "барлық", "үй БАР."),
        ("keywords:forbidden_words", {"forbidden_words": ["公园"]}, "游乐场", "去游乐公园玩"),
        ("keywords:existence", {"keywords": ["c++", "қала"]}, "C++ және Қала", "c және қала"),
        ("keywords:frequency", {"keyword": "ab", "relation": "at least", "frequency": 2},
         "ab AB", "ab"),
        ("keywords:letter_frequency", {"letter": "қ", "let_relation": "less than",
         "let_frequency": 2}, "Қала", "Қаққан"),
        ("language:response_language", {"language": "zh-cn"},
         "今天我们一起去公园散步。", "Today we go to the park."),
        ("change_case:english_capital", {}, "WE ALL WENT TO THE PARK TODAY", "We all WENT there"),
        ("change_case:english_lowercase", {}, "we all went to the park", "We all went to the park"),
        ("change_case:capital_word_frequency", {"capital_relation": "at least",
         "capital_frequency": 2}, "NATO and ӘЛЕМ", "NATO and Әлем"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It."),
        ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P. P. S hi", "P.S. x"),
        ("detectable_format:constrained_response", {}, "Менің жауабым жоқ.", "Жоқ."),
        ("detectable_format:json_format", {}, '```JSON\n{"a": 1}\n```', "{a: 1}"),
        ("detectable_format:multiple_sections", {"section_spliter": "BAHAGIAN", "num_sections": 2},
         "BAHAGIAN 1\na\nBAHAGIAN II\nb", "BAHAGIAN 1\na"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n- b\n- c"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
         "*a* *b*", "*a* b"),
        ("detectable_format:title", {}, "<<Көктем>>\nx", "<< >>\nx"),
        ("punctuation:no_comma", {}, "a b", "a، b"),
        ("startend:end_checker", {"end_phrase": "Bitti."}, '"Hepsi bu. bitti."', "Bitti. Son"),
        ("startend:quotation", {}, "«Сөз»", "«Сөз»."),
    ],
)  # fmt: skip
def test_an_answer_that_follows_and_one_that_does_not(name, arguments, right, wrong):
    instruction = Instruction(name, arguments)
    assert follows(instruction, right)
    assert not follows(instruction, wrong)


def test_nothing_follows_no_instruction():
    assert not follows(Instruction("punctuation:no_comma", {}), " \n")


def test_markup_and_a_greeting_are_forgiven_loosely():
    quotation = Instruction("startend:quotation", {})
    answer = 'Sure, here it is:\n**"Words."**'
    assert not follows(quotation, answer)
    assert follows_loosely(quotation, answer)


def test_counts_in_several_scripts():
    assert count_sentences("Dr. Smith ate 3.5 kg. He left! Why?\nDone") == 4
    assert count_sentences("मैं आया। तुम? هل جئت؟ نعم.") == 4
    assert count_words("қала үлкен 东京 big-city") == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "x"}, "instruction_id_list"),
        ({"instruction_id_list": ["a:b"], "kwargs": [{}]}, "'a:b' is unknown"),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": []}, "each of 1 names"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}, "keywords"),
    ],
)
def test_a_record_without_its_arguments_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"row 3.*{message}"):
        instructions_of(fields, "row 3")


def test_figures_of_a_suite(byte_tokenizer):
    comma, quote = Instruction("punctuation:no_comma", {}), Instruction("startend:quotation", {})
    asked = [(comma, quote), (comma,), (quote,)]
    questions = [Question("p", ("p",), instructions=own) for own in asked]
    judge = Judge(
        ("prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc"), "en"
    )
    suite = GenerationSuite.build(byte_tokenizer, questions, judge)
    texts = ['"no comma"', "a, b", '*"loose"*']
    estimates = suite.estimates([Generation((), text) for text in texts])
    assert estimates["prompt_level_strict_acc"].value == pytest.approx(1 / 3)
    assert estimates["inst_level_strict_acc"].value == pytest.approx(2 / 4)
    assert estimates["prompt_level_loose_acc"].value == pytest.approx(2 / 3)
    assert estimates["inst_level_strict_acc"].stderr > 0


def test_the_scorer_gives_the_share_that_is_followed():
    row = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [{}, {"language": None}],
    }
    scorer = load_scorer("instructions")
    assert scorer([row, row], ["a", '"a"']) == [0.5, 1.0]


def test_every_instruction_of_the_published_files_is_known(shared_dir):
    for path in sorted((shared_dir / "benchmarks/marco_bench_mif").glob("[dekm]*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if line:
                assert instructions_of(json.loads(line), f"{path}:{number}")
