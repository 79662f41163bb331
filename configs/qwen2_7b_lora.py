"""Low-rank adapters of Qwen2-7B, trained on conversations, on 8 chips of TPU v5e (v5e:2x4).

    marco train --config=configs/qwen2_7b_lora.py --workdir=runs/lora --config.init_from=QWEN2_7B \
        --config.data=chat.json

`init_from` is a workdir or a Hugging Face directory; `data` is a JSON file that declares sources of
kind "chat", as in docs/post_training.md. Continual pretraining and preferences go the same way,
with --config.objective and --config.mixture.name.

Length: 2,000 steps of at most 32,768 tokens. Results in the workdir: metrics.jsonl, and every 500
steps a checkpoint of the adapters, which --model of every command takes and merges. Nothing is
evaluated unless --config.evaluation.tasks names tasks. Rank and learning rate are those of the LoRA
paper's and QLoRA's larger models (arXiv 2106.09685, 2305.14314).
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage


def get_config() -> ConfigDict:
    """The recipe; fields that are not here are those of marco_jax/training/defaults.py."""
    c = training_config()

    # Model: frozen parameters in bfloat16, without gradients or moments. Layers are computed again
    # in the backward pass.
    c.model.preset = "qwen2_7b"
    c.dtype = "bfloat16"
    c.remat = "full"
    c.attention = "auto"  # splash on TPU

    # Adapters of all matrices of a layer.
    c.lora.rank = 16
    c.lora.alpha = 32.0
    c.lora.targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    c.lora.base_dtype = "bfloat16"

    # Machine: parameters and batch are split over all chips, and fit eight of v5e.
    c.topology = "v5e:2x4"
    c.mesh.fsdp = -1

    # Objective: the cross-entropy of the assistant's messages; the rest is read.
    c.objective = "sft"

    # Data: a conversation counts as much as any other, whichever source it is from.
    c.mixture.name = "chat"
    c.mixture.within = "proportional"

    # Batch: 4,096 tokens a step on each chip. Conversations are packed into sequences.
    c.batch.length = 4096
    c.batch.sequences_per_chip = 1
    c.batch.accumulation_steps = 1

    # One stage.
    c.steps = 2000
    c.stages = "sft"
    c.stage = ConfigDict({"sft": training_stage(1, 1e-4, warmup_share=0.03, final_share=0.1)})

    # Optimizer: AdamW without weight decay.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.0
    c.optimizer.clip_norm = 1.0

    # Metrics, checkpoints.
    c.log_every = 10
    c.checkpoint.every = 500
    c.checkpoint.keep = 0

    # Evaluation: none, until tasks are named.
    c.evaluation.tasks = ""
    c.evaluation.chat = False
    return c
