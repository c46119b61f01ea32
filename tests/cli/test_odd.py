"""`massl odd` as a person runs it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.conftest import failed


def test_the_least_usual_pictures_come_first(massl, indexed: Path) -> None:
    ran = massl("odd", indexed, "-k", 5)
    assert len(ran.output.splitlines()) == 5
    assert "5 of 24 images" in ran.error
    found = massl("odd", indexed, "-k", 5, "--json").json
    assert set(found) == {"schema", "results", "among", "reference"}
    assert set(found["results"][0]) == {"rank", "path", "score", "label"}
    assert massl("odd", indexed, "-k", 5, "--paths").output.split() == [row["path"] for row in found["results"]]

    space = sorted(str(path.relative_to(indexed)) for path in (indexed / "space").glob("*.jpg"))
    massl("label", "add", indexed, "good", *space[:5])
    good = massl("odd", indexed, "--good", "good", "--json").json
    assert good["results"][-1]["path"] == space[5]
    flagged = massl("odd", indexed, "--good", "good", "--false-alarms", "50%", "--json").json
    assert (flagged["held_out"], flagged["reference"], flagged["false_alarms"]) == (2, 3, 0.5)
    assert flagged["unusual"] == len(flagged["results"]) >= 15
    assert all(row["p_value"] <= 0.5 and row["score"] >= flagged["threshold"] for row in flagged["results"])
    assert (
        "if all were good, about 10 would be" in massl("odd", indexed, "--good", "good", "--false-alarms", "0.5").error
    )


def test_wrong_use_says_what_to_do(massl, indexed: Path) -> None:
    assert "no image has the label 'ok'" in failed(massl("odd", indexed, "--good", "ok"))
    assert "no image lies below" in failed(massl("odd", indexed, "--under", "nowhere"))
    for arguments in (("--false-alarms", "1%"), ("--good", "a", "--false-alarms", "200%"), ("-k", 0)):
        ran = massl("odd", indexed, *arguments)
        assert ran.code == 2, arguments
    massl("label", "add", indexed, "ok", next((indexed / "space").glob("*.jpg")))
    assert "different good pictures at least" in failed(massl("odd", indexed, "--good", "ok", "--false-alarms", "1%"))


def test_maps_show_where_and_are_never_taken_for_pictures(massl, indexed: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    found = massl("odd", indexed, "-k", 3, "--maps", maps, "--json").json["results"]
    assert sorted(maps.iterdir()) == [Path(row["map"]) for row in found]
    for row in found:
        with Image.open(row["map"]) as drawn, Image.open(indexed / row["path"]) as picture:
            assert abs(drawn.width / drawn.height - picture.width / picture.height) < 0.02
            x, y, width, height = row["peak"]
            assert 0 <= x < x + width <= picture.width
            assert 0 <= y < y + height <= picture.height
    assert "is there already, and not an empty folder" in failed(massl("odd", indexed, "--maps", maps))
    assert "would be indexed as pictures" in failed(massl("odd", indexed, "--maps", indexed / "maps"))
    (indexed / found[0]["path"]).unlink()
    again = massl("odd", indexed, "-k", 1, "--maps", tmp_path / "again")
    assert again.output
    assert f"no map of '{found[0]['path']}': " in again.error
