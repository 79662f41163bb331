"""Languages that are written alike, and those that nobody asked for."""

import pytest

from marco_jax.curation.language import identify, lines_in_language, script_share
from marco_jax.curation.malay import malay_evidence

MALAY = "Kerajaan berkata syarikat itu akan membuka pejabat baharu kerana permintaan yang tinggi."
INDONESIAN = (
    "Pemerintah mengatakan perusahaan itu akan membuka kantor baru karena permintaan tinggi."
)
NEPALI = "सरकारले नयाँ विद्यालयहरू खोल्ने निर्णय गरेको छ र यसका लागि बजेट छुट्याइएको छ।"
HINDI = "सरकार ने नए विद्यालय खोलने का निर्णय लिया है और इसके लिए बजट भी तय कर दिया गया है।"
SLOVAK = "Vláda rozhodla, že otvorí nové školy a vyčlenila na to peniaze z rozpočtu na budúci rok."
CZECH = "Vláda rozhodla, že otevře nové školy, a vyčlenila na to peníze z rozpočtu na příští rok."
TURKISH = (
    "Hükümet yeni okullar açmaya karar verdi ve bunun için gelecek yılın bütçesinden pay ayırdı."
)
AZERBAIJANI = (
    "Hökumət yeni məktəblər açmağa qərar verdi və bunun üçün gələn ilin büdcəsindən pul ayırdı."
)
UKRAINIAN = "Уряд вирішив відкрити нові школи та виділив на це кошти з бюджету на наступний рік."
RUSSIAN = "Правительство решило открыть новые школы и выделило на это деньги из бюджета."
SWAHILI = "Serikali imeamua kufungua shule mpya na imetenga fedha kwa ajili hiyo katika bajeti."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (MALAY, "ms"), (INDONESIAN, "id"), (NEPALI, "ne"), (HINDI, "hi"), (SLOVAK, "sk"),
        (CZECH, "cs"), (TURKISH, "tr"), (AZERBAIJANI, "az"), (UKRAINIAN, "uk"), (RUSSIAN, "ru"),
        (SWAHILI, "sw"),
    ],
)  # fmt: skip
def test_a_sentence_is_identified(text, code):
    assert identify(text) == code


def test_a_claim_does_not_override_both_identifiers():
    assert identify(RUSSIAN, "uk") == "ru"
    assert identify(MALAY * 3, "id") == "ms"


@pytest.mark.parametrize(
    ("one", "two", "code"),
    [(HINDI, NEPALI, "hi"), (AZERBAIJANI, TURKISH, "az"), (MALAY, INDONESIAN, "ms")],
)
def test_lines_in_a_language_written_alike_are_taken_out(one, two, code):
    text, share = lines_in_language(f"{one}\n{two}\n{one}", code)
    assert text == f"{one}\n{one}" and 0.25 < share < 0.45
    assert lines_in_language(f"{one}\n{one}", code) == (f"{one}\n{one}", 0.0)


@pytest.mark.parametrize(
    ("malay", "indonesian"),
    [
        ("Bila awak nak balik ke kampung?", "Kapan kamu mau pulang ke kampung?"),
        ("Sila pilih fail untuk dimuat turun.", "Silakan pilih berkas untuk diunduh."),
        ("Beliau bekerja di hospital sejak Jun.", "Beliau bekerja di rumah sakit sejak Juni."),
    ],
)
def test_short_sentences_of_malay_and_indonesian(malay, indonesian):
    assert malay_evidence(malay) > malay_evidence(indonesian)
    assert (identify(malay), identify(indonesian)) == ("ms", "id")


def test_words_of_neither_language_are_evidence_of_nothing():
    assert malay_evidence("") == malay_evidence(RUSSIAN) == 0.0


def test_scripts():
    assert script_share(RUSSIAN, "Cyrl") == 1.0 and script_share(RUSSIAN, "Latn") == 0.0
    assert script_share("日本語の文です", "Jpan") == 1.0 and script_share("", "Latn") == 0.0
