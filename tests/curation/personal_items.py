"""Sentences in twelve languages with personal data, and with numbers that only look like it.

Each is (language, text, masked text). Values are made: example numbers of the numbering plans,
addresses that are reserved for documentation, and numbers with computed check digits.
"""

import random

import phonenumbers

# By language: a region, an IBAN's country, and sentences with a place for each kind of value.
FRAMES = {
    "en": (
        ("GB", "GB"),
        {
            "mail": "Write to {} before Friday.",
            "call": "Please call {} in the morning.",
            "phone": "The office is open from nine, phone {}, and closed on Sunday.",
            "iban": "Pay to {} until May.",
            "card": "She gave the number {} to the shop.",
            "ip": "The server at {} did not answer.",
            "plain": "The river of {} was measured twice.",
            "version": "Install version {} of the program.",
            "section": "See section {} for the rules.",
            "years": "The winters of {} were cold.",
            "book": "The book has the ISBN {} on its cover.",
            "price": "They paid {} for the house.",
        },
    ),
    "de": (
        ("DE", "DE"),
        {
            "mail": "Schreiben Sie an {} bis Freitag.",
            "call": "Bitte wählen Sie {} am Morgen.",
            "phone": "Das Büro ist ab neun offen, Telefon {}, und am Sonntag zu.",
            "iban": "Zahlen Sie auf {} bis Mai.",
            "card": "Sie gab die Nummer {} im Laden an.",
            "ip": "Der Server {} antwortet nicht.",
            "plain": "Der Fluss von {} wurde zweimal gemessen.",
            "version": "Installieren Sie Version {} des Programms.",
            "section": "Siehe Abschnitt {} der Regeln.",
            "years": "Die Winter {} waren kalt.",
            "book": "Das Buch hat die ISBN {} auf dem Umschlag.",
            "price": "Sie zahlten {} für das Haus.",
        },
    ),
    "fr": (
        ("FR", "FR"),
        {
            "mail": "Écrivez à {} avant vendredi.",
            "call": "Veuillez composer le {} le matin.",
            "phone": "Le bureau ouvre à neuf heures, téléphone {}, fermé le dimanche.",
            "iban": "Payez sur {} avant mai.",
            "card": "Elle a donné le numéro {} au magasin.",
            "ip": "Le serveur {} ne répond pas.",
            "plain": "La rivière de {} a été mesurée deux fois.",
            "version": "Installez la version {} du programme.",
            "section": "Voir la section {} des règles.",
            "years": "Les hivers {} étaient froids.",
            "book": "Le livre porte l'ISBN {} sur la couverture.",
            "price": "Ils ont payé {} pour la maison.",
        },
    ),
    "es": (
        ("ES", "ES"),
        {
            "mail": "Escriba a {} antes del viernes.",
            "call": "Por favor, llame al {} por la mañana.",
            "phone": "La oficina abre a las nueve, teléfono {}, cierra el domingo.",
            "iban": "Pague a {} antes de mayo.",
            "card": "Ella dio el número {} en la tienda.",
            "ip": "El servidor {} no responde.",
            "plain": "El río de {} se midió dos veces.",
            "version": "Instale la versión {} del programa.",
            "section": "Véase la sección {} de las reglas.",
            "years": "Los inviernos {} fueron fríos.",
            "book": "El libro lleva el ISBN {} en la cubierta.",
            "price": "Pagaron {} por la casa.",
        },
    ),
    "ru": (
        ("RU", "KZ"),
        {
            "mail": "Пишите на {} до пятницы.",
            "call": "Пожалуйста, звоните {} утром.",
            "phone": "Бюро открыто с девяти, телефон {}, в воскресенье закрыто.",
            "iban": "Платите на {} до мая.",
            "card": "Она назвала номер {} в магазине.",
            "ip": "Сервер {} не отвечает.",
            "plain": "Реку {} измерили дважды.",
            "version": "Установите версия {} программы.",
            "section": "Смотрите раздел {} правил.",
            "years": "Зимы {} были холодными.",
            "book": "На обложке книги стоит ISBN {} и имя.",
            "price": "Они заплатили {} за дом.",
        },
    ),
    "uk": (
        ("UA", "UA"),
        {
            "mail": "Пишіть на {} до п'ятниці.",
            "call": "Будь ласка, дзвоніть {} вранці.",
            "phone": "Бюро відкрите з дев'ятої, телефон {}, у неділю зачинене.",
            "iban": "Платіть на {} до травня.",
            "card": "Вона назвала номер {} у крамниці.",
            "ip": "Сервер {} не відповідає.",
            "plain": "Річку {} виміряли двічі.",
            "version": "Встановіть версія {} програми.",
            "section": "Дивіться розділ {} правил.",
            "years": "Зими {} були холодні.",
            "book": "На обкладинці стоїть ISBN {} та ім'я.",
            "price": "Вони заплатили {} за будинок.",
        },
    ),
    "tr": (
        ("TR", "TR"),
        {
            "mail": "Cumadan önce {} adresine yazın.",
            "call": "Lütfen sabah arayın: {} numarası.",
            "phone": "Büro dokuzda açılır, telefon {}, pazar kapalı.",
            "iban": "Mayısa kadar {} hesabına ödeyin.",
            "card": "Dükkânda {} numarasını verdi.",
            "ip": "Sunucu adresi {} yanıt vermedi.",
            "plain": "Nehir {} yerinde iki kez ölçüldü.",
            "version": "Programın sürüm {} sayısını kurun.",
            "section": "Kurallar için bölüm {} okunur.",
            "years": "Kışlar {} soğuktu.",
            "book": "Kitabın kapağında ISBN {} yazıyor.",
            "price": "Ev için {} ödediler.",
        },
    ),
    "kk": (
        ("KZ", "KZ"),
        {
            "mail": "Жұмаға дейін {} мекенжайына жазыңыз.",
            "call": "Таңертең қоңырау шалыңыз: {} нөмірі.",
            "phone": "Кеңсе тоғызда ашылады, телефон {}, жексенбіде жабық.",
            "iban": "Мамырға дейін {} шотына төлеңіз.",
            "card": "Ол дүкенде {} нөмірін айтты.",
            "ip": "Сервер {} жауап бермейді.",
            "plain": "Өзен {} жерінде екі рет өлшенді.",
            "version": "Бағдарламаның нұсқасы {} орнатыңыз.",
            "section": "Ережелер үшін бөлім {} қараңыз.",
            "years": "Қыстар {} суық болды.",
            "book": "Кітаптың мұқабасында ISBN {} тұр.",
            "price": "Олар үйге {} төледі.",
        },
    ),
    "zh": (
        ("CN", "GB"),
        {
            "mail": "请在星期五之前写信到 {} 。",
            "call": "早上请致电 {} 。",
            "phone": "办公室九点开门,电话 {} ,星期日休息。",
            "iban": "请在五月前付款到 {} 。",
            "card": "她在商店给了号码 {} 。",
            "ip": "服务器 {} 没有回答。",
            "plain": "这条河的 {} 测量了两次。",
            "version": "请安装版本 {} 的程序。",
            "section": "规则见章节 {} 。",
            "years": "冬天 {} 很冷。",
            "book": "这本书的封面有 ISBN {} 。",
            "price": "他们为房子付了 {} 。",
        },
    ),
    "ar": (
        ("EG", "SA"),
        {
            "mail": "اكتب إلى {} قبل الجمعة.",
            "call": "من فضلك اتصل على {} في الصباح.",
            "phone": "يفتح المكتب في التاسعة، هاتف {} ويغلق يوم الأحد.",
            "iban": "ادفع إلى {} قبل مايو.",
            "card": "أعطت الرقم {} في المتجر.",
            "ip": "الخادم عنوان {} لا يجيب.",
            "plain": "قيس النهر {} مرتين.",
            "version": "ثبت الإصدار {} من البرنامج.",
            "section": "انظر القسم {} من القواعد.",
            "years": "كانت شتاءات {} باردة.",
            "book": "على غلاف الكتاب ISBN {} واسم.",
            "price": "دفعوا {} ثمنا للبيت.",
        },
    ),
    "vi": (
        ("VN", "FR"),
        {
            "mail": "Viết thư tới {} trước thứ sáu.",
            "call": "Xin gọi {} vào buổi sáng.",
            "phone": "Văn phòng mở lúc chín giờ, điện thoại {} và nghỉ chủ nhật.",
            "iban": "Trả tiền vào {} trước tháng năm.",
            "card": "Cô ấy đưa số {} ở cửa hàng.",
            "ip": "Máy chủ địa chỉ {} không trả lời.",
            "plain": "Con sông {} được đo hai lần.",
            "version": "Cài đặt phiên bản {} của chương trình.",
            "section": "Xem mục {} của quy định.",
            "years": "Những mùa đông {} rất lạnh.",
            "book": "Bìa sách có ISBN {} và tên.",
            "price": "Họ trả {} cho ngôi nhà.",
        },
    ),
    "he": (
        ("IL", "IL"),
        {
            "mail": "כתבו אל {} לפני יום שישי.",
            "call": "נא התקשרו {} בבוקר.",
            "phone": "המשרד נפתח בתשע, טלפון {} וסגור ביום ראשון.",
            "iban": "שלמו אל {} עד מאי.",
            "card": "היא מסרה את המספר {} בחנות.",
            "ip": "שרת {} לא ענה.",
            "plain": "הנהר {} נמדד פעמיים.",
            "version": "התקינו גרסה {} של התוכנה.",
            "section": "ראו סעיף {} בכללים.",
            "years": "החורפים {} היו קרים.",
            "book": "על הכריכה ISBN {} ושם.",
            "price": "הם שילמו {} על הבית.",
        },
    ),
}
CARD_STARTS = ("4111", "5500", "371449", "6011", "3530", "2221", "6221")
NOT_CARDS = ("1234", "9780", "7000", "2010")


def luhn(start: str, length: int, draw: random.Random) -> str:
    """A number with the check digit of ISO/IEC 7812-1."""
    digits = start + "".join(str(draw.randrange(10)) for _ in range(length - 1 - len(start)))
    total = sum(
        sum(divmod(2 * int(d), 10)) if n % 2 == 0 else int(d) for n, d in enumerate(digits[::-1])
    )
    return digits + str(-total % 10)


def iban(country: str, draw: random.Random) -> str:
    """A number with the check digits of ISO 13616."""
    lengths = {"GB": 22, "DE": 22, "FR": 27, "ES": 24, "KZ": 20, "UA": 29, "TR": 26, "SA": 24}
    body = "".join(str(draw.randrange(10)) for _ in range(lengths.get(country, 23) - 4))
    value = int(body + "".join(str(ord(char) - 55) for char in country) + "00")
    return f"{country}{98 - value % 97:02d}{body}"


def isbn(draw: random.Random) -> str:
    """A number of thirteen digits with its check digit."""
    digits = "978" + "".join(str(draw.randrange(10)) for _ in range(9))
    total = sum(int(d) * (3 if n % 2 else 1) for n, d in enumerate(digits))
    return digits + str(-total % 10)


def by_fours(text: str, joint: str = " ") -> str:
    return joint.join(text[at : at + 4] for at in range(0, len(text), 4))


def phones(region: str) -> tuple[str, str]:
    """A number as it is written in its country, and abroad."""
    number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    forms = phonenumbers.PhoneNumberFormat
    return tuple(
        phonenumbers.format_number(number, form) for form in (forms.NATIONAL, forms.INTERNATIONAL)
    )


def items() -> list[tuple[str, str, str]]:
    """All labelled sentences."""
    draw, made = random.Random(1), []
    for language, ((region, country), frames) in FRAMES.items():
        national, abroad = phones(region)
        account = iban(country, draw)
        start = draw.choice(CARD_STARTS)
        card = luhn(start, 15 if start.startswith("37") else 16, draw)
        masked = [
            ("mail", f"ada.{language}@mail.example.org", "<EMAIL>"),
            ("mail", "o'neil+news@a-b.example", "o'<EMAIL>"),
            ("mail", f"https://ada:{language}pw@host.example/a", "<LOGIN>@host.example/a"),
            ("call", national, "<PHONE>"),
            ("phone", national, "<PHONE>"),
            ("phone", national.replace(" ", "-"), "<PHONE>"),
            ("plain", abroad, "<PHONE>"),
            ("phone", abroad.replace(" ", ""), "<PHONE>"),
            ("iban", account, "<IBAN>"),
            ("iban", by_fours(account), "<IBAN>"),
            ("iban", account.lower(), "<IBAN>"),
            ("card", card, "<CARD>"),
            ("card", by_fours(card) if len(card) == 16 else card, "<CARD>"),
            ("card", by_fours(luhn("4532", 16, draw), "-"), "<CARD>"),
            ("ip", f"203.0.113.{draw.randrange(40, 250)}", "<IP>"),
            ("ip", "10.2.14.3", "<IP>"),
            ("plain", f"198.51.100.{draw.randrange(40, 250)}:8080", "<IP>:8080"),
            ("ip", "2001:db8:85a3::8a2e:370:7334", "<IP>"),
            ("ip", "2001:0db8:0000:0000:0000:ff00:0042:8329", "<IP>"),
            ("ip", "fe80::1ff:fe23:4567:890a", "<IP>"),
        ]
        kept = [
            ("version", "10.2.14.3"),
            ("version", f"v4.{draw.randrange(100, 200)}.2.1"),
            ("section", "1.2.3.4"),
            ("section", "12.4.1.2"),
            ("years", "2010 2011 2012 2013"),
            ("years", "1998-2004-2010-2016"),
            ("book", isbn(draw)),
            ("book", f"978-3-16-{draw.randrange(100000, 999999)}-{draw.randrange(10)}"),
            ("plain", isbn(draw)),
            ("price", "1,234,567.00"),
            ("price", "1 250 000"),
            ("price", f"{draw.randrange(100, 999)} 000 000"),
            ("plain", "12:30:45"),
            ("plain", "2024-05-17 12:30:45"),
            ("plain", "std::vector<int>"),
            ("plain", "00:1a:2b:3c:4d:5e"),
            ("plain", luhn(draw.choice(NOT_CARDS), 16, draw)),
            ("plain", f"{draw.randrange(10**15, 10**16)}"[:15] + "-7x"),
            ("plain", "17.05.2024"),
            ("plain", "48.8566, 2.3522"),
            ("plain", "@everyone"),
            ("plain", f"{draw.randrange(10**8, 10**9)}"),
        ]
        made += [(language, frames[k].format(v), frames[k].format(m)) for k, v, m in masked]
        made += [(language, frames[k].format(v), frames[k].format(v)) for k, v in kept]
    return made
