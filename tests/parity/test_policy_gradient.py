"""Policy gradients against TRL's GRPO: loss and gradients of one update on the same answers."""

import jax
import numpy as np
import pytest
import tokenizers

from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.parameters import flatten, parameter_table
from marco_jax.objectives.policy_gradient import PolicyOptions
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.step import Batch, StepOptions, Trainer
from marco_jax.weights.huggingface import load_huggingface
from tests.parity.tiny_models import moving_models, tiny_qwen2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

VOCAB, LENGTH, ROWS, MOST = 96, 64, 8, 24
# Ours, and what TRL is to be told.
VARIANTS = {
    "grpo": (dict(average="sequence"), dict(loss_type="grpo")),
    "dapo": (dict(average="token", clip_high=0.4), dict(loss_type="dapo", epsilon_high=0.4)),
    "bnpo": (dict(average="token"), dict(loss_type="bnpo")),
    "dr_grpo": (dict(average="constant"), dict(loss_type="dr_grpo")),
    "gspo": (
        dict(average="sequence", ratio="sequence", clip_low=0.05, clip_high=0.05),
        dict(
            loss_type="grpo", importance_sampling_level="sequence", epsilon=0.05, epsilon_high=0.05
        ),
    ),
    "gspo, tokens alike": (
        dict(average="token", ratio="sequence", clip_low=0.05, clip_high=0.05),
        dict(
            loss_type="dapo", importance_sampling_level="sequence", epsilon=0.05, epsilon_high=0.05
        ),
    ),
    "luspo": (
        dict(average="sum", ratio="sequence", clip_low=0.05, clip_high=0.05),
        dict(
            loss_type="luspo",
            importance_sampling_level="sequence",
            epsilon=0.05,
            epsilon_high=0.05,
        ),
    ),
    # TRL is given the most that a weight may be.
    "cispo": (
        dict(average="token", surrogate="weighted", clip_high=0.1),
        dict(loss_type="cispo", epsilon_high=1.1),
    ),
    "two sides": (
        dict(average="sequence", clip_most=1.35),
        dict(loss_type="grpo", delta=1.35),
    ),
    "kl": (dict(average="sequence", kl=0.3), dict(loss_type="grpo", beta=0.3)),
    "kl, not weighted": (
        dict(average="token", kl=0.3, kl_weighted=False),
        dict(loss_type="dapo", beta=0.3, use_bias_correction_kl=False),
    ),
    "kl, dapo": (dict(average="token", kl=0.3), dict(loss_type="dapo", beta=0.3)),
    "kl, dr_grpo": (dict(average="constant", kl=0.3), dict(loss_type="dr_grpo", beta=0.3)),
    "warm": (
        dict(average="token", temperature=1.7),
        dict(loss_type="dapo", temperature=1.7),
    ),
    "on policy": (dict(average="token", off_policy=False), dict(loss_type="dapo")),
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A reference, the policy that has sampled, and the policy after updates."""
    moves = (("reference", 0.05), ("behaviour", 0.05), ("policy", 0.02))
    return moving_models(tiny_qwen2(VOCAB, 1), moves, tmp_path_factory)


@pytest.fixture(scope="module")
def answers():
    """(prompt, answer, advantage) of twelve answers."""
    rng = np.random.default_rng(0)
    return [
        (
            rng.integers(2, VOCAB, rng.integers(3, 8)).tolist(),
            rng.integers(2, VOCAB, rng.integers(2, MOST)).tolist(),
            float(rng.normal()),
        )
        for _ in range(12)
    ]


def logps(directory, prompt, answer, temperature):
    """Log-probabilities of an answer's tokens, by transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    picked = torch.log_softmax(logits / temperature, -1)
    return picked[torch.arange(len(answer)), torch.tensor(answer)].numpy()


def packed(answers, behaviour):
    """Arrays of a batch: two answers a row."""
    arrays = {name: np.zeros((ROWS, LENGTH), np.int32) for name in Batch._fields[:6]}
    for name in ("loss_weights", "advantages", "behaviour"):
        arrays[name] = np.zeros((ROWS, LENGTH), np.float32)
    ends = np.zeros(ROWS, int)
    for number, (prompt, answer, advantage) in enumerate(answers):
        row, ids = number // 2, prompt + answer
        span = slice(ends[row], ends[row] + len(ids) - 1)
        ends[row] = span.stop
        arrays["tokens"][row, span], arrays["targets"][row, span] = ids[:-1], ids[1:]
        arrays["positions"][row, span] = np.arange(len(ids) - 1)
        arrays["segment_ids"][row, span] = number % 2 + 1
        arrays["source_ids"][row, span] = number % 3
        said = slice(span.stop - len(answer), span.stop)
        arrays["loss_weights"][row, said] = 1
        arrays["advantages"][row, said] = advantage
        arrays["behaviour"][row, said] = behaviour[number]
    return arrays


def ours(directories, answers, changes, devices, axes, behaviour):
    """Metrics and gradients, by name and by path."""
    options = PolicyOptions(
        **{"clip_high": 0.2, "off_policy": True, "most_tokens": MOST, "answers_per_row": 2}
        | changes
    )
    config, params = load_huggingface(directories[2])
    arrays = packed(answers, behaviour)
    if not options.off_policy:
        del arrays["behaviour"]
    schedule = StageSchedule(steps=10, peak=0.0).build()
    optimizer = create_optimizer(
        config, schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, clip_norm=1.0
    )
    sharding = Sharding(create_mesh(axes, devices))
    trainer = Trainer(config, optimizer, schedule, sharding, 3, StepOptions(policy=options))
    frozen = trainer.freeze(load_huggingface(directories[0])[1])
    batch = jax.device_put(Batch(**arrays), trainer.batch_sharding)
    params = jax.device_put(params, trainer.state_shardings.params)
    sums, grads = jax.jit(trainer.gradients)(params, batch, frozen)
    count = float(sums.loss_counts.sum())
    metrics = {name: float(value.sum()) / count for name, value in sums.metrics.items()}
    metrics["loss"] = float(sums.loss_sums.sum()) / count
    assert set(sums.metrics) == set(options.metrics)
    return metrics, {path: np.asarray(grad) / count for path, grad in flatten(grads).items()}


def theirs(directories, answers, changes, behaviour, tmp_path):
    """Loss, logged metrics and gradients of TRL's own trainer."""
    policy = transformers.AutoModelForCausalLM.from_pretrained(directories[2], dtype=torch.float32)
    vocabulary = {f"w{number}": number for number in range(VOCAB)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="w1", pad_token="w1"
    )
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=len(answers),
        num_generations=len(answers),
        steps_per_generation=1,
        max_completion_length=MOST,
        report_to=[],
        **{"beta": 0.0, "temperature": 1.0, "epsilon_high": 0.2} | changes,
    )
    trainer = trl.GRPOTrainer(
        policy,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([dict(prompt="w2")]),
        processing_class=tokenizer,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    sizes = [max(len(one[side]) for one in answers) for side in (0, 1)]

    def padded(side, value, left):
        rows = []
        for one in answers:
            row = [value(token) for token in one[side]]
            filling = [0] * (sizes[side] - len(row))
            rows.append(filling + row if left else row + filling)
        return torch.tensor(rows)

    inputs = {
        "prompt_ids": padded(0, int, True),
        "prompt_mask": padded(0, lambda _: 1, True),
        "completion_ids": padded(1, int, False),
        "completion_mask": padded(1, lambda _: 1, False),
        "advantages": torch.tensor([one[2] for one in answers]),
        "num_items_in_batch": torch.tensor(sum(len(one[1]) for one in answers)),
    }

    def by_token(rows):
        return torch.tensor(np.array([np.pad(row, (0, sizes[1] - len(row))) for row in rows]))

    temperature = arguments.temperature
    if behaviour is not None:
        inputs["old_per_token_logps"] = by_token(behaviour)
    inputs["ref_per_token_logps"] = by_token(
        [logps(directories[0], one[0], one[1], temperature) for one in answers]
    )
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    logged = {name: np.mean(values) for name, values in trainer._metrics["train"].items()}
    grads = {name: p.grad.numpy() for name, p in trainer.model.named_parameters()}
    return float(loss.detach()), logged, grads


@pytest.mark.parametrize(
    "variant",
    ["gspo", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name != "gspo")],
)
def test_loss_and_gradients_are_those_of_trl(directories, answers, tmp_path, one_device, variant):
    mine, changes = VARIANTS[variant]
    temperature = mine.get("temperature", 1.0)
    behaviour = [logps(directories[1], one[0], one[1], temperature) for one in answers]
    metrics, grads = ours(directories, answers, mine, one_device, {"fsdp": 1}, behaviour)
    given = behaviour if mine.get("off_policy", True) else None
    loss, logged, expected = theirs(directories, answers, changes, given, tmp_path)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    # The loss is one of clipped and unclipped tokens, except where nothing has moved.
    assert (metrics["clip_share"] > 0) == (given is not None)
    # TRL logs the divergence with its weight.
    if not mine.get("kl_weighted", True):
        assert metrics["kl"] == pytest.approx(logged["kl"], rel=1e-5)
    config = load_huggingface(directories[0])[0]
    scale = max(np.abs(grad).max() for grad in expected.values())
    for row in parameter_table(config):
        for layer, name in enumerate(row.huggingface_names(config)):
            own = grads[row.path][layer] if row.stacked else grads[row.path]
            np.testing.assert_allclose(
                row.to_huggingface(own, config), expected[name], atol=1e-5 * scale, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["kl", "gspo", "cispo"])
def test_a_mesh_of_eight_gives_the_same(directories, answers, one_device, variant):
    behaviour = [logps(directories[1], one[0], one[1], 1.0) for one in answers]
    changes = VARIANTS[variant][0]
    alone, first = ours(directories, answers, changes, one_device, {"fsdp": 1}, behaviour)
    axes = {"fsdp": 2, "tensor": 2, "context": 2}
    meshed, second = ours(directories, answers, changes, None, axes, behaviour)
    assert meshed == pytest.approx(alone, rel=1e-4, abs=1e-6)
    for path, grad in first.items():
        np.testing.assert_allclose(second[path], grad, atol=1e-5 * np.abs(grad).max() + 1e-7)
