"""Tables that distinguish personal data from other numbers."""

from __future__ import annotations

# Issuers of cards: the first and the last prefix, and the lengths of numbers (ISO/IEC 7812-1 and
# the issuers' own ranges): Visa, Mastercard, American Express, Discover, Diners, JCB, UnionPay,
# Maestro, Mir, Troy, RuPay.
CARDS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("6011", "6011", (16, 19)),
    ("644", "659", (16, 19)),
    ("300", "305", (14,)),
    ("36", "36", (14,)),
    ("38", "39", (14, 16)),
    ("3528", "3589", (16, 19)),
    ("62", "62", (16, 17, 18, 19)),
    ("5018", "5038", (13, 15, 16, 18, 19)),
    ("56", "58", (13, 15, 16, 18, 19)),
    ("6304", "6304", (16, 18, 19)),
    ("6759", "6763", (16, 18, 19)),
    ("2200", "2204", (16,)),
    ("979200", "979289", (16,)),
    ("60", "60", (16,)),
    ("8171", "8199", (16,)),
)

# Lengths of IBANs by country (SWIFT's registry of ISO 13616).
IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FK", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("CH", "CR", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("LC", "MT", "SC"), 32),
    "RU": 33,
}

# Regions whose national telephone numbers texts of a language have.
REGIONS = {
    "en": ("US", "GB", "IN", "AU", "IE", "NZ", "ZA", "PK", "NG"),
    "zh": ("CN", "TW", "HK", "SG"),
    "ar": ("EG", "SA", "AE", "MA", "DZ", "IQ", "JO", "SY", "LB", "TN"),
    "de": ("DE", "AT", "CH"),
    "es": ("ES", "MX", "AR", "CO", "CL", "PE", "US"),
    "fr": ("FR", "BE", "CH", "CA", "MA", "SN"),
    "ko": ("KR",),
    "ja": ("JP",),
    "pt": ("PT", "BR", "AO", "MZ"),
    "tr": ("TR",),
    "bn": ("BD", "IN"),
    "he": ("IL",),
    "id": ("ID",),
    "it": ("IT", "CH"),
    "ms": ("MY", "SG", "BN"),
    "nl": ("NL", "BE"),
    "pl": ("PL",),
    "ru": ("RU", "KZ", "BY"),
    "th": ("TH",),
    "uk": ("UA",),
    "ur": ("PK", "IN"),
    "vi": ("VN",),
    "cs": ("CZ",),
    "el": ("GR", "CY"),
    "hu": ("HU",),
    "kk": ("KZ",),
    "ro": ("RO", "MD"),
    "az": ("AZ",),
    "ne": ("NP", "IN"),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words before a telephone number, in lower case.
PHONE_WORDS = _words(
    """
    tel telephone phone mobile mob cell call fax telefon telefonnummer handy rufnummer anrufen mobil
    teléfono telefono móvil llame llamar téléphone portable appelez telefone telemóvel celular ligue
    cellulare chiamare telefoon bel mobiel telefonu ara arayın cep gsm telepon hp hubungi hubung
    điện thoại đt sđt gọi hotline zadzwoń kom komórka telefonszám hívja sunați mobilul volejte
    тел телефон звоните звонить моб мобильный телефону дзвоніть мобільний қоңырау ұялы шалыңыз
    zəng edin mobil τηλ τηλέφωνο κινητό καλέστε טל טלפון נייד התקשרו هاتف تلفون جوال اتصل فون موبائل
    رابطہ फोन मोबाइल सम्पर्क ফোন মোবাইল যোগাযোগ โทร โทรศัพท์ มือถือ 电话 電話 手机 手機 致电 联系电话
    携帯 ☎ 📞 전화 연락처 휴대폰 전화번호 whatsapp viber
    """
)
# The last word before a four-part number that is not a network address.
VERSION_WORDS = _words(
    """
    v ver version versions release build firmware rev revision patch update kernel driver section
    sections sec chapter clause article paragraph step table § ausgabe abschnitt kapitel
    versión sección capítulo versão seção secção chapitre article sürüm sürümü bölüm madde versi
    bagian bab seksyen phiên bản mục chương điều wersja sekcja rozdział verze kapitola oddíl verzió
    szakasz fejezet versiunea secțiunea capitolul versione sezione capitolo versie sectie hoofdstuk
    версия версии раздел глава пункт версія розділ пункт нұсқа нұсқасы бөлім versiya bölmə fəsil
    έκδοση ενότητα κεφάλαιο גרסה גרסת סעיף פרק الإصدار إصدار القسم البند ورژن سیکشن संस्करण खण्ड
    সংস্করণ অনুচ্ছেদ รุ่น เวอร์ชัน ข้อ หมวด 版本 章节 第 节 版 バージョン 節 버전 절
    """
)
# Words that say that a number is a network address.
ADDRESS_WORDS = _words(
    """
    ip ipv4 address addresses server servers host hosts dns ping gateway router proxy login
    from serveur servidor serwer szerver server sunucu máy chủ adresse adresi adres
    dirección endereço indirizzo adresa cím địa chỉ alamat adresă адрес адреса сервер
    сервера сервері мекенжайы ünvanı ünvan διεύθυνση διακομιστής כתובת שרת عنوان خادم پتہ
    سرور ठेगाना सर्भर ঠিকানা সার্ভার ที่อยู่ เซิร์ฟเวอร์ 地址 服务器 アドレス サーバー 주소 서버
    """
)
