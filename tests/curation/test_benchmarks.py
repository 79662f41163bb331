"""Items of benchmarks are found in documents, edited or not; short answers are no items."""

from marco_jax.curation.decontamination import Benchmarks

QUESTION = "Which town was actually granted to the Huguenots on arrival?"


def test_items_are_found_whole_or_edited():
    benchmarks = Benchmarks([(QUESTION, "en"), ("มีผู้ได้รับการเสนอชื่อให้ได้รับรางวัลกี่คน", "th")])
    assert benchmarks.found(f"A quiz. {QUESTION.upper()} Nobody knew.")
    assert benchmarks.found("A quiz: which town was granted to the Huguenots on arrival?")
    assert benchmarks.found("ถามว่ามีผู้ได้รับการเสนอชื่อให้ได้รับรางวัลกี่คนในปีนั้น")
    assert not benchmarks.found("The town was granted a charter; the Huguenots left it later.")


def test_an_answer_of_few_words_is_no_item():
    assert not Benchmarks([("international metropolitan", "en")]).found(
        "The city is an international metropolitan area."
    )
    assert not Benchmarks([]).found(QUESTION)
