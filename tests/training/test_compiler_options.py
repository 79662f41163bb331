"""Options of the compiler: plan and training use the same, and users may change them."""

import jax
import pytest

from marco_jax.runtime.compiler_options import step_options


def test_a_cpu_gets_only_what_is_asked_for():
    device = jax.devices()[0]
    assert step_options(device) == {}
    asked = step_options(
        device, "xla_cpu_enable_fast_math=false, --xla_backend_optimization_level=2"
    )
    assert asked == {"xla_cpu_enable_fast_math": False, "xla_backend_optimization_level": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xla_cpu_enable_fast_math", "write NAME=VALUE"),
        ("xla_no_such_option=true", "xla_no_such_option=True, which the compiler for cpu refuses"),
    ],
)
def test_what_is_no_option_is_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        step_options(jax.devices()[0], text)
    assert len(str(caught.value).splitlines()) == 1
