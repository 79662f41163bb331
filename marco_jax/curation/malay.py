"""Distinguishes Malay from Indonesian by word lists.

They share most words, and identifiers confuse them in one sentence of eight. The lists hold words
that one language has and the other spells, borrows or expresses differently.
"""

from __future__ import annotations

from marco_jax.ngrams import normalized_words


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


INDONESIAN = _words(
    """
    agustus aktivitas aljazair anggaran bahwa bandara bakal banget belanja berbeda berbicara
    berkas bicara bikin biro bis bisa brasil butuh coba cina cuma desember diposting dong enggak
    fasilitas februari gak gampang gratis gua gue identitas inggris jadwal januari jumat kabar
    kabupaten kamis kantor kanada karena karir kapolri kasus kebijakan kecamatan kelelawar
    kelurahan kemarin kepolisian ketimbang kolombia komunitas konsekuensi koran kualitas kuliah
    kurs legislatif mantan maret meksiko mobil nggak nomor norwegia olahraga pabrik pacar partai
    pasokan pemerintah pemerintahan pendanaan pengacara pengadilan pengen pihaknya polisi ponsel
    posting prancis prioritas produksi provinsi punya rabu resmi ribuan rilis rupiah selandia
    senin sepakbola serikat seharusnya situs skotlandia spanyol sopir sukses survei swedia swiss
    tas telepon televisi tim tiket toko tunjangan uang ujar unduh universitas warga wartawan
    wisata wisatawan yunani kesehatan kesulitan mencoba merasakan usai pelecehan dolar cedera
    sepeda suporter tewas terkait
    """
)
MALAY = _words(
    """
    adakah ahad aktiviti ais apabila arahan awak bahawa baharu bandaraya bekas berasa berbeza
    berbual bercakap bilakah bilangan bimbit brazil cawangan cikgu cuba cubaan cuti defendan
    disember ditubuhkan ejen ekoran elaun esok fasiliti filem hospital iaitu ialah ianya
    identiti isnin itali jabatan jawatankuasa jumaat jurulatih kad kanak kaunti kedai kelab
    kelawar kelmarin kementerian kenderaan kerajaan kerana kereta kesihatan khamis kilang kolej
    komuniti konti kualiti lapan lebuhraya lelaki mac mahu maklumat manakala menerusi mesyuarat
    muzik norway ogos panggung pasaraya pejabat peguam pelancong pembangkang peniaga pengerusi
    perancis perbualan perkhidmatan perlembagaan perniagaan persekutuan pertubuhan pilihanraya
    pinggan polis rekod ringgit sahaja sains scotland sekiranya seksyen selepas semasa sepanyol
    sepatutnya serbaneka setiausaha setakat suratkhabar switzerland syarikat tandas tarikh
    tentera televisyen teruk telefon ugutan universiti walaubagaimanapun wang wira wayang lori
    dijumpai memandu pusingan sokongan
    """
)


def malay_balance(text: str) -> int:
    """The number of Malay words less the number of Indonesian words."""
    words = normalized_words(text)
    malay = sum(word in MALAY or word.endswith("iti") for word in words)
    return malay - sum(word in INDONESIAN or word.endswith("itas") for word in words)
