"""`massl serve` as a person starts it: on which doors it insists."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.serve import _where
from tests.cli.conftest import failed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_another_address_without_a_password_is_refused_before_anything_is_done(massl, photos: Path, host: str) -> None:
    ran = massl("serve", photos, "--host", host)
    assert ran.code == 1
    assert "--auth USER:PASSWORD" in ran.error
    assert not (photos / ".massl").exists()


def test_there_is_no_way_to_share_it_through_somebody_else_s_server(massl, photos: Path) -> None:
    for flags in (("--share",), ("--share", "--auth", "ada:secret")):
        ran = massl("serve", photos, *flags)
        assert ran.code == 2
        assert "--share" in ran.error
    assert not (photos / ".massl").exists()


@pytest.mark.parametrize("path", ["photos", "https://example.org/photos", "/a/../b", "/gradio_api"])
def test_a_root_path_that_is_none_is_refused_before_anything_is_done(massl, photos: Path, path: str) -> None:
    line = failed(massl("serve", photos, "--root-path", path))
    assert line.startswith("massl: --root-path ")
    assert failed(massl("serve", photos, MASSL_ROOT_PATH=path)) == line
    assert not (photos / ".massl").exists()


def test_the_address_that_is_told_is_below_the_root_path() -> None:
    said = _where("http://127.0.0.1:80/photos/", "127.0.0.1", None)
    assert said == "Open http://127.0.0.1:80/photos/ in a browser."
    assert "http://192.168.1.5:80/photos/ " in _where("http://x:80/photos/", "192.168.1.5", ("ada", "secret"))
