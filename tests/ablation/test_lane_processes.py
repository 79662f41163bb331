"""A sweep in lanes on several processes: each group of devices may be of one process alone."""

import numpy as np
import pytest

from marco_jax.reports.run_data import read_metrics
from tests.ablation.test_kill import flags_of
from tests.processes import run_processes


@pytest.mark.slow
def test_two_processes_train_the_runs_of_one_process(root, data, tmp_path):
    shapes = {"alone": ("none", 1, 4), "vmap": ("vmap", 2, 2), "slices": ("slices", 2, 2)}
    for name, (parallel, processes, devices) in shapes.items():
        arguments = flags_of(root, data, tmp_path / name, parallel)
        arguments += ["--config.log_every=1", "--config.sweep.two_stages=False"]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / f"cache{processes}")}
        run_processes(arguments, processes, devices, cache)
    for wanted in (tmp_path / "alone/proxies").iterdir():
        want = read_metrics(wanted / "metrics.jsonl")
        assert len(want) == 8
        for name in ("vmap", "slices"):
            found = read_metrics(tmp_path / name / "proxies" / wanted.name / "metrics.jsonl")
            assert [row["step"] for row in found] == [row["step"] for row in want]
            for field in ("loss", "grad_norm"):
                # Sums in another order, and Adam's epsilon is the usual one.
                values = ([row[field] for row in rows] for rows in (found, want))
                np.testing.assert_allclose(*values, rtol=1e-3, err_msg=f"{name} {wanted.name}")
