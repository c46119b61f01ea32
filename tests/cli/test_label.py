"""`massl label` and `massl classify` as a person runs them."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path

import pytest

from cli.label import current_user
from tests.cli.conftest import failed
from tests.indexer.tiny import picture, write_encoder


@pytest.mark.usefixtures("indexed")
def test_labels_travel_by_csv(massl, photos: Path, tmp_path: Path) -> None:
    names = [f"fruit/{path.name}" for path in sorted(photos.glob("fruit/*"))[:2]]
    massl("label", "add", photos, "sweet, red", *names)
    (tmp_path / "labels.csv").write_text(massl("label", "export", photos).output)
    assert massl("label", "remove", photos, *names).code == 0
    assert massl("label", "list", photos).output == ""
    assert massl("label", "import", photos, tmp_path / "labels.csv").code == 0
    assert massl("label", "list", photos).output.splitlines() == [
        f"sweet, red\t{name}\t{current_user()}" for name in names
    ]


@pytest.mark.usefixtures("indexed")
def test_labels_come_from_spreadsheets_and_in_utf8(massl, photos: Path, tmp_path: Path) -> None:
    name = f"fruit/{next(photos.glob('fruit/*')).name}"
    table = tmp_path / "labels.csv"
    table.write_bytes(f"Path;Label\r\n{name};café\r\n".encode("utf-8-sig"))
    assert massl("label", "import", photos, table, "--json").json["labelled"] == 1
    assert massl("label", "list", photos).output == f"café\t{name}\t{current_user()}\n"
    table.write_bytes(f"Path;Label\r\n{name};café\r\n".encode("cp1252"))
    assert "line 2: the label is not written in UTF-8" in failed(massl("label", "import", photos, table))


@pytest.mark.usefixtures("indexed")
def test_an_image_that_is_not_there_is_named_as_it_was_given(massl, photos: Path) -> None:
    line = failed(massl("label", "add", photos, "x", f"{photos.name}/fruit/typo.jpg", cwd=photos.parent))
    assert f"{photos / 'fruit/typo.jpg'}: there is no such image" in line
    line = failed(massl("label", "add", photos, "x", "typo.jpg", cwd=photos.parent.parent))
    assert f"typo.jpg: there is no such image, neither here nor in {photos}" in line


@pytest.mark.usefixtures("indexed")
def test_a_table_means_the_same_images_wherever_it_is_read(massl, photos: Path, tmp_path: Path) -> None:
    (photos / "1.jpg").write_bytes(next(photos.glob("flag/*")).read_bytes())
    (photos / "fruit" / "1.jpg").write_bytes(next(photos.glob("fruit/*")).read_bytes())
    massl("index", photos, "-q")
    (tmp_path / "labels.csv").write_text(f"path,label\n1.jpg,beetle\n{photos / 'fruit' / '1.jpg'},pear\n")
    assert massl("label", "import", photos, tmp_path / "labels.csv", cwd=photos / "fruit").code == 0
    assert massl("label", "list", photos).output == "".join(
        f"{label}\t{name}\t{current_user()}\n" for label, name in (("beetle", "1.jpg"), ("pear", "fruit/1.jpg"))
    )


def test_images_in_a_linked_folder_are_named_by_their_place(massl, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (photos / "fruit").rename(tmp_path / "elsewhere" / "fruit")
    (photos / "linked").symlink_to(tmp_path / "elsewhere" / "fruit")
    massl("index", photos, "-q")
    name = next(photos.glob("linked/*")).name
    assert massl("label", "add", photos, "pear", f"{photos.name}/linked/{name}", cwd=photos.parent).code == 0
    assert massl("label", "list", photos).output == f"pear\tlinked/{name}\t{current_user()}\n"
    (photos / "inside").symlink_to(photos / "flag")
    (tmp_path / "shortcut").symlink_to(photos / "flag")
    flag = next(photos.glob("flag/*")).name
    assert massl("label", "add", photos, "x", f"{photos.name}/inside/{flag}", cwd=photos.parent).code == 0
    assert massl("label", "remove", photos, tmp_path / "shortcut" / flag, "--json").json["removed"] == 1
    assert massl("search", photos, photos / "flag" / flag, "--under", tmp_path / "shortcut").code == 0
    found = massl("search", photos, photos / "linked" / name, "--under", photos / "linked", "--json").json
    assert len(found["results"]) > 1
    assert all(result["path"].startswith("linked/") for result in found["results"])


@pytest.mark.usefixtures("indexed")
def test_contradictory_labels_are_named_and_nothing_is_imported(massl, photos: Path, tmp_path: Path) -> None:
    one, two = (f"fruit/{path.name}" for path in sorted(photos.glob("fruit/*"))[:2])
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{two},pear\n{one},apple\n{one},pear\n")
    line = failed(massl("label", "import", photos, table))
    assert f"line 4 gives {one} another label, 'pear' after 'apple'; nothing was imported" in line
    for row, said in (
        (f"{one},{'x' * 10_000}", "1 to 100 printable"),
        (f"{one},", "the label is empty"),  # a sample that nobody filled in
        ("nowhere.jpg,pear", "nowhere.jpg"),
        (" ,pear", "there is no path"),
    ):
        table.write_text(f"path,label\n{two},pear\n{row}\n")
        line = failed(massl("label", "import", photos, table))
        assert f"{table}, line 3: " in line
        assert said in line
        assert line.rstrip().endswith("; nothing was imported")
    assert massl("label", "list", photos).output == ""
    table.write_text(f"path,label\n{one},apple\n{one},apple\n")
    assert massl("label", "import", photos, table).code == 0


@pytest.mark.usefixtures("indexed")
def test_classes_are_chosen_told_abstained_from_and_taken_away(massl, photos: Path, tmp_path: Path) -> None:
    for kind in ("flag", "fruit"):
        massl("label", "add", photos, kind, *(f"{kind}/{path.name}" for path in sorted(photos.glob(f"{kind}/*"))[:4]))
    told = massl("classify", photos, "--json", "--min-probability", "0.8").json
    assert (told["interval"], told["estimated_accuracy"]) == (None, None)  # there are two more kinds
    assert told["method"] == told["methods"][0]["method"]
    assert len(told["methods"]) == 3
    unsure = [row for row in told["predictions"] if row["label"] is None]
    assert 0 < len(unsure) == told["unsure"] < 24
    assert all(row["probability"] >= 0.8 for row in told["predictions"] if row["label"])
    assert "no estimate of the accuracy: label a random sample" in massl("classify", photos).error

    coco = massl("label", "export", photos, "--format", "coco", "-o", tmp_path / "labels.json")
    assert (coco.code, coco.output) == (0, "")
    assert len(json.loads((tmp_path / "labels.json").read_text())["annotations"]) == 8
    tasks = json.loads(massl("label", "export", photos, "--format", "label-studio", "--predictions").output)
    assert len(tasks) == 24
    assert massl("label", "export", photos, "--format", "onnx", "-o", tmp_path / "classifier.onnx").code == 0
    assert (tmp_path / "classifier.onnx").stat().st_size > 1_000_000
    about = massl("info", tmp_path / "classifier.onnx").output.splitlines()
    assert " ".join(about[2].split()) == f"classes flag, fruit; {told['method']}"
    assert "--out classifier.onnx" in failed(massl("label", "export", photos, "--format", "onnx"))
    unknown = massl("label", "export", photos, "--format", "xml")
    assert unknown.code == 2
    assert "choose one of csv" in unknown.error

    written = massl("label", "export", photos, "--format", "coco", "-o", tmp_path / "again.json", "--json").json
    assert (written["written"], written["format"]) == (str(tmp_path / "again.json"), "coco")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "labels.json").read_bytes()
    for flags in (("--format", "coco"), ("--predictions",)):
        refused = massl("label", "export", photos, "--json", *flags)
        assert (refused.code, refused.output) == (2, "")

    checked = massl("label", "check", photos, "--json").json
    assert checked["suspects"] == []
    assert "too few labels" in checked["learning_curve"]["advice"]
    assert "no label looks wrong" in massl("label", "check", photos).error


def test_every_labelling_command_prints_json(massl, photos: Path, tmp_path: Path) -> None:
    massl("index", photos, "-q")
    flags, space = ([f"{kind}/{path.name}" for path in sorted((photos / kind).iterdir())] for kind in ("flag", "space"))
    assert massl("label", "add", photos, "flag", *flags, "--json").json == {"schema": 1, "labelled": 6}
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{path},space\n" for path in space))
    assert massl("label", "import", photos, table, "--json").json == {"schema": 1, "labelled": 6, "left_out": 0}
    assert massl("label", "remove", photos, flags[0], "--json").json == {"schema": 1, "removed": 1}
    assert len(massl("label", "list", photos, "--json").json["labels"]) == 11
    assert massl("label", "remove", photos, flags[1]).error == "1 label removed\n"
    for command in ("list", "export", "check"):
        assert massl("label", command, photos, "--json").json["schema"] == 1


def test_one_wrong_label_is_spoken_of_as_one(massl, photos: Path) -> None:
    massl("index", photos, "-q")
    for kind in ("flag", "fruit"):
        massl("label", "add", photos, kind, *(f"{kind}/{path.name}" for path in sorted((photos / kind).iterdir())))
    massl("label", "add", photos, "flag", f"fruit/{sorted(path.name for path in (photos / 'fruit').iterdir())[1]}")
    assert massl("label", "check", photos).error.startswith("1 label looks wrong\n")


def test_what_is_exported_comes_back_as_whose_it_was(massl, indexed: Path, tmp_path: Path) -> None:
    kinds = {kind: sorted(str(path) for path in (indexed / kind).iterdir()) for kind in ("flag", "space")}
    rows = [f"{kinds['flag'][0]},flag,page (drawn),", f"{kinds['flag'][1]},flag,page (accepted),"]
    rows += [f"{path},space,jo," for path in kinds["space"][:2]]
    table = tmp_path / "labels.csv"
    table.write_text("path,label,author,at\n" + "\n".join(rows) + "\n")
    massl("label", "import", indexed, table)
    given = massl("label", "list", indexed, "--json").json["labels"]
    assert [item["author"] for item in given] == ["page (drawn)", "page (accepted)", "jo", "jo"]

    massl("label", "export", indexed, "--predictions", "--out", table)
    ran = massl("label", "import", indexed, table)
    left = sum(1 for _ in indexed.glob("*/*.jpg")) - 4
    assert ran.error == f"4 labelled\n{left} left out, as massl's own predictions that nobody has looked at\n"
    again = massl("label", "list", indexed, "--json").json["labels"]
    assert [(item["path"], item["author"]) for item in again] == [(item["path"], item["author"]) for item in given]

    table.write_text(f"path,label,author\n{kinds['space'][0]},space,Vincent van Gogh\n")  # of somebody else's making
    massl("label", "import", indexed, table)
    assert massl("label", "list", indexed, "--json").json["labels"][2]["author"] == getpass.getuser()


def test_a_folder_is_no_image_to_label(massl, indexed: Path) -> None:
    assert "flag is a folder; name its images, as flag/*.jpg" in failed(massl("label", "add", indexed, "x", "flag"))


MEANT = "M\u00fcll/\u00e4 b.bmp"


@pytest.fixture
def named(massl, tmp_path: Path) -> Path:
    """An indexed folder with accents in its names."""
    root = tmp_path / "ph\u00f6tos"
    (root / "M\u00fcll").mkdir(parents=True)
    for number, name in enumerate((MEANT, "c.bmp", "=1.bmp", "back\\slash.bmp")):
        (root / name).write_bytes(picture(number))
    assert massl("index", root, "--encoder", write_encoder(tmp_path / "tiny.onnx")).code == 0
    return root


@pytest.mark.parametrize(
    "written",
    [
        "Mu\u0308ll/a\u0308 b.bmp",
        "M\u00fcll\\\u00e4 b.bmp",
        ".\\Mu\u0308ll\\\u00e4 b.bmp",
        "./M\u00fcll//\u00e4 b.bmp",
        " M\u00fcll/\u00e4 b.bmp ",
        "{root}/M\u00fcll/\u00e4 b.bmp",
        "{root}/Mu\u0308ll/a\u0308 b.bmp",
    ],
)
@pytest.mark.parametrize("form", ["path,label\n{},x\n", "sep=;\r\nPath;Label;;\r\n{};x;;\r\n;;;\r\n"])
def test_a_table_s_path_means_the_one_image_that_it_can_mean(
    massl, named: Path, tmp_path: Path, written: str, form: str
) -> None:
    (tmp_path / "t.csv").write_bytes(form.format(written.format(root=named)).encode("utf-8-sig"))
    assert massl("label", "import", named, tmp_path / "t.csv", "--json").json["labelled"] == 1
    assert [item["path"] for item in massl("label", "list", named, "--json").json["labels"]] == [MEANT]


def test_a_path_that_could_mean_two_images_is_refused(massl, named: Path, tmp_path: Path) -> None:
    (named / "Mu\u0308ll").mkdir()
    (named / "Mu\u0308ll" / "\u00e4 b.bmp").write_bytes(picture(9))
    massl("index", named)
    (tmp_path / "t.csv").write_text("path,label\nMu\u0308ll/a\u0308 b.bmp,x\n")
    told = failed(massl("label", "import", named, tmp_path / "t.csv"))
    assert "line 2: " in told
    assert "could mean 'Mu\\u0308ll/\\xe4 b.bmp' or 'M\\xfcll/\\xe4 b.bmp'" in told
    (tmp_path / "t.csv").write_text("path,label\nMu\u0308ll/\u00e4 b.bmp,x\n")  # the name of one of them exactly
    assert massl("label", "import", named, tmp_path / "t.csv").code == 0


def test_a_table_in_excel_s_own_code_page_says_what_to_do(massl, named: Path, tmp_path: Path) -> None:
    for row in ("M\u00fcll/\u00e4 b.bmp;x", "c.bmp;K\u00e4se"):
        (tmp_path / "t.csv").write_bytes(f"path;label\r\n{row}\r\n".encode("cp1252"))
        told = failed(massl("label", "import", named, tmp_path / "t.csv"))
        assert re.search(r"line 2: the (path|label) is not written in UTF-8; save the file as CSV in UTF-8", told)


def test_exported_labels_start_no_formula_and_come_back_the_same(massl, named: Path, tmp_path: Path) -> None:
    for path, label in (("=1.bmp", "@x"), ("c.bmp", "'=y"), (MEANT, "-1"), ("back\\slash.bmp", "-1+1")):
        assert massl("label", "add", named, "--", label, path).code == 0
    before = massl("label", "list", named, "--json").json["labels"]
    exported = massl("label", "export", named).output
    assert "'=1.bmp,'@x," in exported
    (tmp_path / "t.csv").write_text(exported)
    massl("label", "remove", named, *(item["path"] for item in before))
    assert massl("label", "import", named, tmp_path / "t.csv", "--json").json["labelled"] == 4
    after = massl("label", "list", named, "--json").json["labels"]
    assert [(item["path"], item["label"]) for item in after] == [(item["path"], item["label"]) for item in before]
    manifest = massl("label", "export", named, "--format", "imagefolder").output
    assert "./=1.bmp,'@x," in manifest


@pytest.mark.usefixtures("indexed")
def test_images_of_no_named_class_are_learnt_from_and_left_out_of_exports(massl, photos: Path, tmp_path: Path) -> None:
    for kind in ("flag", "fruit"):
        massl("label", "add", photos, kind, *[f"{kind}/{path.name}" for path in sorted(photos.glob(f"{kind}/*"))[:6]])
    others = [f"space/{path.name}" for path in sorted(photos.glob("space/*"))[:6]]
    assert massl("label", "none", photos, *others, "--json").json["labelled"] == 6
    assert massl("label", "list", photos).output.count("none of these\t") == 6
    told = massl("classify", photos, "--json").json
    assert told["labels"] == {"flag": 6, "fruit": 6, "none of these": 6}
    rest = {row["label"] for row in told["predictions"] if row["path"].startswith("space/")}
    assert "none of these" in rest
    for how in (("--format", "csv"), ("--format", "coco"), ("--predictions",)):
        exported = massl("label", "export", photos, *how).output
        assert "flag" in exported
        assert "none of these" not in exported


@pytest.mark.usefixtures("indexed")
def test_a_random_sample_is_filled_in_and_is_what_the_estimate_rests_on(massl, photos: Path, tmp_path: Path) -> None:
    for kind in ("flag", "fruit"):
        massl("label", "add", photos, kind, *[f"{kind}/{path.name}" for path in sorted(photos.glob(f"{kind}/*"))[:6]])
    told = massl("classify", photos, "--json").json
    assert (told["estimated_accuracy"], told["expected_accuracy"]) == (None, None)  # two of many kinds are named
    assert told["needs"].startswith("label a random sample")
    assert told["unnamed"][0] > 0.1
    said = massl("classify", photos).error
    assert "massl label sample" in said
    for kind in ("flag", "fruit"):  # few enough to leave a sample
        massl("label", "remove", photos, *[f"{kind}/{path.name}" for path in sorted(photos.glob(f"{kind}/*"))[2:6]])
    lines = massl("label", "sample", photos, "-n", 20).output.splitlines()
    assert len(lines) == 21
    labelled = {item["path"] for item in massl("label", "list", photos, "--json").json["labels"]}
    filled = [lines[0]]
    for line in lines[1:]:
        path, *rest = line.split(",")
        assert path not in labelled
        kind = path.split("/")[0]
        filled.append(",".join([path, kind if kind in ("flag", "fruit") else "none of these", *rest[1:]]))
    (tmp_path / "empty.csv").write_text("\n".join(lines))
    assert "nothing was imported" in failed(massl("label", "import", photos, tmp_path / "empty.csv"))
    (tmp_path / "sample.csv").write_text("\n".join(filled))
    assert massl("label", "import", photos, tmp_path / "sample.csv", "--json").json["labelled"] == 20
    told = massl("classify", photos, "--json").json
    low, high = told["interval"]
    assert low < told["estimated_accuracy"] <= high
    assert (told["needs"], told["unnamed"]) == (None, [0.0, 0.0])
    said = massl("classify", photos).error
    assert f"classifier: {told['method']}" in said
    assert "nearest neighbours" in said
