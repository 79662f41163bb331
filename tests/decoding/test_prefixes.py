"""Common beginnings are found where they save work, whatever the order of the sequences."""

from hypothesis import given
from hypothesis import strategies as st

from marco_jax.decoding.prefixes import group_by_prefix

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def cost(sequences, groups, least_saving):
    total = 0
    for group in groups:
        total += sum(len(sequences[index]) - group.length for index in group.members)
        total += group.length + least_saving if group.length else 0
    return total


@given(sequences=st.lists(TOKENS, max_size=12), least_saving=st.integers(0, 8))
def test_groups_are_a_partition_with_true_beginnings(sequences, least_saving):
    groups = group_by_prefix(sequences, least_saving)
    assert sorted(i for group in groups for i in group.members) == list(range(len(sequences)))
    for group in groups:
        beginnings = {tuple(sequences[index][: group.length]) for index in group.members}
        assert len(beginnings) <= 1 or not group.length
        assert all(len(sequences[index]) > group.length for index in group.members)
    assert cost(sequences, groups, least_saving) <= sum(map(len, sequences))


def test_each_task_shares_its_own_examples():
    """Two tasks begin alike: each gets the whole of its own beginning."""
    first = [[9] * 10 + [1] * 90 + [n] * 5 for n in range(10)]
    second = [[9] * 10 + [2] * 90 + [n] * 5 for n in range(20)]
    alone = [[7] * 50]
    groups = group_by_prefix([*first, *second, *alone], least_saving=50)
    assert [(group.length, len(group.members)) for group in groups] == [
        (0, 1),
        (100, 10),
        (100, 20),
    ]


def test_short_beginnings_are_not_worth_a_program_call():
    groups = group_by_prefix([[1, 2, 3, n] for n in range(10)], least_saving=256)
    assert [group.length for group in groups] == [0]
