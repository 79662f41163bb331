"""The main job in miniature: base -> Stage-I -> Stage-II on the text that ships with the packages.

A small Qwen2 is first trained on English, Chinese and the other high-resource languages: the base.
Then Marco-LLM's two stages of continual pretraining run on all 29 languages with the shares of
its Table 2. `make demo` runs this on a bare machine; every field can be set on the command line,
e.g. `--config.data=../shared/corpora --config.steps=2000`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The resolved config of the demo."""
    c = ConfigDict()
    c.objective = "cpt"
    c.seed = 0
    c.steps = 1600
    # "default" is the embedded corpus; otherwise a directory of corpora, or JSONL files.
    c.data = "default"
    # Where tokenised sources are kept; empty: in the workdir.
    c.data_cache = ""
    # A workdir, a checkpoint step or a Hugging Face directory to start from; empty: random weights.
    c.init_from = ""

    # A directory with tokenizer files; empty: train SentencePiece (byte fallback) on the corpus.
    c.tokenizer = ConfigDict({"path": "", "vocab_size": 4096})

    # A preset's name, or sizes. The vocabulary's rows follow from the tokenizer.
    c.model = ConfigDict(
        {
            "preset": "",
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "tie_word_embeddings": True,
            "max_position_embeddings": 1024,
        }
    )
    c.dtype = "float32"
    # What the backward pass recomputes: none, minimal or full.
    c.remat = "none"
    # Cross-entropy in chunks of this many tokens; 0 holds the logits of a batch at once.
    c.loss_chunk_tokens = 0
    c.mesh = ConfigDict(
        {"data": 1, "fsdp": -1, "tensor": 1, "context": 1, "replicate_kv_heads": False}
    )

    c.batch = ConfigDict({"length": 256, "sequences_per_chip": 8, "accumulation_steps": 1})

    # One mixture a stage (or one for all), from marco_jax/data/mixtures.py.
    c.mixture = ConfigDict({"name": "base,stage1,stage2", "override": ""})
    c.stages = "base,stage1,stage2"
    # Stage-I and Stage-II share their tokens 160 : 140, and their peak learning rates are as
    # 1e-5 : 6e-6 (Table 3). The demo's base is far from converged, so the rates are higher.
    c.stage = ConfigDict(
        {
            "base": _stage(share=0.30, learning_rate=3e-3, final_share=0.3),
            "stage1": _stage(share=0.37, learning_rate=2e-3, final_share=0.6),
            "stage2": _stage(share=0.33, learning_rate=1.2e-3, final_share=0.1),
        }
    )
    c.optimizer = ConfigDict(
        {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    )

    # Steps between two looks, besides the ends of stages; 0: at the ends only.
    c.log_every = 20
    c.checkpoint = ConfigDict({"every": 400, "keep": 0})
    c.evaluation = ConfigDict(
        {
            "tasks": "bits_per_byte,pick_translation,translation",
            "languages": "",  # all of the corpus
            "shots": 2,
            # A language and task; tasks that are not named here read all they have.
            "examples": {"pick_translation": 32, "translation": 8},
            # Between the ends of stages, where all tasks run, these run every so many steps.
            "every_tasks": "bits_per_byte",
            "every": 160,
            "max_length": 1024,
            "tokens_per_batch": 8192,
        }
    )
    return c


def _stage(share: float, learning_rate: float, final_share: float) -> ConfigDict:
    return ConfigDict(
        {
            "share": share,
            "learning_rate": learning_rate,
            "schedule": "cosine",
            "warmup_share": 0.05,
            "final_share": final_share,
        }
    )
