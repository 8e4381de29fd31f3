"""``ftkit doctor``: check a training on one batch, in seconds."""

from pathlib import Path

from ftkit.library_output import check_before_imports


def doctor(configs: list[Path]) -> None:
    """Check a training on one batch: supervised tokens, padding, gradients, checkpoints, memory.

    Args:
        configs: The config files that ``ftkit fit`` would be given, in the same order.

    Raises:
        FtkitError: A config, the data or the model cannot be used.
        TrainingFailed: A check failed.
    """
    check_before_imports(configs)
    from ftkit.doctor import examine
    from ftkit.errors import TrainingFailed
    from ftkit.library_output import quiet_lightning
    from ftkit.training.checks import FIXES

    quiet_lightning()
    findings = examine(configs)
    for finding in findings:
        mark = {True: "ok", False: "FAILED", None: "n/a"}[finding.passed]
        fix = f"; fix: {FIXES[finding.name]}" if finding.passed is False else ""
        print(f"{mark:<7} {finding.name:<15} {finding.seen}{fix}")
    failed = [finding.name for finding in findings if finding.passed is False]
    if failed:
        raise TrainingFailed(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}")
