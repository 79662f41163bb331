"""Records of any form become documents, or are a fault of their own."""

import pytest

from marco_jax.curation.curation_config import check, curation_config, field_names
from marco_jax.curation.documents import document_of, pair_codes, pair_of

WRONG = [None, 7, 1.5, float("nan"), True, [], ["kk"], {}, {"a": 1}]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_fields_of_wrong_types(value):
    found = document_of({"text": "a", "url": value, "language": value, "id": value})
    assert (found.text, found.url, found.claimed) == ("a", "", "")
    assert found.id == "7" if value == 7 else len(found.id) == 24
    with pytest.raises(ValueError, match="the record has no text"):
        document_of({"text": value})


def test_ids_of_content_are_stable_and_lone_surrogates_are_replaced():
    assert document_of({"text": "a"}).id == document_of({"content": "a", "id": None}).id
    found = document_of({"text": "a\ud800", "id": "\udfff", "url": "\ud800"})
    assert (found.text, found.id, found.url) == ("a?", "?", "?")


def test_other_names_of_fields():
    record = {"body": "a", "doc": 3, "l": "kaz", "source": "http://a", "text": "other"}
    names = field_names("text=body, id=doc,language=l,url=source")
    found = document_of(record, names)
    assert (found.text, found.id, found.claimed, found.url) == ("a", "3", "kk", "http://a")
    assert document_of({"content": "a", "lang": "EN"}).claimed == "en"
    assert document_of({"text": " ", "html": "<p>a</p>"}).form == "html"


@pytest.mark.parametrize("fields", ["text", "text=", "title=a", "text=a,text=b"])
def test_bad_names_of_fields_are_refused(fields):
    config = curation_config()
    config.fields = fields
    with pytest.raises(ValueError, match=r"^config.fields=.* write text=body"):
        check(config)


def test_languages_to_keep_in_any_form():
    config = curation_config()
    config.languages = "kaz,en_US"
    check(config)
    config.languages = "kaz,unknown"
    with pytest.raises(ValueError, match="'unknown' is not a language"):
        check(config)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("en-kk.tsv", "en-kk"),
        ("news.eng-kaz.tsv.gz", "en-kk"),
        ("en_US-kk_KZ.tsv", "en-kk"),
        ("flores.eng_Latn-kaz_Cyrl.tsv", "en-kk"),
        ("the-new.en-kk.tsv", "en-kk"),
        ("raw-zh_CN-pt_BR.tsv", "zh-pt"),
        ("wmt24.de-sw.tsv", "de-sw"),
        ("EN-DE.tsv", "en-de"),
    ],
)
def test_the_languages_of_pairs_are_in_the_name(name, codes):
    assert pair_codes(f"a/fr-it/{name}") == codes
    assert pair_of({"text": "a\tb"}, name).language == codes


@pytest.mark.parametrize("name", ["pairs.tsv", "en.tsv", "en_US-en_GB.tsv", "und-en.tsv"])
def test_a_name_without_two_languages_is_a_fault(name):
    with pytest.raises(ValueError, match="name it as en-kk.tsv"):
        pair_codes(name)
