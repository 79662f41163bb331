"""Counts words and sentences in any script; quotes and fixed answers that instructions ask for."""

from __future__ import annotations

import regex

# Scripts without spaces between words.
UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")

# Marco-Bench-MIF counts each character of these scripts as a word.
_COUNTED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Arabic}\p{Hebrew}\p{Thai}\p{Bengali}"
    r"\p{Devanagari}]"
)

# Marks that end a sentence: ASCII, the danda of Indic scripts, Arabic and Urdu, CJK. Marks of
# scripts with spaces end a sentence only if a space follows; the others do so anywhere.
_SENTENCE_END = regex.compile(r"(?:[.!?؟۔…]+[\"'”’»)\]]*(?=\s|$))|[।॥。！？｡]+[\"'”’»」』）]*|\n+")
# A full stop after a single letter or an abbreviation does not end a sentence.
_ABBREVIATION = regex.compile(
    r"(?:^|[\s(])(?:\p{L}|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|vs|etc|e\.g|i\.e|z\.B|bzw|Nr|г|ж)$",
    flags=regex.IGNORECASE,
)

PUNCTUATION = ".,?!:;'\"-—()[]{}、。，；：“”‘’《》（）【】؟،؛׳״「」『』〜¿¡«»„‟·…*#"

# Opening and closing quotation marks in the languages of Marco-Bench-MIF.
QUOTES = frozenset(
    [*zip('"“„„„«»”「『', '"”“”"»«”」』', strict=True), ("“", "“"), ("‟", "”"), ("״", "״")]
)

# "My answer is yes / no / maybe" in the wording of Marco-Bench-MIF.
FIXED_ANSWERS = (
    *("My answer is yes.", "My answer is no.", "My answer is maybe."),
    *("إجابتي هي نعم", "إجابتي هي لا", "إجابتي هي ربما"),
    *("আমার উত্তর হ্যাঁ।", "আমার উত্তর না।", "আমার উত্তর হতে পারে।"),
    *("Moje odpověď je ano.", "Moje odpověď je ne.", "Moje odpověď je možná."),
    *("Meine Antwort ist ja.", "Meine Antwort ist nein.", "Meine Antwort ist vielleicht."),
    *("Η απάντησή μου είναι ναι", "Η απάντησή μου είναι όχι", "Η απάντησή μου είναι ίσως"),
    *("Mi respuesta es sí", "Mi respuesta es no", "Mi respuesta es tal vez"),
    *("Ma réponse est oui", "Ma réponse est non", "Ma réponse est peut-être"),
    *("התשובה שלי היא כן", "התשובה שלי היא לא", "התשובה שלי היא אולי"),
    *("A válaszom igen.", "A válaszom nem.", "A válaszom az, hogy talán."),
    *("Jawaban saya adalah ya.", "Jawaban saya adalah tidak.", "Jawaban saya adalah mungkin."),
    *("La mia risposta è sì.", "La mia risposta è no.", "La mia risposta è forse."),
    *("私の答えははいです。", "私の答えはいいえです。", "私の答えは多分です。"),
    *("Менің жауабым иә.", "Менің жауабым жоқ.", "Менің жауабым мүмкін."),
    *("제 대답은 '예'입니다.", "제 대답은 '아니요'입니다.", "제 대답은 '어쩌면'입니다."),
    *("Jawapan saya ya.", "Jawapan saya tidak.", "Jawapan saya mungkin."),
    *("मेरो जवाफ हो हो।", "मेरो जवाफ होईन।", "मेरो उत्तर हुनसक्छ।"),
    *("Mijn antwoord is ja.", "Mijn antwoord is nee.", "Mijn antwoord is misschien."),
    *("Moja odpowiedź brzmi tak.", "Moja odpowiedź brzmi nie.", "Moja odpowiedź brzmi może."),
    *("A minha resposta é sim.", "A minha resposta é não.", "A minha resposta é talvez."),
    *("Răspunsul meu este da.", "Răspunsul meu este nu.", "Răspunsul meu este poate."),
    *("Мой ответ — да.", "Мой ответ — нет.", "Мой ответ — может быть."),
    *("Jibu langu ni ndiyo.", "Jibu langu ni hapana.", "Jibu langu linaweza kuwa."),
    *("คำตอบของฉันคือใช่", "คำตอบของฉันคือไม่", "คำตอบของฉันคืออาจจะ"),
    *("Cevabım evet.", "Cevabım hayır.", "Cevabım belki."),
    *("Моя відповідь — так.", "Моя відповідь — ні.", "Моя відповідь — можливо."),
    *("میرا جواب ہاں میں ہے۔", "میرا جواب نہیں ہے۔", "میرا جواب شاید ہے۔"),
    *("Câu trả lời của tôi là có.", "Câu trả lời của tôi là không."),
    "Câu trả lời của tôi là có thể.",
    *("Ìdáhùn mi ni bẹ́ẹ̀ni.", "Ìdáhùn mi ni bẹ́ẹ̀kọ́.", "Ìdáhùn mi ni ó ṣe é ṣe."),
    *("Idahun mi jẹ bẹẹni.", "Idahun mi jẹ bẹẹkọ.", "Idahun mi boya."),
    *("我的答案是肯定的。", "我的答案是否定的。", "我的答案是可能。", "我的答案是也许。"),
    *('我的答案是"是的"。', '我的答案是"不是"', '我的答案是"不好说"。'),
)


def count_words(text: str) -> int:
    """Counts words as Marco-Bench-MIF does: characters in some scripts, else words."""
    characters = len(_COUNTED.findall(text))
    return characters + len(regex.findall(r"\w+", _COUNTED.sub(" ", text)))


def count_sentences(text: str) -> int:
    """Counts sentences in any script; the end of a line also ends a sentence."""
    count, start = 0, 0
    for match in _SENTENCE_END.finditer(text):
        before = text[start : match.start()]
        if match[0] == "." and _ABBREVIATION.search(before):
            continue
        count += bool(regex.search(r"\w", before))
        start = match.end()
    return count + bool(regex.search(r"\w", text[start:]))
