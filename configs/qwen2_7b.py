"""Qwen2-7B in Marco-LLM's two stages, on 64 chips of TPU v5p (topology v5p:4x4x4, 16 hosts).

    marco plan  --config=configs/qwen2_7b.py
    marco train --config=configs/qwen2_7b.py --workdir=DIR --config.init_from=QWEN2_7B \
        --config.data=SOURCES.json

The second command runs on every host; QWEN2_7B is what `marco import` writes, or a Hugging Face
directory. docs/stage1_v5p_128.md is this run step by step, data and weights included.

Length: 300 billion tokens at 1,048,576 a step. `marco plan` predicts 2.36 s a step, and a peak
of 50.1 of 95 GiB a chip; at 60% MFU both stages take 8.8 days. No slice has run it.
Results in the workdir: metrics.jsonl, eval/, and a checkpoint of 91 GB every 1,000 steps. All are
kept: set --config.checkpoint.keep. Scores are bits per byte on held-out text and translation;
benchmarks need --config.evaluation.tasks and --config.evaluation.data_dir.

The other sizes, qwen2_0_5b.py, qwen2_1_5b.py and qwen2_72b.py, are this recipe with another model
and machine; qwen3_8b.py has a Qwen3 in its stead.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The recipe; fields that are not here are those of marco_jax/training/defaults.py."""
    c = training_config()

    # Model. float32 parameters and moments, computation in bfloat16. A chip has 95 GiB, so that no
    # matrix product need be computed again in the backward pass.
    c.model.preset = "qwen2_7b"
    c.dtype = "bfloat16"
    c.remat = "minimal"
    c.attention = "auto"  # splash on TPU

    # Machine: parameters, moments and batch are split over all chips.
    c.topology = "v5p:4x4x4"
    c.mesh.num_slices = 1
    c.mesh.data = 1
    c.mesh.fsdp = -1
    c.mesh.tensor = 1
    c.mesh.context = 1

    # Objective: the mean cross-entropy of all tokens.
    c.objective = "cpt"
    c.loss.z_loss = 0.0

    # Data: the shares of Table 2, divided evenly among the languages of a group.
    c.mixture.name = "stage1,stage2"
    c.mixture.within = "uniform"

    # Batch: 64 chips x 4 x 4,096 = 1,048,576 tokens a step.
    c.batch.length = 4096
    c.batch.sequences_per_chip = 4
    c.batch.accumulation_steps = 1

    # Stages: 300B tokens, 160B at 1e-5 and 140B at 6e-6 (Table 3). The paper does not publish
    # warm-up and schedule.
    c.steps = 286_102
    c.stages = "stage1,stage2"
    c.stage = ConfigDict(
        {
            "stage1": training_stage(160, 1e-5, warmup_share=0.01, final_share=0.6),
            "stage2": training_stage(140, 6e-6, warmup_share=0.0, final_share=0.1),
        }
    )

    # Optimizer: AdamW.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.1
    c.optimizer.clip_norm = 1.0

    # Metrics, checkpoints.
    c.log_every = 10
    c.checkpoint.every = 1000
    c.checkpoint.keep = 0

    # Evaluation: all tasks at the start and at the ends of stages, one every 5,000 steps.
    c.evaluation.tasks = "bits_per_byte?,pick_translation?,translation?"
    c.evaluation.every_tasks = "bits_per_byte?"
    c.evaluation.every = 5000
    c.evaluation.at_start = True
    c.evaluation.shots = 2
    c.evaluation.examples.pick_translation = 32
    c.evaluation.examples.translation = 8
    c.evaluation.max_length = 4096
    c.evaluation.tokens_per_batch = 65_536
    return c
