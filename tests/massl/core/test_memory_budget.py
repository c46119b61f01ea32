"""The memory that pictures share: how much there is, who gets it, who waits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from massl.core import memory_budget
from massl.core.memory_budget import ALWAYS, MemoryBudget, available_memory

MB = 1_000_000


def in_threads(*work: object) -> None:
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads), "they wait for one another"


def test_pictures_go_side_by_side_and_large_ones_wait() -> None:
    budget = MemoryBudget(lambda: 10_000 * MB, together=200 * MB)
    together, most, guard = 0, 0, threading.Lock()

    def hold(needed: int) -> None:
        nonlocal together, most
        with budget.take(needed):
            with guard:
                together += needed
                most = max(most, together)
            threading.Event().wait(0.005)
            with guard:
                together -= needed

    in_threads(*(lambda needed=size * MB: hold(needed) for size in (60, 170, 80, 10, 200, 40) * 3))
    assert together == 0
    assert 60 * MB < most <= 200 * MB


def test_a_picture_larger_than_all_that_go_side_by_side_goes_alone() -> None:
    budget = MemoryBudget(lambda: 2_000 * MB, together=100 * MB)
    inside: list[int] = []

    def hold(needed: int) -> None:
        with budget.take(needed):
            inside.append(needed)
            assert len(inside) == 1 or max(inside) < 100 * MB
            threading.Event().wait(0.005)
            inside.remove(needed)

    in_threads(*(lambda needed=size * MB: hold(needed) for size in (900, 40, 800, 30) * 4))


def test_what_takes_more_than_half_of_the_free_memory_is_refused_and_costs_nothing() -> None:
    free = 2_000 * MB
    budget = MemoryBudget(lambda: free)
    with pytest.raises(MemoryError), budget.take(1_001 * MB):
        pass
    with budget.take(1_000 * MB):
        pass
    free = 0  # the machine is full: small ones go all the same
    with pytest.raises(MemoryError), budget.take(ALWAYS + 1):
        pass
    with budget.take(ALWAYS):
        pass


def test_threads_that_hold_and_ask_for_more_never_wait_for_one_another() -> None:
    budget = MemoryBudget(lambda: 660 * MB, together=300 * MB)
    done: list[int] = []

    def read_then_decode() -> None:
        with budget.held():
            budget.keep(100 * MB)  # three of these fill it
            with budget.take(150 * MB) as grant:
                grant.remains = 20 * MB
            with budget.take(200 * MB):
                pass
        done.append(1)

    in_threads(*[read_then_decode] * 8)
    assert len(done) == 8
    with budget.take(300 * MB):  # all came back
        pass


def test_what_remains_is_held_to_the_end_of_the_block() -> None:
    budget = MemoryBudget(lambda: 200 * MB)
    with budget.held():
        with budget.take(90 * MB) as grant:
            grant.remains = 60 * MB
        with pytest.raises(MemoryError), budget.take(50 * MB):
            pass
    with budget.take(90 * MB):
        pass
    with budget.take(90 * MB) as grant:  # no block: whoever decoded is done with it
        grant.remains = 60 * MB
    with budget.take(90 * MB):
        pass


def test_processes_side_by_side_share_it() -> None:
    budget = MemoryBudget(lambda: 2_000 * MB)
    budget.divide(4)
    with budget.take(250 * MB):
        pass
    with pytest.raises(MemoryError), budget.take(251 * MB):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    code = """if True:
        import os, signal
        from massl.core.memory_budget import BUDGET
        with BUDGET._changed:  # as if a thread held it
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                with BUDGET.take(1000):
                    os._exit(0)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def group(folder: Path, version: int, limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    for name, text in zip(names, (limit, used), strict=False):
        (folder / name).write_text(f"{text}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")


def test_the_memory_of_a_container_counts(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    assert available_memory(root, membership) > 1 << 20
    group(root, 2, "300000", 200_000, 50_000)
    assert available_memory(root, membership) == 150_000
    group(root, 2, "max", 200_000, 50_000)
    assert available_memory(root, membership) > 1 << 20
    # One further down, as systemd makes them, and one between; the least counts.
    membership.write_text("0::/user.slice/run-1.scope\n")
    group(root / "user.slice/run-1.scope", 2, "500000", 100_000, 0)
    assert available_memory(root, membership) == 400_000
    group(root / "user.slice", 2, "350000", 100_000, 0)
    assert available_memory(root, membership) == 250_000
    # Version 1, at the top as in a container, and at the path that the host sees.
    membership.write_text("4:memory:/docker/1f2e\n1:cpu,cpuacct:/docker/1f2e\n")
    group(root / "memory", 1, "400000", 300_000, 20_000)
    assert available_memory(root, membership) == 120_000
    group(root / "memory/docker/1f2e", 1, "100000", 90_000, 0)
    assert available_memory(root, membership) == 10_000
    (root / "memory/docker/1f2e/memory.limit_in_bytes").write_text("not a number")
    assert available_memory(root, membership) == 120_000


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_the_limit_on_addresses_counts() -> None:
    code = """if True:
        import resource, psutil
        from massl.core.memory_budget import available_memory
        most = psutil.Process().memory_info().vms + (100 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        assert (90 << 20) < available_memory() <= (100 << 20), available_memory()
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_most_that_goes_side_by_side_grows_with_the_cores() -> None:
    assert memory_budget.TOGETHER >= 2 << 30
