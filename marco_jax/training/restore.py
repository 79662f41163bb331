"""The state that a run goes on from, and whether it belongs to the run."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from marco_jax.data.training_data import TrainingData
from marco_jax.files import write_json
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.runtime.environment import ENVIRONMENT, environment
from marco_jax.training.assemble import record_batch
from marco_jax.training.config import ConfigError, changed_fields, changed_values, plan_stages
from marco_jax.training.defaults import training_config
from marco_jax.training.optimizer import join_stages
from marco_jax.training.state import TrainState
from marco_jax.training.step import Trainer
from marco_jax.weights.checkpoints import Checkpoints, Meta
from marco_jax.weights.models import FoundModel, adapter_meta, load_weights
from marco_jax.weights.snapshots import Snapshots

_log = logging.getLogger(__name__)

_REMEDY = "give the value it has there, or a new workdir"


class Restorer:
    """Gives the state to go on from: the newest whole snapshot or checkpoint, else the first."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        checkpoints: Checkpoints,
        snapshots: Snapshots,
        trainer: Trainer,
        base: FoundModel | None,
        tokenizer: str,
    ) -> None:
        """Reads nothing yet.

        Args:
            config: of the run; `objective` and `seed` are read.
            workdir: of the run.
            checkpoints: of the workdir.
            snapshots: of the run, on the hosts' own disks.
            trainer: makes first states, and knows the layout of all.
            base: the model of `config.init_from`; None: random parameters.
            tokenizer: fingerprint of the run's tokenizer.
        """
        self._config, self._workdir, self._checkpoints = config, workdir, checkpoints
        self._snapshots = snapshots
        self._trainer, self._base, self._tokenizer = trainer, base, tokenizer

    def restore(self, data: TrainingData, frozen: Params | None = None) -> tuple[TrainState, Meta]:
        """The state to go on from, and the meta of its checkpoint; `data` continues its order.

        Args:
            data: of the run.
            frozen: the frozen parameters, where they are loaded already.

        Raises:
            ConfigError: the checkpoint is one of another kind of run.
        """
        here = self.identity() | {"model": dataclasses.asdict(self._trainer.config)}
        like = self._trainer.abstract_state().arrays

        def check(meta: Meta) -> None:
            check_belongs(meta, here)

        found = self._snapshots.restore_newest(like, check, self._checkpoints.latest() or 1)
        local = found is not None
        found = found or self._checkpoints.restore_newest(like, check)
        self._snapshots.begin(found[1]["step"] if found else 0)
        if found is None:
            if (self._workdir / "metrics.jsonl").exists():
                _log.info("the last run here ended before its first checkpoint: starting at step 0")
            return self.initial_state(), {"step": 0, "tokens": 0}
        arrays, meta = found
        _log.info(f"resuming at step {meta['step']}" + " from local snapshots" * local)
        data.resume(meta.get("data", {}), meta["step"])
        state = TrainState.restored(arrays, meta, self._trainer.options.guard)
        # Frozen parameters are in no checkpoint: they are those that the run began with.
        return state._replace(frozen=self._frozen() if frozen is None else frozen), meta

    def initial_state(self) -> TrainState:
        """The state before step 1: from `config.init_from`, or random from the seed."""
        trainer = self._trainer
        if self._base is None:
            return trainer.init(self._config.seed)
        # Master parameters are float32, whatever the type of published weights.
        dtype = jnp.float32 if trainer.options.lora is None else trainer.frozen_dtype
        params = load_weights(self._base, trainer.sharding, dtype)
        # The loaded arrays become the state's own: there are never two copies of them.
        return trainer.init(self._config.seed, params, donate=True)

    def identity(self) -> dict[str, Any]:
        """What all runs of the workdir have in common besides the model: a part of the meta."""
        here = {"objective": self._config.objective, "tokenizer": self._tokenizer}
        lora = self._trainer.options.lora
        return here | (adapter_meta(lora, self._base) if lora is not None else {})

    def _frozen(self) -> Params | None:
        """The frozen parameters of a state that comes from a checkpoint."""
        if not self._trainer.options.is_frozen:
            return None
        params = load_weights(self._base, self._trainer.sharding, self._trainer.frozen_dtype)
        return self._trainer.freeze(params, donate=True)


def check_belongs(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuses to continue a checkpoint of another kind of run.

    Args:
        there: the meta of a checkpoint.
        here: `Restorer.identity` of this run and its `model`.

    Raises:
        ConfigError: names the first field that differs.
    """
    # Adapters and whole parameters differ in these, whichever of the two was there first.
    names = [*here, *(name for name in ("lora", "base") if there.get(name) and name not in here)]
    for line in changed_fields(
        {name: there.get(name) for name in names}, {name: here.get(name) for name in names}
    ):
        field, _, values = line.partition(": ")
        if field == "tokenizer":
            raise ConfigError(
                "the tokenizer is not the one that this workdir's checkpoints were trained with: "
                "put its tokenizer/ back, or give a new workdir"
            )
        old, new = values.split(" -> ")
        raise ConfigError(f"{field} is {new}, and {old} in this workdir's checkpoints: {_REMEDY}")


def record_environment(
    config: ConfigDict, directory: pathlib.Path, started: float, config_path: str
) -> None:
    """Writes environment.json: with what code, machine and fields this attempt trains.

    Args:
        config: of the run, with its steps resolved.
        directory: the workdir.
        started: of the attempt, in seconds since 1970.
        config_path: of the config file, as the user gave it; "" where there is none.
    """
    if jax.process_index() != 0:
        return
    changed = changed_values(_experiment(training_config()), _experiment(config))
    record = {"started": started, "config": config_path, **environment(), "changed": changed}
    write_json(directory / ENVIRONMENT, record)


def _experiment(config: ConfigDict) -> dict[str, Any]:
    """The fields of a config, JSON-ready, without how the processes find one another."""
    fields = json.loads(config.to_json())
    fields.pop("distributed", None)
    return fields


def record_config(
    config: ConfigDict, directory: pathlib.Path, state: TrainState, sharding: Sharding
) -> None:
    """Writes config.json and the size of a batch; logs what has changed since the last run here.

    Args:
        config: of the run, with its steps resolved.
        directory: the workdir.
        state: that the run goes on from; the learning rate that follows is looked up.
        sharding: the mesh.
    """
    path = directory / "config.json"
    resolved = _experiment(config)
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            lines = changed_fields(before, resolved)
        except (ValueError, AttributeError, TypeError):
            _log.warning(f"{path} cannot be read: it will be replaced")
            before, lines = {}, []
        for line in lines:
            _log.info(f"config changed since this workdir's last run: {line}")
        # Skipped steps do not count in schedules.
        done, skipped = int(state.step), int(state.guard.skipped)
        if done and (line := schedule_change(before, config, done, done - skipped)):
            _log.info(line)
    if jax.process_index() == 0:
        write_json(path, resolved)
        record_batch(config, sharding, directory)


def schedule_change(before: dict[str, Any], config: ConfigDict, step: int, counted: int) -> str:
    """The learning rates after `step` steps under an old and the present config; "" if they agree.

    Args:
        before: the resolved config of the run until now.
        config: the present one, with its steps resolved.
        step: finished steps.
        counted: those of them that schedules have counted.
    """
    try:
        rates = [
            float(join_stages([stage.schedule for stage in plan_stages(fields)])(counted))
            for fields in (ConfigDict(before), config)
        ]
    except (ValueError, AttributeError, KeyError, TypeError):
        # Without the fields of stages there is nothing to compare.
        return ""
    if math.isclose(*rates, rel_tol=1e-6):
        return ""
    names = ("steps", "stages", "stage")
    old, new = ({name: fields[name] for name in names} for fields in (before, config.to_dict()))
    reasons = ", ".join(changed_fields(old, new))
    return (
        f"learning rate after step {step}: {rates[0]:.3g} before, {rates[1]:.3g} under the new "
        f"schedule ({reasons})"
    )
