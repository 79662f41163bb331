"""Plans of a scoring: every request is answered, and few programs are compiled."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.decoding.padded_shapes import bucket, power_of
from marco_jax.decoding.prefixes import group_by_prefix
from marco_jax.decoding.requests import ScoreRequest
from marco_jax.decoding.score_plans import GRIDS, plan_scoring, program_tokens
from marco_jax.decoding.score_rows import pack_rows
from marco_jax.model.qwen2_config import PRESETS

TINY, LARGE = PRESETS["tiny"], PRESETS["qwen2_7b"]


def exam(subjects, items, seed=0):
    """Letters after questions of subjects that each have shots of their own."""
    random = np.random.default_rng(seed)
    requests = []
    for _ in range(subjects):
        shots = random.integers(0, 1000, random.integers(300, 1500)).tolist()
        for _ in range(items):
            context = shots + random.integers(0, 1000, random.integers(20, 300)).tolist()
            requests += [ScoreRequest(context, [letter]) for letter in range(4)]
    return requests


def plan(requests, config=TINY, ways=1, on_cpu=True, devices=1):
    rows, _ = pack_rows(requests, 4096)
    groups = group_by_prefix([row.context for row in rows])
    options = {"ways": ways, "tokens_per_batch": 8192, "on_cpu": on_cpu, "devices": devices}
    return plan_scoring(rows, groups, config, **options)


def shapes(planned):
    return {(shape, group.slots) for group in planned for _, shape in group.batches}


def computed(planned):
    return sum(s.batch * s.length for group in planned for _, s in group.batches)


def test_an_exam_of_many_subjects_compiles_few_programs_where_compiling_is_what_costs():
    requests = exam(57, 20)
    pod = plan(requests, LARGE, ways=8, on_cpu=False, devices=64)
    small = plan(requests, dataclasses.replace(LARGE, num_hidden_layers=2))
    assert len(shapes(pod)) <= 24
    assert len(shapes(small)) > 3 * len(shapes(pod))
    assert computed(small) < computed(pod)


@given(st.integers(1, 4), st.integers(1, 12), st.sampled_from([1, 2, 8]))
def test_all_requests_are_answered_in_rows_that_fit(subjects, items, ways):
    requests = exam(subjects, items, seed=subjects + 10 * items)
    answered = []
    for group in plan(requests, ways=ways):
        assert group.slots >= group.length
        for rows, shape in group.batches:
            assert len(rows) <= shape.batch and shape.batch % ways == 0
            assert all(len(row) - group.length <= shape.length for row in rows)
            answered += [request for row in rows for request in row.requests]
    assert sorted(answered) == list(range(len(requests)))


def test_nothing_to_score_has_no_calls():
    assert plan([]) == []


def test_a_plan_depends_on_requests_and_model_alone():
    requests = exam(3, 20)
    assert shapes(plan(requests)) == shapes(plan(requests))


def test_compiling_counts_for_more_the_faster_the_devices_are():
    assert program_tokens(LARGE, True, 1) < 100
    assert program_tokens(LARGE, False, 8) > 100_000


@pytest.mark.parametrize("grid", GRIDS)
def test_sizes_are_those_of_the_grid(grid):
    sizes = {bucket(length, steps=grid.lengths) for length in range(1, 4097)}
    assert all(bucket(length, steps=grid.lengths) >= length for length in range(1, 4097))
    # Four octaves of two small and three large ones.
    assert len(sizes) <= 8 * grid.lengths
    assert power_of(grid.rows, 5) == {2: 8, 4: 16}[grid.rows]
