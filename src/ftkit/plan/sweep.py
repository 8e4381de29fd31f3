"""Plan the runs of a sweep, for ``ftkit plan`` and ``ftkit ablation run``; torch is imported for the plan alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.ablation.folder import label_parts
from ftkit.ablation.search import Search
from ftkit.ablation.setting import Setting
from ftkit.plan.device import Device

if TYPE_CHECKING:
    from ftkit.plan.plan import Procedure

Done = Callable[[str, Setting], int]  # by the label of a row and a setting: how many of its runs are finished


class SweepPlanner:
    """Plans the runs of rows on a device.

    Args:
        device: That of :meth:`ftkit.plan.device.Device.load`, which is read now, or ``here``: the CPU at hand, which is
            measured before the first plan.
        search: The settings to try for each row; None runs each as its files say.

    Raises:
        InputError: There is no such device.
    """

    def __init__(self, device: str, search: Search | None = None) -> None:
        self._known = None if device == "here" else Device.load(device)
        self.search = search

    def plan(
        self,
        configs: Mapping[str, list[Path]],
        seeds: int = 1,
        done: Done = lambda label, setting: 0,
        procedure: Procedure = "ftkit",
        setting: Setting = (),
    ) -> tuple[list[dict[str, Any]], Device]:
        """Return the plan of each row, see :func:`ftkit.plan.plan.plan_rows`, and the device.

        Args:
            configs: The config files of each row, from :func:`ftkit.ablation.folder.row_configs`.
            seeds: How often each setting is run.
            done: Tells which runs are finished; the sums leave them out.
            procedure: ftkit's own, or that of the published GPT-2 table.
            setting: Laid over all rows where there is no search.

        Raises:
            InputError: A config cannot be used, or the machine at hand cannot be measured.
        """
        from ftkit.plan.here import measured
        from ftkit.plan.plan import plan_rows

        device = self._known or measured()
        tries = {label: self._tries(label, setting) for label in configs}
        left = {label: [seeds - done(label, one) for one in some] for label, some in tries.items()}
        return plan_rows(configs, device, procedure, tries, left), device

    def _tries(self, label: str, setting: Setting) -> Sequence[Setting]:
        return [setting] if self.search is None else self.search.planned(label_parts(label)[0])
