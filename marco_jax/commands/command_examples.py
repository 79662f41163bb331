"""Examples of every command: what `--help` shows, and what the tests run in this order."""

from __future__ import annotations

import dataclasses
import re


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
    needs: str


_TEXT = """
# the demo; resumes
marco train --config=configs/demo.py --workdir=runs/demo
# from its weights, with a mixture of your own
marco train --config=configs/demo.py --workdir=runs/more --config.init_from=runs/demo \
--config.mixture.override=kk=0.03
# check a run and describe it
marco train --config=configs/demo.py --workdir=runs/big --config.steps=3200 --dry_run
# its page
marco report --workdir=runs/demo
# two runs or more, side by side
marco report --compare runs/demo runs/more --out=comparison.html
# the run's own tasks in two languages
marco eval --model=runs/demo --languages=kk,ne --out=kk_ne.json
# the paper's benchmarks, from files (needs files of benchmarks)
marco eval --model=runs/demo --tasks=belebele,xcopa@validation --languages=kk,et --limit=20 \
--data_dir=BENCHMARKS --out=benchmarks.json
# one text
marco generate --model=runs/demo --prompt='Kazakh text:' --temperature=0.7
# many; goes on where it was cut off
marco generate --model=runs/demo --input=prompts.jsonl --out=texts.jsonl
# any language to any other
marco translate --model=runs/demo --src=en --tgt=kk --text='Save the file.'
# for transformers
marco export --model=runs/demo --out=hf --dtype=bfloat16
# back, or from anyone's Qwen2
marco import --hf=hf --out=imported
# then --config.data=corpus
marco curate --input='raw/*.jsonl' --out=corpus --config=configs/curation.py
# the design and its cost, before anything runs
marco sweep --config=configs/mixture_ablation.py --workdir=runs/sweep \
--config.init_from=runs/demo --dry_run
# memory, FLOPs and bytes on the wire (needs libtpu)
marco plan --config=configs/demo.py --topology=v5e:2x2 --only=train
# of the machine that the config is for; minutes (needs libtpu)
marco plan --config=configs/qwen2_7b.py --out=plan.json
"""

EXAMPLES = tuple(
    Example(line, purpose, needs)
    for purpose, needs, line in re.findall(r"# (.*?)(?: \(needs (.*)\))?\n(.*)\n", _TEXT)
)


def examples_of(command: str) -> list[Example]:
    """The examples of one command, such as "train"."""
    return [example for example in EXAMPLES if example.line.split()[1] == command]
