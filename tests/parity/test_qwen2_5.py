"""A published Qwen2.5, against transformers and lm-evaluation-harness: all that a user would see.

MARCO_QWEN2_5_DIR names the directory of a small one, such as Qwen2.5-0.5B-Instruct in float32;
MARCO_QWEN2_5_ITEMS how many items of each benchmark are compared, by default 50.
"""

import json
import math
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.decoding.engine import Engine, bits_per_byte
from marco_jax.decoding.requests import GenerateRequest, ScoreRequest
from marco_jax.evaluation.chat_prompts import Chat
from marco_jax.evaluation.few_shot import seeded_order
from marco_jax.languages import LANGUAGES
from marco_jax.model.qwen2 import bind
from marco_jax.weights.models import load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

VARIABLE = "MARCO_QWEN2_5_DIR"
ITEMS = int(os.environ.get("MARCO_QWEN2_5_ITEMS", "50"))
NEW_TOKENS = 100
# Of logits of size 20 after 24 layers in float32. Sums of log-probabilities: 1e-4 a token.
LOGITS_TOLERANCE = 2e-3
# In bfloat16 both round every layer's result, in another order: 2^-8 of logits of size 20.
HALF_TOLERANCE = 0.6

PROMPTS = {
    "Latin": ("The capital of Kazakhstan is", "Les trois plus grandes villes de France sont"),
    "Han": ("中国的首都是", "请写一首关于秋天的短诗。"),
    "Kana": ("日本で一番高い山は", "おいしい味噌汁の作り方を教えてください。"),
    "Hangul": ("대한민국의 수도는", "한글을 만든 사람은 누구입니까?"),
    "Cyrillic": ("Столица Украины — город", "Қазақстанның ең үлкен қаласы"),
    "Arabic": ("عاصمة مصر هي", "پاکستان کا دارالحکومت"),
    "Hebrew": ("בירת ישראל היא", "מהו הצבע של השמיים?"),
    "Devanagari": ("नेपालको राजधानी", "भारत का सबसे बड़ा शहर"),
    "Bengali": ("বাংলাদেশের রাজধানী", "পানি কেন নীল দেখায়?"),
    "Thai": ("เมืองหลวงของประเทศไทยคือ", "อาหารไทยที่มีชื่อเสียงที่สุดคือ"),
}
TEXTS = [prompt for pair in PROMPTS.values() for prompt in pair]


@pytest.fixture(scope="module")
def directory():
    """The directory of the published model."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} does not name the directory of a published Qwen2.5")
    return pathlib.Path(path)


@pytest.fixture(scope="module")
def theirs(directory):
    """(transformers' model in float32, its tokenizer)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def ours(directory):
    """The directory as the package loads it."""
    return load_model(directory)


def test_tokens_of_prompts_and_conversations(ours, theirs):
    chat = Chat.of(ours.tokenizer)
    for text in TEXTS:
        assert ours.tokenizer.encode(text) == theirs[1](text).input_ids
        talk = [{"role": "user", "content": text}]
        wanted = theirs[1].apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert chat.prompt(talk) == wanted
        assert ours.tokenizer.encode(wanted) == theirs[1](wanted).input_ids


def prompts_of(ours, chat):
    """Ids of all prompts, plain or in the model's chat template."""
    texts = TEXTS
    if chat:
        form = Chat.of(ours.tokenizer)
        texts = [form.prompt([{"role": "user", "content": text}]) for text in texts]
    return [ours.tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_logits_and_greedy_tokens(ours, theirs, chat):
    prompts, model = prompts_of(ours, chat), theirs[0]
    end_ids = Chat.of(ours.tokenizer).end_ids
    engine = Engine(ours.config, ours.tokenizer, max_length=256, end_ids=end_ids)
    requests = [GenerateRequest(prompt, NEW_TOKENS) for prompt in prompts]
    answers = engine.generate(ours.params, requests)
    ends, worst, equal = {ours.tokenizer.eos_id, *end_ids}, 0.0, 0
    for prompt, answer in zip(prompts, answers, strict=True):
        # One pass over prompt and answer has all logits: greedy means that each token of the
        # answer is the likeliest there, which is what transformers would have generated.
        ids = [*prompt, *answer.ids]
        with torch.no_grad():
            wanted = model(torch.tensor([ids])).logits[0].numpy()
        worst = max(worst, float(np.abs(logits_of(ours, ids) - wanted).max()))
        likeliest = wanted[len(prompt) - 1 :].argmax(-1)
        shown = len(answer.ids)
        assert likeliest[:shown].tolist() == list(answer.ids), (prompt, answer.text)
        assert shown == NEW_TOKENS or int(likeliest[shown]) in ends
        equal += shown
    print(f"logits differ by {worst:.2e} at most; {equal} greedy tokens are equal")
    assert worst < LOGITS_TOLERANCE


def logits_of(ours, ids, dtype=jnp.float32):
    """Logits of a text, [length, vocabulary]; padded to few lengths, so that little compiles."""
    length = -(-len(ids) // 64) * 64
    tokens = jnp.asarray([[*ids, *[0] * (length - len(ids))]])
    model = bind(ours.config, ours.params)
    hidden, _ = model(tokens, jnp.arange(length)[None], None, dtype=dtype)
    return np.asarray(model.logits(hidden)[0, : len(ids)], np.float32)


def test_logits_in_bfloat16(directory, ours):
    """Beside transformers in bfloat16, whose rounding is of another order: both near float32."""
    half = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    apart, exact = [], []
    for prompt in prompts_of(ours, chat=False):
        with torch.no_grad():
            wanted = half(torch.tensor([prompt])).logits[0].float().numpy()
        found = logits_of(ours, prompt, jnp.bfloat16)
        apart.append(np.abs(found - wanted).max())
        exact.append([np.abs(x - logits_of(ours, prompt)).mean() for x in (found, wanted)])
    mean_ours, mean_theirs = np.mean(exact, axis=0)
    print(
        f"bfloat16: at most {max(apart):.3f} apart; mean distance from float32 {mean_ours:.4f} "
        f"here, {mean_theirs:.4f} in transformers"
    )
    assert max(apart) < HALF_TOLERANCE
    assert mean_ours < 1.25 * mean_theirs


def test_bits_per_byte_of_29_languages(ours, theirs, shared_dir):
    from marco_jax.data.load import load_corpus

    corpus = load_corpus(str(shared_dir / "corpora"), seed=0)
    engine = Engine(ours.config, ours.tokenizer, max_length=512, tokens_per_batch=1024)
    texts = {}
    for code in LANGUAGES:
        found = seeded_order(corpus.texts(code, "held_out"), str, 0)
        texts[code] = next(text[:400] for text in found if len(text) > 100)
    assert len(texts) == 29
    bits = bits_per_byte(engine, ours.params, ours.tokenizer, list(texts.values()))
    for (code, text), found in zip(texts.items(), bits, strict=True):
        ids = theirs[1](text).input_ids
        with torch.no_grad():
            logits = theirs[0](torch.tensor([[ours.tokenizer.eos_id, *ids[:-1]]])).logits[0]
        logprobs = torch.log_softmax(logits.double(), -1)
        nats = logprobs[torch.arange(len(ids)), torch.tensor(ids)].sum().item()
        wanted = -nats / math.log(2) / len(text.encode())
        print(f"{code}: {found:.5f} bits per byte, {wanted:.5f} in transformers")
        assert abs(found - wanted) < 1e-4, code


def test_scores_in_bfloat16(directory, ours):
    """Sums of log-probabilities are no further from float32 than those of transformers.

    After EOS alone the first tokens of a text are scored some nats apart in bfloat16, by both.
    """
    prompts = prompts_of(ours, chat=False)
    requests = [ScoreRequest([ours.tokenizer.eos_id], prompt) for prompt in prompts]
    scores = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        engine = Engine(ours.config, ours.tokenizer, dtype=dtype, max_length=128)
        scores[dtype] = [x.logprob for x in engine.score(ours.params, requests)]
    half = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    theirs = []
    for prompt in prompts:
        with torch.no_grad():
            logits = half(torch.tensor([[ours.tokenizer.eos_id, *prompt[:-1]]])).logits[0]
        logprobs = torch.log_softmax(logits.float(), -1)
        theirs.append(logprobs[torch.arange(len(prompt)), torch.tensor(prompt)].sum().item())
    exact = np.array(scores[jnp.float32])
    found = [np.abs(exact - side) for side in (scores[jnp.bfloat16], theirs)]
    (mean_ours, mean_theirs), (most_ours, most_theirs) = np.mean(found, 1), np.max(found, 1)
    print(
        f"bfloat16: nats from float32, mean {mean_ours:.2f} and most {most_ours:.2f} here, "
        f"{mean_theirs:.2f} and {most_theirs:.2f} in transformers"
    )
    assert mean_ours < 1.5 * mean_theirs


@pytest.fixture(scope="module")
def data(shared_dir, tmp_path_factory):
    """The benchmarks, and questions of MMLU in the layout of ARC's files."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for path in (shared_dir / "benchmarks").iterdir():
        (folder / path.name).symlink_to(path)
    arc = folder / "arc/ARC-V1-Feb2018-2/ARC-Easy"
    arc.mkdir(parents=True)
    splits = {"Train": "conceptual_physics", "Dev": "astronomy", "Test": "astronomy"}
    from benchmarks import harness_tasks

    for name, subject in splits.items():
        rows = harness_tasks.mmlu(folder, subject).splits["dev" if name == "Train" else "test"]
        lines = [json.dumps(arc_row(number, row)) + "\n" for number, row in enumerate(rows)]
        (arc / f"ARC-Easy-{name}.jsonl").write_text("".join(lines))
    return folder


def arc_row(number, row):
    """A question of MMLU as a line of ARC's files."""
    choices = [{"text": row[f"choice{n}"], "label": "ABCD"[n]} for n in range(4)]
    question = {"stem": row["question"], "choices": choices}
    return {"id": f"row {number}", "question": question, "answerKey": "ABCD"[row["answer"]]}


TASKS = {
    "mmlu": (lambda tasks, data: tasks.mmlu(data, "astronomy"), 5),
    "xcopa": (lambda tasks, data: tasks.xcopa(data, "zh"), 5),
    "belebele": (lambda tasks, data: tasks.belebele(data, "en", "eng_Latn"), 0),
    "arc": (lambda tasks, data: tasks.arc(data), 5),
    "mgsm": (lambda tasks, data: tasks.mgsm(data, "en"), 0),
}


@pytest.mark.usefixtures("offline_harness")
@pytest.mark.parametrize("name", TASKS)
def test_answers_beside_the_harness(name, directory, data):
    """Every prediction, or every text, of the harness's own backend."""
    pytest.importorskip("lm_eval")
    from benchmarks import harness_tasks, parity

    build, shots = TASKS[name]
    sides = parity.Sides(directory, batch_size=2)
    task = build(harness_tasks, data)
    row = parity.compare(sides.ask(task, shots, ITEMS, data), "published", task, shots)
    print(json.dumps(row))
    assert row["items"] == ITEMS
    for side in (parity.ADAPTER, parity.OURS):
        found = row[side]
        assert found.get("equal_predictions", found.get("equal_texts")), row
        assert found["equal_metrics"], row
