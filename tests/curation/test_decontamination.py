"""Items of benchmarks are found in documents, edited or not; short answers are no items."""

from marco_jax.curation.decontamination import BenchmarkItems

QUESTION = "Which town was actually granted to the Huguenots on arrival?"


def test_items_are_found_whole_or_edited():
    benchmarks = BenchmarkItems([(QUESTION, "en"), ("มีผู้ได้รับการเสนอชื่อให้ได้รับรางวัลกี่คน", "th")])
    assert benchmarks.match(f"A quiz. {QUESTION.upper()} Nobody knew.")
    assert benchmarks.match("A quiz: which town was granted to the Huguenots on arrival?")
    assert benchmarks.match("ถามว่ามีผู้ได้รับการเสนอชื่อให้ได้รับรางวัลกี่คนในปีนั้น")
    assert not benchmarks.match("The town was granted a charter; the Huguenots left it later.")


def test_an_answer_of_few_words_is_no_item():
    assert not BenchmarkItems([("international metropolitan", "en")]).match(
        "The city is an international metropolitan area."
    )
    assert not BenchmarkItems([]).match(QUESTION)
