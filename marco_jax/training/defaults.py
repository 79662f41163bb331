"""The schema of a training config: every field, what it does, its unit, its values, its default.

Files under configs/ are the recipes. A field is set on the command line as --config.FIELD=VALUE.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from marco_jax.evaluation.evaluation_defaults import set_evaluation_defaults
from marco_jax.objectives.objective_defaults import set_objective_defaults
from marco_jax.trackers.tracker_defaults import set_tracker_defaults


def training_config() -> ConfigDict:
    """Every field of a training config with its default."""
    c = ConfigDict()
    # What the run optimises. "cpt": continual pretraining, all tokens of documents; "sft":
    # supervised fine-tuning, the assistant's messages of conversations; "dpo": preferences.
    c.objective = "cpt"
    # Seed of random initial parameters and of the order of the data.
    c.seed = 0
    # Length of the run in steps. `stage.NAME.steps` or `stage.NAME.tokens` replace it.
    c.steps = 1000
    # The corpus. "default": the one that ships with the extra `demo`; else a directory of corpora,
    # a JSON file that declares sources, or a glob of JSONL files (docs/data_formats.md).
    c.data = "default"
    # What happens at a record that cannot be read, such as one that is not UTF-8: "stop" ends the
    # run and names the record; "skip" leaves it out, and counts such records by reason.
    c.data_errors = "stop"
    c.languages = ConfigDict(
        {
            # Languages besides the paper's 29, comma-separated, each "code:Name:group" with the
            # group "high" or "low", such as "sw:Swahili:low"; a fourth part is the name in the
            # language itself. They count as members of their group in mixtures and averages.
            "extra": "",
        }
    )
    # Directory for tokenised sources that several runs may share; empty: `data` in the workdir.
    c.data_cache = ""
    # Model to start from: a workdir, one of its checkpoint steps, or a Hugging Face directory;
    # empty: random parameters.
    c.init_from = ""

    c.tokenizer = ConfigDict(
        {
            # Directory with tokenizer files; empty: the tokenizer of init_from, and without
            # init_from a SentencePiece model with byte fallback, trained on the corpus.
            "path": "",
            # Vocabulary entries of that SentencePiece model.
            "vocab_size": 4096,
        }
    )

    # The sizes of the model; that of the vocabulary follows from the tokenizer.
    c.model = ConfigDict(
        {
            # A name of PRESETS in marco_jax/model/qwen2_config.py; empty: the sizes below.
            "preset": "",
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            # Biases of q, k and v (Qwen2), or norms of each head's q and k (Qwen3): not both.
            "qkv_bias": True,
            "qk_norm": False,
            # Whether the output matrix is the embedding.
            "tie_word_embeddings": True,
            # The longest input of `marco eval` and `marco generate`; training has batch.length.
            "max_position_embeddings": 1024,
        }
    )
    # Type of activations and products: "float32" or "bfloat16". Parameters and moments: float32.
    c.dtype = "float32"
    # What a layer keeps for its backward pass; the rest is computed again. "none": keep all;
    # "minimal": the results of matrix products and attention; "offload": the same in the host's
    # memory; "attention": the result of attention; "full": nothing.
    c.remat = "minimal"
    # Implementation of attention: "splash" (TPU), "cudnn" (NVIDIA GPU), "blocked" or "xla" (any);
    # "auto": the best one for the platform.
    c.attention = "auto"
    # The type of the layers' matrix products, forward and backward: "none" is `dtype`; "int8" or
    # "fp8" rounds the factors of each product to 8 bits (extra "quantize"; docs/sharding.md).
    c.quantize = "none"
    # Options for the compiler of the step, NAME=VALUE and comma-separated, such as
    # "xla_tpu_scoped_vmem_limit_kib=98304", beside the defaults of the TPU generation, which
    # "no_defaults" leaves out (runtime/compiler_options.py). `marco plan` compiles with them, too.
    c.compiler_options = ""
    # Fields of the loss, of chat templates and of preferences: objectives/objective_defaults.py.
    set_objective_defaults(c)
    # Low-rank adapters beside frozen matrices, for any objective.
    c.lora = ConfigDict(
        {
            # Rank of the adapters; 0: no adapters, and all parameters are trained.
            "rank": 0,
            # The product of an adapter's two matrices is scaled by alpha / rank.
            "alpha": 32.0,
            # Matrices that get an adapter, comma-separated.
            "targets": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
            # Type in which the frozen parameters are stored.
            "base_dtype": "bfloat16",
        }
    )
    # Sizes of the mesh axes (docs/sharding.md). Their product is the number of devices; one of them
    # may be -1 and takes what the others leave.
    c.mesh = ConfigDict(
        {
            # Slices joined by the data-centre network; each holds all parameters.
            "num_slices": 1,
            # Whether a restart takes the slices that there are then, with the batches that the run
            # began with: batch.accumulation_steps follows from the number of chips.
            "elastic": False,
            # Splits the batch; parameters are replicated.
            "data": 1,
            # Splits the batch and all parameters.
            "fsdp": -1,
            # Splits heads, MLP features and the vocabulary.
            "tensor": 1,
            # Splits the positions of a sequence, and all parameters.
            "context": 1,
            # Whether every tensor rank holds all key-value heads, so that `tensor` may be larger
            # than their number.
            "replicate_kv_heads": False,
            # Whether the weights that the forward pass gathered are kept for the backward pass:
            # fewer bytes on the wire, for 2 bytes of memory per parameter of the layers.
            "keep_gathered": False,
        }
    )
    # The TPU slice that `marco plan` compiles for without --topology, such as "v5p:4x4x4".
    c.topology = ""

    c.batch = ConfigDict(
        {
            # Tokens in a sequence, padding included.
            "length": 256,
            # Sequences in a step for each chip.
            "sequences_per_chip": 8,
            # Sequences in a step on all chips together; above 0 it replaces sequences_per_chip.
            "sequences": 0,
            # Parts in which a step computes its batch, one after another; gradients are summed.
            "accumulation_steps": 1,
        }
    )

    c.mixture = ConfigDict(
        {
            # One mixture for each stage, comma-separated, or one for all: "stage1", "stage2",
            # "flat", "base", "chat", "preference" (marco_jax/data/mixtures.py); or any mixture or
            # task in SeqIO's registry, where `modules` register it.
            "name": "stage1,stage2",
            # Modules, or .py files, that register SeqIO tasks and mixtures; comma-separated.
            "modules": "",
            # What the rates of registered mixtures are shares of: "tokens", as in the mixtures
            # above, or "examples", as in SeqIO.
            "rates": "tokens",
            # How registered tasks are read.
            "tasks": {
                # The split that is trained on.
                "split": "train",
                # The split that is evaluated on. A task without it holds out a share of `split`.
                "held_out_split": "validation",
                "held_out": 0.01,
                # Languages of tasks, for bits per byte and overrides: "my_task=kk,my_other=en".
                "languages": "",
                # Directories of SeqIO's offline caches, comma-separated: a task is read from its
                # cache where it has one.
                "caches": "",
                # Of tasks with inputs and targets: whether targets alone are trained on.
                "loss_on_targets_only": True,
            },
            # Shares of all target tokens, for a source, language, kind or group, in all stages or
            # one: "kk=0.02,stage2:low-resource=0.2". The rest of a group's share goes to its other
            # sources, and what is not named is scaled so that all add up to 1. The order of the
            # items does not matter.
            "override": "",
            # How the share of a group is divided among its languages: "uniform"; "proportional" to
            # size; "temperature": to size ** (1 / temperature); "unimax": uniform, with no language
            # read more than max_epochs times.
            "within": "uniform",
            "temperature": 3.0,
            # Besides, the number of epochs of a source above which the run warns. Up to four are
            # nearly as good as new text (Muennighoff et al. 2023, arXiv 2305.16264).
            "max_epochs": 4.0,
            # Weights of sources that follow how fast their losses fall (data/adaptive.py).
            "adaptive": {
                # Steps between two changes; 0: weights do not change.
                "every": 0,
                # How far weights move towards the new preferences at a change, 0 to 1.
                "rate": 0.1,
                # Exponent of a source's recent share in its preference, 0 to 1.
                "credit": 0.5,
                # A source keeps at least this fraction of its share in the mixture, 0 to 1.
                "least": 0.2,
            },
            # Whether a restart may go on with other data or another mixture than the checkpoint's;
            # otherwise it is refused. With other shares, steps or batch sizes each source is read
            # on where it was left; with another seed or batch.length, and for a source with other
            # content, documents may come again before others. The log says which.
            "accept_change": False,
        }
    )
    c.feed = ConfigDict(
        {
            # Processes of each host that tokenise sources; -1: one for each core, 0: the process
            # that trains, which then imports TensorFlow.
            "workers": -1,
            # Whether every byte of tokenised sources is compared with its checksum at the start; by
            # default that is done after a run was killed, and for a sample otherwise.
            "verify": False,
            # Batches that each host prepares ahead of the step.
            "prefetch": 2,
            # Seconds that a step waits for a batch before the run ends; 0: without limit.
            "timeout_seconds": 1800.0,
        }
    )
    # Names of the stages in order, comma-separated; each has an entry in `stage`.
    c.stages = "stage1,stage2"
    # Stage-I has 160B tokens at 1e-5, Stage-II 140B at 6e-6 (Table 3). The paper publishes neither
    # warm-up nor schedule: these are a short warm-up, and cosines down to a tenth at the end.
    c.stage = ConfigDict(
        {
            "stage1": training_stage(160, 1e-5, warmup_share=0.01, final_share=0.6),
            "stage2": training_stage(140, 6e-6, warmup_share=0.0, final_share=0.1),
        }
    )
    # AdamW. Norms and biases have no weight decay.
    c.optimizer = ConfigDict(
        {
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-8,
            "weight_decay": 0.1,
            # Gradients with a larger global norm are scaled down to it; 0: no clipping.
            "clip_norm": 1.0,
        }
    )

    # Steps between two lines of metrics; 0: only at the ends of stages.
    c.log_every = 20
    # Where metrics go besides metrics.jsonl: trackers/tracker_defaults.py.
    set_tracker_defaults(c)
    # Steps that jax.profiler traces into the workdir, "FIRST:LAST"; empty: none. profile.txt there
    # lists the longest operations and the time of exposed collectives.
    c.profile = ""
    c.checkpoint = ConfigDict(
        {
            # Steps between two checkpoints; 0: only at the ends of stages.
            "every": 400,
            # Steps between two local snapshots: the shards of each host, written to its own disk.
            # A restart takes a step that the hosts have whole and that is newer; 0: none.
            "local_every": 0,
            # Folder for them, on each host's own disk; runs may share it.
            "local_dir": "",
            # How many of the newest checkpoints are kept; 0: all. With two or more, one is left
            # should the newest be damaged.
            "keep": 0,
            # Besides the newest, keep checkpoints whose step is a multiple of this; 0: none.
            "keep_every": 0,
            # Besides the newest, keep the checkpoint with the highest value of this metric, such as
            # eval/xcopa/accuracy/all, or the lowest with a minus before it, such as -loss. Only
            # steps at which the metric was measured count. Empty: none.
            "keep_best": "",
        }
    )
    # Steps between two exports to a Hugging Face directory under huggingface/ in the workdir,
    # besides those at the ends of stages; 0: no exports.
    c.export_every = 0
    # Type of exported parameters: "float32", "bfloat16" or "float16"; empty: as they are stored.
    c.export_dtype = ""
    # For the model card of an export; empty: as the card of init_from has it.
    c.card = ConfigDict(
        {
            # Identifier of the licence, such as "apache-2.0".
            "license": "",
            # Address of the licence's text.
            "license_link": "",
            # Name of the model that training started from, such as "Qwen/Qwen2-7B".
            "base_model": "",
        }
    )
    # What happens at an anomalous step: one whose loss or gradient is not finite, or whose loss is
    # a spike. It never changes parameters or optimizer.
    c.anomaly = ConfigDict(
        {
            # "skip": go on with the next batch; "stop": end the run; "rollback": return to the
            # parameters of the newest checkpoint and pass over the batches read since, this one
            # included.
            "nonfinite": "skip",
            # A loss is a spike if it is more than so many standard deviations above the mean of the
            # last spike_window steps; 0: spikes are not looked for.
            "spike_sigmas": 0.0,
            "spike_window": 128,
            # More skipped steps in a row end the run; with "rollback", more rollbacks in a process.
            "max_skips": 10,
        }
    )
    # Seconds after SIGTERM within which the run must have saved and ended; 0: without limit.
    c.preemption_grace_seconds = 0.0
    # Seconds that a step, a wait for input, an evaluation, a compilation or a save may take before
    # the process ends itself: a host must not wait for ever for one that is gone. 0: without limit.
    c.stall_seconds = 7200.0
    # US dollars for an hour of one device, by which the report states what the run costs; 0: not
    # shown.
    c.price_per_device_hour = 0.0
    # Runs of several processes. Without a coordinator, JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
    # and JAX_PROCESS_ID are read, and without those a TPU slice's own metadata.
    c.distributed = ConfigDict(
        {
            # Address of the first process, "host:port".
            "coordinator": "",
            # How many processes there are.
            "num_processes": 0,
            # Number of this process, from 0.
            "process_id": -1,
            # Seconds without a heartbeat after which a process counts as gone.
            "heartbeat_seconds": 60,
        }
    )
    # Fields of evaluation: evaluation/evaluation_defaults.py.
    set_evaluation_defaults(c)
    return c


def training_stage(
    share: float, learning_rate: float, *, warmup_share: float, final_share: float
) -> ConfigDict:
    """The fields of a stage; the learning rate falls along a cosine after its warm-up.

    Args:
        share: of the run's steps, relative to the shares of the other stages.
        learning_rate: the peak.
        warmup_share: of the stage's steps, over which the learning rate rises to its peak.
        final_share: of the peak, at the end of the stage.
    """
    return ConfigDict(
        {
            "share": float(share),
            # Length of the stage, in steps or in tokens. If one stage has it, every stage must; it
            # then replaces `share` and config.steps. 0: not set.
            "steps": 0,
            "tokens": 0.0,
            "learning_rate": learning_rate,
            # Shape after the warm-up: "constant"; "cosine" or "linear", down to final_share; "wsd":
            # constant, then linear down to final_share over the last fifth.
            "schedule": "cosine",
            "warmup_share": warmup_share,
            "final_share": final_share,
        }
    )
