from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from client.ingest.pool import Pool, PoolError

WORKER = """
import os, time
import numpy as np

def serve(task):
    what = task["what"]
    if what == "die":
        os.kill(os.getpid(), 9)
    if what == "exit":
        os._exit(0)
    if what == "sleep":
        time.sleep(60)
    if what == "slow":
        time.sleep(0.05)
    if what == "raise":
        raise ValueError("not caught by the function")
    if what == "allocate":
        try:
            np.ones(1 << 40, np.uint8)
        except MemoryError:
            return {"code": "memory_limit"}, None
    if what == "large":
        return {"number": task["number"]}, np.full((3000, 1000), task["number"] % 251, np.uint8)
    return {"number": task["number"]}, np.full(5, task["number"] % 251, np.uint8)
"""


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pool_test_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "pool_test_worker:serve"


def run(function: str, what: dict[int, str], count: int, workers: int = 2, seconds: float = 30.0) -> list[object]:
    tasks = [{"number": i, "what": what.get(i, "")} for i in range(count)]
    with Pool(function, workers, seconds, 2 << 30) as pool:
        found: list[object] = []
        for answer, data in pool.map(tasks):
            if "number" in answer:
                pixels = np.frombuffer(data, np.uint8)
                assert pixels.min() == pixels.max() == answer["number"] % 251
            found.append(answer.get("number", answer.get("code")))
    return found


def test_answers_come_in_order(function: str) -> None:
    slow = {i: "slow" for i in range(0, 100, 17)}
    assert run(function, slow, 400) == list(range(400))


def test_large_answers_pass(function: str) -> None:
    assert run(function, {i: "large" for i in range(40)}, 40) == list(range(40))


@pytest.mark.parametrize("how", ["die", "exit", "raise"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_takes_one_item_with_it(function: str, how: str, workers: int) -> None:
    deaths = {0: how, 3: how, 4: how, 29: how}
    expected = ["crashed" if i in deaths else i for i in range(30)]
    assert run(function, deaths, 30, workers) == expected


def test_a_late_item_is_stopped_and_the_others_go_on(function: str) -> None:
    begun = time.monotonic()
    expected = ["time_limit" if i in (1, 8) else i for i in range(20)]
    assert run(function, {1: "sleep", 8: "sleep"}, 20, seconds=1.5) == expected
    assert time.monotonic() - begun < 15


def test_memory_is_limited(function: str) -> None:
    assert run(function, {2: "allocate"}, 5) == [0, 1, "memory_limit", 3, 4]


def test_a_slow_reader_is_not_a_slow_worker(function: str) -> None:
    tasks = [{"number": i, "what": "large"} for i in range(12)]
    with Pool(function, 2, 0.5, 2 << 30) as pool:
        answers = []
        for answer, _ in pool.map(tasks):
            time.sleep(0.3)
            answers.append(answer.get("number"))
    assert answers == list(range(12))


def test_a_worker_that_cannot_start_is_no_fault_of_the_files() -> None:
    with pytest.raises(PoolError, match="nowhere_at_all"):
        run("nowhere_at_all:serve", {}, 3)


def test_start_up_does_not_count_for_the_time_limit(tmp_path: Path, function: str) -> None:
    (tmp_path / "slow_start.py").write_text("import time\ntime.sleep(1)\nfrom pool_test_worker import serve\n")
    assert function and run("slow_start:serve", {}, 4, 1, seconds=0.3) == [0, 1, 2, 3]


def test_no_task_no_answer(function: str) -> None:
    assert run(function, {}, 0) == []
    with pytest.raises(ValueError, match="at least 1"):
        Pool(function, 0, 1.0, 1 << 30)
