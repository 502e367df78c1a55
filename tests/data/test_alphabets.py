"""Files of Central European, Turkish and Baltic languages are read in their encoding, and those of western ones as cp1252."""

from __future__ import annotations

from pathlib import Path

import pytest

from loralab.data.alphabets import likely_encodings
from loralab.data.text_files import Encoding, detect_encoding
from loralab.errors import LoralabError

CENTRAL = {
    "Czech": "Zásilka dorazila o dva dny později|Příště už tady určitě nic nekoupím, škoda peněz|Řidič byl milý, měl s sebou koně",
    "Slovak": "Zásielka prišla neskôr a škatuľa bola poškodená|Nabudúce tu už určite nič nekúpim, škoda peňazí|Veľmi dobrý výrobok",
    "Polish": "Jestem zadowolona i mam nadzieję, że długo posłuży|Źle uszyte, nić się pruje|Szkoda pieniędzy na te śmieci",
    "Croatian": "Pošiljka je stigla kasnije, a kutija je oštećena|Sljedeći put sigurno neću ništa kupiti|Leđa me bole čim sjednem",
    "Romanian": "Coletul a ajuns târziu, iar cutia era ruptă|Culoarea nu se potriveşte cu poza|Sper să ţină mult, sunt mulţumită",
    "Hungarian": "A fűtés nem működik, a bőrönd túl szűk és gyűrött|Elégedett vagyok, remélem, sokáig tart|Kár a pénzért",
}
TURKISH = (
    "Paket iki gün geç geldi ve kutu hasarlıydı|İstanbul'dan aldığım ürün çok iyi|Şubat ayında alışverişten memnundum, ağır değil"
)
BALTIC = {
    "Lithuanian": "Dėžutė buvo pažeista, siunta atvyko vėliau|Klientų aptarnavimas į klausimus neatsakė|Šiūlės išyra, nepirksiu",
    "Latvian": "Sūtījums pienāca vēlāk, un kaste bija bojāta|Esmu ļoti apmierināta ar pirkumu|Krāsa neatbilst attēlam, žēl naudas",
}
OTHERS = [
    *((text, encoding) for text in CENTRAL.values() for encoding in ("cp1250", "iso8859_2")),
    (TURKISH, "cp1254"),
    *((text, "cp1257") for text in BALTIC.values()),
]
WESTERN = {
    "German": "Die Lieferung kam zu spät, größere Mängel nicht|Für den Preis in Ordnung|Die Tür schließt nicht, schöne Grüße",
    "French": "Le colis est arrivé très en retard, l'emballage était abîmé|Un cœur naïf, où ça ?|Rien à redire du goût agréable",
    "Spanish": "Mañana volveré, ¡qué vergüenza!|El envío llegó tarde y la caja venía rota|Según el médico, el niño está mejor",
    "Portuguese": "Não gostei, é fino e desconfortável|A estação fica perto, à esquerda|Ótima relação, três opções, você avô",
    "Italian": "La qualità è buona, però il colore no|Perché costa così tanto?|Lunedì proverò più volte",
    "Swedish": "Färgen stämmer inte alls|Väldigt snabb leverans från Göteborg|Jag är nöjd med köpet, lådan höll",
    "Danish": "Æsken var gået i stykker|Størrelsen passer ikke|Jeg håber, køber og sælger får råd",
    "Icelandic": "Ég er mjög ánægð með kaupin|Þjónustan svaraði aldrei spurningum mínum|Rafhlaðan entist í ó- og æðislegan tíma",
    "Estonian": "Pakk jõudis kohale kaks päeva hiljem|Värv ei ole üldse selline, šokk|Aku ei pea vastu ühte tööpäeva",
    "several": "Für den Preis völlig gut|Le goût agréable, ça marche à merveille|El niño está mañana aquí|È così, però più tardi",
    "names": "Besançon and Málaga|Forlì, Cefalù and León|Malmö, Århus and São Paulo|Curaçao, Genève and Nîmes|Reykjavík and Zürich",
}


def detect(tmp_path: Path, texts: str, encoding: str, times: int) -> tuple[Encoding, str, str]:
    """Return the encoding of a file with the texts, repeated, and its content as written and as read."""
    content = "text,label\n" + "".join(f'"{text}",{"ab"[i % 2]}\n' for i, text in enumerate(texts.split("|") * times))
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode(encoding))
    detected = detect_encoding(path)
    return detected, content, path.read_bytes().decode(detected.name)


@pytest.mark.parametrize("times", [3, 70])
@pytest.mark.parametrize(("texts", "encoding"), OTHERS)
def test_other_alphabets_are_read_in_their_encoding(tmp_path: Path, texts: str, encoding: str, times: int) -> None:
    detected, written, read = detect(tmp_path, texts, encoding, times)
    assert read == written
    assert detected.notice is not None
    assert (detected.notice.severity, "data.encoding=cp1252" in detected.notice.fix) == ("warning", True)


@pytest.mark.parametrize("times", [1, 70])
@pytest.mark.parametrize("texts", WESTERN.values(), ids=WESTERN)
def test_western_languages_are_read_as_cp1252(tmp_path: Path, texts: str, times: int) -> None:
    detected, written, read = detect(tmp_path, texts, "cp1252", times)
    assert (detected.name, read) == ("cp1252", written)


@pytest.mark.parametrize(("word", "encoding"), [("málo peněz, přišlo", "cp1250"), ("geç geldi, kötü ağır aldım", "cp1254")])
def test_few_letters_are_refused_with_both_readings(tmp_path: Path, word: str, encoding: str) -> None:
    with pytest.raises(LoralabError, match=rf"data\.encoding={encoding} or data\.encoding=cp1252$") as error:
        detect(tmp_path, f"{word}|plain|{word}", encoding, 1)
    assert word[:8] in str(error.value)


def test_few_letters_that_cp1252_lacks_are_read(tmp_path: Path) -> None:
    detected, written, read = detect(tmp_path, "Loď plula na západ, trať byla prázdná a dlouhá", "cp1250", 1)
    assert (detected.name, read) == ("cp1250", written)


@pytest.mark.parametrize(
    ("text", "encodings"),
    [
        ("èèèèè", []),  # 5 letters
        ("èèèèèè", ["cp1252"]),
        ("ÈÈÈÈÈÈ", ["cp1252"]),
        ("è" * 98 + "þþ", ["cp1252"]),
        ("è" * 97 + "þþþ", ["cp1257"]),  # 97 % of French letters, and all of Lithuanian ones
        ("è" * 97 + "ååå", []),
        ("è" * 25 + "a" * 975, ["cp1252"]),
        ("è" * 24 + "a" * 976, []),  # 2.4 % of all letters
        ("è" * 25 + "a" * 975 + "123 .,-" * 99, ["cp1252"]),
        ("ìèøìèø", ["cp1250"]),
        ("l³d l³d l³d l³d l³d l³d", ["cp1250"]),
        ("l³ ³d l³d l³d l³d l³d", ["cp1250"]),
        ("naïve café, l’été d’Élise à Noël", ["cp1252"]),  # an apostrophe is no sign of another encoding
    ],
)
def test_one_language_explains_the_letters(text: str, encodings: list[str]) -> None:
    assert likely_encodings(text.encode("cp1252")) == encodings


def test_encodings_that_read_alike_are_one_and_others_are_several() -> None:
    assert likely_encodings("ěčřěčř".encode("cp1250")) == ["cp1250"]  # in ISO 8859-2 too
    assert likely_encodings("ěčřěčřš".encode("cp1250")) == ["cp1250"]
    assert likely_encodings("ěčřěčřš".encode("iso8859_2")) == ["iso8859_2"]
    assert likely_encodings("žážážá".encode("iso8859_2")) == ["cp1250", "iso8859_2"]  # Slovak ľáľáľá, or Czech
