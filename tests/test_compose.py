"""deploy/compose.yaml, as far as it can be held without a container engine: its structure, and its commands run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
MAIN = [sys.executable, "-c", "from cli import main; main()"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\$\{MASSL_UID(:\?[^}]+)?\}:\$\{MASSL_GID(:\?[^}]+)?\}", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


def test_photos_can_only_be_read_and_no_folder_is_made_by_the_engine_as_root() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"]]
    photos = [mount for mount in mounts if mount["target"] == "/photos"]
    assert len(photos) == 2
    assert all(mount["read_only"] for mount in photos)
    for mount in mounts:
        assert mount["target"] == "/photos" or mount["bind"]["create_host_path"] is False
    for name in ("page", "index"):
        assert SERVICES[name]["read_only"]  # and so is all else of the container


def test_the_page_alone_is_published_and_to_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"page": ["127.0.0.1:7860:7860"]}
    networks = yaml.safe_load(TEXT)["networks"]
    assert SERVICES["milvus"]["networks"] == SERVICES["index"]["networks"] == ["inside"]
    assert networks["inside"]["internal"] is True


def test_the_password_comes_from_a_file_and_stands_in_no_variable() -> None:
    page = SERVICES["page"]
    (secret,) = page["secrets"]
    assert page["environment"]["MASSL_CONFIG"] == f"/run/secrets/{secret}"
    assert yaml.safe_load(TEXT)["secrets"] == {secret: {"file": f"./{secret}"}}
    for service in SERVICES.values():
        assert not [key for key in service["environment"] if re.search("AUTH|PASSWORD|TOKEN", key)]


def test_what_a_person_makes_beside_the_file_is_neither_committed_nor_sent_to_the_build() -> None:
    ignored = (DEPLOY.parent / ".gitignore").read_text(encoding="utf-8").split()
    made = [".env", "massl.toml", *(f"{name}/" for name in re.search(r"mkdir -p (.*)", TEXT)[1].split())]
    assert [f"deploy/{name}" for name in made if f"deploy/{name}" not in ignored] == []
    assert "deploy" in (DEPLOY.parent / ".dockerignore").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("name", ["page", "milvus"])
def test_what_stays_up_is_watched_and_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES["page"]["depends_on"]["milvus"] == {"condition": "service_healthy"}


@pytest.mark.skipif(not shutil.which("docker"), reason="needs docker compose")
def test_docker_takes_the_file() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("needs docker compose")
    values = {"PHOTOS": "/photos", "MASSL_UID": "1000", "MASSL_GID": "1000"}
    line = ["docker", "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(line, env=os.environ | values, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.fixture
def places(indexed: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where a container's places lie here: photos that nobody can write to, a file of milvus-lite as the server."""
    shutil.rmtree(indexed / ".massl")
    (tmp_path / "index").mkdir()
    password = re.search(r"printf '(\[serve\].*?)' > massl\.toml", TEXT)
    (tmp_path / "massl.toml").write_text(password[1].replace("\\n", "\n"))
    for path in (indexed, *indexed.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield {
        "/photos": str(indexed),
        "/index": str(tmp_path / "index"),
        "/run/secrets/massl.toml": str(tmp_path / "massl.toml"),
        "http://milvus:19530": str(tmp_path / "vectors.db"),
    }
    for path in (indexed, *indexed.rglob("*")):
        path.chmod(0o755)


def test_its_commands_index_read_only_photos_and_open_the_page_with_the_password(
    places: dict[str, str], bound: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("milvus_lite")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    here = places | {"7860": port, "0.0.0.0": "127.0.0.1"}

    def line(name: str) -> tuple[list[str], dict[str, str]]:
        service = SERVICES[name]
        values = {key: here.get(value, "/") for key, value in service["environment"].items()}
        own = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "home")}
        return [*bound, *MAIN, *(here.get(word, word) for word in service["command"])], os.environ | own | values

    command, environment = line("index")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "24 images indexed" in done.stderr
    assert done.returncode == 0
    assert Path(places["http://milvus:19530"]).exists()

    command, environment = line("page")
    check = [sys.executable, *(word.replace("7860", port) for word in SERVICES["page"]["healthcheck"]["test"][2:])]
    assert subprocess.run(check, capture_output=True).returncode != 0
    with (tmp_path / "log").open("w") as log:
        page = subprocess.Popen(command, env=environment | {"FORWARDED_ALLOW_IPS": "*"}, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 120
            while "in a browser" not in (said := (tmp_path / "log").read_text()):
                assert page.poll() is None, said
                assert time.monotonic() < until, said
                time.sleep(0.1)
            assert subprocess.run(check, capture_output=True).returncode == 0
            import httpx

            site = f"http://127.0.0.1:{port}/"
            assert httpx.get(f"{site}config", trust_env=False).status_code == 401
            login = {"username": "ada", "password": "secret"}
            assert httpx.post(f"{site}login", data=login, trust_env=False).status_code == 200
        finally:
            page.send_signal(signal.SIGTERM)
            assert page.wait(60) == 0
    assert not (Path(places["/photos"]) / ".massl").exists()
