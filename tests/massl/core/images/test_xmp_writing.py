"""Keywords added to XMP: whatever it looks like, nothing else of it changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from massl.core.files.sidecars import place_for
from massl.core.images import xmp
from massl.core.images.xmp import XmpError
from massl.core.images.xmp_writing import with_keywords, without_keywords

RDF = 'xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
FORMS = {
    "no description": f"<r:RDF {RDF}/>",
    "an empty description": f"<r:RDF {RDF}><r:Description r:about='a>b' /></r:RDF>",
    "another property": f"<r:RDF {RDF}><r:Description {DC}><dc:title>x</dc:title></r:Description></r:RDF>",
    "an empty subject": f"<r:RDF {RDF}><r:Description {DC}><dc:subject/></r:Description></r:RDF>",
    "an empty list": f"<r:RDF {RDF}><r:Description {DC}><dc:subject><r:Bag/></dc:subject></r:Description></r:RDF>",
    "a list": f"<r:RDF {RDF}><r:Description {DC}><dc:subject><r:Seq><r:li>old</r:li></r:Seq></dc:subject>"
    "</r:Description><!-- kept --></r:RDF>",
    "no prefix": "<RDF xmlns='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><Description><s:subject "
    "xmlns:s='http://purl.org/dc/elements/1.1/'><Bag><li>old</li></Bag></s:subject></Description></RDF>",
    "in a packet": f"<?xpacket begin='\ufeff' id='x'?><m><r:RDF {RDF}><r:Description/></r:RDF></m>"
    "<?xpacket end='w'?>\n\n",
}
WORDS = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters=",\ufffe\uffff"), min_size=1, max_size=20
)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=5))
def test_keywords_are_added_and_every_byte_of_before_is_there(form: str, words: list[str]) -> None:
    before = FORMS[form].encode()
    after = with_keywords(before, words)
    assert set(xmp.read(after).keywords) == {*xmp.read(before).keywords, *words}
    left = iter(after)
    assert all(byte in left for byte in before if byte not in b"/ ")  # in their order; a tag may be opened
    assert with_keywords(after, words) is after


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(words=st.lists(WORDS.filter(lambda word: word != "old"), min_size=1, max_size=5, unique=True), data=st.data())
def test_keywords_are_taken_out_and_every_byte_of_the_rest_is_there(
    form: str, words: list[str], data: st.DataObject
) -> None:
    before = FORMS[form].encode()
    unwanted = data.draw(st.sets(st.sampled_from(words)))
    after = without_keywords(with_keywords(before, words), unwanted)
    kept = [word for word in words if word not in unwanted]
    assert xmp.read(after).keywords == (*xmp.read(before).keywords, *kept)
    # As if they had never been there, but for what holds the list.
    opened = without_keywords(with_keywords(before, ["x"]), ["x"])
    assert after == (with_keywords(opened, kept) if kept else opened)
    assert without_keywords(after, unwanted) is after


def test_keywords_of_other_writers_are_told_apart_and_taken_out_where_they_stand() -> None:
    spread = (
        f"<r:RDF {RDF}><r:Description {DC}>\n <dc:subject><r:Bag>\n  <r:li>a &lt; b</r:li>\n  <r:li q='>'>keep</r:li>\n"
        "  <r:li>  a &lt;  b </r:li><r:li/><r:li><![CDATA[a < b]]></r:li>\n </r:Bag></dc:subject>"
        "<dc:title>a &lt; b</dc:title></r:Description></r:RDF>"
    ).encode()
    after = without_keywords(spread, ["a < b", "r:li"])
    assert xmp.read(after).keywords == ("keep",)
    assert b"<dc:title>a &lt; b</dc:title>" in after
    assert after.count(b"<r:li") == 2
    deep = spread.replace(b"<r:li>a &lt; b</r:li>", b"<r:li><r:Bag><r:li>a &lt; b</r:li></r:Bag></r:li>", 1)
    with pytest.raises(XmpError, match="can't be taken out"):
        without_keywords(deep, ["a < b"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        (b"<html/>", "no rdf:RDF"),
        (b"\x89PNG", "no XML"),
        ("<?xml version='1.0' encoding='utf-16'?><a/>".encode("utf-16-be"), "UTF-8"),
        (b"<?xml version='1.0' encoding='latin-1'?><a/>", "UTF-8"),
        (f"<r:RDF {RDF}><r:Description {DC} dc:subject='x'/></r:RDF>".encode(), "attribute"),
        (f"<r:RDF {RDF}><r:Description {DC}><dc:subject>x</dc:subject></r:Description></r:RDF>".encode(), "no list"),
        (b" " * (xmp.MOST_BYTES + 1), "more than 1 MiB"),
    ],
)
def test_what_cant_be_added_to_is_told(data: bytes, why: str) -> None:
    with pytest.raises(XmpError, match=why):
        with_keywords(data, ["new"])


def test_more_keywords_than_readers_take_are_refused() -> None:
    full = with_keywords(None, [str(number) for number in range(xmp.MOST_KEYWORDS)])
    with pytest.raises(XmpError, match="256"):
        with_keywords(full, ["one more"])


def test_a_sidecar_is_called_as_other_programs_call_it() -> None:
    assert place_for("a.jpg", ["a.jpg"]) == "a.jpg.xmp"
    assert place_for("a.nef", ["a.nef", "a.jpg"]) == "a.xmp"
    assert place_for("a.nef", ["a.nef", "a.dng"]) == "a.nef.xmp"
    assert place_for("a.jpg", ["a.jpg", "A.XMP"]) == "A.XMP"
