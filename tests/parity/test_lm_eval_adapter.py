"""The harness over our engine against the harness over transformers: same requests, same answers.

Sums of float32 log-probabilities of up to some tens of tokens: 1e-4 is a few roundings of the sum.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from marco_jax.decoding.engine import Engine
from marco_jax.tokenizers.tokenizer import load_tokenizer, train_sentencepiece
from marco_jax.weights.huggingface import load_huggingface

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from marco_jax.evaluation.lm_eval_adapter import EngineLM  # noqa: E402
from marco_jax.tokenizers.chat_templates import CHATML  # noqa: E402
from marco_jax.tokenizers.tokenizer_files import read_chat_template  # noqa: E402

TEXT = "the cat sat on a mat and then ran to its house because it was cold in wet grass"
WORDS = TEXT.split()
SHOTS = [f"{' '.join(WORDS[i : i + 6])} because {' '.join(WORDS[i + 1 : i + 4])}" for i in range(8)]


@pytest.fixture(scope="module")
def directory(make_directory, published):
    """A random Qwen2 with a tokenizer beside it."""
    path = make_directory(
        published["0.5B"] | {"vocab_size": 300, "eos_token_id": 2, "max_position_embeddings": 512}
    )
    train_sentencepiece([TEXT, *SHOTS] * 20, 300, path)
    return path


@pytest.fixture(scope="module")
def both(directory):
    """(ours, theirs) as harness models."""
    config, params = load_huggingface(directory)
    engine = Engine(config, load_tokenizer(directory), max_length=96)
    theirs = HFLM(
        transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
        tokenizer=transformers.PreTrainedTokenizerFast.from_pretrained(directory),
        batch_size=4,
        max_length=96,
    )
    return EngineLM(engine, params), theirs


def instances(kind, arguments):
    return [Instance(kind, {}, pair, number) for number, pair in enumerate(arguments)]


def choices():
    """Like XCOPA with shots: two choices after each prompt, some of them odd at the boundary."""
    prefix = "\n\n".join(SHOTS[:2]) + "\n\n"
    pairs = []
    for number, shot in enumerate(SHOTS):
        context = (prefix if number % 2 else "") + shot
        pairs += [(context, f" {word}") for word in WORDS[number : number + 2]]
        # Trailing whitespace moves to the continuation.
        pairs.append((context + "  ", "it was cold"))
    # No context; and one that is cut on the left.
    pairs += [("", "the cat sat"), (" ".join(SHOTS * 4), " in wet grass")]
    return pairs


def test_loglikelihoods_equal_those_of_the_hugging_face_backend(both):
    ours, theirs = (model.loglikelihood(instances("loglikelihood", choices())) for model in both)
    np.testing.assert_allclose([x[0] for x in ours], [x[0] for x in theirs], atol=1e-4)
    assert [x[1] for x in ours] == [x[1] for x in theirs]


def test_rolling_loglikelihoods_equal(both):
    texts = [(" ".join(SHOTS * 3),), (SHOTS[0],)]
    ours, theirs = (
        model.loglikelihood_rolling(instances("loglikelihood_rolling", texts)) for model in both
    )
    # Hundreds of tokens a text.
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-4)


def test_generations_equal(both, directory, monkeypatch):
    # A random model emits broken UTF-8, which the two libraries write differently: the same
    # decoder reads the ids of both.
    tokenizer, theirs = load_tokenizer(directory), both[1]
    whole = theirs.tok_decode

    def decode(ids, skip_special_tokens=True):
        return tokenizer.decode(ids) if skip_special_tokens else whole(ids, skip_special_tokens)

    monkeypatch.setattr(theirs, "tok_decode", decode)
    options = {"until": ["cat", "\n"], "max_gen_toks": 24, "do_sample": False}
    requests = [(shot, options) for shot in SHOTS]
    ours, theirs = (model.generate_until(instances("generate_until", requests)) for model in both)
    assert ours == theirs
    assert any(ours)


STRIPPING = (
    "{{ eos_token }}{% for message in messages %}{% if message['role'] == 'tool' %}"
    "{{ raise_exception('no tools') }}{% endif %}\n[{{ message['role'] | upper }}] "
    "{{ message['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[ASSISTANT] {% endif %}"
)
CONVERSATION = [
    {"role": "system", "content": "Answer with a letter."},
    {"role": "user", "content": "Wet or dry?\nAnswer: A"},
    {"role": "assistant", "content": " The answer is A "},
]


def with_template(engine, template):
    """The engine, whose tokenizer has a chat template."""
    engine.tokenizer.companions = dataclasses.replace(
        engine.tokenizer.companions, chat_template=template
    )
    return engine


@pytest.mark.parametrize("template", [CHATML, STRIPPING])
@pytest.mark.parametrize("goes_on", [False, True])
def test_conversations_are_written_as_transformers_does(both, template, goes_on):
    ours, theirs = both
    theirs.tokenizer.chat_template = template
    mine = EngineLM(with_template(ours._engine, template), ours._params)
    chat = CONVERSATION if goes_on else CONVERSATION[:2]
    asked = {"add_generation_prompt": not goes_on}
    assert mine.apply_chat_template(chat, **asked) == theirs.apply_chat_template(chat, **asked)
    assert mine.chat_template(True) == theirs.chat_template(True) == template
    assert isinstance(mine.tokenizer_name, str) and mine.tokenizer_name


def test_a_template_that_refuses_says_so(both):
    mine = EngineLM(with_template(both[0]._engine, STRIPPING), both[0]._params)
    with pytest.raises(ValueError, match="rejects the conversation: no tools"):
        mine.apply_chat_template([{"role": "tool", "content": "x"}])


@pytest.mark.parametrize("form", ["string", "named", "jinja", "none"])
def test_templates_are_found_beside_a_model(tmp_path, form):
    value = {"string": CHATML, "named": [{"name": "default", "template": CHATML}]}.get(form)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    if form == "jinja":
        (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert read_chat_template(tmp_path) == (None if form == "none" else CHATML)


@pytest.mark.parametrize("chat", [False, True])
def test_the_runner_knows_the_model(directory, tmp_path, chat):
    """The harness's own command line, on a local task."""
    rows = [
        {"text": shot, "choices": WORDS[n : n + 2], "gold": n % 2} for n, shot in enumerate(SHOTS)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "local.yaml").write_text(
        "task: local_choice\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "{{text}}"\n'
        "doc_to_choice: choices\n"
        "doc_to_target: gold\n"
        "metric_list: [{metric: acc}]\n"
    )
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "marco_jax.lm_eval", "--model", "marco_jax"]
    command += ["--model_args", f"pretrained={directory},max_length=96", "--tasks", "local_choice"]
    command += ["--apply_chat_template"] * chat
    command += ["--include_path", str(tmp_path), "--output_path", str(out)]
    root = pathlib.Path(__file__).resolve().parents[2]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr[-2000:]
    [written] = tmp_path.glob("out*.json")
    accuracy = json.loads(written.read_text())["results"]["local_choice"]["acc,none"]
    assert 0 <= accuracy <= 1
