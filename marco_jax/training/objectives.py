"""What a run may train for, and which data go with it."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from marco_jax.data.corpus import CHAT, PREFERENCE, SourceInfo
from marco_jax.data.mixtures import mixture_sources
from marco_jax.training.config import DPO, OBJECTIVES, SFT, ConfigError, StagePlan


def check_objective(config: ConfigDict) -> None:
    """Refuses an objective that is unknown, or that other fields do not allow (ConfigError)."""
    if config.objective not in OBJECTIVES:
        raise ConfigError(
            f"objective is {config.objective!r}: choose one of {', '.join(OBJECTIVES)}"
        )
    if config.lora.rank and not config.init_from:
        raise ConfigError("lora.rank is set and init_from is empty: adapters need a model to adapt")
    if config.objective == DPO and not config.init_from:
        raise ConfigError(
            "objective is 'dpo' and init_from is empty: name the model to prefer answers with"
        )


def check_sources(
    objective: str, sources: Sequence[SourceInfo], stages: Sequence[StagePlan]
) -> None:
    """Refuses mixtures whose sources an objective cannot learn from (ConfigError)."""
    kinds = {source.name: source.kind for source in sources}
    for stage in stages:
        names = mixture_sources(stage.mixture, sources)
        for name in names:
            if (kinds[name] == PREFERENCE) != (objective == DPO):
                wanted = "preferences alone" if objective == DPO else "no preferences"
                raise ConfigError(
                    f"objective is {objective!r}, which learns from {wanted}, and the mixture "
                    f"{stage.mixture} reads {name}, of kind {kinds[name]}: set mixture.name to "
                    f"{PREFERENCE if objective == DPO else CHAT}"
                )
        if objective == SFT and CHAT not in {kinds[name] for name in names}:
            raise ConfigError(
                f"objective is 'sft', and the mixture {stage.mixture} reads no conversations: set "
                f"mixture.name to {CHAT}, and declare sources of kind {CHAT} in config.data"
            )
