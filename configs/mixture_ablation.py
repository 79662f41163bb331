"""A sweep of the mixture in miniature: proxies of the demo's size, from a base of that size.

    marco train --config=configs/demo.py --workdir=runs/base --config.data=../shared/corpora \
        --config.stages=base --config.mixture.name=base
    marco sweep --config=configs/mixture_ablation.py --workdir=runs/sweep \
        --config.data=../shared/corpora --config.init_from=runs/base --dry_run

What the proxies of a real sweep need (Olmix, arXiv 2602.12237): 15M parameters or more, four runs a
unit, and about ten tokens a parameter. Fields of the sweep are in
marco_jax/ablation/sweep_config.py, all others in marco_jax/training/defaults.py.
"""

from ml_collections import ConfigDict

from marco_jax.ablation.sweep_config import sweep_config


def get_config() -> ConfigDict:
    """The resolved config of the sweep."""
    c = sweep_config()
    c.steps = 100
    # As in configs/demo.py: the base is far from converged.
    c.stage.proxy.learning_rate = 2e-3
    c.stage.stage1.learning_rate = 2e-3
    c.stage.stage2.learning_rate = 1.2e-3
    # Texts a language: enough to tell mixtures apart, and seconds to score.
    c.evaluation.examples.bits_per_byte = 20
    return c
