"""Texts of any charset are decoded, whatever their pages declare."""

import pytest

from marco_jax.curation.charsets import charset_of, codec_of, declared_charset, decode_text
from tests.curation.web_texts import CHARSETS, SENTENCES


@pytest.mark.parametrize(("language", "codec"), CHARSETS)
def test_a_short_text_is_decoded_with_no_right_or_wrong_declaration(language, codec):
    data = SENTENCES[language].encode(codec, "ignore")
    text = data.decode(codec)
    for labels in ((), (codec,), ("no-such-charset", codec), ("utf-8",), ("iso-8859-1",)):
        assert decode_text(data, *labels)[0] == text, labels


@pytest.mark.parametrize("language", SENTENCES)
def test_utf_8_prevails_over_other_declarations(language):
    text = SENTENCES[language]
    for label in ("iso-8859-1", "windows-1251", "gb2312", "shift_jis", "utf-16"):
        assert decode_text(text.encode(), label) == (text, "utf-8")
    # The text ends within a character.
    assert charset_of((text + "é").encode()[:-1], "windows-1252") == "utf_8"


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(codec):
    assert decode_text(SENTENCES["kk"].encode(codec), "windows-1251")[0] == SENTENCES["kk"]
    assert decode_text("\ufeffабв".encode("utf-16-be"))[0] == "абв"
    assert decode_text("A plain text".encode("utf-16-le")) == ("A plain text", "utf-16le")


def test_damaged_utf_8_loses_only_its_bad_bytes():
    text = SENTENCES["ru"]
    assert decode_text(text[:60].encode() + b"\xff" + text[60:].encode()) == (text, "utf-8")
    # One byte of windows-1252 in English is not damage.
    assert (
        decode_text(b"The river\x92s bank is quiet", "utf-8")[0] == "The river\u2019s bank is quiet"
    )


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("gb2312", "gb18030"), ("GBK", "gb18030"), ("iso-8859-1", "cp1252"), (" latin1 ", "cp1252"),
        ("ks_c_5601-1987", "cp949"), ("euc-kr", "cp949"), ("Shift_JIS", "cp932"),
        ("x-sjis", "cp932"), ("tis-620", "cp874"), ("iso-8859-9", "cp1254"), ("'utf8'", "utf_8"),
        ("koi8-u", "koi8_u"), ("windows-1258", "cp1258"), ("big5", "big5hkscs"),
        ("hex", ""), ("utf-7", ""), ("unicode_escape", ""), ("", ""), ("x\0y", ""), ("é", ""),
    ],
)  # fmt: skip
def test_labels_mean_what_they_mean_on_the_web(label, codec):
    assert codec_of(label) == codec


@pytest.mark.parametrize(
    ("page", "label"),
    [
        (b'<html><head><META CHARSET = "koi8-r">', "koi8-r"),
        (b"<meta http-equiv=Content-Type content='text/html; charset=Big5'>", "Big5"),
        (b'<?xml version="1.0" encoding="euc-jp"?><html>', "euc-jp"),
        (b"<p>charset=gbk is written in a meta element</p>", ""),
    ],
)
def test_the_declaration_of_a_page_is_found(page, label):
    assert declared_charset(page) == label
