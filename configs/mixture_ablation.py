"""A sweep of the mixture in miniature: proxy runs of the demo's model, from a base of that size.

    marco train --config=configs/demo.py --workdir=runs/base --config.data=../shared/corpora \
        --config.stages=base --config.mixture.name=base
    marco sweep --config=configs/mixture_ablation.py --workdir=runs/sweep \
        --config.data=../shared/corpora --config.init_from=runs/base --dry_run

The first command trains the base. The second prints the mixtures, their tokens and the time that
they will take; without --dry_run it runs them on a CPU: experiments/mixture_ablation/RESULTS.md has
a sweep of 25 such runs that took 36 minutes. Results: runs/sweep/report.html, with the proposed
mixture, and a run for each mixture in runs/sweep/proxies. docs/mixtures.md has more.

The proxies of a real sweep need (Olmix, arXiv 2602.12237) 15M parameters or more, four runs a
component, and about ten tokens a parameter. Fields of the sweep are described in
marco_jax/ablation/sweep_config.py, all others in marco_jax/training/defaults.py.
"""

from ml_collections import ConfigDict

from marco_jax.ablation.sweep_config import sweep_config
from marco_jax.training.defaults import training_stage


def get_config() -> ConfigDict:
    """The recipe; fields that are not here are those of sweep_config() and training_config()."""
    c = sweep_config()

    # The sweep: weights of the groups vary around the prior, the totals of both stages of Table 2.
    c.mixture.name = "flat"
    c.mixture.within = "uniform"
    c.sweep.units = "groups"
    c.sweep.runs = 0  # four a component
    c.sweep.seed = 0
    c.sweep.least = 0.002
    c.sweep.max_epochs = 4.0
    c.sweep.target_tokens = 0.0
    c.sweep.two_stages = True
    c.sweep.keep = False
    # Several proxies at once: "vmap" or "slices", where one leaves most of the devices idle.
    c.sweep.parallel = "none"
    c.sweep.lanes = 0

    # The fit: bits per byte by language; low-resource ones are to improve, English and Chinese may
    # lose 1%: with a probability of 90%, both do not lose more.
    c.sweep.fit = "log-linear"
    c.sweep.targets = "bits_per_byte"
    c.sweep.objective = "low-resource"
    c.sweep.bounds = "en=0.01,zh=0.01"
    c.sweep.bound_quantile = 0.9
    c.sweep.closeness = 0.05
    c.sweep.draws = 400

    # The proposal and the prior are then trained with three seeds and twice the steps.
    c.sweep.confirm.seeds = 3
    c.sweep.confirm.steps = 0

    # Model, the demo's. Objective: the mean cross-entropy of all tokens.
    c.model.hidden_size = 128
    c.model.intermediate_size = 352
    c.model.num_hidden_layers = 4
    c.model.num_attention_heads = 4
    c.model.num_key_value_heads = 2
    c.model.head_dim = 32
    c.model.tie_word_embeddings = True
    c.dtype = "float32"
    c.remat = "minimal"
    c.objective = "cpt"

    # Batch: 8 x 256 = 2,048 tokens a step on each device.
    c.batch.length = 256
    c.batch.sequences_per_chip = 8
    c.batch.accumulation_steps = 1

    # Stages: a proxy run has one; `stage1` and `stage2` are of the run that is compared with it.
    # As in configs/demo.py the base is far from converged, so the learning rates are high.
    c.steps = 100
    c.stages = "proxy"
    c.stage = ConfigDict(
        {
            "proxy": training_stage(1, 2e-3, warmup_share=0.02, final_share=0.1),
            "stage1": training_stage(160, 2e-3, warmup_share=0.02, final_share=0.6),
            "stage2": training_stage(140, 1.2e-3, warmup_share=0.0, final_share=0.1),
        }
    )

    # Optimizer: AdamW.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.1
    c.optimizer.clip_norm = 1.0

    # Checkpoints: one, while a proxy runs.
    c.log_every = 20
    c.checkpoint.every = 400
    c.checkpoint.keep = 1

    # Evaluation at the end of a run. 20 texts a language are enough to tell mixtures apart, and
    # take seconds to score.
    c.evaluation.tasks = "bits_per_byte"
    c.evaluation.every_tasks = "bits_per_byte"
    c.evaluation.every = 0
    c.evaluation.examples.bits_per_byte = 20
    c.evaluation.max_length = 1024
    c.evaluation.tokens_per_batch = 8192
    return c
