"""The main job in miniature: base -> Stage-I -> Stage-II on the text that ships with the packages.

A small Qwen2 is first trained on English, Chinese and the other high-resource languages: the base.
Then Marco-LLM's two stages of continual pretraining run on all 29 languages with the shares of
its Table 2. `make demo` runs this on a bare machine. Every field of marco_jax/training/defaults.py
can be set on the command line, e.g. `--config.data=../shared/corpora --config.steps=2000`.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The resolved config of the demo."""
    c = training_config()
    c.steps = 1600
    c.mixture.name = "base,stage1,stage2"
    c.stages = "base,stage1,stage2"
    # Stage-I and Stage-II share their tokens 160 : 140, and their peak learning rates are as
    # 1e-5 : 6e-6 (Table 3). The demo's base is far from converged, so the rates are higher.
    c.stage = ConfigDict(
        {
            "base": training_stage(0.30, 3e-3, warmup_share=0.05, final_share=0.3),
            "stage1": training_stage(0.37, 2e-3, warmup_share=0.05, final_share=0.6),
            "stage2": training_stage(0.33, 1.2e-3, warmup_share=0.05, final_share=0.1),
        }
    )
    return c
