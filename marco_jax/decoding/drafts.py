"""Drafts of the next tokens, looked up in a row's own text, and how many of them are right.

A step of decoding reads a row's next token and some drafted ones after it, for little more time
than one token takes where reading the weights is what takes it. It also draws the token after each
of them. A draft is right if it equals the token drawn at its place, and then the next draw is the
one that decoding without drafts would have made: a draw depends on the logits, the row's key and
the position only. So outputs are the same, sampled ones too. The text of few-shot prompts, lists
and translations repeats itself, which is where the drafts come from: what followed the last
occurrence of the newest tokens (prompt lookup, as in transformers' `prompt_lookup_num_tokens`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

# The longest sequence of newest tokens whose earlier occurrence is looked for.
LONGEST_MATCH = 3


@dataclasses.dataclass
class DecodeCounts:
    """What the decoding loops of an engine did so far, over all devices.

    Attributes:
        steps: steps of the loops, each a run of the model.
        row_steps: rows of those steps, whether generating or free.
        filled: rows of those steps that were generating.
        drafted: tokens drafted for them.
        emitted: tokens emitted.
    """

    steps: int = 0
    row_steps: int = 0
    filled: int = 0
    drafted: int = 0
    emitted: int = 0

    @property
    def filled_share(self) -> float:
        """The share of row-steps in which a row was generating."""
        return self.filled / max(1, self.row_steps)

    @property
    def accepted_share(self) -> float:
        """The share of drafts that were emitted."""
        return (self.emitted - self.filled) / max(1, self.drafted)

    def summary(self) -> str:
        """What was counted, as the end of a line: empty if nothing was generated."""
        if not self.steps:
            return ""
        drafts = f", {self.accepted_share:.0%} of drafts accepted" if self.drafted else ""
        return f", {self.filled_share:.0%} of row-steps filled{drafts}"


def look_up(history: jax.Array, positions: jax.Array, count: int) -> jax.Array:
    """Drafts the tokens after the newest ones.

    Of all earlier positions that end in the same tokens as the row, it takes those that have the
    most of them in common (up to LONGEST_MATCH), and of these the last. A text that is shorter
    than the draft is repeated.

    Args:
        history: int32 [rows, slots], the tokens of each row by position.
        positions: int32 [rows], the position of the newest token.

    Returns:
        int32 [rows, count]; any tokens where nothing is found.
    """
    slots = jnp.arange(history.shape[1])
    common = jnp.zeros(history.shape, jnp.int32)
    equal = jnp.ones(history.shape, bool)
    for back in range(LONGEST_MATCH):
        newest = jnp.take_along_axis(history, jnp.maximum(positions - back, 0)[:, None], axis=1)
        equal &= (jnp.roll(history, back, axis=1) == newest) & (slots >= back)
        common += equal
    earlier = slots < positions[:, None]
    best = jnp.argmax(jnp.where(earlier, common * history.shape[1] + slots, -1), axis=1)
    period = jnp.maximum(positions - best, 1)
    wanted = best[:, None] + 1 + jnp.arange(count) % period[:, None]
    return jnp.take_along_axis(history, jnp.minimum(wanted, history.shape[1] - 1), axis=1)


def count_right(drafts: jax.Array, drawn: jax.Array) -> jax.Array:
    """Counts the drafts [rows, count] before the first one that differs from the drawn tokens."""
    same = drafts == drawn[:, : drafts.shape[1]]
    return jnp.sum(jnp.cumprod(same.astype(jnp.int32), axis=1), axis=1)
