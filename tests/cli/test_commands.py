"""The commands from outside: what they print, what they exit with, and what they say when something is wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path

import pytest
import typer

from indexer import Collection, Encoder
from tests.cli.conftest import failed
from tests.forked import Forks
from tests.indexer.tiny import write_copy, write_encoder

# A shell says 130 of both: interrupted in the exec of a string, Python ends itself by the signal in the end.
INTERRUPTED = (130, -signal.SIGINT)
COMMANDS = (
    "train",
    "export",
    "eval",
    "index",
    "embed",
    "search",
    "classify",
    "serve",
    "info",
    "doctor",
    "dupes",
    "odd",
    "select",
    "demo",
    "label",
    "tag",
)


def test_the_demo_does_it_all_and_prints_one_object(massl) -> None:
    ran = massl("demo", "--headless", MASSL_HOST="0.0.0.0")  # an address of the page, which it doesn't open
    assert ran.code == 0, ran.error
    told = ran.json
    assert set(told) == {"schema", "index", "search", "classify"}
    assert told["schema"] == 1
    assert told["index"]["indexed"] == told["index"]["added"] >= 100
    assert told["index"]["skipped"] == []
    assert len(told["search"]["results"]) == 10
    assert told["search"]["results"][0]["score"] > 0.99
    assert set(told["classify"]["labels"].values()) == {5}
    assert len(told["classify"]["predictions"]) == told["index"]["indexed"]
    right = [row["label"] == row["path"].split("/")[0] for row in told["classify"]["predictions"]]
    assert sum(right) / len(right) > 0.6


def test_a_demo_with_a_page_checks_its_address_first(massl) -> None:
    assert "add --auth USER:PASSWORD" in failed(massl("demo", MASSL_HOST="0.0.0.0"))
    assert "--auth takes a name and a password" in failed(massl("demo", "--auth", "ada", MASSL_HOST="0.0.0.0"))


def test_a_demos_folder_is_new_or_says_why_not(massl, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} can't be written (File exists)" in failed(
        massl("demo", "--port", 0, "--dir", tmp_path / "file")
    )
    # Files of more than 8 kB end the copy in the middle: what is half there goes again.
    limited = ["sh", "-c", 'ulimit -f 16; "$@"', "sh", sys.executable, "-c", "from cli import main; main()"]
    ended = subprocess.run(
        [*limited, "demo", "--port", "0", "--dir", str(tmp_path / "new")], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert f"{tmp_path / 'new'} can't be written (" in ended.stderr
    assert str(Path(__file__).parents[2] / "cli" / "pictures") not in ended.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_on_a_full_disk_is_a_sentence(forks: Forks, indexed: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full, (tmp_path / "error").open("w") as error:
        code = forks.start(["info", indexed], [full.fileno(), error.fileno()]).wait(60)
    assert (code, (tmp_path / "error").read_text()) == (
        1,
        "massl: the output can't be written (no space left on device); free some space\n",
    )


def test_the_whole_path_through_json(massl, photos: Path) -> None:
    index = massl("index", photos, "--json").json
    assert set(index) == {
        "schema", "indexed", "added", "changed", "moved", "removed", "unchanged", "skipped", "left_out", "encoder",
        "runtime", "search", "seconds", "images_per_second",
    }  # fmt: skip
    assert set(index["encoder"]) == {"name", "sha256", "dim", "image_size"}
    assert (index["schema"], index["indexed"], index["added"], index["unchanged"]) == (1, 24, 24, 0)

    query = sorted(photos.glob("flag/*"))[0]
    search = massl("search", photos, query, "--json", "-k", 5).json
    assert set(search) == {"schema", "results", "milliseconds"}
    assert [row["rank"] for row in search["results"]] == [1, 2, 3, 4, 5]
    assert set(search["results"][0]) == {"rank", "path", "score", "match", "false_matches", "label", "taken"}
    assert search["results"][0]["path"] == f"flag/{query.name}"
    assert {row["match"] for row in search["results"]} <= {"same", "alike", "weak"}

    for kind in ("flag", "space"):
        chosen = sorted(photos.glob(f"{kind}/*"))[:3]
        assert massl("label", "add", photos, kind, *chosen).code == 0
    exported = massl("label", "export", photos).output.splitlines()
    assert exported[0] == "path,label,author,at"
    assert len(exported) == 7
    ran = massl("classify", photos, "--json")
    classified = ran.json
    assert f"{classified['unfamiliar']} of 24 images are unlike all labelled ones" in ran.error  # beside the data, too
    assert set(classified) == {
        "schema", "labels", "estimated_accuracy", "interval", "expected_accuracy", "expected_interval", "expected_of",
        "needs", "unnamed", "classes", "method", "methods", "sure", "unsure", "unfamiliar", "predictions",
    }  # fmt: skip
    assert len(classified["predictions"]) == 24
    assert [row["label"] for row in classified["classes"]] == ["flag", "space"]
    assert sum(row["proposed"] for row in classified["classes"]) + classified["unfamiliar"] >= 18
    assert set(classified["predictions"][0]) == {"path", "label", "probability", "unfamiliar"}
    assert sum(row["unfamiliar"] for row in classified["predictions"]) == classified["unfamiliar"]

    again = massl("index", photos, "--json").json
    assert (again["unchanged"], again["added"]) == (24, 0)
    assert massl("info", photos, "--json").json["labels"] == 6


@pytest.mark.usefixtures("indexed")
def test_examples_with_plus_and_minus(massl, photos: Path) -> None:
    flag, space = (sorted(photos.glob(f"{kind}/*"))[0] for kind in ("flag", "space"))
    here = photos.parent / "here"
    shutil.copy(flag, here / "more.jpg")
    shutil.copy(space, here / "less.jpg")
    shutil.copy(flag, here / "k.jpg")
    plain = massl("search", photos, "more.jpg", "-k", 24, "--json").json["results"]
    mixed = massl("search", photos, "k.jpg", "+more.jpg", "-less.jpg", "-k", 24, "--json").json["results"]
    assert mixed[0]["path"] == plain[0]["path"]
    space_path = f"space/{space.name}"
    scores = [{row["path"]: row["score"] for row in rows}[space_path] for rows in (plain, mixed)]
    assert scores[1] < scores[0]
    assert "lesss.jpg can't be used as a query: there is no such file" in failed(
        massl("search", photos, "k.jpg", "-lesss.jpg")
    )
    assert "more.jgp can't be used as a query: there is no such file" in failed(
        massl("search", photos, "k.jpg", "+more.jgp")
    )


def test_filters_may_be_given_several_times_and_as_paths(massl, photos: Path) -> None:
    for file in photos.glob("space/*"):
        os.utime(file, (1_577_880_000, 1_577_880_000))  # noon of 2020-01-01, UTC
    massl("index", photos)
    query = sorted(photos.glob("flag/*"))[0]
    massl("label", "add", photos, "a", *sorted(photos.glob("flag/*"))[:2])
    massl("label", "add", photos, "b", *sorted(photos.glob("space/*"))[:1])

    def found(*filters: object) -> list[str]:
        ran = massl("search", photos, query, "--paths", "-k", 24, *filters)
        assert ran.code == 0, ran.error
        return sorted(path.split("/")[0] for path in ran.output.splitlines())

    assert found("--label", "a", "--label", "b") == ["flag", "flag", "space"]
    assert found("--under", "space/", "--under", photos / "flag") == ["flag"] * 6 + ["space"] * 6
    assert found("--label", "a", "--label", "b", "--under", "space") == ["space"]
    assert found("--until", "2020-01-02") == ["space"] * 6
    assert found("--since", "2020-01-03", "--under", "space", "--under", "flag") == ["flag"] * 6
    assert "the files are from 20" in failed(massl("search", photos, query, "--until", "2019-12-30"))
    assert "no image lies below a folder 'nowhere'" in failed(massl("search", photos, query, "--under", "nowhere"))
    assert "the labels are: 'a', 'b'" in failed(massl("search", photos, query, "--label", "c"))


def test_a_file_named_as_a_flag_does_not_take_its_place(massl, indexed: Path, tmp_path: Path) -> None:
    for name in ("0", "k", "q"):
        (tmp_path / name).write_bytes(b"")
    query = sorted(indexed.rglob("*.jpg"))[0]
    found = massl("search", indexed, query, "-0", "-q", "-k", 2, cwd=tmp_path)
    assert (found.code, found.output.count("\0")) == (0, 2)


def test_labels_that_tell_nothing_are_refused_before_a_run_begins(massl, photos: Path) -> None:
    line = failed(massl("train", photos, "--labels", photos / "flag"))
    assert f"{photos / 'flag'} must hold a subfolder of at least two readable images" in line


def test_paths_can_be_piped(massl, photos: Path) -> None:
    strange = os.fsdecode(b"caf\xe9\nnew.jpg")
    query = sorted(photos.glob("flag/*"))[0]
    shutil.copy(query, photos / strange)
    massl("index", photos)
    assert set(massl("search", photos, query, "-k", 2, "-0").output.split("\0")) == {f"flag/{query.name}", strange, ""}
    assert massl("search", photos, query, "-k", 1, "--paths", "--under", "flag").output == f"flag/{query.name}\n"
    (photos / strange).rename(photos / "two\nlines\x1b[31m.jpg")
    massl("index", photos)
    table = massl("search", photos, query, "-k", 2, "--exact")
    assert r"two\nlines\x1b[31m.jpg" in table.output
    assert len(table.output.splitlines()) == 2


def test_standard_output_is_for_data(massl, photos: Path) -> None:
    ran = massl("index", photos)
    assert ran.output == ""
    assert "24 images indexed (24 added)" in ran.error
    quiet = massl("index", photos, "-q")
    assert (quiet.output, quiet.error) == ("", "")


def test_no_word_of_the_help_is_taken_for_markup() -> None:
    from rich.text import Text

    from cli.commands import app

    pending, texts = [typer.main.get_command(app)], []
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        texts += [command.help or "", *(getattr(option, "help", "") or "" for option in command.params)]
    assert len(texts) > 100
    assert [text for text in texts if Text.from_markup(text).plain != text] == []


def test_help_shows_examples_first_for_every_command(massl) -> None:
    listed = massl("--help").output
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", listed)
        text = massl(name, "--help").output
        assert "Examples:" in text.split("Options")[0]
    assert massl("--version").output.startswith("massl 0.")


def test_every_command_and_variable_is_documented() -> None:
    from cli.commands import app

    reference = Path(__file__).parents[2] / "docs" / "reference"
    documented = (reference / "commands.md").read_text() + (reference / "settings.md").read_text()
    names = [info.name for info in (*app.registered_commands, *app.registered_groups)]
    assert set(names) == set(COMMANDS)
    for name in names:
        assert f"`massl {name}" in documented
    for source in (Path(__file__).parents[2] / "cli").glob("*.py"):
        for variable in re.findall(r"MASSL_[A-Z_]+", source.read_text()):
            assert variable in documented


def test_an_encoder_is_measured_on_labelled_images(massl, photos: Path, tmp_path: Path) -> None:
    told = massl("eval", "knn", photos, "--json", "-k", 3).json
    assert (told["task"], told["images"], told["classes"]) == ("knn", 24, 4)
    assert set(told) == {
        "schema", "task", "metrics", "images", "classes", "encoder", "data", "protocol", "skipped",
    }  # fmt: skip
    assert 0.3 < told["metrics"]["top1"] <= 1
    assert "at least two classes" in failed(massl("eval", "knn", photos / "flag"))


@pytest.mark.usefixtures("indexed")
def test_usage_errors_exit_with_2(massl, photos: Path) -> None:
    assert massl("frobnicate").code == 2
    assert massl("index").code == 2
    assert massl("index", photos, "--no-such-flag").code == 2
    assert massl("search", photos, sorted(photos.glob("flag/*"))[0], "--crop", "1,2,3").code == 2
    wrong = massl("search", photos, sorted(photos.glob("flag/*"))[0], "--since", "last week")
    assert (wrong.code, "YYYY-MM-DD" in wrong.error) == (2, True)


def settings_of_user(here: Path, text: str) -> dict[str, str]:
    """Writes a user's own file of settings; returns the environment in which it is found."""
    folder = here / "home" / "massl"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(folder.parent)}


def test_settings_come_from_flags_then_environment_then_file(massl, photos: Path) -> None:
    here = photos.parent / "here"
    own = settings_of_user(here, '[index]\nindex-dir = "from-file"\n')
    massl("index", photos, **own)
    massl("index", photos, MASSL_INDEX_DIR="from-environment", **own)
    massl("index", photos, "--index-dir", "from-flag", MASSL_INDEX_DIR="from-environment-2", **own)
    assert sorted(path.name for path in here.iterdir() if path.is_dir() and path.name != "home") == [
        "from-environment",
        "from-file",
        "from-flag",
    ]


@pytest.mark.parametrize(
    "value", ["'many'", "[1]", "[[[]]]", "true", "{a = 1}", "-1", "1979-05-27", "1e400", "''"], ids=str
)
def test_a_wrong_value_is_blamed_on_the_file_that_it_is_from(massl, photos: Path, value: str) -> None:
    here = photos.parent / "here"
    own = settings_of_user(here, f"[index]\nmax-megapixels = {value}\n")
    line = failed(massl("index", photos, **own), 2)
    assert f"{Path('massl', 'config.toml')}: max-megapixels = " in line
    assert "below [index]: " in line
    assert "config.toml" not in massl("index", photos, "--max-megapixels", "many", MASSL_CONFIG="/dev/null").error


@pytest.mark.parametrize("text", ["[index", "a = " + "[" * 9000, "\0", "[index]\njson = true\njson = true"])
def test_a_file_that_is_no_toml_is_one_line(massl, photos: Path, text: str) -> None:
    (photos.parent / "here" / "massl.toml").write_text(text)
    assert "massl.toml can't be read as TOML" in failed(massl("index", photos), 2)
    (photos.parent / "here" / "massl.toml").write_bytes(b"\xff")
    assert "massl.toml can't be read as TOML" in failed(massl("index", photos), 2)
    (photos.parent / "here" / "massl.toml").unlink()
    os.mkfifo(photos.parent / "here" / "massl.toml")
    assert "massl.toml is not a settings file" in failed(massl("index", photos), 2)


def test_a_file_of_settings_names_flags_as_they_are_and_no_others(massl, photos: Path) -> None:
    here = photos.parent / "here"
    (here / "massl.toml").write_text("[index]\njson = true\nexclude = 'space'\n[label.list]\njson = true\n")
    told = massl("index", photos)
    assert told.json["indexed"] == 18
    assert "massl: massl.toml in this folder sets json = True, exclude = 'space'\n" in told.error
    assert massl("label", "list", photos).json["labels"] == []
    assert "massl.toml" not in massl("info", photos).error
    (here / "massl.toml").write_text("[index]\nindexdir = 'there'\n")
    assert "massl.toml: massl index has no flag --indexdir; see massl index --help" in failed(massl("index", photos), 2)
    (here / "massl.toml").write_text("encoder = 'x.onnx'\n")
    assert "massl.toml: 'encoder' is no table of a command; there are [train]" in failed(massl("doctor"), 2)


def test_what_is_set_for_all_gives_way_to_what_is_given(massl, photos: Path) -> None:
    here = photos.parent / "here"
    massl("index", photos, "-q")
    own = settings_of_user(here, "[dupes]\nthreshold = 0.9\n")
    assert massl("dupes", photos, "--exact-only", "--json", **own).code == 0
    settings_of_user(here, "[dupes]\nplan = 'plan.csv'\n")
    assert massl("dupes", photos, "--forget", **own).code == 0
    settings_of_user(here, "[dupes]\nexact-only = true\n")
    assert massl("dupes", photos, "--threshold", "0.9", "--json", **own).code == 0
    settings_of_user(here, "[train]\ninit = 'builtin'\n")
    resumed = massl("train", photos, "--resume", photos.parent / "nowhere", MASSL_PRESET="cpu", **own)
    assert resumed.code == 1  # there is no such run, which is another matter
    assert massl("train", photos, "--resume", photos.parent / "nowhere", "--preset", "cpu").code == 2
    assert massl("info", "builtin", MASSL_INDEX_DIR=str(photos / ".massl")).code == 0
    assert massl("info", "there", MASSL_INDEX_DIR=str(photos / ".massl")).code == 1


def test_bad_paths_get_one_line(massl, photos: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in failed(massl("index", tmp_path / "nowhere"))
    assert "give the folder that holds the images" in failed(massl("index", sorted(photos.glob("flag/*"))[0]))
    (tmp_path / "empty").mkdir()
    assert "holds no image files" in failed(massl("index", tmp_path / "empty"))
    assert not (tmp_path / "empty" / ".massl").exists()
    assert "run: massl index" in failed(massl("search", photos, sorted(photos.glob("flag/*"))[0]))
    massl("index", photos, "-q")
    assert "can't be used as a query" in failed(massl("search", photos, tmp_path / "no.jpg"))
    assert "nowhere.jpg: there is no such image" in failed(massl("label", "add", photos, "x", "nowhere.jpg"))
    assert "at least two classes" in failed(massl("classify", photos))
    assert "there is no such file" in failed(massl("info", tmp_path / "nowhere"))


def test_encoders_that_do_not_fit_get_one_line(massl, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    assert "is not an ONNX model" in failed(massl("index", photos, "--encoder", tmp_path / "text.onnx"))
    assert not (photos / ".massl").exists()
    assert "no such encoder" in failed(massl("index", photos, "--encoder", tmp_path / "nowhere.onnx"))
    picture = next(photos.rglob("*.jpg"))
    assert " is a picture, not an encoder.onnx" in failed(massl("index", photos, "--encoder", picture))


@pytest.mark.usefixtures("indexed")
def test_another_encoder_exits_with_4_and_rebuilds_when_told(massl, photos: Path, tmp_path: Path) -> None:
    from indexer.encoder.encoder_file import builtin_encoder

    write_copy(builtin_encoder(), tmp_path / "other.onnx", name="other")
    line = failed(massl("index", photos, "--encoder", tmp_path / "other.onnx"), code=4)
    assert "--rebuild" in line
    rebuilt = massl("index", photos, "--encoder", tmp_path / "other.onnx", "--rebuild", "--json").json
    assert (rebuilt["encoder"]["name"], rebuilt["indexed"]) == ("other", 24)
    assert massl("index", photos, "--json").json["encoder"]["name"] == "other"
    massl("label", "add", photos, "flag", *sorted((photos / "flag").glob("*.jpg"))[:3])
    told = massl("index", photos, "--encoder", "builtin")
    assert (told.code, "two classes of at least two labelled images" in told.error) == (4, True)
    massl("label", "add", photos, "fruit", *sorted((photos / "fruit").glob("*.jpg"))[:3])
    told = massl("index", photos, "--encoder", "builtin")  # what would change is said on what is labelled
    assert told.code == 4
    assert "6 labelled images, named by their nearest others" in told.error


def test_a_rebuild_that_embedded_nothing_says_how_to_go_on(massl, indexed: Path, tmp_path: Path) -> None:
    query = sorted(indexed.rglob("*.jpg"))[0]
    # As after a kill before the first batch.
    Collection.create(indexed, Encoder.load(write_encoder(tmp_path / "other.onnx")), rebuild=True)
    for how in ((), ("--json",), ("--paths",)):
        line = failed(massl("search", indexed, query, *how))
        assert f"no image of {indexed} is embedded by its new encoder yet; go on with: massl index {indexed}" in line
    assert massl("index", indexed).code == 0
    assert massl("search", indexed, query, "--paths", "-k", 2).output.count("\n") == 2


def test_bad_files_are_skipped_listed_and_stop_nothing(massl, photos: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = zlib.compress(bytes(20_000 // 8 + 1) * 20_000, 9)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    whole = next(photos.glob("space/*")).read_bytes()
    (photos / "text.jpg").write_text("text")
    (photos / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").touch()
    (photos / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    )
    (photos / "loop").symlink_to(photos)
    os.mkfifo(photos / "fifo.jpg")
    (photos / "two\nlines 日本.jpg").write_bytes(whole)
    ran = massl("index", photos, "--json")
    assert ran.code == 0
    told = ran.json
    assert told["indexed"] == 25
    skipped = {row["path"]: row["reason"] for row in told["skipped"]}
    assert set(skipped) == {"text.jpg", "truncated.jpg", "empty.png", "bomb.png", "fifo.jpg"}
    assert "400 megapixels" in skipped["bomb.png"] or "too large" in skipped["bomb.png"]
    assert "truncated" in skipped["truncated.jpg"]
    assert massl("info", photos, "--json").json["skipped"] == told["skipped"]
    assert massl("index", photos, "--strict").code == 1


@pytest.mark.usefixtures("indexed")
def test_output_that_nobody_reads_is_no_error(massl, photos: Path) -> None:
    command = [sys.executable, "-c", "from cli import main; main()", "info", str(photos)]
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_the_built_in_encoder_is_known_by_its_name(massl, photos: Path, tmp_path: Path) -> None:
    told = massl("info", "builtin", "--json").json
    assert (told["kind"], told["metadata"]["name"]) == ("encoder", told["name"])
    lines = massl("info", "builtin").output
    assert f"encoder      {told['name']}\n" in lines
    assert "weights      DINOv2 ViT-S/14 (facebookresearch/dinov2), taught to see" in lines
    write_encoder(tmp_path / "other.onnx")
    massl("index", photos, "--encoder", tmp_path / "other.onnx")
    refused = massl("index", photos, "--encoder", "builtin")
    assert refused.code == 4
    assert refused.error.endswith(f"massl index {photos} --encoder builtin --rebuild\n")
    assert "of them embedded anew)" in massl("index", photos, "--encoder", "builtin", "--rebuild").error


def test_a_run_stands_for_the_encoder_that_it_wrote(massl, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("[settings]\n")
    assert f"{tmp_path} holds runs; name one of them, as {tmp_path / 'run'}" in failed(massl("info", tmp_path))
    (tmp_path / "best.pt").write_bytes(b"PK")
    assert f"make an encoder of it: massl export {tmp_path / 'best.pt'}" in failed(massl("info", tmp_path / "best.pt"))
    line = failed(massl("index", photos, "--encoder", tmp_path / "run"))
    assert f"has no encoder.onnx; make one: massl export {tmp_path / 'run'} -o " in line
    write_encoder(tmp_path / "run" / "encoder.onnx", "mine")
    assert massl("index", photos, "--encoder", tmp_path / "run").code == 0
    assert massl("info", photos, "--json").json["encoder"]["name"] == "mine"


def test_a_folder_of_images_with_a_config_of_something_else_is_no_run(massl, indexed: Path) -> None:
    (indexed / "config.toml").write_text("title = 'a web site'\n")
    assert massl("info", indexed, "--json").json["kind"] == "collection"
    assert "is a folder; give an encoder.onnx, or a run's folder" in failed(
        massl("index", indexed, "--encoder", indexed)
    )


def test_only_what_is_kept_is_called_kept() -> None:
    press = (
        "import signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'massl.evaluation.datasets': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "from cli import main\n"
        "main(['eval', 'knn', 'anything'])"
    )
    done = subprocess.run([sys.executable, "-c", press], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "massl: interrupted\n")


@pytest.fixture
def many(photos: Path) -> Path:
    """The bundled folder with 60 further folders of six: what takes seconds to index."""
    for number in range(60):
        shutil.copytree(photos / "space", photos / f"more{number}")
        for picture in (photos / f"more{number}").iterdir():
            picture.write_bytes(picture.read_bytes() + bytes([number]))  # other content, the same picture
    return photos


def test_ctrl_c_says_that_what_was_done_is_kept(forks: Forks, many: Path, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as said:
        running = forks.start(["index", many], [said.fileno()] * 2)
    while not (many / ".massl" / "catalog.sqlite").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) in INTERRUPTED
    error = (tmp_path / "said").read_text()
    assert "interrupted; what was finished is kept" in error
    assert "Traceback" not in error


def test_ctrl_c_in_a_finaliser_is_not_lost(many: Path) -> None:
    press = (
        "import signal, sys\n"
        "class Last:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "class Press:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'rich.progress': Last()\n"
        "sys.meta_path.insert(0, Press())\n"
        "from cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", press, "index", many], capture_output=True, text=True)
    assert done.returncode in INTERRUPTED
    assert re.fullmatch("massl: interrupted.*\n", done.stderr)


def test_a_signal_while_a_process_ends_is_no_traceback() -> None:
    """A rank that has stopped and saved is told once more by whoever started it."""
    press = (
        "import signal, time, weakref\n"
        "from cli.interrupts import interrupt\n"
        "class Kept: pass\n"
        "def last():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    time.sleep(0.1)\n"
        "    print('ended')\n"
        "kept = Kept()\n"
        "weakref.finalize(kept, last)\n"
        "signal.signal(signal.SIGTERM, interrupt)"
    )
    done = subprocess.run([sys.executable, "-c", press], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_ctrl_c_while_an_extension_is_being_loaded_is_no_fault_of_the_installation() -> None:
    press = (
        "import signal, sys, time\n"
        "from cli.interrupts import interrupt\n"
        "class Press:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'datetime': signal.raise_signal(signal.SIGINT)\n"  # NumPy's own C code imports it
        "sys.meta_path.insert(0, Press())\n"
        "assert 'datetime' not in sys.modules\n"
        "signal.signal(signal.SIGINT, interrupt)\n"
        "try:\n"
        "    import numpy\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')"
    )
    done = subprocess.run([sys.executable, "-c", press], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize("module", ["typer", "rich", "cli.commands", "cli.label"])
def test_ctrl_c_while_the_command_is_being_loaded_is_no_traceback(module: str) -> None:
    press = (
        "import signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "from cli import main\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", press], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert re.fullmatch("massl: interrupted.*\n", done.stderr)


def test_doctor_finds_this_installation_sound(massl) -> None:
    told = massl("doctor", "--json").json
    assert told["problems"] == []
    assert told["packages"]["onnxruntime"]


def test_doctor_says_what_runs_the_built_in_encoder_and_why(massl) -> None:
    told = massl("doctor", "--runtime", "onnxruntime", "--json").json
    asked_for = {"runtime": "onnxruntime", "why": "it was asked for", "precision": None, "from": 0}
    assert told["builtin"] == asked_for | {"openvino_would_pay": told["builtin"]["openvino_would_pay"]}
    assert not (told["packages"]["openvino"] and told["builtin"]["openvino_would_pay"])
    said = massl("doctor", MASSL_RUNTIME="onnxruntime").output
    assert "\nbuilt-in encoder: by ONNX Runtime, as it was asked for\n" in said
    if not told["packages"]["openvino"]:
        assert massl("doctor", "--json").json["builtin"]["why"] == "OpenVINO is not installed"
        return
    told = massl("doctor", "--runtime", "openvino", "--json").json
    assert (told["builtin"]["runtime"], told["builtin"]["from"], told["problems"]) == ("openvino", 0, [])
    assert told["builtin"]["precision"] in ("f32", "bf16")


def test_doctor_finds_an_openvino_that_cannot_be_loaded(massl, tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise ImportError('libsomething.so is missing')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    told = massl("doctor", "--json", PYTHONPATH=path).json
    why = "OpenVINO can't be loaded (libsomething.so is missing)"
    assert why in told["problems"]
    assert (told["builtin"]["runtime"], told["builtin"]["why"]) == ("onnxruntime", why)


@pytest.mark.parametrize("command", ["index", "search", "label", "classify", "info"])
def test_a_folder_name_with_a_newline_stays_on_one_line(massl, command: str, tmp_path: Path) -> None:
    arguments = {"search": ["q.jpg"], "label": []}.get(command, [])
    name = tmp_path / "no\nwhere"
    parts = ["label", "list", name] if command == "label" else [command, name, *arguments]
    failed(massl(*parts))


@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP")
@pytest.mark.parametrize(("said", "turns"), [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")])
def test_training_leaves_other_programs_their_cores(massl, tmp_path, monkeypatch, said, turns):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)  # FAISS is told one, here in the test's own process
    ended = massl("train", tmp_path / "nowhere", OMP_DISPLAY_ENV="verbose", **said)
    assert ended.code == 1
    assert f"GOMP_SPINCOUNT = '{turns}'" in ended.error


def test_pictures_and_indexes_are_not_written_over(massl, indexed: Path, tmp_path: Path) -> None:
    picture, catalog = sorted(indexed.glob("flag/*"))[0], indexed / ".massl" / "catalog.sqlite"
    before = picture.read_bytes()
    labels = massl("label", "add", indexed, "flag", picture)
    assert labels.code == 0
    for command in (
        ("label", "export", indexed, "--out"),
        ("label", "export", indexed, "--format", "onnx", "--out"),
        ("dupes", indexed, "--exact-only", "--plan"),
        ("index", indexed, "--skipped"),
        ("eval", "knn", indexed, "--report"),
        ("export", "builtin", "--out"),
    ):
        assert f"{picture} is a picture and is not overwritten; name another file" in failed(massl(*command, picture))
        assert f"{catalog} is inside an index" in failed(massl(*command, catalog))
    assert picture.read_bytes() == before
    assert len(massl("label", "list", indexed, "--json").json["labels"]) == 1


def test_while_a_rebuild_is_not_finished_answers_say_how_far_it_came(massl, indexed: Path) -> None:
    flags, space = (sorted((indexed / kind).iterdir()) for kind in ("flag", "space"))
    shutil.copy(flags[0], indexed / "copy.jpg")
    massl("index", indexed, "-q")
    for kind, paths in (("flag", flags), ("space", space)):
        massl("label", "add", indexed, kind, *paths)
    with closing(sqlite3.connect(indexed / ".massl" / "catalog.sqlite")) as catalog, catalog:
        catalog.execute(
            "UPDATE images SET embedding = NULL WHERE CAST(path AS TEXT) LIKE 'flag/%'"
        )  # as a rebuild begins
        ((count,),) = catalog.execute("SELECT count(*) FROM images")
    done, go_on = count - len(flags), f"go on with: massl index {indexed}\n"
    said = f"only {done} of {count} images are embedded by the new encoder yet; {go_on}"
    for command in (("search", indexed, space[0]), ("classify", indexed), ("dupes", indexed)):
        assert said in massl(*command).error
    assert len(massl("dupes", indexed, "--exact-only", "--json").json["groups"]) == 1  # by content alone
    told = massl("info", indexed)
    assert f"embedded      {done} of them, by the new encoder; {go_on}" in told.output
    assert massl("info", indexed, "--json").json["unembedded"] == len(flags)


def test_a_query_comes_from_standard_input(photos: Path, indexed: Path, tmp_path: Path) -> None:
    query = next(photos.glob("flag/*"))

    def run(data: bytes) -> subprocess.CompletedProcess[bytes]:
        words = [sys.executable, "-m", "cli", "search", str(indexed), "-", "--paths", "-k", "1", "-q"]
        return subprocess.run(words, input=data, capture_output=True, cwd=tmp_path, check=False)

    assert run(query.read_bytes()).stdout.decode().strip() == f"flag/{query.name}"
    empty = run(b"")
    assert (empty.returncode, empty.stderr.decode()) == (1, "massl: standard input is empty: pipe an image into it\n")
    assert b"standard input can't be used" in run(b"no image").stderr or b"Traceback" not in run(b"no image").stderr


def test_absolute_paths_mean_the_same_files_from_anywhere(massl, photos: Path, indexed: Path, tmp_path: Path) -> None:
    query = next(photos.glob("flag/*"))
    found = massl("search", indexed, query, "-0", "--absolute", "-k", 3, cwd=tmp_path).output.split("\0")[:-1]
    assert len(found) == 3
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in found)
    assert massl("search", indexed, query, "--absolute", "-k", 1, "--json").json["results"][0]["path"] == found[0]
    assert massl("search", indexed, query, "-k", 1, "--paths").output.strip() == f"flag/{query.name}"


def test_a_setting_that_there_is_not_is_wrong_usage(massl, photos: Path) -> None:
    assert "there is no setting 'lerning_rate'" in failed(massl("train", photos, "--set", "lerning_rate=1"), 2)
