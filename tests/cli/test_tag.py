"""`massl tag`, as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.label import current_user
from indexer.store.tags import MAX_TAGS
from massl.core.images import xmp
from massl.core.images.xmp_writing import with_keywords
from tests.cli.conftest import failed

pytestmark = pytest.mark.usefixtures("indexed")


def names(photos: Path, kind: str, count: int) -> list[str]:
    return [f"{kind}/{path.name}" for path in sorted(photos.glob(f"{kind}/*"))[:count]]


def listed(massl, photos: Path) -> list[tuple[str, str]]:
    return [(item["path"], item["tag"]) for item in massl("tag", "list", photos, "--json").json["tags"]]


def test_tags_are_given_listed_searched_by_and_taken_off(massl, photos: Path) -> None:
    one, two, three = names(photos, "fruit", 3)
    assert massl("tag", "add", photos, "sweet, red", one, two, "--json").json == {"schema": 1, "tagged": 4}
    assert massl("tag", "add", photos, "cafe\u0301", one).code == 0  # in the composed form it is one character less
    assert listed(massl, photos) == [(one, "café"), (one, "red"), (one, "sweet"), (two, "red"), (two, "sweet")]
    assert f"red\t{one}\t{current_user()}\n" in massl("tag", "list", photos).output

    def found(*options: str) -> set[str]:
        return {item["path"] for item in massl("search", photos, photos / three, "--json", *options).json["results"]}

    assert found("--tag", "red", "--tag", "sweet") == {one, two}
    assert found("--tag", "red", "--tag", "café") == {one}
    assert found("--any-tag", "red", "--any-tag", "café") == {one, two}
    rest = found("--without-tag", "café")
    assert one not in rest
    assert {two, three} <= rest
    assert "no image has the tag 'blue'; the tags are: 'café', 'red', 'sweet'" in failed(
        massl("search", photos, photos / three, "--tag", "blue")
    )
    assert massl("tag", "remove", photos, "sweet", one, three, "--json").json["removed"] == 1
    assert (one, "sweet") not in listed(massl, photos)
    assert massl("label", "list", photos).output == ""  # a tag is no label


@pytest.mark.parametrize("tag", [" , ", "x" * 10_000])
def test_what_is_no_tag_is_refused_in_a_line(massl, photos: Path, tag: str) -> None:
    (one,) = names(photos, "fruit", 1)
    assert "a tag is 1 to 100 printable characters" in failed(massl("tag", "add", photos, tag, one))
    assert listed(massl, photos) == []


def test_an_image_takes_no_more_tags_than_readers_of_sidecars_do(massl, photos: Path) -> None:
    (one,) = names(photos, "fruit", 1)
    massl("tag", "add", photos, ",".join(f"t{number}" for number in range(MAX_TAGS)), one)
    line = failed(massl("tag", "add", photos, "one more", one))
    assert f"{one} would have more than {MAX_TAGS} tags; nothing was tagged" in line
    assert len(listed(massl, photos)) == MAX_TAGS


def test_tags_travel_by_csv_coco_and_label_studio(massl, photos: Path, tmp_path: Path) -> None:
    one, two = names(photos, "fruit", 2)
    massl("tag", "add", photos, "sweet,=red", one)
    massl("tag", "add", photos, "sweet", two)
    before = listed(massl, photos)
    for kind in ("csv", "coco", "label-studio"):
        out = tmp_path / f"tags.{kind}"
        assert massl("tag", "export", photos, "--format", kind, "--out", out).code == 0
        massl("tag", "remove", photos, "sweet,=red", one, two)
        assert listed(massl, photos) == []
        assert massl("tag", "import", photos, out, "--json").json == {"schema": 1, "tagged": 3, "left": []}
        assert listed(massl, photos) == before
    tasks = json.loads((tmp_path / "tags.label-studio").read_text())
    assert [task["annotations"][0]["result"][0]["value"]["choices"] for task in tasks] == [["=red", "sweet"], ["sweet"]]
    assert len(json.loads((tmp_path / "tags.coco").read_text())["images"]) == 2


def test_a_table_is_taken_whole_or_not_at_all(massl, photos: Path, tmp_path: Path) -> None:
    (one,) = names(photos, "fruit", 1)
    table = tmp_path / "tags.csv"
    table.write_text(f'path,tags\n{one},"sweet, red"\nnowhere.jpg,red\n')
    line = failed(massl("tag", "import", photos, table))
    assert f"{table}, line 3: " in line
    assert line.endswith("nothing was imported")
    assert listed(massl, photos) == []
    table.write_text(f'path,tags\n{one},"sweet, red"\n')
    assert massl("tag", "import", photos, table, "--json").json["tagged"] == 2
    table.write_text("[" * 100_000)
    assert "can't be read as JSON" in failed(massl("tag", "import", photos, table))
    table.write_text('{"images": 3}')
    assert "is neither COCO nor an export of Label Studio" in failed(massl("tag", "import", photos, table))
    half = {"images": [{"id": 1, "file_name": "\ud800"}], "categories": [{"id": 1, "name": "c"}]}
    table.write_text(json.dumps(half | {"annotations": [{"image_id": 1, "category_id": 1}]}))
    assert "annotation 1: \\ud800: there is no such image" in failed(massl("tag", "import", photos, table))
    result: dict[str, object] = {"value": {"choices": "beach"}}  # not five tags of a letter
    table.write_text(json.dumps([{"data": {"image": one}, "annotations": [{"result": [result]}]}]))
    assert "is neither COCO nor an export of Label Studio" in failed(massl("tag", "import", photos, table))
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", "/dev/zero"):
        assert f"{endless} can't be read (not a regular file)" in failed(massl("tag", "import", photos, endless))
    assert "name a file, or give --from-files" in massl("tag", "import", photos).error


def test_sidecars_are_written_merged_and_read_back_and_no_picture_changes(massl, photos: Path) -> None:
    one, two = names(photos, "fruit", 2)
    pictures = {path: path.read_bytes() for path in photos.glob("f*/*")}
    kept = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4" xmlns:d="http://darktable.sf.net/" '
        'd:history="as it was"/><!-- stays --></rdf:RDF></x:xmpmeta>'
    )
    (photos / f"{one}.xmp").write_text(kept)
    massl("tag", "add", photos, "sweet,a < b & c", one, two)
    done = massl("tag", "export", photos, "--format", "xmp", "--json").json
    assert done == {"schema": 1, "written": [f"{one}.xmp", f"{two}.xmp"], "removed": [], "unchanged": 0, "left": []}
    merged = (photos / f"{one}.xmp").read_text()
    assert xmp.read(merged.encode()).keywords == ("a < b & c", "sweet")
    assert all(part in merged for part in ('xmp:Rating="4"', 'd:history="as it was"', "<!-- stays -->"))
    assert massl("tag", "export", photos, "--format", "xmp", "--json").json["unchanged"] == 2
    assert {path: path.read_bytes() for path in pictures} == pictures

    massl("tag", "remove", photos, "sweet,a < b & c", one, two)
    massl("index", photos, "-q")
    assert listed(massl, photos) == []  # words of files become tags on demand alone
    assert massl("tag", "import", photos, "--from-files", "--json").json["tagged"] == 4
    assert listed(massl, photos)[0] == (one, "a < b & c")
    assert "0 tags given" in massl("tag", "import", photos, "--from-files").error  # told in words


def test_a_removed_tag_leaves_the_sidecar_and_words_of_others_stay(massl, photos: Path) -> None:
    one, two, three = names(photos, "fruit", 3)
    (photos / f"{one}.xmp").write_bytes(with_keywords(None, ["theirs", "both"]))
    massl("tag", "add", photos, "both,ours,two  spaces", one, two)
    massl("tag", "add", photos, "ours", three)
    assert len(massl("tag", "export", photos, "--format", "xmp", "--json").json["written"]) == 3

    def words(path: str) -> set[str]:
        return set(xmp.read((photos / f"{path}.xmp").read_bytes()).keywords)

    assert words(one) == {"theirs", "both", "ours", "two spaces"}
    # Another program writes the sidecar anew, with a word of its own and decomposed accents.
    massl("tag", "add", photos, "café", one)
    massl("tag", "export", photos, "--format", "xmp")
    (photos / f"{one}.xmp").write_bytes(with_keywords(None, ["new", "cafe\u0301", *sorted(words(one) - {"café"})]))
    massl("tag", "remove", photos, "both,ours,café", one, two, three)
    massl("index", photos, "-q")
    done = massl("tag", "export", photos, "--format", "xmp", "--json")
    assert done.json | {"schema": 1} == {
        "schema": 1, "written": [f"{one}.xmp", f"{two}.xmp"], "removed": [f"{three}.xmp"], "unchanged": 0, "left": []
    }  # fmt: skip
    assert (words(one), words(two)) == ({"theirs", "both", "new", "two spaces"}, {"two spaces"})
    assert not (photos / f"{three}.xmp").exists()  # massl made it, and nothing else was in it
    again = massl("tag", "export", photos, "--format", "xmp", "--json").json
    assert (again["written"], again["removed"], again["unchanged"]) == ([], [], 2)

    # A word of ours that somebody removed, and gave again as theirs after the tag had gone, is theirs.
    (photos / f"{two}.xmp").unlink()
    massl("tag", "remove", photos, "two  spaces", two)
    massl("tag", "export", photos, "--format", "xmp")
    (photos / f"{two}.xmp").write_bytes(with_keywords(None, ["two spaces"]))
    massl("tag", "export", photos, "--format", "xmp")
    assert words(two) == {"two spaces"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_kill_it_is_known_which_words_are_ours(massl, photos: Path, when: str) -> None:
    one, two = names(photos, "fruit", 2)
    massl("tag", "add", photos, "ours", one, two)
    script = f"""
import os, signal
from pathlib import Path
from indexer import Collection
from indexer.label_formats import tag_sidecars
put = tag_sidecars._put
def killed(sidecar, names):
    if {when == "before"} and sidecar.place.name == {two.rpartition("/")[2] + ".xmp"!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    put(sidecar, names)
    if {when == "after"}:
        os.kill(os.getpid(), signal.SIGKILL)
tag_sidecars._put = killed
Collection.open({str(photos)!r}).exports.write_sidecars()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert (photos / f"{one}.xmp").exists()
    assert not (photos / f"{two}.xmp").exists()
    massl("tag", "remove", photos, "ours", one, two)
    assert massl("tag", "export", photos, "--format", "xmp", "--json").json["removed"] == [f"{one}.xmp"]
    assert not (photos / f"{one}.xmp").exists()


def test_a_sidecar_that_is_hostile_or_anothers_stays_and_is_told(massl, photos: Path, tmp_path: Path) -> None:
    one, two, three, four = names(photos, "fruit", 4)
    hostile = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'
    (photos / f"{one}.xmp").write_text(hostile)
    other = '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description '
    other += 'xmlns:p="http://ns.adobe.com/photoshop/1.0/" p:SidecarForExtension="NEF"/></r:RDF>'
    (photos / f"{two}.xmp").write_text(other)
    (tmp_path / "elsewhere").write_text("precious")
    (photos / f"{three}.xmp").symlink_to(tmp_path / "elsewhere")
    massl("tag", "add", photos, "sweet", one, two, three, four)
    ran = massl("tag", "export", photos, "--format", "xmp", "--json")
    assert ran.code == 1
    assert ran.json["written"] == [f"{four}.xmp"]
    reasons = {item["path"]: item["reason"] for item in ran.json["left"]}
    assert "document type" in reasons[one]
    assert "belongs to a .NEF file" in reasons[two]
    assert "is a link" in reasons[three]
    assert (photos / f"{one}.xmp").read_text() == hostile
    assert (photos / f"{two}.xmp").read_text() == other
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert "3 pictures got no tags in a sidecar" in ran.error


def test_a_sidecar_that_cant_be_written_is_told(massl, photos: Path) -> None:
    (one,) = names(photos, "fruit", 1)
    long = f"{'x' * 250}.jpg"[-252:]  # with .xmp, longer than file systems take
    (photos / one).rename(photos / long)
    massl("index", photos, "-q")
    massl("tag", "add", photos, "sweet", long)
    ran = massl("tag", "export", photos, "--format", "xmp")
    assert ran.code == 1
    assert "its sidecar can't be written: " in ran.error
    assert not list(photos.glob(".massl-*.tmp"))


def test_proposals_are_an_order_until_there_are_examples_enough_and_no_is_remembered(massl, photos: Path) -> None:
    fruit, flags = names(photos, "fruit", 9), names(photos, "flag", 9)
    assert "no image has a tag; give some" in failed(massl("tag", "propose", photos))
    massl("tag", "add", photos, "sweet", *fruit[:2])
    line = failed(massl("tag", "propose", photos, "sweet"))
    assert "known of 2 images, and 0 are known not to have it; 2 of each are needed" in line
    massl("tag", "add", photos, "cloth", flags[0])
    massl("tag", "reject", photos, "sweet", flags[1], flags[2])
    told = massl("tag", "propose", photos, "sweet", "--min-probability", "0", "--json").json
    proposed = [item["path"] for item in told["proposals"]]
    assert {item["probability"] for item in told["proposals"]} == {None}
    assert not {*fruit[:2], *flags[:3]} & set(proposed)
    assert proposed[0] in fruit
    (about,) = told["tags"]
    assert about | {"reason": ""} == {"tag": "sweet", "claimed": False, "examples": 2, "others": 3, "reason": ""}
    assert "10 of each, chosen by hand" in about["reason"]
    assert "has the tag 'sweet' already" in failed(massl("tag", "reject", photos, "sweet", fruit[0]))
    assert massl("tag", "add", photos, "sweet", flags[1]).code == 0  # which takes the rejection back
    assert massl("tag", "reject", photos, "sweet", flags[2], "--json").json["rejected"] == 0
    assert massl("tag", "add", photos, "sweet", "--accepted", fruit[4]).code == 0
    (given,) = [item for item in massl("tag", "list", photos, "--json").json["tags"] if item["path"] == fruit[4]]
    assert given["author"] == "page (accepted)"


def test_the_kept_duplicate_takes_over_tags(massl, photos: Path, tmp_path: Path) -> None:
    (one,) = names(photos, "fruit", 1)
    (photos / "copy.jpg").write_bytes((photos / one).read_bytes())
    massl("index", photos, "-q")
    massl("tag", "add", photos, "red", one)
    massl("tag", "add", photos, "sweet", "copy.jpg")
    massl("tag", "reject", photos, "blue", "copy.jpg")
    massl("dupes", photos, "--plan", tmp_path / "plan.csv", "--exact-only")
    done = massl("dupes", photos, "--apply", tmp_path / "plan.csv", "--by", f"move:{tmp_path / 'away'}")
    assert done.code == 0, done.error
    massl("index", photos, "-q")
    kept = one if (photos / one).exists() else "copy.jpg"
    assert listed(massl, photos) == [(kept, "red"), (kept, "sweet")]
    assert massl("tag", "reject", photos, "blue", kept, "--json").json["rejected"] == 0  # known
