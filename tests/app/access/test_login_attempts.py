"""The door: wrong passwords are slowed down, nobody is locked out, and what a browser keeps is for this page alone."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.login_attempts import BURST, FREE, LONGEST, PER_SECOND, REMEMBERED, Attempts, checker
from app.server import serve
from indexer import Collection
from tests.app.test_server import BROWSER

RIGHT = {"username": "ada", "password": "secret"}
WRONG = RIGHT | {"password": "guess"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 5)), max_size=300))
def test_one_address_gets_few_attempts_however_it_times_them(tried: list[tuple[str, float]]) -> None:
    clock = Clock()
    attempts = Attempts(clock)
    checked: list[float] = []
    for client, pause in tried:
        wait = attempts.wait(client)
        assert wait is None or 0 <= wait <= LONGEST
        if client == "a" and wait is not None:
            checked.append(clock.now + wait)
        clock.now += pause
    if checked:
        # The free ones, one a doubling, and then one every LONGEST seconds.
        assert len(checked) <= FREE + 6 + (checked[-1] - checked[0]) / LONGEST
    assert checked == sorted(checked)


def test_many_addresses_together_are_slowed_down_and_memory_is_bounded() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    answers = [attempts.wait(f"2001:db8:{number:x}::/64") for number in range(3 * REMEMBERED)]
    checked = [wait for wait in answers if wait is not None]
    assert len(checked) <= BURST + PER_SECOND * LONGEST + 1
    for number in range(3 * REMEMBERED):
        clock.now += 1 / PER_SECOND
        attempts.wait(str(number))
        attempts.succeeded(f"x{number}")
    assert len(attempts._senders) <= REMEMBERED
    assert len(attempts._known) <= REMEMBERED


def test_nobody_is_locked_out_for_ever() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    attempts.wait("ada")
    attempts.succeeded("ada")  # she was here before
    for number in range(1_000):  # an attack from everywhere
        attempts.wait(f"192.0.2.{number}")
    assert attempts.wait("192.0.2.1") is None
    assert attempts.wait("ada") == 0
    attempts = Attempts(clock)
    for _ in range(1_000):  # somebody forgot the password
        attempts.wait("bob")
    clock.now += 2 * LONGEST
    wait = attempts.wait("bob")
    assert wait is not None
    attempts.succeeded("bob")
    assert attempts.wait("bob") == 0


@given(st.text(max_size=20), st.text(max_size=20))
def test_only_the_name_and_the_password_are_right(user: str, password: str) -> None:
    right = checker("ada", "se:cret ä")
    assert right("ada", "se:cret ä")
    assert right(user, password) == ((user, password) == ("ada", "se:cret ä"))


def test_wrong_passwords_are_slowed_down_and_the_right_one_gets_in_after_them(collection: Collection) -> None:
    with serve(collection, "127.0.0.1", 0, ("ada", "secret")) as address, httpx.Client(**BROWSER) as client:
        codes = [client.post(f"{address}login", data=WRONG).status_code for _ in range(FREE)]
        assert set(codes) == {400}
        began = time.monotonic()
        assert client.post(f"{address}login", data=RIGHT).status_code == 200
        assert time.monotonic() - began > 0.5  # what a person doesn't mind, and a program does


def test_more_wrong_passwords_than_can_wait_are_refused(collection: Collection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with serve(collection, "127.0.0.1", 0, ("ada", "secret")) as address:

        def attempt(number: int) -> int:
            try:
                data = {"username": "ada", "password": str(number)}
                return httpx.post(f"{address}login", data=data, trust_env=False, timeout=1.5).status_code
            except httpx.TimeoutException:
                return 0

        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(attempt, range(48)))
    assert codes.count(400) <= FREE + 2
    assert codes.count(429) >= 30


@pytest.mark.parametrize(
    ("trusted", "told", "secure"), [(None, "https", True), (None, "http", False), ("192.0.2.1", "https", False)]
)
def test_a_login_is_kept_for_this_page_alone(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, trusted: str | None, told: str, secure: bool
) -> None:
    # By default a proxy on this machine is believed that the page is served by TLS; nobody else's word counts.
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if trusted:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    with serve(collection, "127.0.0.1", 0, ("ada", "secret")) as address:
        headers = {"X-Forwarded-Proto": told, "X-Forwarded-For": "192.0.2.9"}
        answer = httpx.post(f"{address}login", data=RIGHT, headers=headers, **BROWSER)
        given = answer.headers.get_list("set-cookie")
        assert given
        for header in given:
            (cookie,) = SimpleCookie(header).values()
            assert (cookie["samesite"], cookie["httponly"]) == ("Strict", True)
            assert bool(cookie["secure"]) == secure
        token = "; ".join(header.partition(";")[0] for header in given)
        assert httpx.get(f"{address}config", headers={"Cookie": token}, **BROWSER).status_code == 200
        out = httpx.get(f"{address}logout", headers={"Cookie": token}, **BROWSER)
        assert all("SameSite=Strict" in header for header in out.headers.get_list("set-cookie"))
        assert httpx.get(f"{address}config", headers={"Cookie": token}, **BROWSER).status_code == 401


def test_nothing_but_the_way_in_is_answered_without_a_password(collection: Collection) -> None:
    paths = ["config", "thumbnail/1", "gradio_api/info", "gradio_api/app_id", "gradio_api/heartbeat/x", "openapi.json"]
    paths += ["gradio_api/queue/data?session_hash=x", "gradio_api/queue/status", "monitoring", "gradio_api/token"]
    with serve(collection, "0.0.0.0", 0, ("ada", "secret")) as address, httpx.Client(**BROWSER) as client:
        site = str(address).replace("0.0.0.0", "127.0.0.1")
        for path in paths:
            # Under any name: a foreign name server that leads a browser here (DNS rebinding) brings no cookie along.
            for host in ("127.0.0.1", "rebind.example"):
                assert client.get(f"{site}{path}", headers={"Host": host}).status_code in (401, 403), path
        for path in ("gradio_api/cancel", "gradio_api/reset", "gradio_api/queue/join", "gradio_api/upload"):
            assert client.post(f"{site}{path}", json={}).status_code == 401, path
        page = client.get(site)
        assert page.status_code == 200
        assert collection.root.name.encode() not in page.content
