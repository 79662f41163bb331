"""Every field of a training config and its default; files under configs/ set what they change."""

from __future__ import annotations

from ml_collections import ConfigDict


def training_config() -> ConfigDict:
    """Continual pretraining of Qwen2 in Marco-LLM's two stages; all fields, none hidden."""
    c = ConfigDict()
    # cpt: continual pretraining; sft: conversations, of which the assistant's part is learnt; dpo:
    # preferences.
    c.objective = "cpt"
    c.seed = 0
    c.steps = 1000
    # "default" is the embedded corpus; otherwise a directory of corpora, or JSONL files.
    c.data = "default"
    # Where tokenised sources are kept; empty: in the workdir.
    c.data_cache = ""
    # A workdir, a checkpoint step or a Hugging Face directory to start from; empty: random weights.
    c.init_from = ""

    # A directory with tokenizer files; empty: that of init_from, else train SentencePiece (byte
    # fallback) on the corpus.
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
    # Of the computation; master parameters and moments are float32.
    c.dtype = "float32"
    # What a layer keeps for its backward pass, a name of model/remat.py.
    c.remat = "minimal"
    # auto: splash on TPU, cuDNN on GPU, XLA elsewhere; or one of them by name.
    c.attention = "auto"
    c.loss = ConfigDict(
        {
            # Logits that a device holds at once, in MiB of float32; 0: as losses.py has it for
            # the platform.
            "logits_mib": 0,
            # Weight of the squared log-normaliser (PaLM uses 1e-4); 0: none.
            "z_loss": 0.0,
            # Leave the rows past the tokenizer's vocabulary out of the normaliser. `transformers`
            # keeps them in, and so do the scores.
            "mask_padded_vocab": False,
        }
    )
    # Of objective "dpo": see training/preferences.py.
    c.dpo = ConfigDict(
        {
            "variant": "sigmoid",
            "beta": 0.1,
            # How often a label is taken to be wrong, by the variants "smoothed" and "robust".
            "label_smoothing": 0.1,
            # The margin that "simpo" asks for; it has no reference.
            "simpo_gamma": 0.5,
            # Weight of the cross-entropy of chosen answers, a mean over their tokens; 0: none.
            "sft_weight": 0.0,
            # Log-probabilities of the model that the run starts from: "cached", once before
            # training, beside the tokenised pairs; "live", at every step, from its parameters.
            "reference": "cached",
            # Pairs that a row may hold; 0: one for every 64 tokens of its length.
            "pairs_per_row": 0,
        }
    )
    # Low-rank adapters beside frozen matrices, for any objective; rank 0: all parameters train.
    c.lora = ConfigDict(
        {
            "rank": 0,
            "alpha": 32.0,
            "targets": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
            # Of the frozen parameters.
            "base_dtype": "bfloat16",
        }
    )
    # Sizes of the mesh axes; one may be -1. `num_slices` counts slices joined by the data-centre
    # network: replicas that exchange gradients alone.
    c.mesh = ConfigDict(
        {
            "num_slices": 1,
            "data": 1,
            "fsdp": -1,
            "tensor": 1,
            "context": 1,
            "replicate_kv_heads": False,
        }
    )
    # The machine that `marco plan` compiles for when none is named.
    c.topology = ""

    c.batch = ConfigDict(
        {
            "length": 256,
            "sequences_per_chip": 8,
            # Of the global batch, whatever the number of chips; 0: sequences_per_chip times chips.
            "sequences": 0,
            "accumulation_steps": 1,
        }
    )

    c.mixture = ConfigDict(
        {
            # One mixture a stage (or one for all), from marco_jax/data/mixtures.py.
            "name": "stage1,stage2",
            # Shares of tokens that are set by hand, such as "kk=0.02,stage2:low-resource=0.2".
            "override": "",
            # How a group's tokens are shared out: uniform, proportional, temperature, unimax.
            "within": "uniform",
            "temperature": 3.0,
            # The cap of unimax, and where a warning begins: up to four epochs are nearly as good
            # as new text (Muennighoff et al. 2023, arXiv 2305.16264).
            "max_epochs": 4.0,
            # Weights that follow how fast each source is learnt (data/adaptive.py), changed every
            # so many steps; 0: they stay as they are.
            "adaptive": {"every": 0, "rate": 0.1, "credit": 0.5, "least": 0.2},
            # A restart whose data or mixture is not the checkpoint's goes on from there.
            "accept_change": False,
        }
    )
    # Batches made ahead on each host; and how long a step may wait for one (0: for ever).
    c.feed = ConfigDict({"prefetch": 2, "timeout_seconds": 1800.0})
    c.stages = "stage1,stage2"
    # Stage-I has 160B tokens at 1e-5, Stage-II 140B at 6e-6 (Table 3). Warm-up and shape are not
    # published: ours are a short warm-up and a cosine to a tenth at the very end.
    c.stage = ConfigDict(
        {
            "stage1": training_stage(160, 1e-5, warmup_share=0.01, final_share=0.6),
            "stage2": training_stage(140, 6e-6, warmup_share=0.0, final_share=0.1),
        }
    )
    # Gradients are scaled to a global norm of clip_norm at most; 0: they are left as they are.
    c.optimizer = ConfigDict(
        {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    )

    # Steps between two looks, besides the ends of stages; 0: at the ends only.
    c.log_every = 20
    # Weights & Biases, where `wandb` is installed; an empty project: not used. The run's name is
    # by default that of the workdir. TensorBoard's files are always written.
    c.wandb = ConfigDict({"project": "", "name": ""})
    # A jax.profiler trace of these steps, "FIRST:LAST", under the workdir; empty: none.
    c.profile = ""
    c.checkpoint = ConfigDict(
        {
            "every": 400,
            # The newest so many steps stay; 0: all. Two or more leave one behind a damaged one.
            "keep": 0,
            # Besides them: every step that this divides (0: none), and the one with the highest
            # figure of this name, such as eval/xcopa/accuracy/all; with a minus before it, such as
            # -loss, the lowest. Figures count at the steps that have them.
            "keep_every": 0,
            "keep_best": "",
        }
    )
    # Every so many steps, and at the ends of stages, a Hugging Face directory under the workdir's
    # huggingface/; 0: never. Its dtype is that of the parameters, or one by name.
    c.export_every = 0
    c.export_dtype = ""
    # What a model card says: a licence's identifier such as "apache-2.0", where its text is, and
    # the name of the model that the training began from. Empty: as init_from says.
    c.card = ConfigDict({"license": "", "license_link": "", "base_model": ""})
    # A step whose loss or gradient is not finite, or whose loss is more than `spike_sigmas`
    # standard deviations (0: not looked at) above the mean of the last `spike_window`, changes
    # neither parameters nor optimizer. Then: "skip" goes on; "stop" ends the run; "rollback" goes
    # back to the parameters of the newest checkpoint and passes over the batches since, this one
    # included. More than `max_skips` in a row (rollbacks: in a process) end the run.
    c.anomaly = ConfigDict(
        {"nonfinite": "skip", "spike_sigmas": 0.0, "spike_window": 128, "max_skips": 10}
    )
    # After SIGTERM the run has so long to save and end; 0: any time.
    c.preemption_grace_seconds = 0.0
    # One step, wait for input, evaluation, compilation or save that takes longer ends the process,
    # so that no host waits for ever for one that has gone; 0: never.
    c.stall_seconds = 7200.0
    # Several processes: where the first listens ("host:port"), how many there are, which this is.
    # Empty: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or as a TPU slice says.
    c.distributed = ConfigDict(
        {"coordinator": "", "num_processes": 0, "process_id": -1, "heartbeat_seconds": 60}
    )
    c.evaluation = ConfigDict(
        {
            # A task with a "?" behind its name is left out where there is no data for it.
            "tasks": "bits_per_byte?,pick_translation?,translation?",
            # The folder that holds the files of benchmarks, where tasks name any, such as
            # "bits_per_byte,belebele,xcopa@validation".
            "data_dir": "",
            # Whether benchmarks whose answers are written, such as marco_bench_mif, are asked in
            # the model's chat template; and the tokens of such an answer, 0: the benchmark's.
            "chat": False,
            "max_new_tokens": 0,
            "languages": "",  # all of the corpus
            # Of the tasks on held-out data; benchmarks have the paper's shots.
            "shots": 2,
            # At most so many items per language, by task; any task may be added, such as
            # evaluation.examples.bits_per_byte=50. A task that is not listed uses all its items.
            "examples": {"pick_translation": 32, "translation": 8},
            # Between the ends of stages, where all tasks run, these run every so many steps.
            "every_tasks": "bits_per_byte?",
            "every": 160,
            # Whether the parameters of init_from are evaluated before the first step.
            "at_start": True,
            "max_length": 1024,
            "tokens_per_batch": 8192,
        }
    )
    return c


def training_stage(
    share: float, learning_rate: float, *, warmup_share: float, final_share: float
) -> ConfigDict:
    """One stage: its share of the run, its peak learning rate, and the cosine around it.

    `share` is of the steps, against other stages' shares.
    """
    return ConfigDict(
        {
            "share": float(share),
            # Set for every stage, one of these takes the place of shares and of config.steps.
            "steps": 0,
            "tokens": 0.0,
            "learning_rate": learning_rate,
            "schedule": "cosine",
            "warmup_share": warmup_share,
            "final_share": final_share,
        }
    )
