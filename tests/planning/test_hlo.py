"""FLOPs and bytes read from HLO are those that the program is known to have."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from marco_jax.model.mesh import create_mesh
from marco_jax.planning.hlo import analyze

LOOPS = """HloModule test, is_scheduled=true

%inner (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]) parameter(0)
  %x = f32[8,16]{1,0} get-tuple-element(%p), index=1
  %w = f32[16,16]{1,0} constant({...})
  %y = f32[8,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %r = f32[8,16]{1,0} all-reduce(%y), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %t = (s32[], f32[8,16]) tuple(%i, %r)
}

%inner_condition (p: (s32[], f32[8,16])) -> pred[] {
  %bound = s32[]{:T(128)} constant(3)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%outer (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]) parameter(0)
  ROOT %w = (s32[], f32[8,16]) while(%p), condition=%inner_condition, body=%inner
}

%outer_condition (p: (s32[], f32[8,16])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[8,16]) -> f32[8,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = bf16[4,8]{1,0} parameter(1)
  %start = (bf16[4,8], bf16[8,8]) all-gather-start(%b), replica_groups={{0,4},{1,5},{2,6},{3,7}}
  %loop = (s32[], f32[8,16]) while(%t), condition=%outer_condition, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  %done = bf16[8,8]{1,0} all-gather-done(%start)
  %k = bf16[32,64]{1,0} parameter(2)
  %u = bf16[8,32]{1,0} parameter(3)
  ROOT %c = bf16[8,64]{1,0} convolution(%u, %k), dim_labels=bf_io->bf
}
"""  # noqa: E501


def test_loops_multiply_and_collectives_know_their_axes():
    cost = analyze(LOOPS, ("data", "fsdp"), (2, 4))
    assert cost.matmul_flops == 15 * 2 * 8 * 16 * 16 + 2 * 8 * 32 * 64
    reduce = next(item for item in cost.collectives if item.kind == "all-reduce")
    assert (reduce.axes, reduce.group, reduce.count) == (("fsdp",), 4, 15)
    assert reduce.wire_bytes == 15 * 2 * (8 * 16 * 4) * 3 / 4
    assert not reduce.asynchronous


def test_an_asynchronous_pair_counts_once():
    cost = analyze(LOOPS, ("data", "fsdp"), (2, 4))
    (gather,) = [item for item in cost.collectives if item.kind == "all-gather"]
    assert gather.asynchronous
    assert (gather.axes, gather.count) == (("data",), 1)
    assert gather.wire_bytes == 8 * 8 * 2 / 2
    assert 0 < cost.asynchronous_share < 1


def test_a_pair_without_products_between_overlaps_nothing():
    lines = LOOPS.splitlines()
    done = next(line for line in lines if "all-gather-done" in line)
    lines.remove(done)
    start = next(number for number, line in enumerate(lines) if "all-gather-start" in line)
    lines.insert(start + 1, done)
    cost = analyze("\n".join(lines), ("data", "fsdp"), (2, 4))
    (gather,) = [item for item in cost.collectives if item.kind == "all-gather"]
    assert not gather.asynchronous
    assert cost.asynchronous_share == 0


FUSED = """
%begin (p: bf16[4,8]) -> (bf16[4,8], bf16[8,8]) {
  %p = bf16[4,8]{1,0} parameter(0)
  %g = bf16[8,8]{1,0} all-gather(%p), channel_id=7, replica_groups=[4,2]<=[2,4]T(1,0)
}

%async_collective_fusion.3 (p: bf16[4,8], q: bf16[16,8]) -> bf16[16,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  %q = bf16[16,8]{1,0} parameter(1)
  %w = bf16[8,8]{1,0} constant({...})
  %g = bf16[8,8]{1,0} all-gather(%p), channel_id=7, replica_groups=[4,2]<=[2,4]T(1,0)
  ROOT %d = bf16[16,8]{1,0} dot(%q, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (a: bf16[4,8]) -> bf16[8,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %async-collective-start.1 = (bf16[4,8], bf16[8,8]) fusion(%a), kind=kCustom, calls=%begin
  %f = bf16[16,8]{1,0} fusion(%async-collective-start.1, %q), calls=%async_collective_fusion.3
  ROOT %async-collective-done.1 = bf16[8,8]{1,0} fusion(%f), kind=kCustom, calls=%begin
}
"""


def test_a_gather_fused_with_products_counts_once():
    cost = analyze(FUSED, ("data", "fsdp"), (2, 4))
    (gather,) = cost.collectives
    assert (gather.kind, gather.axes, gather.count) == ("all-gather", ("data",), 1)
    assert gather.asynchronous
    assert cost.matmul_flops == 2 * 16 * 8 * 8


OFFLOADED = """
%on_sparse_core (p: bf16[16,8]) -> bf16[4,8] {
  %p = bf16[16,8]{1,0} parameter(0)
  ROOT %r = bf16[4,8]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%add
}, execution_thread="sparsecore"

ENTRY %main (a: bf16[16,8]) -> bf16[4,8] {
  %a = bf16[16,8]{1,0} parameter(0)
  %q = bf16[16,8]{1,0} parameter(1)
  %reduce-scatter.2.call-start = ((bf16[16,8], token[]), bf16[4,8]) call-start(%a, %t), async_execution_thread="sparsecore", to_apply=%on_sparse_core
  %d = bf16[16,16]{1,0} dot(%q, %q), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  ROOT %reduce-scatter.2.call-done = bf16[4,8]{1,0} call-done(%reduce-scatter.2.call-start)
}
"""  # noqa: E501


def test_a_scatter_on_the_sparse_cores_is_asynchronous():
    cost = analyze(OFFLOADED, ("data", "fsdp"), (2, 4))
    (scatter,) = cost.collectives
    assert (scatter.kind, scatter.axes, scatter.count) == ("reduce-scatter", ("fsdp",), 1)
    assert scatter.wire_bytes == 16 * 8 * 2 * 3 / 4
    assert scatter.asynchronous


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        analyze("HloModule nothing", ("data",), (1,))


def test_a_compiled_program_on_eight_devices():
    mesh = create_mesh({"data": 2, "fsdp": 4})
    layers, rows, width = 6, 32, 64

    def run(weights, x):
        def layer(x, weight):
            whole = jax.lax.all_gather(weight, ("fsdp", "fsdp_minor"), tiled=True)
            return jnp.tanh(x @ whole), None

        x, _ = jax.lax.scan(layer, x, weights)
        return jax.lax.psum(x, "data")

    mapped = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(P(None, ("fsdp", "fsdp_minor")), P("data")),
        out_specs=P(),
        check_vma=False,
    )
    weights = jnp.zeros((layers, width, width))
    text = jax.jit(mapped).lower(weights, jnp.zeros((2 * rows, width))).compile().as_text()
    cost = analyze(text, mesh.axis_names, tuple(mesh.shape.values()))
    assert cost.matmul_flops == layers * 2 * rows * width * width
    assert cost.wire_bytes("all-gather") == layers * width * width * 4 * 3 / 4
    assert cost.wire_bytes("all-gather", "data") == 0
    assert cost.wire_bytes("all-reduce", "data") == 2 * rows * width * 4 / 2
