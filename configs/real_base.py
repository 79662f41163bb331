"""Marco-LLM's two stages from a published Qwen2.5-0.5B, on eight languages and very few tokens.

    python -m experiments.real_base --init_from=QWEN2_5_0_5B --data=CORPUS --benchmarks=BENCHMARKS \
        --workdir=runs/real_base --device=cpu

`init_from` is a Hugging Face directory: the model's sizes and its tokenizer are read from it. The
study (experiments/real_base/) trains this config and the same tokens of low-resource text alone;
experiments/real_base/RESULTS.md has what came out.

Sizes of a CPU: 98 steps of 2,048 tokens, 16 GB of memory and 20 while a checkpoint is saved;
--config.lora.rank=64 takes 7 GB. The study has those of a GPU, too.
"""

from ml_collections import ConfigDict

from marco_jax.training.defaults import training_config, training_stage

# Read are English, Chinese, parallel text, and Kazakh, Nepali, Hebrew, Urdu, Ukrainian, Bengali,
# with the shares of Table 2 over those groups alone: 9 and 6 of 64, then 15 and 8 of 66.
_OVERRIDE = (
    "ar=0,de=0,es=0,fr=0,ko=0,ja=0,pt=0,tr=0,knowledge=0,"
    "id=0,it=0,ms=0,nl=0,pl=0,ru=0,th=0,vi=0,cs=0,el=0,hu=0,ro=0,az=0,"
    "stage1:low-resource=0.1406,stage1:parallel=0.0938,"
    "stage2:low-resource=0.2273,stage2:parallel=0.1212"
)


def get_config() -> ConfigDict:
    """The recipe; fields that are not here are those of marco_jax/training/defaults.py."""
    c = training_config()

    # Data: the shares of Table 2, shared out among eight languages and parallel text.
    c.mixture.name = "stage1,stage2"
    c.mixture.within = "uniform"
    c.mixture.override = _OVERRIDE

    # Model: that of init_from, all parameters trained.
    c.dtype = "float32"
    c.remat = "minimal"
    c.objective = "cpt"

    # Batch: 8 x 256 = 2,048 tokens a step, in two parts that take turns in memory.
    c.batch.length = 256
    c.batch.sequences_per_chip = 8
    c.batch.accumulation_steps = 2

    # Stages: tokens as 160 : 140, and the paper's learning rates (Table 3).
    c.steps = 98
    c.stages = "stage1,stage2"
    c.stage = ConfigDict(
        {
            "stage1": training_stage(160, 1e-5, warmup_share=0.05, final_share=0.6),
            "stage2": training_stage(140, 6e-6, warmup_share=0.0, final_share=0.1),
        }
    )

    # Optimizer: AdamW.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.1
    c.optimizer.clip_norm = 1.0

    # A checkpoint is 5.6 GiB. The study evaluates the last one with `marco eval`, which goes on
    # after a kill where it was.
    c.log_every = 1
    c.checkpoint.every = 14
    c.checkpoint.keep = 1
    c.evaluation.tasks = ""
    c.evaluation.max_length = 4096
    return c
