"""`massl serve` as a person starts it: on which doors it insists."""

from __future__ import annotations

from pathlib import Path

import pytest


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
