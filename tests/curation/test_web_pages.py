"""`marco curate` of pages in old charsets."""

import gzip
import json

from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from tests.curation.test_warc import http, record
from tests.curation.web_texts import SENTENCES


def test_pages_in_old_charsets_are_kept_with_their_charset(tmp_path):
    pages = {"ru": "koi8-r", "el": "windows-1253", "uk": "windows-1251", "pl": "utf-8"}
    members = [
        record(
            http(
                f"<div><p>{SENTENCES[language]}</p></div>".encode(codec),
                media=f"text/html; charset={codec}",
            ),
            url=language,
        )
        for language, codec in pages.items()
    ]
    members.append(record(http(b"gone", status="404 Not Found"), url="gone"))
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, members)))
    report = curate((str(tmp_path / "a.warc.gz"),), tmp_path / "out", curation_config())
    assert report["unreadable"] == {"HTTP error": 1}
    found = {}
    for file in (tmp_path / "out/docs").glob("*.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            found |= {row["language"]: row for row in map(json.loads, lines)}
    assert {language: row.get("charset", "utf-8") for language, row in found.items()} == pages
    assert all(row["text"] == SENTENCES[language] for language, row in found.items())
