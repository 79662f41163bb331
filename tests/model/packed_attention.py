"""Attention of packed rows, as the tests of several implementations call it."""

from marco_jax.model.attention import attention


def attend(implementation, positions, segment_ids, *operands):
    """Attention from query, key and value of packed rows."""
    return attention(
        *operands,
        query_positions=positions,
        key_positions=positions,
        query_segment_ids=segment_ids,
        key_segment_ids=segment_ids,
        implementation=implementation,
    )
