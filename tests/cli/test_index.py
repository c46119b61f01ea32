"""`massl index` from outside: what it leaves out, lists and watches, and what stops it or doesn't."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from indexer import Collection, Encoder
from indexer.search.engines import engine_choice
from indexer.storage.collection_storage import Storage
from tests.cli.conftest import Ran, failed
from tests.indexer.tiny import picture, write_encoder
from tests.massl.core.images.test_decode_cost import tiled

MASSL = [sys.executable, "-c", "from cli import main; main()"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty small pictures."""
    for number in range(40):
        path = tmp_path / "photos" / f"{number % 4}" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "photos"


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "tiny.onnx")


def test_skipped_files_are_written_to_a_csv_and_listed(massl, folder: Path, encoder_file: Path, tmp_path: Path) -> None:
    strange = os.fsdecode(b'caf\xe9 "x",\n.jpg')
    (folder / strange).write_text("text")
    (folder / "empty.png").touch()
    ran = massl("index", folder, "--encoder", encoder_file, "--skipped", tmp_path / "skipped.csv")
    assert ran.code == 0
    with (tmp_path / "skipped.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as rows:
        told = list(csv.reader(rows))
    assert told[0] == ["path", "reason"]
    assert dict(told[1:]) == {
        strange: "not an image, or of a format that is not supported",
        "empty.png": "empty file",
    }
    listed = massl("info", folder).output
    assert "\nskipped       2 files\n" in listed
    assert "\n              empty.png: empty file\n" in listed
    assert 'caf\\xe9 "x",\\n.jpg: not an image' in listed  # one line, and nothing that a terminal would obey
    assert "can't be written" in failed(massl("index", folder, "-q", "--skipped", tmp_path / "no" / "skipped.csv"))


def test_patterns_and_limits_are_flags_variables_and_remembered(massl, folder: Path, encoder_file: Path) -> None:
    def index(*arguments: object, **environment: str) -> tuple[int, int]:
        told = massl("index", folder, "--json", *arguments, **environment).json
        return told["indexed"], len(told["skipped"])

    assert index("--encoder", encoder_file, "--exclude", "3", "--exclude", "0/*.bmp") == (20, 0)
    assert index() == (20, 0)
    assert "\nexcluded      '3', '0/*.bmp'\n" in massl("info", folder).output
    assert index("--exclude", "") == (40, 0)
    (folder / "new.bmp").write_bytes(picture(99))
    assert index("--max-megapixels", "0.00006") == (40, 1)
    assert index(MASSL_MAX_MEGAPIXELS="1") == (41, 0)
    for wrong in ("-1", "inf", "nan"):
        assert massl("index", folder, "--max-megapixels", wrong).code == 2


def test_the_runtime_is_a_flag_or_a_variable_and_told(massl, folder: Path, encoder_file: Path) -> None:
    index = ("index", folder, "--encoder", encoder_file, "--json")
    line = failed_usage(massl(*index, "--runtime", "tensorrt"))
    assert "'auto', 'onnxruntime', 'openvino'" in line
    assert massl(*index, "--runtime", "onnxruntime").json["runtime"] == "onnxruntime"
    assert massl(*index).json["runtime"] is None  # nothing was left to embed
    asked_for = massl(*index, "--rebuild", MASSL_RUNTIME="openvino")
    if importlib.util.find_spec("openvino"):
        assert asked_for.json["runtime"] == "openvino"
    else:
        assert "OpenVINO is not installed; run: pip install 'massl[openvino]'" in failed_usage(asked_for)


def failed_usage(ran: Ran) -> str:
    assert (ran.code, ran.output) == (2, "")
    return " ".join(ran.error.replace("│", " ").split())


def test_what_is_left_out_is_counted_said_and_read_where_asked_for(massl, folder: Path, encoder_file: Path) -> None:
    (folder / "a.jxl").write_bytes(b"\xff\x0a")
    shutil.move(folder / "3", folder / "@eaDir")
    ran = massl("index", folder, "--encoder", encoder_file, "--json")
    assert (ran.json["indexed"], ran.json["left_out"]) == (30, {"JPEG XL": 1, "folder @eaDir": 1})
    assert ran.json["skipped"] == []
    said = "1 JPEG XL (pictures of formats that massl doesn't read); 1 folder called @eaDir (which a system made)"
    assert f"  left out: {said}\n" in ran.error
    assert f"\nleft out      {said}\n" in massl("info", folder).output
    assert massl("info", folder, "--json").json["left_out"] == ran.json["left_out"]
    assert massl("index", folder, "--include", "@eaDir", "--json").json["indexed"] == 40
    assert "\nincluded      '@eaDir'\n" in massl("info", folder).output
    hidden = shutil.move(folder, folder.with_name(".hidden"))
    assert "1 hidden folder" in failed(massl("index", hidden.parent, "--encoder", encoder_file))
    found = massl("index", hidden.parent, "--encoder", encoder_file, "--include", ".hidden", "--json").json
    assert (found["indexed"], found["left_out"]) == (30, {"JPEG XL": 1, "folder @eaDir": 1})


def test_a_watch_keeps_the_index_current_and_ends_with_ctrl_c(folder: Path, encoder_file: Path) -> None:
    command = [*MASSL, "index", str(folder), "--encoder", str(encoder_file), "--watch", "--json"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stuck = threading.Timer(300, watching.kill)  # so that a watch that says nothing fails
    stuck.start()
    try:
        assert watching.stdout is not None
        lines: Iterator[str] = iter(watching.stdout.readline, "")
        assert json.loads(next(lines))["added"] == 40
        (folder / "new").mkdir()
        (folder / "new" / "a.bmp").write_bytes(picture(99))
        assert json.loads(next(lines))["added"] == 1
        (folder / "new").rename(folder / "renamed")
        told = json.loads(next(lines))
        assert (told["moved"], told["indexed"]) == (1, 41)
        shutil.rmtree(folder / "renamed")
        assert json.loads(next(lines))["removed"] == 1
        watching.send_signal(signal.SIGINT)
        output, error = watching.communicate(timeout=30)
        assert (watching.returncode, output) == (0, "")
        assert error.rstrip().endswith("Closed.")
        assert "Traceback" not in error
    finally:
        stuck.cancel()
        watching.kill()
        watching.wait()


def test_a_second_indexer_says_who_holds_the_index(massl, folder: Path, encoder_file: Path) -> None:
    massl("index", folder, "--encoder", encoder_file, "-q")
    with Storage.open(folder).held():
        assert f"is being indexed by process {os.getpid()}" in failed(massl("index", folder))
        assert massl("info", folder, "--json").json["indexed"] == 40
    assert massl("index", folder, "-q").code == 0


def test_a_full_disk_says_so_and_loses_nothing(massl, folder: Path, encoder_file: Path) -> None:
    massl("index", folder, "--encoder", encoder_file, "-q")
    for number in range(1000):
        (folder / f"more{number}.bmp").write_bytes(picture(1000 + number))
    size = sum((folder / ".massl" / name).stat().st_size for name in ("catalog.sqlite",))

    def small_disk() -> None:  # no file may grow beyond this, as if the disk were full
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, size + 50_000))

    ran = subprocess.run(
        [*MASSL, "index", str(folder), "-q"], preexec_fn=small_disk, capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    (line,) = ran.stderr.strip().splitlines()
    assert "can't be written" in line
    assert "--index-dir" in line
    before = massl("info", folder, "--json").json["indexed"]
    assert before >= 40
    told = massl("index", folder, "--json").json
    assert told["indexed"] == 1040
    assert told["unchanged"] == before


def test_a_folder_that_can_not_be_written_is_indexed_elsewhere(
    folder: Path, encoder_file: Path, bound: list[str]
) -> None:
    elsewhere = folder.parent / "elsewhere"
    folder.chmod(0o555)
    try:

        def index(*arguments: object) -> subprocess.CompletedProcess[str]:
            command = [*bound, *MASSL, "index", str(folder), "--encoder", str(encoder_file), *map(str, arguments)]
            return subprocess.run(command, capture_output=True, text=True, timeout=100)

        refused = index()
        assert refused.returncode == 1
        (line,) = refused.stderr.strip().splitlines()
        assert "can't be written (permission denied); ask its owner for permission" in line
        assert "or choose another place with --index-dir" in line
        done = index("--index-dir", elsewhere)
        assert done.returncode == 0, done.stderr
        assert "40 images indexed" in done.stderr
    finally:
        folder.chmod(0o755)


def test_an_index_that_can_only_be_read_is_read_as_it_is_whoever_has_it_open(
    folder: Path, encoder_file: Path, bound: list[str]
) -> None:
    index = folder / ".massl"
    collection = Collection.create(folder, Encoder.load(encoder_file))
    listen = (
        "import sys\n"
        "from indexer import Collection\n"
        "collection = Collection.open(sys.argv[1])\n"
        "for line in sys.stdin: print(len(collection), len(collection.labels.every()), flush=True)\n"
    )
    index.chmod(0o555)
    (index / "catalog.sqlite").chmod(0o444)

    def listening() -> subprocess.Popen[str]:
        command = [*bound, sys.executable, "-c", listen, str(folder)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seen(reader: subprocess.Popen[str]) -> list[int]:
        assert reader.stdin
        assert reader.stdout
        reader.stdin.write("\n")
        reader.stdin.flush()
        return [int(number) for number in reader.stdout.readline().split()]

    def change(label: str, images: list[int]) -> None:
        index.chmod(0o755)
        (index / "catalog.sqlite").chmod(0o644)
        collection.update()
        collection.labels.add(label, images, "me")
        (index / "catalog.sqlite").chmod(0o444)
        index.chmod(0o555)

    with listening() as reader:
        try:
            assert seen(reader) == [0, 0]
            change("a", [1, 2, 3])  # stays open: what it wrote lies in the write-ahead log
            assert (index / "catalog.sqlite-wal").stat().st_size > 0
            assert seen(reader) == [40, 3]
            with listening() as another:
                assert seen(another) == [40, 3]
                another.communicate()
            collection.catalog.close()
            assert seen(reader) == [40, 3]
            change("b", [1, 2, 3, 4])
            assert seen(reader) == [40, 4]
        finally:
            reader.communicate()
            index.chmod(0o755)
    collection.catalog.close()
    for left in index.glob("catalog.sqlite-*"):
        left.unlink()
    index.chmod(0o555)
    try:
        with listening() as reader:  # nobody has it open, and SQLite may put no file of its own beside it
            assert seen(reader) == [40, 4]
            change("a", [7])
            collection.catalog.close()
            assert not (index / "catalog.sqlite-wal").exists()
            assert seen(reader) == [40, 5]  # opened and closed between two looks
            reader.communicate()
    finally:
        index.chmod(0o755)


def test_an_index_of_a_newer_version_is_left_alone(massl, folder: Path, encoder_file: Path) -> None:
    massl("index", folder, "--encoder", encoder_file, "-q")
    collection = Collection.open(folder)
    with collection.catalog.writing() as connection:
        connection.execute("PRAGMA user_version = 99")
    collection.catalog.close()
    before = (folder / ".massl" / "catalog.sqlite").read_bytes()
    assert "was written by a newer version of massl (format 99); update massl" in failed(massl("index", folder))
    assert (folder / ".massl" / "catalog.sqlite").read_bytes() == before


def test_ctrl_c_ends_a_watch_while_it_tells_too(folder: Path, encoder_file: Path) -> None:
    (folder.parent / "new.bmp").write_bytes(picture(99))
    press = (
        "import os, signal, sys\n"
        "from cli import main, terminal\n"
        "show, told = terminal.print_json, []\n"
        "def tell(rows):\n"
        "    show(rows)\n"
        "    told.append(rows)\n"
        "    if len(told) == 2: signal.raise_signal(signal.SIGINT)\n"
        "    os.rename(new, os.path.join(sys.argv[2], 'new.bmp'))\n"
        "terminal.print_json = tell\n"
        "new = sys.argv.pop(1)\n"
        "main()\n"
    )
    command = [sys.executable, "-c", press, str(folder.parent / "new.bmp"), "index", str(folder)]
    flags = ["--encoder", str(encoder_file), "--watch", "--json"]
    ended = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=300)
    assert [json.loads(line)["added"] for line in ended.stdout.splitlines()] == [40, 1]
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (0, "Closed.")


@pytest.mark.skipif(sys.platform != "linux", reason="a limit as Linux has it")
def test_pictures_that_take_much_end_no_run_where_memory_is_short(photos: Path) -> None:
    Image.new("L", (1, 60_000), 128).save(photos / "tall.png")
    Image.new("L", (60_000, 1), 127).save(photos / "wide.png")
    turned = Image.Exif()  # a PNG with EXIF is not read a few rows at a time
    turned[ExifTags.Base.Orientation] = 6
    Image.new("1", (13_000, 13_000)).save(photos / "large.png", exif=turned)
    shutil.copy(photos / "large.png", photos / "large too.png")
    (photos / "tile.tif").write_bytes(tiled(46_320))
    done = subprocess.run(
        [*MASSL, "index", str(photos), "--json"],
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2600 << 20, 2600 << 20)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["indexed"] == 26
    reasons = {item["path"]: item["reason"] for item in report["skipped"]}
    assert set(reasons) == {"large.png", "large too.png", "tile.tif"}
    assert reasons["large.png"].startswith("not enough memory to decode it: 13000 x 13000 pixels")
    assert reasons["tile.tif"].startswith("too large: it is stored in pieces; one of 46320 x 46320")


def test_an_engine_is_chosen_remembered_and_given_up(massl, folder: Path, encoder_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="needs milvus-lite")
    own, here = {"XDG_CONFIG_HOME": str(tmp_path / "own")}, tmp_path / "here"
    index = ("index", folder, "--encoder", encoder_file, "--json")
    assert massl(*index, **own).json["search"]["engine"] == "exact"
    query = ("search", folder, folder / "1" / "1.bmp", "-k", "9", "--json")
    wanted = massl(*query, **own).json["results"]
    chosen = massl(*index, "--engine", "milvus", "--engine-uri", "vectors.db", **own)
    assert chosen.json["search"]["engine"] == "milvus"
    assert json.loads((tmp_path / "own" / "massl" / "engines.json").read_text()) == [str(here / "vectors.db")]
    (folder / "2" / "2.bmp").unlink()
    assert massl(*index, **own).json["search"]["engine"] == "milvus"  # remembered, wherever it is run
    found = massl(*query, **own)
    assert [row["path"] for row in found.json["results"]][:8] == [
        row["path"] for row in wanted if row["path"] != "2/2.bmp"
    ][:8]
    assert found.error == ""
    # Another user's settings don't know the address, unless they are told.
    ran = massl(*query, XDG_CONFIG_HOME=str(tmp_path / "others"))
    assert ran.json["results"] == found.json["results"]
    assert "may be somebody else's choice" in ran.error
    assert massl(*index, "--engine", "faiss", **own).json["search"]["engine"] == "exact"


def test_an_engine_that_can_not_be_had_is_one_line_before_anything_is_embedded(
    massl, folder: Path, encoder_file: Path, tmp_path: Path
) -> None:
    index = ("index", folder, "--encoder", encoder_file)
    line = failed_usage(massl(*index, "--engine", "matrix"))
    assert f"choose one of {', '.join(engine_choice.names())}" in line
    assert "say where Milvus is" in failed(massl(*index, "--engine", "milvus"))
    if importlib.util.find_spec("pymilvus"):
        line = failed(massl(*index, "--engine", "milvus", "--engine-uri", "http://127.0.0.1:1"))
        assert "Milvus at http://127.0.0.1:1 can't be asked" in line
    assert "for another --engine" in failed(massl(*index, "--engine", "faiss", "--engine-uri", "http://127.0.0.1:1"))
    assert "name the engine too, as in --engine milvus" in failed_usage(
        massl(*index, "--engine-uri", "http://127.0.0.1:1")
    )
    assert not (folder / ".massl").exists()
