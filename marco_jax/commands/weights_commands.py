"""What `marco import` and `marco export` do."""

from __future__ import annotations

import argparse
import resource
from typing import Any

from marco_jax.languages import names_in
from marco_jax.runtime.progress import Progress


def import_command(arguments: argparse.Namespace) -> int:
    """Turns a Hugging Face directory into a checkpoint."""
    from marco_jax.weights.convert import import_huggingface

    extension, files = None, {}
    if arguments.extend_vocabulary:
        from marco_jax.data.learn_extension import learn_extension
        from marco_jax.tokenizers.extension import format_fertility

        languages = names_in(arguments.languages)
        extension, files["vocabulary.json"] = learn_extension(
            arguments.hf, arguments.extend_vocabulary, languages, arguments.data
        )
        print(format_fertility(files["vocabulary.json"]["fertility"]))
    config, progress = import_huggingface(
        *(arguments.hf, arguments.out),
        dtype=_weights_dtype(arguments.dtype),
        extension=extension,
        files=files,
        weights_only=arguments.weights_only,
    )
    millions = config.num_parameters / 1e6
    print(
        f"{arguments.out}: {millions:,.1f} million parameters from {arguments.hf}, "
        f"{_describe_copy(progress)}"
    )
    return 0


def export_command(arguments: argparse.Namespace) -> int:
    """Writes a model as a Hugging Face directory."""
    from marco_jax.weights.convert import export_model as export
    from marco_jax.weights.model_card import Terms
    from marco_jax.weights.models import find_model
    from marco_jax.weights.stored_weights import export_peft

    if arguments.adapter:
        found = find_model(arguments.model)
        size = export_peft(found, arguments.out, overwrite=arguments.overwrite)
        print(
            f"{arguments.out}: PEFT adapters of rank {found.lora.rank} from {arguments.model}, "
            f"step {found.step}, {size / 1e6:,.1f} MB; their base is {found.base.directory}"
        )
        return 0
    found, progress = export(
        arguments.model,
        arguments.out,
        dtype=_weights_dtype(arguments.dtype),
        terms=Terms.from_fields(vars(arguments)),
        overwrite=arguments.overwrite,
        weights_only=arguments.weights_only,
    )
    step = "" if found.step is None else f", step {found.step}"
    print(
        f"{arguments.out}: {found.config.architecture.causal_lm} from {arguments.model}{step}, "
        f"{_describe_copy(progress)}"
    )
    return 0


def _weights_dtype(name: str) -> Any:
    """The numpy dtype of a flag; None for "stored"."""
    import jax

    return None if name == "stored" else jax.numpy.dtype(name)


def _describe_copy(progress: Progress) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (
        f"{progress.done / 1e9:,.2f} GB in {progress.seconds:,.0f} s "
        f"({progress.rate / 1e6:,.0f} MB/s), peak memory {peak / 2**30:.2f} GiB"
    )
