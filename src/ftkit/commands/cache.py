"""``ftkit cache``: what the hub's cache holds, and deleting from it only after saying what would go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo


def cache_list(cache: Path | None = None) -> str:
    """List the hub's cache: each model and its revisions, the largest model first.

    Args:
        cache: The cache's folder; the hub's own ($HF_HUB_CACHE) if not given.

    Returns:
        A line for each model and each of its revisions, then the whole size.
    """
    found = _scan(cache)
    lines = []
    for repository in sorted(found.repos, key=lambda repository: (-repository.size_on_disk, repository.repo_id)):
        lines.append(
            f"{repository.size_on_disk_str:>8}  {repository.repo_id}  ({repository.repo_type}, "
            f"used {repository.last_accessed_str})"
        )
        for revision in sorted(repository.revisions, key=lambda revision: revision.commit_hash):
            names = ", ".join(sorted(revision.refs)) or "detached: no branch or tag stands for it"
            lines.append(f"{'':>8}    {revision.commit_hash}  {revision.size_on_disk_str:>8}  {names}")
    lines += [f"warning: {str(warning).splitlines()[0]}" for warning in found.warnings]
    lines.append(f"{found.size_on_disk_str:>8}  in {found.cache_dir}")
    return "\n".join(lines) + "\n"


def cache_delete(
    names: list[str] | None = None, detached: bool = False, yes: bool = False, cache: Path | None = None
) -> str:
    """Delete models or single revisions from the hub's cache; without --yes only say what would go.

    Args:
        names: Models such as openai-community/gpt2, or revisions as `ftkit cache list` prints them.
        detached: Also every revision that no branch or tag stands for, such as those that an update left behind.
        yes: Delete. Otherwise nothing is changed.
        cache: The cache's folder; the hub's own ($HF_HUB_CACHE) if not given.

    Returns:
        What goes, and how much space that frees.

    Raises:
        InputError: Nothing was named, or something that the cache does not hold.
    """
    found = _scan(cache)
    if not names and not detached:
        raise InputError(
            "nothing to delete was named", field="names", fix="name models or revisions, or use --detached"
        )
    chosen = set[str]()
    for name in names or []:
        matching = {
            revision.commit_hash
            for repository in found.repos
            for revision in repository.revisions
            if name in (repository.repo_id, revision.commit_hash)
        }
        if not matching:
            raise InputError("is not in the cache", field="names", got=name, fix="see `ftkit cache list`")
        chosen |= matching
    if detached:
        chosen |= {
            revision.commit_hash for repository in found.repos for revision in repository.revisions if not revision.refs
        }
    strategy = found.delete_revisions(*chosen)
    verb = "deleted" if yes else "would delete"
    lines = [
        f"{verb} {repository.repo_id} {revision.commit_hash} ({', '.join(sorted(revision.refs)) or 'detached'})"
        for repository in sorted(found.repos, key=lambda repository: repository.repo_id)
        for revision in sorted(repository.revisions, key=lambda revision: revision.commit_hash)
        if revision.commit_hash in chosen
    ]
    if yes:
        strategy.execute()
    lines.append(f"{'freed' if yes else 'would free'} {strategy.expected_freed_size_str}")
    if not yes:
        lines.append("nothing was changed; repeat the command with --yes to delete")
    return "\n".join(lines) + "\n"


def _scan(cache: Path | None) -> HFCacheInfo:
    from huggingface_hub import CacheNotFound, scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return scan_cache_dir(cache)
    except (CacheNotFound, ValueError) as error:
        raise InputError(
            "there is no cache here", file=cache or HF_HUB_CACHE, fix="it appears with the first download"
        ) from error
