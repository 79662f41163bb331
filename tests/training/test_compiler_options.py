"""Options of the compiler: the step of planning and training has what the config names."""

import jax
import pytest

from marco_jax.runtime.compiler_options import compiler_options
from marco_jax.training.assemble import check_run, create_sharding
from marco_jax.training.config import load_config, model_config


def test_a_cpu_gets_only_what_is_asked_for():
    device = jax.devices()[0]
    assert compiler_options("", device) == {}
    text = "xla_cpu_enable_fast_math=false, --xla_backend_optimization_level=2"
    asked = compiler_options(text, device)
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
        compiler_options(text, jax.devices()[0])
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_with_a_wrong_option_is_refused_before_its_data_is_tokenised(root):
    config = load_config(str(root / "configs/demo.py"), ["compiler_options=xla_wrong=1"])
    with pytest.raises(ValueError, match="compiler_options has xla_wrong=1"):
        check_run(config, model_config(config, 256), create_sharding(config))
