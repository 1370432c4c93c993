"""The fingerprint of the source."""

from __future__ import annotations

import pytest

from strategies.code import PACKAGES, code_hash


@pytest.fixture
def tree(tmp_path):
    for package in PACKAGES:
        (tmp_path / package / "deep").mkdir(parents=True)
        (tmp_path / package / "deep" / "x.py").write_text(f"# {package}\n")
    return tmp_path


def fresh(root) -> str:
    code_hash.cache_clear()
    return code_hash(root)


def test_it_follows_every_byte_and_name_of_the_source_and_nothing_else(tree):
    before, seen = fresh(tree), set()
    assert len(before) == 64 and fresh(tree) == before
    for package in PACKAGES:
        path = tree / package / "deep" / "x.py"
        path.write_text(f"# {package} \n")
        seen.add(fresh(tree))
        path.rename(path.with_name("y.py"))
        seen.add(fresh(tree))
    (tree / "models" / "new.py").touch()
    seen.add(fresh(tree))
    assert before not in seen and len(seen) == 2 * len(PACKAGES) + 1
    last = fresh(tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "x.py").write_text("x")
    (tree / "models" / "notes.txt").write_text("x")
    assert fresh(tree) == last


def test_it_is_the_same_for_a_copy_elsewhere(tree, tmp_path_factory):
    import shutil

    copy = tmp_path_factory.mktemp("copy") / "other"
    shutil.copytree(tree, copy)
    assert fresh(copy) == fresh(tree)


def test_the_running_source_has_one():
    code_hash.cache_clear()
    assert len(code_hash()) == 64
