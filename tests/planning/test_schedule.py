"""The time of a schedule is that of its instructions, and of what they wait for."""

import pytest

from marco_jax.planning.schedule import scheduled_time
from marco_jax.runtime.chips import CHIPS

CHIP = CHIPS["v5p"]
LINK = 1e9  # bytes a second along the axis
GATHER = 1024 * 1024 * 2 * 3 / 4 / LINK  # of [1024, 1024] bf16 by 4 ranks
PRODUCT = 1_750_000  # cycles: a millisecond

# In a loop of five: a gather, a product of a millisecond, and what STARTS and ENDS are put at.
TEMPLATE = """HloModule test, is_scheduled=true

%product (p: bf16[1024,1024], q: bf16[1024,1024]) -> bf16[1024,1024] {{
  %p = bf16[1024,1024]{{1,0}} parameter(0)
  %q = bf16[1024,1024]{{1,0}} parameter(1)
  ROOT %d = bf16[1024,1024]{{1,0}} dot(%p, %q), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

%on_sparse_core (p: bf16[256,1024]) -> bf16[1024,1024] {{
  %p = bf16[256,1024]{{1,0}} parameter(0)
  ROOT %g = bf16[1024,1024]{{1,0}} all-gather(%p), replica_groups=[1,4]<=[4], dimensions={{0}}
}}

%body (t: (s32[], bf16[256,1024])) -> (s32[], bf16[256,1024]) {{
  %t = (s32[], bf16[256,1024]) parameter(0)
  %x = bf16[256,1024]{{1,0}} get-tuple-element(%t), index=1
{lines}
  ROOT %r = (s32[], bf16[256,1024]) tuple(%i, %x)
}}

%condition (t: (s32[], bf16[256,1024])) -> pred[] {{
  ROOT %less = pred[] compare(%i, %n), direction=LT
}}

ENTRY %main (a: bf16[256,1024]) -> bf16[256,1024] {{
  %a = bf16[256,1024]{{1,0}} parameter(0)
  ROOT %loop = (s32[], bf16[256,1024]) while(%t), condition=%condition, body=%body, backend_config={{"known_trip_count":{{"n":"5"}}}}
}}
"""  # noqa: E501
PRODUCT_LINE = (
    "  %f{} = bf16[1024,1024]{{1,0}} fusion(%w, %w), kind=kOutput, calls=%product, "
    'backend_config={{"estimated_cycles":"1750000"}}'
)
SYNCHRONOUS = (
    "  %g = bf16[1024,1024]{1,0} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}"
)
START = (
    "  %s = ((bf16[256,1024], token[]), bf16[1024,1024]) call-start(%x), "
    'async_execution_thread="sparsecore", to_apply=%on_sparse_core'
)
DONE = "  %e = bf16[1024,1024]{1,0} call-done(%s)"


def time_of(*lines):
    text = TEMPLATE.format(lines="\n".join(lines))
    return scheduled_time(text, ("fsdp",), (4,), CHIP, {"fsdp": LINK})


def product(number=1):
    return PRODUCT_LINE.format(number)


def test_a_gather_between_products_stops_them():
    found = time_of(product(1), SYNCHRONOUS, product(2))
    assert found.seconds == pytest.approx(5 * (2e-3 + GATHER))
    assert found.waits_for_links == pytest.approx(5 * GATHER)


def test_a_gather_during_a_product_stops_it_for_the_rest():
    found = time_of(START, product(), DONE)
    assert GATHER > 1e-3
    assert found.seconds == pytest.approx(5 * GATHER)
    assert found.waits_for_links == pytest.approx(5 * (GATHER - 1e-3))
    hidden = time_of(START, product(1), product(2), DONE)
    assert hidden.seconds == pytest.approx(5 * 2e-3)
    assert hidden.waits_for_links == 0


def test_links_carry_one_collective_at_a_time():
    found = time_of(START, SYNCHRONOUS, DONE)
    assert found.seconds == pytest.approx(5 * 2 * GATHER)


def test_without_an_estimate_flops_or_bytes_count():
    line = product().partition(", backend_config")[0]
    flops, moved = 2 * 1024**3 / CHIP.peak_flops, 3 * 1024**2 * 2 / CHIP.hbm_bandwidth
    found = time_of("  %w = bf16[1024,1024]{1,0} parameter(1)", line)
    assert found.seconds == pytest.approx(5 * max(flops, moved))


def test_a_copy_takes_the_memorys_time():
    start = "  %c = (bf16[1024,1024], bf16[1024,1024], u32[]) copy-start(%x)"
    found = time_of(start, "  %cd = bf16[1024,1024]{1,0} copy-done(%c)")
    assert found.waits_for_memory == pytest.approx(5 * 1024**2 * 2 / CHIP.hbm_bandwidth)
    assert found.waits_for_links == 0
