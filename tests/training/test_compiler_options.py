"""Options of the compiler: the step of planning and training has what the config names."""

import jax
import pytest

from marco_jax.model.qwen2_config import PRESETS
from marco_jax.planning.topology import topology_devices
from marco_jax.runtime import compiler_options as options_module
from marco_jax.runtime.compiler_options import DEFAULTS, compiler_options
from marco_jax.training.assemble import check_run, create_sharding, create_trainer
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


@pytest.fixture
def chip():
    pytest.importorskip("libtpu", reason="the TPU compiler (libtpu) is not installed")
    return lambda name: topology_devices(name, 1)[0]


@pytest.mark.parametrize(
    ("generation", "topology"),
    [
        ("v4", "v4:2x2x1"),
        ("v5e", "v5e:2x2"),
        ("v5p", "v5p:2x2x1"),
        ("v6e", "v6e:2x2"),
        ("tpu7x", "tpu7x:2x2x1"),
    ],
)
def test_the_compiler_takes_all_defaults_of_a_generation(chip, generation, topology):
    assert compiler_options("", chip(topology)) == DEFAULTS[generation]


@pytest.mark.parametrize("generation", ["v4", "v5p", "v6e", "tpu7x"])
def test_all_gathers_are_fused_with_products_on_v5e_only(generation):
    """Newer compilers refuse such a program of other generations: its results may be wrong."""
    fused = "xla_tpu_enable_async_collective_fusion"
    assert fused in DEFAULTS["v5e"]
    assert not any(name.startswith(fused) for name in DEFAULTS[generation])


def test_a_user_changes_or_drops_the_defaults(chip):
    name = "xla_tpu_overlap_compute_collective_tc"
    changed = compiler_options(f"{name}=false", chip("v5e:2x2"))
    assert changed == DEFAULTS["v5e"] | {name: False}
    assert compiler_options("no_defaults", chip("v5e:2x2")) == {}
    assert compiler_options(f"no_defaults, {name}=true", chip("v5e:2x2")) == {name: True}


def test_a_default_that_another_compiler_does_not_know_is_left_out(chip, monkeypatch, caplog):
    known = {"xla_tpu_overlap_compute_collective_tc": True}
    monkeypatch.setitem(DEFAULTS, "v6e", {**known, "xla_tpu_of_another_version": True})
    options_module._defaults.cache_clear()
    assert compiler_options("", chip("v6e:2x2")) == known
    options_module._defaults.cache_clear()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "does not take xla_tpu_of_another_version=True" in line


def test_training_compiles_with_the_options_of_the_plan(chip, root):
    """Both make their step by create_trainer; a TPU's step carries the defaults."""
    config = load_config(str(root / "configs/qwen2_0_5b.py"), ["topology=v5e:2x2"])
    sharding = create_sharding(config, topology_devices("v5e:2x2", 1))
    trainer = create_trainer(config, PRESETS["tiny"], sharding, 3)
    assert dict(trainer.options.compiler_options) == DEFAULTS["v5e"]
