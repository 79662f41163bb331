"""`marco plan` compiles for TPUs that are not there, and says what fits."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from marco_jax.planning.search import candidates, mark_front
from marco_jax.runtime.chips import CHIPS, GIB
from marco_jax.training.config import load_config, model_config

pytest.importorskip("libtpu", reason="the TPU compiler (libtpu) is not installed")

SIZES = ("qwen2_0_5b", "qwen2_1_5b", "qwen2_7b", "qwen2_72b", "qwen3_8b", "grpo")
SMALL = (
    "--config.model.preset=small",
    "--config.batch.length=512",
    "--config.mesh.fsdp=-1",
)


def plan(root, *arguments):
    # The virtual devices of the tests are not for the TPU compiler.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "marco_jax", "plan", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def test_a_small_step_on_two_slices(root, tmp_path):
    out, hlo = tmp_path / "plan.json", tmp_path / "step.hlo"
    done = plan(
        root,
        f"--config={root}/configs/qwen2_0_5b.py",
        "--topology=v5e:2x2",
        "--num_slices=2",
        f"--out={out}",
        f"--hlo={hlo}",
        "--only=train,decode",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    assert "not measured on a chip" in done.stdout
    found = json.loads(out.read_text())
    assert found["planned"]["mesh"] == {"slice": 2, "fsdp": 2, "fsdp_minor": 2}
    assert found["memory"]["fits"]
    # A recomputed layer, and the scores of attention twice: more than the model's own FLOPs.
    assert 1.0 < found["flops"]["hlo_over_model"] < 1.6
    # Only gradients cross slices: float32 or less of every parameter's shard, all-reduced.
    parameters = found["planned"]["parameters"]
    assert 0 < found["wire"]["across_slices_gib"] * GIB <= 1.1 * parameters * 4 / 4
    assert "ENTRY" in hlo.read_text()
    kernel = found["kernels"]["decode"]
    assert kernel["memory"]["fits"]
    # Activations travel: nothing as large as a layer's matrix is gathered.
    assert kernel["largest_gathered_gib"] * GIB < 4 * 512 * 1408


@pytest.mark.slow
def test_a_round_of_answers_is_planned_beside_the_state_of_training(root, tmp_path):
    out = tmp_path / "plan.json"
    answers = ("--config.grpo.prompts=8", "--config.grpo.max_prompt_tokens=128")
    done = plan(
        root,
        f"--config={root}/configs/grpo.py",
        "--topology=v5e:2x2",
        f"--out={out}",
        "--only=train,prefill,decode",
        *("--config.grpo.max_new_tokens=128", "--config.grpo.kl=0.1", *answers, *SMALL),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    # The plan computes every part of the batch, and the logits of the reference.
    assert found["flops"]["hlo_over_model"] > 0.9
    for kernel in found["kernels"].values():
        memory = kernel["memory"]
        resident = found["memory"]["optimizer_gib"] + found["memory"]["frozen_gib"]
        assert memory["resident_gib"] == pytest.approx(resident)
        assert memory["peak_gib"] > resident + memory["parameters_gib"]
        assert (kernel["rows"], kernel["length"]) == (64, 256)
    whole = found["round"]
    assert whole["sampling_seconds"] == pytest.approx(
        128 * found["kernels"]["decode"]["predicted"]["call_seconds"]
    )
    assert 0 < whole["sampling_share"] < 1
    assert "sampling_share" in done.stdout


@pytest.mark.slow
def test_the_runs_of_a_sweep_are_planned_together(root, tmp_path):
    out = tmp_path / "plan.json"
    done = plan(
        root,
        f"--config={root}/configs/mixture_ablation.py",
        "--topology=v5e:2x2",
        "--only=train",
        f"--out={out}",
        "--config.sweep.parallel=slices",
        "--config.sweep.runs=10",
        "--config.model.num_hidden_layers=1",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    sweep, predicted = found["sweep"], found["predicted"]
    assert (sweep["lanes"], sweep["devices_per_lane"], sweep["rounds"]) == (4, 1, 3)
    assert sweep["steps_per_run"] == 100
    seconds = 300 * predicted["step_seconds_as_scheduled"]
    assert sweep["hours_as_scheduled"] == pytest.approx(seconds / 3600)
    # A chip holds one run, and what it computes stays on it.
    whole = found["planned"]["parameters"] * 4 / GIB
    assert found["memory"]["parameters_gib"] == pytest.approx(whole, rel=1e-3)
    assert found["wire"]["total_gib"] < 0.01 * whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology=v5p",), "write GENERATION:CHIPS"),
        (("--topology=v9:2x2",), "the generation is not one of v4, v5e"),
        (("--topology=v5e:16x32",), "v5e has no such slice, it has 1x1, 2x2"),
        (("--topology=v5e:2x2", "--config.mesh.fsdp=3"), "does not fill 4 devices"),
        (("--topology=v5e:2x2", "--config.dtype=bf16"), "did you mean 'bfloat16'?"),
        (("--topology=v5e:2x2", "--config.dtype=int8"), "choose one of float32, bfloat16"),
        (("--topology=v5e:2x2", "--config.remat=fulll"), "did you mean 'full'?"),
        (
            ("--topology=v5e:2x2", "--config.compiler_options=xla_tpu_no_such=true", *SMALL),
            "xla_tpu_no_such=True, which the compiler for TPU v5 lite refuses",
        ),
    ],
)
def test_bad_input_ends_in_one_line(root, arguments, message):
    done = plan(root, f"--config={root}/configs/qwen2_0_5b.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_the_table_of_chips_is_sane():
    for chip in CHIPS.values():
        # Products are what a TPU is fastest at: hundreds of FLOPs a byte of memory.
        assert 100 < chip.peak_flops / chip.hbm_bandwidth < 700
        assert chip.ici_bandwidth < chip.hbm_bandwidth


def test_a_step_that_does_not_fit_ends_in_one_line(root):
    done = plan(
        root,
        f"--config={root}/configs/qwen2_7b.py",
        "--topology=v5e:2x2",
        "--config.remat=full",
        "--config.batch.sequences_per_chip=1",
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "exceeds available HBM" in line
    assert "Use more chips" in line


def test_the_candidates_of_a_search_divide_the_model(root):
    config = load_config(f"{root}/configs/qwen2_0_5b.py", ["batch.length=2048"])
    model = model_config(config, config.tokenizer.vocab_size)
    found = list(candidates(config, model, "v5e:2x4", (1, 2)))
    meshes = {item.mesh for item in found}
    for mesh in meshes:
        sizes = dict(mesh)
        assert np.prod(list(sizes.values())) == 8
        assert model.num_attention_heads % sizes["tensor"] == 0
        assert model.num_key_value_heads % sizes["tensor"] == 0
    by_layout = {
        (item.mesh, item.sequences_per_chip, item.keep_gathered, item.remat): item for item in found
    }
    for (mesh, rows, keep, _), item in by_layout.items():
        full = by_layout[mesh, rows, keep, "full"]
        minimal = by_layout[mesh, rows, keep, "minimal"]
        assert full.bytes <= item.bytes <= minimal.bytes
        assert full.seconds >= minimal.seconds
        if keep:
            again = by_layout[mesh, rows, False, item.remat]
            assert item.bytes > again.bytes
            assert item.seconds < again.seconds


def test_no_layout_on_the_front_is_dominated():
    def row(peak, wire, rate, fits=True):
        plan = {
            "memory": {"peak_gib": peak},
            "wire": {"total_gib": wire},
            "planned": {"sequences_per_chip": 2},
        }
        return {"fits": fits, "tokens_per_second": rate, "plan": plan}

    rows = [
        row(20.0, 24.0, 900.0),  # the fastest
        row(5.0, 36.0, 800.0),  # the smallest
        row(21.0, 24.0, 890.0),  # slower than the first, and larger
        row(19.0, 20.0, 700.0),  # the fewest bytes
        row(1.0, 1.0, 999.0, fits=False),
        {"fits": False, "tokens_per_second": 0.0, "plan": None},
    ]
    mark_front(rows)
    assert [item["on_front"] for item in rows] == [True, True, False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "topology", "fsdp"), [("7b", "v5e:2x4", 8), ("72b", "v5p:2x2x4", 16)]
)
def test_evaluation_and_generation_fit_small_slices(root, tmp_path, size, topology, fsdp):
    out = tmp_path / "plan.json"
    done = plan(
        root,
        f"--config={root}/configs/qwen2_{size}.py",
        f"--topology={topology}",
        f"--config.mesh.fsdp={fsdp}",
        "--only=score,prefill,decode",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    for kernel in json.loads(out.read_text())["kernels"].values():
        assert kernel["memory"]["fits"]


@pytest.mark.slow
def test_a_search_reports_the_best_layout_that_fits(root, tmp_path):
    out = tmp_path / "search.json"
    done = plan(
        root,
        f"--config={root}/configs/qwen2_0_5b.py",
        "--topology=v5e:2x2",
        "--search=2",
        "--search_sequences=1",
        f"--out={out}",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(found["tried"]) == 2
    rates = [row["tokens_per_second"] for row in found["tried"] if row["fits"]]
    assert found["best"]["tokens_per_second"] == max(rates)
    assert "--config.mesh.fsdp=" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_every_config_fits_the_machine_that_it_is_for(root, tmp_path, size):
    config = f"{root}/configs/{size}.py"
    out = tmp_path / "plan.json"
    done = plan(root, f"--config={config}", "--only=train", f"--out={out}")
    assert done.returncode == 0, done.stderr
    memory = json.loads(out.read_text())["memory"]
    assert memory["fits"]
    assert memory["free_gib"] > 0.05 * memory["hbm_gib"]
    assert load_config(config).topology
