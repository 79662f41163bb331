"""Configs are plain data; overrides and stages that do not fit are named."""

import pytest
from ml_collections import ConfigDict

from marco_jax.ablation.sweep_config import sweep_config
from marco_jax.training.config import (
    OPEN_GROUPS,
    ConfigError,
    changed_fields,
    load_config,
    model_config,
    plan_stages,
)


@pytest.fixture
def demo(root):
    return lambda *overrides: load_config(str(root / "configs/demo.py"), overrides)


def test_overrides_keep_the_type_of_their_field(demo):
    config = demo("steps=7", "stage.base.learning_rate=1", "dtype=bfloat16", "seed=3")
    assert (config.steps, config.seed, config.dtype) == (7, 3, "bfloat16")
    assert config.stage.base.learning_rate == 1.0
    assert demo("mesh.replicate_kv_heads=true").mesh.replicate_kv_heads is True
    override = demo("mixture.override=kk=0.02,ne=0.03").mixture.override
    assert override == "kk=0.02,ne=0.03"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stpes=3", "did you mean 'steps'"),
        ("batch.lenght=3", "did you mean 'length'"),
        ("batch.length.x=3", "no field 'x'"),
        ("steps=1.5", "no int"),
        ("steps", "write --config.steps=VALUE"),
        ("mesh.replicate_kv_heads=maybe", "no bool"),
    ],
)
def test_a_wrong_override_is_named(demo, override, message):
    with pytest.raises(ConfigError, match=message):
        demo(override)


@pytest.mark.parametrize("steps", [3, 7, 100, 1001])
def test_stages_share_the_steps(demo, steps):
    plans = plan_stages(demo(f"steps={steps}"))
    assert sum(plan.steps for plan in plans) == steps
    assert [plan.mixture for plan in plans] == ["base", "stage1", "stage2"]
    flat = plan_stages(demo(f"steps={steps}", "mixture.name=stage1"))
    assert {plan.mixture for plan in flat} == {"stage1"}


def test_mixtures_and_stages_must_match(demo):
    with pytest.raises(ConfigError, match="lists 2 mixtures for 3 stages"):
        plan_stages(demo("mixture.name=stage1,stage2"))


def test_a_models_rows_follow_the_tokenizer_and_a_preset_its_own(demo):
    assert model_config(demo(), vocab_size=4001).vocab_size == 4096
    assert model_config(demo("model.preset=qwen2_0_5b"), 151_646).vocab_size == 151_936
    with pytest.raises(ConfigError, match="they do not belong together"):
        model_config(demo("model.preset=tiny"), vocab_size=4001)
    with pytest.raises(ConfigError, match="model.preset is 'qwen9'"):
        model_config(demo("model.preset=qwen9"), vocab_size=4001)


def test_changed_fields_are_listed():
    old, new = {"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}
    assert changed_fields(old, new) == ["b.c: 2 -> 3", "d: None -> 4"]


def test_a_config_is_plain_data(demo):
    assert isinstance(demo(), ConfigDict)
    assert '"steps"' in demo().to_json()


# Chains of several training configs, and curation.
OTHER_CONFIGS = ("curation", "two_stage", "two_stage_7b")


def test_recipes_set_only_fields_that_exist(root):
    known = sweep_config().to_dict()
    recipes = [p for p in sorted((root / "configs").glob("*.py")) if p.stem not in OTHER_CONFIGS]
    assert len(recipes) > 5
    for path in recipes:
        found = load_config(str(path)).to_dict()
        # Names of stages and of tasks are free.
        for fields in (found, reference := dict(known)):
            fields.pop("stage")
        added = [
            line.partition(":")[0]
            for line in changed_fields(reference, found)
            if line.partition(": ")[2].startswith("None -> ")
        ]
        assert [name for name in added if not name.startswith(OPEN_GROUPS)] == [], path.name
