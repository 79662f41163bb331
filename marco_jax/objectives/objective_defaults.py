"""Fields of a config that belong to its objective: loss, chat templates, preferences, rewards."""

from __future__ import annotations

from ml_collections import ConfigDict


def set_objective_defaults(c: ConfigDict) -> None:
    """Adds the fields `loss`, `chat`, `dpo` and `grpo`, with their defaults."""
    c.loss = ConfigDict(
        {
            # Memory for logits on a device in MiB of float32: the loss is computed in chunks of
            # tokens of at most this size. 0: default_logits_mib() in objectives/losses.py.
            "logits_mib": 0,
            # Weight of the squared log-normaliser in the loss; PaLM uses 1e-4. 0: none.
            "z_loss": 0.0,
            # Whether the normaliser leaves out rows of the output matrix that the tokenizer has no
            # token for. `transformers` keeps them, and so does scoring, whatever is set here.
            "mask_padded_vocab": False,
        }
    )
    # For conversations: objectives "sft", "dpo" and "grpo", and benchmarks asked in the template.
    c.chat = ConfigDict(
        {
            # Further variables of the chat template, a JSON object such as
            # {"enable_thinking": false}; they are kept beside the tokenizer, in exports too. A
            # record's own "chat_template_kwargs" come before them.
            "template_kwargs": "",
        }
    )
    # For objective "dpo"; the losses are written out in objectives/preferences.py.
    c.dpo = ConfigDict(
        {
            # "sigmoid" (DPO), "smoothed", "robust", "ipo" or "simpo".
            "variant": "sigmoid",
            # Factor of the difference of log-probabilities, above 0.
            "beta": 0.1,
            # Assumed share of pairs whose label is wrong, 0 up to 0.5 (excluded); for variants
            # "smoothed" and "robust".
            "label_smoothing": 0.1,
            # Target margin; for variant "simpo", which has no reference model.
            "simpo_gamma": 0.5,
            # Weight of the cross-entropy of chosen answers, a mean over tokens, that is added to
            # the loss; 0: none.
            "sft_weight": 0.0,
            # Log-probabilities of the reference, the model that the run starts from. "cached":
            # computed once before training and stored beside the tokenised pairs; "live": computed
            # at every step, from parameters that stay in memory.
            "reference": "cached",
            # Most pairs in a sequence; 0: one for every 64 tokens of batch.length.
            "pairs_per_row": 0,
        }
    )
    c.grpo = _grpo_defaults()


def _grpo_defaults() -> ConfigDict:
    """For objective "grpo"; the losses are written out in objectives/policy_gradient.py."""
    return ConfigDict(
        {
            # What an answer is rewarded with: scorers with weights, comma-separated. "chrf++",
            # "chrf", "bleu" (0 to 100), "language", "number", "math" (0 or 1), "instructions" (a
            # share), or "module:function" and "file.py:function" (evaluation/scorers.py).
            "rewards": "chrf++=0.01,language=0.5",
            # Prompts that are answered in a round, and sampled answers to each.
            "prompts": 32,
            "group": 8,
            # Steps that share out a round's answers among them, and how often they go through all.
            # 1 and 1: each answer is used once, by the model that has sampled it.
            "updates": 1,
            "epochs": 1,
            # Of sampling; the loss divides logits by it, too.
            "temperature": 1.0,
            # Longer prompts are left out.
            "max_prompt_tokens": 512,
            # Longer answers are cut.
            "max_new_tokens": 256,
            # Whether answers that were cut are left out of the loss.
            "mask_cut": False,
            # What advantages are divided by: the deviation of rewards in the "group", in the
            # "batch", or "none" (Dr. GRPO).
            "scale": "group",
            # Importance of a "token", or of the "sequence" (GSPO).
            "ratio": "token",
            # "clipped", or "weighted" (CISPO).
            "surrogate": "clipped",
            # How far below and above 1 importance has a gradient; DAPO's are 0.2 and 0.28.
            "clip_low": 0.2,
            "clip_high": 0.28,
            # Most importance of a token whose advantage is negative; 0: without bound.
            "clip_most": 0.0,
            # What a token counts: "sequence" (GRPO), "token" (DAPO), "constant" (Dr. GRPO) or
            # "sum" (LUSPO).
            "average": "token",
            # Weight of the divergence from the model that the run starts from, which then stays in
            # memory; 0: none.
            "kl": 0.0,
            # Whether the divergence is weighted by importance, so that its gradient is unbiased.
            "kl_weighted": True,
            # Rounds whose answers are kept as answers/*.jsonl in the workdir; 0: all.
            "keep_rounds": 100,
        }
    )
