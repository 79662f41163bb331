"""A program that this jax cannot read is one line with the remedy."""

import jax
import pytest

from marco_jax.planning import plan


class Unreadable:
    """What a newer libtpu has compiled."""

    def as_text(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure\nmore lines")


def test_a_compiler_that_is_too_new_is_one_line_with_the_remedy():
    with pytest.raises(ValueError, match=r"cannot read .* libtpu .*pip install 'jax\[tpu\]==") as e:
        plan._text_of(Unreadable())
    assert "\n" not in str(e.value)
