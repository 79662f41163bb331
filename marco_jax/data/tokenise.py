"""Writing parts of token stores from SeqIO tasks: what the processes that prepare data do."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from marco_jax.data.seqio_tasks import task_name
from marco_jax.data.store import (
    CONVERSATIONS,
    TEXTS,
    PartWriter,
    describe_part,
    new_part,
    part_directory,
)
from marco_jax.data.task_info import HELD_OUT_FILE, PartJob, TaskOptions
from marco_jax.data.texts import TRAIN, Document, hash_units, is_held_out
from marco_jax.data.workers import Context
from marco_jax.files import write_json_lines
from marco_jax.tokenizers.tokenizer import Tokenizer

# Examples that are taken from TensorFlow at once.
_BATCH = 512
# Held-out texts of a task that are evaluated on.
_MOST_HELD_OUT = 500


def write_job(context: Context, job: PartJob) -> int:
    """Writes a part of a store, unless it is there; returns how many tokens it has.

    Raises:
        ValueError: a record or an example that cannot be trained on.
    """
    directory = part_directory(job.store, job.number)
    if (found := describe_part(directory)) is not None:
        return found["tokens"]
    with new_part(job.store, job.number, job.kind) as writer:
        if job.task is None:
            _write_source(context, job, writer)
        else:
            with _one_line(job):
                _write_task(context, job, writer)
    return writer.tokens


def write_held_out(context: Context, job: PartJob) -> None:
    """Writes the texts of the user's task that are evaluated on, beside its parts."""
    rows: list[dict[str, Any]] = []
    with _one_line(job):
        for index, (_, texts) in enumerate(
            itertools.islice(held_out_examples(context, job), _MOST_HELD_OUT)
        ):
            row = {"text": "\n".join(texts), "index": index}
            rows.append(row | ({"prompt": texts[0]} if job.task.prompts else {}))
    write_json_lines(job.store / HELD_OUT_FILE, rows)


def held_out_examples(
    context: Context, job: PartJob
) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """The examples of the user's task that are evaluated on, and their texts."""
    if job.task.held_out_split:
        whole = job._replace(number=0, parts=1)
        for example, *_, texts in _examples(context, whole, job.task.held_out_split):
            yield example, texts
        return
    for number in range(job.parts):
        part = job._replace(number=number)
        for example, *_, texts in _examples(context, part, job.options.split):
            if is_held_out(texts[0], job.options.held_out):
                yield example, texts


@contextlib.contextmanager
def _one_line(job: PartJob) -> Iterator[None]:
    """Turns TensorFlow's errors, which hold a traceback, into one line."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.rpartition("}} ")[2].strip().splitlines()[0]
        raise ValueError(
            f"the task {job.source!r}, part {job.number}: {reason}: correct the task or its data"
        ) from error


def _write_source(context: Context, job: PartJob, writer: PartWriter) -> None:
    errors = context.corpus.errors
    before = dict(errors.counts)
    task = seqio.TaskRegistry.get(task_name(job.source))
    try:
        for batch in _open(task, TRAIN, job).ragged_batch(_BATCH):
            _add_batch(batch, job.kind, writer)
    except tf.errors.OpError as error:
        raise (task.source.failure or error) from None
    left_out = {r: n - before.get(r, 0) for r, n in errors.counts.items() if n > before.get(r, 0)}
    writer.close({"errors": left_out})


def _add_batch(batch: Mapping[str, Any], kind: str, writer: PartWriter) -> None:
    tokens = batch["tokens"]
    ids, lengths = tokens.flat_values.numpy(), tokens.row_lengths().numpy()
    writer.add_units(batch["units"].flat_values.numpy().view(np.uint64))
    if kind == TEXTS:
        writer.add_texts(ids, lengths)
        return
    masks = batch["loss_mask"].flat_values.numpy()
    languages = [language.decode() for language in batch["language"].numpy()]
    stops = np.cumsum(lengths)
    for start, stop, language in zip(stops - lengths, stops, languages, strict=True):
        writer.add_conversation(ids[start:stop], masks[start:stop], language)


def _write_task(context: Context, job: PartJob, writer: PartWriter) -> None:
    empty = 0
    share = 0.0 if job.task.held_out_split else job.options.held_out
    for _, ids, loss_mask, texts in _examples(context, job, job.options.split):
        if not len(ids):
            empty += 1
            continue
        if share and is_held_out(texts[0], share):
            continue
        writer.add_units(hash_units([Document("", "", job.source, "", (), texts)]))
        if job.kind == CONVERSATIONS:
            writer.add_conversation(ids, loss_mask, "")
        else:
            writer.add_texts(ids, np.array([len(ids)]))
    writer.close({"errors": {"empty text": empty} if empty else {}})


def _examples(
    context: Context, job: PartJob, split: str
) -> Iterator[tuple[Mapping[str, Any], np.ndarray, np.ndarray, tuple[str, ...]]]:
    """The examples of a part of the user's task with their ids, loss masks and texts."""
    task = seqio.TaskRegistry.get(job.source)
    names = list(task.output_features)
    for number, example in enumerate(_open(task, split, job).as_numpy_iterator(), 1):
        place = f"the task {job.source!r}, part {job.number}, example {number}"
        for name in names:
            _check_ids(example[name], context.tokenizer, f"{place}, {name!r}")
        if job.task.prompts:
            ids, loss_mask = _prompt(example, context.tokenizer.eos_id, job.options)
            texts = tuple(_text(example, name, context.tokenizer) for name in ("inputs", "targets"))
        else:
            ids = _without_eos(example[names[0]], context.tokenizer.eos_id)
            loss_mask = np.ones(len(ids), np.uint8)
            texts = (_text(example, names[0], context.tokenizer),)
        yield example, ids, loss_mask, texts


def _prompt(
    example: Mapping[str, Any], eos_id: int, options: TaskOptions
) -> tuple[np.ndarray, np.ndarray]:
    """A prompt and its answer, which ends in EOS; a prompt that ends in EOS loses it."""
    prompt = _without_eos(example["inputs"], eos_id)
    answer = np.append(_without_eos(example["targets"], eos_id), eos_id)
    trained = np.full(len(prompt), not options.loss_on_targets_only)
    ids = np.concatenate([prompt, answer]).astype(np.int32)
    return ids, np.concatenate([trained, np.ones(len(answer), bool)]).astype(np.uint8)


def _without_eos(ids: np.ndarray, eos_id: int) -> np.ndarray:
    """Packing adds EOS itself."""
    ids = np.asarray(ids, np.int32)
    return ids[:-1] if len(ids) and ids[-1] == eos_id else ids


def _text(example: Mapping[str, Any], name: str, tokenizer: Tokenizer) -> str:
    """The text that SeqIO's tokenize kept beside the ids, else what the ids decode to."""
    kept = example.get(f"{name}_pretokenized")
    if isinstance(kept, bytes):
        return kept.decode(errors="replace")
    return tokenizer.decode(_without_eos(example[name], tokenizer.eos_id).tolist())


def _check_ids(ids: np.ndarray, tokenizer: Tokenizer, place: str) -> None:
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
        raise ValueError(
            f"{place}: ids reach from {ids.min()} to {ids.max()}, and the tokenizer has "
            f"{tokenizer.vocab_size}: is the offline cache that of another vocabulary?"
        )


def _open(task: seqio.Task, split: str, job: PartJob) -> Any:
    return task.get_dataset(
        sequence_length=None,
        split=split,
        use_cached=bool(job.task and job.task.cached),
        shuffle=False,
        # Of random preprocessors; a function without a seed would be refused.
        seed=None if isinstance(task.source, seqio.FunctionDataSource) else 0,
        shard_info=seqio.ShardInfo(job.number, job.parts) if job.parts > 1 else None,
        num_epochs=1,
        trim_output_features=False,
        try_in_mem_cache=False,
    )
