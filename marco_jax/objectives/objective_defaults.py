"""Fields of a config that belong to its objective: the loss, chat templates, preferences."""

from __future__ import annotations

from ml_collections import ConfigDict


def set_objective_defaults(c: ConfigDict) -> None:
    """Adds the fields `loss`, `chat` and `dpo`, with their defaults."""
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
    # For conversations: objectives "sft" and "dpo", and benchmarks that are asked in the template.
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
