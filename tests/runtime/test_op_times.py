"""The table of a trace: self times and exposed collectives, of made and of recorded traces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.profiler import ProfileData

from marco_jax.runtime.hlo_names import ProgramInstruction, parse_instructions
from marco_jax.runtime.op_times import Operation, read_times, summarize

MICROSECOND = 1_000_000  # in picoseconds
WHOLE_TEXT = "%all-reduce.3 = (f32[8,128]{1,0:T(8,128)}, f32[]) all-reduce(%a, %b), to_apply=%add"


def trace_of(planes):
    """A trace of {plane: {line: [(name, first microsecond, last)]}}."""
    text = ""
    for plane, lines in planes.items():
        names = sorted({event[0] for events in lines.values() for event in events})
        body = f'name: "{plane}"\n'
        for line, events in lines.items():
            rows = "".join(
                f"events {{ metadata_id: {names.index(name) + 1} "
                f"offset_ps: {start * MICROSECOND} duration_ps: {(end - start) * MICROSECOND} }}\n"
                for name, start, end in events
            )
            body += f'lines {{ name: "{line}" timestamp_ns: 5000\n{rows} }}\n'
        for number, name in enumerate(names, start=1):
            body += f'event_metadata {{ key: {number} value {{ id: {number} name: "{name}" }} }}\n'
        text += f"planes {{ {body} }}\n"
    return ProfileData.from_text_proto(text)


TPU = {
    "XLA Modules": [("jit_update(123)", 0, 95)],
    "XLA Ops": [
        ("while.1", 0, 90),
        ("fusion.1", 0, 20),
        ("all-gather-start.1", 20, 21),
        ("fusion.2", 21, 50),
        ("all-gather-done.1", 50, 60),
        (WHOLE_TEXT, 60, 75),
        ("copy-done.4", 75, 80),
        ("fusion.1", 80, 90),
    ],
    "Async XLA Ops": [("all-gather-start.1", 20, 60), ("copy-start.4", 70, 80)],
}


def test_of_a_tpu_the_part_of_a_collective_without_compute_is_exposed():
    programs = {"jit_update": {"fusion.1": ProgramInstruction("fusion", "MLP", backward=True)}}
    times = summarize(trace_of({"/device:TPU:0": TPU, "/host:CPU": {"python": []}}), programs)
    assert (times.devices, times.span, times.busy) == pytest.approx((1, 0.090, 0.090))
    # The gather runs from 20 to 60 and the reduction from 60 to 75; fusion.2 hides 21 to 50.
    assert times.collectives == pytest.approx(0.055)
    assert times.exposed == pytest.approx(0.055 - 0.029)
    rows = {row.name: row for row in times.longest}
    assert [row.name for row in times.longest][:4] == [
        *("fusion.1", "fusion.2", "all-reduce.3", "all-gather-done.1")
    ]
    assert "while.1" not in rows and "copy-start.4" not in rows
    first, reduction = rows["fusion.1"], rows["all-reduce.3"]
    assert (first.milliseconds, first.share, first.count) == pytest.approx((0.030, 1 / 3, 2))
    assert (first.part, first.backward, first.program) == ("MLP", True, "jit_update")
    assert reduction.collective and reduction.opcode == "all-reduce"
    assert sum(row.share for row in times.longest) == pytest.approx(1)


def test_times_are_means_over_devices():
    idle = {"XLA Ops": [("fusion.1", 0, 30)], "XLA Modules": [("jit_update(123)", 0, 30)]}
    times = summarize(trace_of({"/device:TPU:0": TPU, "/device:TPU:1": idle}))
    assert times.devices == 2
    assert times.span == pytest.approx((0.090 + 0.030) / 2)
    assert times.exposed == pytest.approx(0.026 / 2)
    lines = times.lines()
    assert "2 devices, 0.06 ms" in lines[0] and "exposed" in lines[1]
    assert lines[3].split() == ["0.030", "50.0%", "1.5", "fusion.1,", "fusion"]


def test_overlap_is_not_counted_twice():
    """Two transfers at a time, under compute that is broken into several operations."""
    line = [("fusion.1", 0, 10), ("fusion.2", 10, 15), ("fusion.3", 20, 30), ("fusion.4", 40, 41)]
    transfers = [("all-reduce-start.1", 5, 25), ("all-gather-start.2", 12, 45)]
    plane = {"XLA Ops": line, "Async XLA Ops": transfers}
    times = summarize(trace_of({"/device:TPU:0": plane}))
    assert times.collectives == pytest.approx(0.040)
    assert times.exposed == pytest.approx((5 + 10 + 4) / 1000)


@pytest.mark.parametrize(
    ("name", "opcode", "collective", "computes"),
    [
        ("reduce_scatter.195", "reduce-scatter", True, False),
        ("psum.3", "", True, False),
        ("psum_invariant.3", "", True, False),
        ("fusion.3", "fusion", False, True),
        ("async-collective-done.2", "async-done", True, False),
        ("copy-done.2", "copy-done", False, False),
        ("reduce.7", "reduce", False, True),
        ("while.2", "while", False, False),
    ],
)
def test_kinds_of_operations(name, opcode, collective, computes):
    operation = Operation("0", "XLA Ops", "p", name, opcode, 0, 1)
    assert (operation.is_collective, operation.computes) == (collective, computes)


def test_a_trace_without_a_device_has_no_times(tmp_path):
    assert summarize(trace_of({"/host:CPU": {"python": [("f", 0, 1)]}})) is None
    with pytest.raises(OSError, match="has no trace"):
        read_times(tmp_path)


def test_a_recorded_trace_of_a_cpu_tells_products_from_collectives(tmp_path):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("x")

    @jax.jit
    def traced_product_and_sum(x):
        def body(x):
            return jax.lax.psum(x @ x.T, "x")

        return jax.shard_map(
            body, mesh=mesh, in_specs=rows, out_specs=jax.sharding.PartitionSpec()
        )(x)

    x = jax.device_put(
        jnp.asarray(np.ones((1024, 256), np.float32)), jax.sharding.NamedSharding(mesh, rows)
    )
    traced_product_and_sum(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            traced_product_and_sum(x).block_until_ready()
    times = read_times(tmp_path)
    assert times.devices == 8
    collectives = [row for row in times.longest if row.collective]
    products = [row for row in times.longest if row.opcode in ("dot", "fusion")]
    assert [row.count for row in collectives] == [3] and collectives[0].opcode == "all-reduce"
    assert products and max(row.count for row in products) == 3
    assert {row.program for row in (*collectives, *products)} == {"jit_traced_product_and_sum"}
    assert 0 < times.exposed <= times.collectives <= times.busy <= times.span


def test_instructions_name_their_functions_and_pass():
    text = """HloModule jit_f

FileNames
1 "/home/me/run.py"
2 "/site/marco_jax/model/qwen2.py"

FunctionNames
1 "main"
2 "Attention.__call__"
3 "Projection.__call__.<locals>.inner"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=0 end_column=0}
2 {file_name_id=2 function_name_id=2 line=7 end_line=7 column=0 end_column=0}
3 {file_name_id=2 function_name_id=3 line=9 end_line=9 column=0 end_column=0}

StackFrames
1 {file_location_id=1 parent_frame_id=PARENT0}
2 {file_location_id=2 parent_frame_id=PARENT1}
3 {file_location_id=3 parent_frame_id=PARENT2}

ENTRY %main {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %fusion.1 = bf16[8]{0} fusion(%p), kind=kLoop, metadata={op_name="jit(f)/mul" \
stack_frame_id=3}
  %while.2 = (f32[]{:T(128)}, /*index=1*/s32[2]{0}) while(%t), metadata={op_name=\
"jit(f)/transpose(jvp())/rematted_computation/add" stack_frame_id=1}
}
"""
    for offset in (0, 1):
        counted = text
        for frame in range(3):
            counted = counted.replace(f"PARENT{frame}", str(frame + offset))
        found = parse_instructions(counted)
        assert found["p"] == ProgramInstruction("parameter")
        assert found["fusion.1"] == ProgramInstruction("fusion", "Attention > Projection")
        assert found["while.2"] == ProgramInstruction("while", "", backward=True, recomputed=True)
