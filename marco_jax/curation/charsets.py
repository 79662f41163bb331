"""Decodes pages and lines of any character encoding.

Labels are read as browsers read them (the WHATWG Encoding Standard, "Names and labels"): "gb2312"
is GBK with its extension, "iso-8859-1" is windows-1252, "shift_jis" is its Windows variant.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

UTF_8 = "utf-8"
# Name of the field in which readers note the charset of a record, where it is not UTF-8.
CHARSET = "_charset"

# Bytes of a page that detection looks at.
SAMPLE = 1 << 16
# A text with so many valid multi-byte characters per undecodable byte is damaged UTF-8.
GOOD_PER_BAD = 4
# Detection prevails over a declared charset if its text is so many times likelier.
LIKELIER = 1.02
# A declared charset may fail to decode this share of the non-ASCII bytes.
MOST_BAD = 0.02

# Codec -> the labels that mean it, besides Python's own names of the codec.
_CODECS = {
    "gb18030": "gb2312 gb_2312 gb_2312-80 gbk x-gbk cp936 ms936 chinese csgb2312 iso-ir-58 euc-cn",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5 cp950",
    "cp949": "euc-kr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 korean csksc56011987 "
    "iso-ir-149 windows-949 uhc",
    "cp932": "shift_jis shift-jis sjis x-sjis ms_kanji windows-31j csshiftjis ms932",
    "euc_jp": "euc-jp x-euc-jp cseucpkdfmtjapanese",
    "iso2022_jp_ext": "iso-2022-jp csiso2022jp",
    "cp874": "tis-620 tis620 iso-8859-11 iso8859-11 dos-874 windows-874",
    "cp1252": "iso-8859-1 iso8859-1 iso_8859-1 latin1 latin-1 l1 ascii us-ascii ansi_x3.4-1968 "
    "x-cp1252 windows-1252",
    "cp1254": "iso-8859-9 iso8859-9 iso_8859-9 latin5 l5 x-cp1254 windows-1254",
    "iso8859_8": "iso-8859-8-i iso-8859-8-e logical visual iso-8859-8",
    "koi8_u": "koi8-ru koi8-u",
    "koi8_r": "koi koi8 koi8-r",
    "utf_16": "utf-16 unicode ucs-2 csunicode iso-10646-ucs-2 utf-16le unicodefeff",
    "utf_16_be": "utf-16be unicodefffe",
    "mac_cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "mac_roman": "macintosh mac x-mac-roman csmacintosh",
    "utf_8": "utf8 utf-8 unicode-1-1-utf-8 x-unicode20utf8",
}
_LABELS = {label: codec for codec, labels in _CODECS.items() for label in labels.split()}
# Python's names of codecs -> the names that the web uses.
_NAMES = {
    "big5hkscs": "big5", "cp949": "euc-kr", "cp932": "shift_jis", "euc_jp": "euc-jp",
    "iso2022_jp_ext": "iso-2022-jp", "cp874": "windows-874", "utf_16": "utf-16",
    "utf_16_le": "utf-16le", "utf_16_be": "utf-16be", "utf_32": "utf-32", "utf_8": UTF_8,
    "mac_cyrillic": "x-mac-cyrillic", "koi8_r": "koi8-r", "koi8_u": "koi8-u",
}  # fmt: skip
_MARKS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
# Text codecs of Python that are not charsets of files.
_NOT_WEB = ("utf_7", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "mbcs", "oem")

_NON_ASCII = re.compile(rb"[\x80-\xff]+")
_MARKUP = re.compile(rb"<(?:script|style)\b.*?</(?:script|style)\s*>|<[^<>]*>", re.I | re.S)
_META = re.compile(
    rb"<meta\b[^>]{0,500}?charset\s*=\s*[\"']?\s*([\w.:+-]+)"
    rb"|<\?xml\b[^>]{0,200}?encoding\s*=\s*[\"']\s*([\w.:+-]+)",
    re.I,
)


def codec_of(label: str) -> str:
    """Python's codec for a charset label such as "GB2312", or "" for an unknown label."""
    label = label.strip().strip("\"'").lower()
    if label in _LABELS:
        return _LABELS[label]
    try:
        name = codecs.lookup(label).name
        # Codecs from bytes to bytes, such as hex, raise LookupError here.
        b"a".decode(name)
    except (LookupError, ValueError, UnicodeError):
        return ""
    if name.replace("-", "_") in _NOT_WEB:
        return ""
    return _LABELS.get(name, name.replace("-", "_"))


def declared_charset(data: bytes) -> str:
    """The label in the `<meta>` or XML declaration of a page's first bytes, or ""."""
    found = _META.search(data[:8192])
    return (found[1] or found[2]).decode("ascii", "replace") if found else ""


def decode_text(data: bytes, *labels: str) -> tuple[str, str]:
    """Decodes the bytes of a page or file.

    A byte order mark decides, then validity as UTF-8, then the first of `labels` that can be
    right, then detection. UTF-8 with few undecodable bytes is decoded without them. It never
    raises: bytes that nothing decodes are left out.

    Args:
        data: bytes of a text; an incomplete last character is left out.
        labels: declared charsets, the most trusted first; unknown and empty ones are skipped.

    Returns:
        The text without its byte order mark, and the name of the charset, "utf-8" or another.
    """
    codec = charset_of(data, *labels)
    return decoded(data, codec).removeprefix("\ufeff"), charset_name(codec)


def charset_name(codec: str) -> str:
    """The web's name of a codec, such as "windows-1251" for "cp1251"."""
    if codec in _NAMES:
        return _NAMES[codec]
    name = codec.replace("_", "-").replace("iso8859", "iso-8859")
    return re.sub(r"^cp(125\d)$", r"windows-\1", name)


def decoded(data: bytes, codec: str) -> str:
    """Decodes bytes with a codec of `charset_of`; undecodable bytes are left out."""
    return data.decode(codec, "ignore")


def charset_of(data: bytes, *labels: str) -> str:
    """The codec of a text; see `decode_text`."""
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return codec
    if codec := _wide(data) or _escaped(data):
        return codec
    good, bad = _utf_8_counts(data)
    declared = [codec for codec in map(codec_of, labels) if codec]
    needed = 1 if declared[:1] == ["utf_8"] else GOOD_PER_BAD
    if not bad or good and good >= needed * bad:
        return "utf_8"
    declared = [codec for codec in declared if not codec.startswith("utf")]
    declared = [codec for codec in declared if _can_be(data, codec)]
    found = _detected(data)
    if not declared or found in declared:
        return found
    sample = _text_bytes(data)
    if sample.decode(declared[0], "ignore") == sample.decode(found, "ignore"):
        return declared[0]
    # A wrong declaration makes text that reads less like any language than what detection finds.
    better = _likelihood(sample, found) > LIKELIER * _likelihood(sample, declared[0])
    return found if better else declared[0]


def _likelihood(sample: bytes, codec: str) -> float:
    """How much bytes read like some language, by pycld2's score; 0 if it knows none."""
    import pycld2

    text = sample.decode(codec, "ignore")
    text = "".join(c if c.isprintable() else " " for c in text)
    try:
        _, _, details = pycld2.detect(text)
    except pycld2.error:
        return 0.0
    return max((float(score) for _, code, _, score in details if code != "un"), default=0.0)


def _wide(data: bytes) -> str:
    """UTF-16 without a byte order mark: every other byte of ASCII characters is zero."""
    sample = data[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) <= max(len(sample) // 100, 8 * min(even, odd)):
        return ""
    return "utf_16_be" if even > odd else "utf_16_le"


def _escaped(data: bytes) -> str:
    """ISO-2022-JP and ISO-2022-KR: seven bits, with escape sequences."""
    sample = data[:SAMPLE]
    if not sample.isascii():
        return ""
    if b"\x1b$)C" in sample:
        return "iso2022_kr"
    return "iso2022_jp_ext" if re.search(rb"\x1b\$[@B(]", sample) else ""


def _utf_8_counts(data: bytes) -> tuple[int, int]:
    """Numbers of valid multi-byte characters and of undecodable bytes, the cut end left out."""
    try:
        text = codecs.getincrementaldecoder("utf-8")("strict").decode(data)
    except UnicodeDecodeError:
        pass
    else:
        return len(text), 0
    good = bad = 0
    for run in _NON_ASCII.findall(data):
        text = run.decode("utf-8", "ignore")
        good += len(text)
        bad += len(run) - len(text.encode())
    return good, bad


def _can_be(data: bytes, codec: str) -> bool:
    """Whether bytes decode with a declared codec into text that looks like writing."""
    sample = _text_bytes(data)
    high = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    text = sample.decode(codec, "replace")
    if text.count("\ufffd") > 1 + MOST_BAD * high:
        return False
    odd, letters = _oddities(text)
    return odd <= 0.1 * letters + 1 and not _all_accents(text, codec)


def _all_accents(text: str, codec: str) -> bool:
    """Whether a Latin codec gives mostly accented letters, as of another script's bytes."""
    if codec not in ("cp1252", "cp1250", "cp1254", "cp1257", "cp1258") and "8859" not in codec:
        return False
    letters = [character for character in text if character.isalpha()]
    latin = [character for character in letters if "\u00aa" <= character <= "\u024f"]
    return len(latin) > 0.4 * len(letters)


def _oddities(text: str) -> tuple[int, int]:
    """Numbers of improbable characters and of letters among the non-ASCII ones.

    Improbable are control characters, symbols inside words, and capitals behind small letters:
    what a wrong charset makes of letters.
    """
    odd = letters = 0
    before = " "
    for character, after in zip(text, text[1:] + " ", strict=True):
        if character > "\x7f":
            if character.isalpha():
                letters += 1
                odd += character.isupper() and before.islower()
            elif unicodedata.category(character) in ("Cc", "Co", "Cn"):
                odd += 1
            elif unicodedata.category(character)[0] in "SNP" and before.isalpha():
                odd += after.isalpha() and character not in "\u2019\u2018\u00b7\u05f3\u05f4\u2013"
        before = character
    return odd, letters


def _text_bytes(data: bytes) -> bytes:
    """The first bytes of a page's text, without markup, whose ASCII hides the charset."""
    sample = data[: 4 * SAMPLE]
    text = _MARKUP.sub(b" ", sample) if b"<" in sample else sample
    return (text if not text.isascii() else sample)[:SAMPLE]


def _detected(data: bytes) -> str:
    import chardet
    from chardet.enums import EncodingEra

    sample = _text_bytes(data)
    eras = EncodingEra.MODERN_WEB | EncodingEra.LEGACY_ISO | EncodingEra.DOS
    codec = codec_of(chardet.detect(sample, encoding_era=eras)["encoding"] or "")
    # Romanian bytes are the same in ISO-8859-16, which hardly a page is written in.
    codec = "cp1250" if codec == "iso8859_16" else codec
    if codec in ("", "ascii", "utf_8"):
        return "cp1252"
    others = {"cp1250": "iso8859_2", "cp1251": "mac_cyrillic"}
    if other := others.get(codec):
        return min((codec, other), key=lambda codec: _cost(sample, codec))
    return codec


def _cost(sample: bytes, codec: str) -> float:
    """How improbable a decoding is: oddities, undecodable bytes and few letters."""
    text = sample.decode(codec, "replace")
    odd, letters = _oddities(text)
    return odd + 2 * text.count("\ufffd") - letters
