"""Sentences of several languages, and the charsets that their pages are written in."""

SENTENCES = {
    "zh": (
        "河边的老城很安静。每天早上，老师都会带着一封信走过石桥，和花园里的人谈论冬天。他们喜欢回"
        "忆铁路修到山谷之前，这座桥是怎样建成的。"
    ),
    "zht": (
        "河邊的老城很安靜。每天早上，老師都會帶著一封信走過石橋，和花園裡的人談論冬天。他們喜歡回"
        "憶鐵路修到山谷之前，這座橋是怎樣建成的。"
    ),
    "ja": (
        "川沿いの古い町はとても静かです。毎朝、先生は手紙を持って石の橋を渡り、庭の人たちと冬のこ"
        "とを話します。鉄道が谷に来る前に橋がどう造られたか、みんなよく覚えています。"
    ),
    "ko": (
        "강가의 오래된 마을은 아주 조용하다. 매일 아침 선생님은 편지를 들고 돌다리를 "
        "건너 정원 사람들과 겨울 이야기를 나눈다. 그들은 철도가 골짜기에 오기 전에 다"
        "리를 어떻게 지었는지 기억한다."
    ),
    "ru": (
        "Старый город у реки очень тихий. Каждое утро учительница с письмом в руке идёт п"
        "о каменному мосту и говорит с людьми в саду о зиме. Они любят вспоминать, как ст"
        "роили мост, задолго до железной дороги."
    ),
    "uk": (
        "Старе місто біля річки дуже тихе. Щоранку вчителька з листом у руці йде кам'яним"
        " мостом і розмовляє з людьми в саду про зиму. Вони люблять згадувати, як будувал"
        "и міст, ще до того, як у долину прийшла залізниця."
    ),
    "kk": (
        "Өзен жағасындағы ескі қала өте тыныш. Мұғалім күн сайын таңертең қолында хаты ба"
        "р тас көпірмен жүріп, бақтағы адамдармен қыс туралы сөйлеседі. Олар көпірдің қал"
        "ай салынғанын еске алғанды ұнатады."
    ),
    "el": (
        "Η παλιά πόλη δίπλα στο ποτάμι είναι πολύ ήσυχη. Κάθε πρωί η δασκάλα περνά την πέ"
        "τρινη γέφυρα με ένα γράμμα στο χέρι και μιλά με τους ανθρώπους του κήπου για τον"
        " χειμώνα. Θυμούνται πώς χτίστηκε η γέφυρα."
    ),
    "tr": (
        "Irmak kıyısındaki eski şehir çok sessiz. Öğretmen her sabah elinde bir mektupla "
        "taş köprüden geçer ve bahçedeki insanlarla kış hakkında konuşur. Köprünün nasıl "
        "yapıldığını hatırlamayı çok severler, çünkü güzel günlerdi."
    ),
    "he": (
        "העיר העתיקה שליד הנהר שקטה מאוד. בכל בוקר עוברת המורה על גשר האבן עם מכתב ביד ומ"
        "דברת עם אנשי הגן על החורף. הם אוהבים להיזכר איך נבנה הגשר, הרבה לפני שהגיעה הרכב"
        "ת לעמק."
    ),
    "ar": (
        "المدينة القديمة على ضفة النهر هادئة جدا. كل صباح تعبر المعلمة الجسر الحجري وفي ي"
        "دها رسالة، وتتحدث مع أهل الحديقة عن الشتاء. إنهم يحبون أن يتذكروا كيف بني الجسر "
        "قبل وصول القطار إلى الوادي."
    ),
    "th": (
        "เมืองเก่าริมแม่น้ำเงียบสงบมาก ทุกเช้าครูเดินข้ามสะพานหินพร้อมจดหมายในมือ และคุยก"
        "ับผู้คนในสวนเรื่องฤดูหนาว พวกเขาชอบนึกถึงว่าสะพานถูกสร้างขึ้นอย่างไรก่อนรถไฟจะมา"
        "ถึงหุบเขา"
    ),
    "cs": (
        "Staré město u řeky je velmi tiché. Každé ráno přechází učitelka s dopisem v ruce"
        " přes kamenný most a mluví s lidmi v zahradě o zimě. Rádi vzpomínají, jak se mos"
        "t stavěl, dávno předtím, než do údolí přišla železnice."
    ),
    "pl": (
        "Stare miasto nad rzeką jest bardzo ciche. Każdego ranka nauczycielka z listem w "
        "ręku przechodzi przez kamienny most i rozmawia z ludźmi w ogrodzie o zimie. Lubi"
        "ą wspominać, jak budowano ten most, na długo przed koleją."
    ),
    "hu": (
        "A folyó menti régi város nagyon csendes. A tanítónő minden reggel levéllel a kez"
        "ében megy át a kőhídon, és a kertben élő emberekkel a télről beszélget. Szívesen"
        " emlékeznek rá, hogyan épült a híd, jóval a vasút előtt, az ősök idejében."
    ),
    "ro": (
        "Oraşul vechi de lângă râu este foarte liniştit. În fiecare dimineaţă învăţătoare"
        "a trece podul de piatră cu o scrisoare în mână şi vorbeşte cu oamenii din grădin"
        "ă despre iarnă."
    ),
    "de": (
        "Die alte Stadt am Fluss ist sehr ruhig. Jeden Morgen geht die Lehrerin mit einem"
        " Brief in der Hand über die steinerne Brücke und spricht mit den Leuten im Garte"
        "n über den Winter. Sie erzählen gern, wie früher die Brücke gebaut wurde."
    ),
    "fr": (
        "La vieille ville au bord de la rivière est très calme. Chaque matin, l'institutr"
        "ice traverse le pont de pierre, une lettre à la main, et parle de l'hiver avec l"
        "es gens du jardin. Ils aiment se rappeler comment le pont a été bâti, bien avant"
        " l'arrivée du chemin de fer dans la vallée."
    ),
    "es": (
        "La ciudad vieja junto al río es muy tranquila. Cada mañana la señora cruza el pu"
        "ente de piedra con una carta en la mano y habla del invierno con la gente del ja"
        "rdín. Les gusta recordar cómo se construyó el puente, años antes de que llegara "
        "el ferrocarril."
    ),
    "pt": (
        "A cidade velha à beira do rio é muito calma. Todas as manhãs a professora atrave"
        "ssa a ponte de pedra com uma carta na mão e fala do inverno com as pessoas do ja"
        "rdim. Gostam de lembrar como a ponte foi construída, antes de a estação chegar a"
        "o vale."
    ),
    "it": (
        "La città vecchia sul fiume è molto tranquilla. Ogni mattina la maestra attravers"
        "a il ponte di pietra con una lettera in mano e parla dell'inverno con la gente d"
        "el giardino. A loro piace ricordare com'è stato costruito il ponte, perché la fe"
        "rrovia arrivò più tardi."
    ),
}

# (language, codec): encodings that pages on the web have, and those of old programs.
CHARSETS = (
    ("zh", "gbk"),
    ("zh", "gb2312"),
    ("zh", "gb18030"),
    ("zht", "big5"),
    ("ja", "cp932"),
    ("ja", "euc_jp"),
    ("ja", "iso2022_jp"),
    ("ko", "cp949"),
    ("ko", "euc_kr"),
    ("ru", "cp1251"),
    ("ru", "koi8_r"),
    ("ru", "iso8859_5"),
    ("ru", "cp866"),
    ("ru", "mac_cyrillic"),
    ("uk", "cp1251"),
    ("uk", "koi8_u"),
    ("el", "cp1253"),
    ("el", "iso8859_7"),
    ("tr", "cp1254"),
    ("tr", "iso8859_9"),
    ("he", "cp1255"),
    ("he", "iso8859_8"),
    ("ar", "cp1256"),
    ("ar", "iso8859_6"),
    ("th", "cp874"),
    ("cs", "cp1250"),
    ("cs", "iso8859_2"),
    ("pl", "cp1250"),
    ("pl", "iso8859_2"),
    ("hu", "cp1250"),
    ("hu", "iso8859_2"),
    ("ro", "cp1250"),
    ("ro", "iso8859_2"),
    ("de", "cp1252"),
    ("fr", "cp1252"),
    ("es", "cp1252"),
    ("pt", "cp1252"),
    ("it", "iso8859_15"),
)
