"""Does fine-tuning translate better, and then training on own answers?

    python -m experiments.post_training.study --base=runs/demo --workdir=runs/study --seed=0

From a model of `make demo`: the base; SFT on the corpus's short translation pairs; and from that
model three ways to use the same requests and as many samples of its own answers. DPO prefers the
best to the worst of several samples by chrF++ (`marco generate --pairs`, which leaves out answers
that were cut). A control trains on the chosen answers alone, for as many steps. GRPO rewards each
answer with chrF++ and its language, or with chrF++ alone, a round for each step, every request
once. Every stage answers the same held-out requests, greedily. A stage that is there already is
not made again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import jax.numpy as jnp

from experiments.post_training.translation import (
    NEW_TOKENS,
    conversation,
    prompt_record,
    scores,
    short_pairs,
    translate,
    write_source,
)
from marco_jax.__main__ import main as marco
from marco_jax.data.load import load_corpus
from marco_jax.data.texts import HELD_OUT, TRAIN, Pair
from marco_jax.decoding.engine import Engine
from marco_jax.files import read_json_lines, write_json, write_json_lines
from marco_jax.model.parameters import Params
from marco_jax.runtime.logs import configure_logging
from marco_jax.training.config import load_config
from marco_jax.training.loop import train
from marco_jax.weights.checkpoints import CHECKPOINTS
from marco_jax.weights.convert import export_model
from marco_jax.weights.models import load_model

# A message ends like a document: the demo's first tokenizers have no marks of ChatML.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}<|endoftext|>{% endif %}"
    "{{ message['content'] }}{{ '\n' if message['role'] == 'user' else '<|endoftext|>' }}"
    "{% endfor %}"
)
STAGES = "sft,dpo,grpo,grpo_chrf"
TRAIN_EACH, TEST_EACH, ASK_EACH = 400, 20, 24
SAMPLES, LEAST_GAP, ROUNDS = 6, 3.0, 28
SMALL = (
    "model.preset=",
    "topology=",
    "dtype=float32",
    "remat=none",
    "batch.length=256",
    "batch.sequences_per_chip=16",
    "log_every=20",
    "checkpoint.every=50",
)
# A round of 24 requests, six answers each: 144 rows of which nine parts are computed if full.
GRPO = (
    f"grpo.group={SAMPLES}",
    "grpo.max_prompt_tokens=128",
    f"grpo.max_new_tokens={NEW_TOKENS}",
    # Answers that were cut are left out, as DPO leaves them out.
    "grpo.mask_cut=true",
    "batch.sequences_per_chip=144",
    "batch.accumulation_steps=9",
    "log_every=1",
)
REWARDS = {"grpo": "chrf++=0.01,language=0.5", "grpo_chrf": "chrf++=0.01"}


class Study:
    """One seed of the study, in a directory of its own."""

    def __init__(self, base: str, workdir: pathlib.Path, seed: int, data: str) -> None:
        """Reads the corpus, and makes the base ready to be asked."""
        self.workdir, self.seed = workdir, seed
        self._engines: dict[str, tuple[Engine, Params]] = {}
        workdir.mkdir(parents=True, exist_ok=True)
        self.corpus = load_corpus(data, seed=0)
        self.base = workdir / "base"
        if not self.base.exists():
            export_model(base, self.base)
            (self.base / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        # The same held-out requests for every seed.
        self.held_out = short_pairs(self.corpus, HELD_OUT, TEST_EACH, seed=0)

    def fine_tune(self, steps: int, rate: float) -> None:
        """SFT on translation pairs."""
        if not (self.workdir / "pairs.json").exists():
            pairs = short_pairs(self.corpus, TRAIN, TRAIN_EACH, self.seed)
            write_source(self.workdir / "pairs.json", "pairs", "chat", [*map(conversation, pairs)])
        self._train("sft", "sft", self.base, "pairs.json", steps, rate)

    def prefer(self, steps: int, rate: float, control_rate: float) -> None:
        """DPO on own answers, and the control."""
        if not (self.workdir / "preferences.json").exists():
            self._sample()
        sft = self.workdir / "sft"
        self._train("dpo", "dpo", sft, "preferences.json", steps, rate)
        self._train("control", "sft", sft, "chosen.json", steps, control_rate)

    def reinforce(self, name: str, rate: float) -> None:
        """GRPO on the requests that DPO samples answers to: as many samples, each request once."""
        if not (self.workdir / "prompts.json").exists():
            write_source(self.workdir / "prompts.json", "prompts", "prompt", self._requests())
        prompts = len(self._requests()) // ROUNDS
        changes = (*GRPO, f"grpo.prompts={prompts}", f"grpo.rewards={REWARDS[name]}")
        self._train(name, "grpo", self.workdir / "sft", "prompts.json", ROUNDS, rate, changes)

    def evaluate(self, stage: str) -> dict:
        """Scores of a stage on the held-out requests; kept in a file."""
        path = self.workdir / f"{stage}.scores.json"
        if not path.exists():
            answers = self._answers(stage, self.held_out)
            references = [pair.target.strip() for pair in self.held_out[:200]]
            samples = list(zip(references, answers, strict=False))[::10]
            write_json(path, scores(self.held_out, answers) | {"samples": samples})
        return json.loads(path.read_text(encoding="utf-8"))

    def _requests(self) -> list[dict]:
        """Training requests with their references."""
        pairs = short_pairs(self.corpus, TRAIN, ASK_EACH, self.seed + 1000)
        return [prompt_record(pair) for pair in pairs]

    def _sample(self) -> None:
        asked, answers = self.workdir / "requests.jsonl", self.workdir / "sampled.jsonl"
        write_json_lines(asked, self._requests())
        flags = (f"--samples={SAMPLES}", f"--margin={LEAST_GAP}", f"--seed={self.seed}")
        command = ["generate", f"--model={self.workdir / 'sft'}", f"--input={asked}", "--pairs"]
        command += ["--scorer=chrf++", "--temperature=1", f"--max_new_tokens={NEW_TOKENS}", *flags]
        if code := marco([*command, f"--out={answers}"]):
            raise SystemExit(code)
        rows = read_json_lines(answers)
        chosen = [
            {
                "language": row["language"],
                "messages": [*row["prompt"], {"role": "assistant", "content": row["chosen"]}],
            }
            for row in rows
        ]
        write_source(self.workdir / "chosen.json", "chosen", "chat", chosen)
        write_source(self.workdir / "preferences.json", "preferences", "preference", rows)

    def _answers(self, stage: str, pairs: list[Pair]) -> list[str]:
        if stage not in self._engines:
            model = load_model(self.workdir / stage)
            engine = Engine(model.config, model.tokenizer, dtype=jnp.float32, max_length=256)
            self._engines[stage] = engine, model.params
        return translate(*self._engines[stage], pairs)

    def _train(
        self,
        name: str,
        stage: str,
        start: pathlib.Path,
        data: str,
        steps: int,
        rate: float,
        more: Sequence[str] = (),
    ) -> None:
        """Trains `configs/STAGE.py` in the workdir `name`, unless its last step is saved."""
        if (self.workdir / name / CHECKPOINTS / str(steps)).is_dir():
            return
        changes = (
            *(f"init_from={start}", f"data={self.workdir / data}", f"seed={self.seed}"),
            *(f"steps={steps}", f"stage.{stage}.learning_rate={rate}", *more),
        )
        if train(load_config(f"configs/{stage}.py", [*SMALL, *changes]), str(self.workdir / name)):
            raise SystemExit(143)


def main() -> None:
    """Runs what is asked for, and prints the scores."""
    configure_logging()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", required=True, help="a workdir of `make demo`")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="default")
    parser.add_argument("--stages", default=STAGES, help="which to make")
    parser.add_argument("--sft_steps", type=int, default=300)
    parser.add_argument("--sft_rate", type=float, default=1e-3)
    parser.add_argument("--dpo_steps", type=int, default=30)
    parser.add_argument("--dpo_rate", type=float, default=1e-4)
    parser.add_argument("--grpo_rate", type=float, default=1e-4)
    parser.add_argument("--control_rate", type=float, default=1e-4)
    given = parser.parse_args()
    study = Study(given.base, given.workdir, given.seed, given.data)
    names = ["base"]
    if "sft" in given.stages.split(","):
        study.fine_tune(given.sft_steps, given.sft_rate)
        names.append("sft")
    if "dpo" in given.stages.split(","):
        study.prefer(given.dpo_steps, given.dpo_rate, given.control_rate)
        names += ["dpo", "control"]
    for name in REWARDS:
        if name in given.stages.split(","):
            study.reinforce(name, given.grpo_rate)
            names.append(name)
    for name in names:
        found = study.evaluate(name)
        shown = {key: round(value, 3) for key, value in found.items() if isinstance(value, float)}
        print(json.dumps({"seed": given.seed, "stage": name, **shown}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
