"""What befalls a cluster under load: all that was stored is there, all that was called ends, and nobody hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters import CLUSTERS
from clusters.conftest import Stages
from faults.load import Verdict
from servers.pool import or_skip

#: For `scripts/soak --clusters`: of two pairs, the one that is noticed late meets more.
FOR_LONG = {"pair-haproxy"}
KINDS = [name for name in CLUSTERS if name not in FOR_LONG]
SCENES = [(kind, fault) for kind in KINDS for fault in CLUSTERS[kind].cluster.faults]


@pytest.mark.parametrize(("kind", "fault"), SCENES)
def test_under_load(stages: Stages, kind: str, fault: str, folder: Path) -> None:
    with or_skip(kind):
        report = stages.play(kind, fault, folder)

    assert report.verdict == Verdict()
    assert [number > 0 for number in (report.stores, report.waits, report.bodies, report.held)] == [True] * 4
