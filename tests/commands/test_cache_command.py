"""The hub's cache: what it holds, and that nothing goes without being told first."""

from pathlib import Path

import pytest

from ftkit.commands.cache import cache_delete, cache_list
from ftkit.errors import InputError

OLD, NEW, OTHER = ("a" * 40, "b" * 40, "c" * 40)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two models, one of them with a revision that an update left behind."""
    for name, commits in (("models--org--big", [OLD, NEW]), ("models--org--small", [OTHER])):
        repository = tmp_path / name
        (repository / "blobs").mkdir(parents=True)
        for commit in commits:
            (repository / "snapshots" / commit).mkdir(parents=True)
            (repository / "blobs" / commit).write_bytes(b"x" * (2000 if commit == NEW else 1000))
            (repository / "snapshots" / commit / "model.safetensors").symlink_to(f"../../blobs/{commit}")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commits[-1])
    return tmp_path


def files(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))


def test_the_largest_model_comes_first_with_its_revisions(cache: Path) -> None:
    lines = cache_list(cache).splitlines()
    assert [line.split()[1] for line in lines if "org/" in line] == ["org/big", "org/small"]
    assert f"{OLD}      1.0K  detached: no branch or tag stands for it" in lines[1]
    assert f"{NEW}      2.0K  main" in lines[2]
    assert lines[-1] == f"    4.0K  in {cache}"


def test_without_yes_nothing_is_changed(cache: Path) -> None:
    before = files(cache)
    said = cache_delete(["org/big"], cache=cache)
    assert said.splitlines() == [
        f"would delete org/big {OLD} (detached)",
        f"would delete org/big {NEW} (main)",
        "would free 3.0K",
        "nothing was changed; repeat the command with --yes to delete",
    ]
    assert files(cache) == before


def test_with_yes_the_model_goes_and_the_others_stay(cache: Path) -> None:
    said = cache_delete(["org/big"], yes=True, cache=cache)
    assert said.splitlines()[-1] == "freed 3.0K"
    assert "org/big" not in cache_list(cache)
    assert (cache / "models--org--small" / "snapshots" / OTHER / "model.safetensors").is_file()


@pytest.mark.parametrize("arguments", [{"names": [OLD]}, {"detached": True}])
def test_one_revision_goes_by_its_number_or_because_nothing_stands_for_it(cache: Path, arguments: dict) -> None:
    cache_delete(**arguments, yes=True, cache=cache)
    listed = cache_list(cache)
    assert OLD not in listed
    assert NEW in listed
    assert OTHER in listed


def test_mistakes_are_told(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names: is not in the cache .*'org/none'.*`ftkit cache list`"):
        cache_delete(["org/none"], yes=True, cache=cache)
    with pytest.raises(InputError, match="nothing to delete was named"):
        cache_delete(cache=cache)
    with pytest.raises(InputError, match="there is no cache here"):
        cache_list(tmp_path / "nowhere")
