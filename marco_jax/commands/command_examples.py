"""Examples of every command: what `--help` shows, and what the tests run in this order."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Example:
    """A command line, and what it is for.

    Attributes:
        line: as typed at the root of a clone.
        purpose: a few words.
        needs: what has to be there besides an installation; empty: nothing.
    """

    line: str
    purpose: str
    needs: str = ""


EXAMPLES = (
    Example("marco train --config=configs/demo.py --workdir=runs/demo", "the demo; resumes"),
    Example(
        "marco train --config=configs/demo.py --workdir=runs/more "
        "--config.init_from=runs/demo --config.mixture.override=kk=0.03",
        "from its weights, with a mixture of your own",
    ),
    Example(
        "marco train --config=configs/demo.py --workdir=runs/big --config.steps=3200 --dry_run",
        "check a run and describe it",
    ),
    Example("marco report --workdir=runs/demo", "its page"),
    Example("marco report --serve runs", "live pages of all runs below a folder"),
    Example(
        "marco report --compare runs/demo runs/more --out=comparison.html",
        "two runs or more, side by side",
    ),
    Example(
        "marco eval --model=runs/demo --languages=kk,ne --out=kk_ne.json",
        "the run's own tasks in two languages",
    ),
    Example(
        "marco eval --model=runs/demo --tasks=belebele,xcopa@validation --languages=kk,et "
        "--limit=20 --data_dir=BENCHMARKS --out=benchmarks.json",
        "the paper's benchmarks, from files",
        needs="files of benchmarks",
    ),
    Example(
        "marco eval --compare runs/demo/eval/160.json runs/demo/eval/320.json",
        "two results on the same items, with paired errors",
        needs="results of two steps",
    ),
    Example(
        "marco generate --model=runs/demo --prompt='Kazakh text:' --temperature=0.7", "one text"
    ),
    Example(
        "marco generate --model=runs/demo --input=prompts.jsonl --out=texts.jsonl",
        "many; continues after an interruption",
    ),
    Example(
        "marco translate --model=runs/demo --src=en --tgt=kk --text='Save the file.'",
        "any language to any other",
    ),
    Example("marco export --model=runs/demo --out=hf --dtype=bfloat16", "for transformers"),
    Example("marco import --hf=hf --out=imported", "back, or from anyone's Qwen2"),
    Example(
        "marco curate --input='raw/*.jsonl' --out=corpus --config=configs/curation.py",
        "then --config.data=corpus",
    ),
    Example(
        "marco sweep --config=configs/mixture_ablation.py --workdir=runs/sweep "
        "--config.init_from=runs/demo --dry_run",
        "the design and its cost, before anything runs",
    ),
    Example(
        "marco plan --config=configs/demo.py --topology=v5e:2x2 --only=train",
        "memory, FLOPs and bytes on the wire",
        needs="libtpu",
    ),
    Example(
        "marco plan --config=configs/qwen2_7b.py --out=plan.json",
        "of the machine that the config is for; minutes",
        needs="libtpu",
    ),
)


def examples_of(command: str) -> list[Example]:
    """The examples of one command, such as "train"."""
    return [example for example in EXAMPLES if example.line.split()[1] == command]
