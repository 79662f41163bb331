"""Common parts of scoring, generation and beam search: prompts, prefixes, arrays, kernel calls."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.decoding import kernels
from marco_jax.decoding.caches import Prefix
from marco_jax.decoding.drafts import DecodeCounts
from marco_jax.decoding.padded_shapes import bucket, power_of_two
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.prefixes import PrefixGroup, group_by_prefix
from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.tokenizers.tokenizer import Tokenizer


class Launcher:
    """Turns requests into rows of arrays on a mesh, and runs kernels on them.

    Requests are first grouped by a common prefix, which is computed once per group
    (`prefix_groups`). The rows of a group are then divided into batches of few distinct shapes: the
    number of rows is a power of two per device (`rows_of`), lengths are rounded up to buckets. Each
    process builds the same batch in host memory, and `put` makes global arrays of which it copies
    the local shards to its devices. `call` runs a kernel, which jit compiles once per shape.

    Attributes:
        truncated: the number of inputs cut on the left so far.
        counts: what the loops of `generate` did so far.
        programs: the kernels called so far, each with its shapes; one program is compiled for each.
    """

    def __init__(
        self,
        config: Qwen2Config,
        tokenizer: Tokenizer,
        *,
        sharding: Sharding | None = None,
        dtype: jnp.dtype = jnp.float32,
        max_length: int | None = None,
        tokens_per_batch: int = 8192,
        share_prefixes: bool = True,
        end_ids: Sequence[int] = (),
        drafts: int = 0,
    ) -> None:
        """Prepares an engine; nothing compiles before the first request.

        Args:
            sharding: the mesh and rules of the parameters; None for one device.
            max_length: longest row in tokens, config.max_position_embeddings by default. Longer
                inputs are cut on the left and counted in `truncated`.
            tokens_per_batch: the largest number of tokens in a program call, with padding.
            end_ids: tokens that end an answer, such as <|im_end|>, besides EOS and those of the
                tokenizer's generation_config.json.
            drafts: tokens that `generate` drafts per row and step, see drafts.py; 0 for none.
                Outputs are the same.

        Raises:
            ValueError: a negative number of drafts.
        """
        if drafts < 0:
            raise ValueError(f"drafts is {drafts}: use 0 (none) or more")
        self.config, self.tokenizer = config, tokenizer
        self.max_length = max_length or config.max_position_embeddings
        self.tokens_per_batch = tokens_per_batch
        self.share_prefixes = share_prefixes
        declared = tokenizer.companions.end_ids
        self.end_ids = tuple(sorted({tokenizer.eos_id, *declared, *end_ids}))
        self.drafts, self.counts = drafts, DecodeCounts()
        self.truncated = 0
        self.programs: set[tuple] = set()
        self.runtime = Runtime.create(config, tokenizer.vocab_size, sharding, dtype)

    def cut_prompt(self, request: GenerateRequest) -> list[int]:
        """Cuts a prompt on the left, so that its new tokens fit into max_length.

        Raises:
            ValueError: max_new_tokens leaves no room for a prompt.
        """
        room = self.max_length - request.max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_new_tokens is {request.max_new_tokens}: "
                f"it must leave room for a prompt in {self.max_length} tokens"
            )
        self.truncated += len(request.prompt) > room
        return list(request.prompt)[-room:]

    def finish(self, request: GenerateRequest, emitted: list[int]) -> tuple[Generation, bool]:
        """Converts a row's emitted tokens to a result.

        Returns:
            The result, and whether a stop string has cut it.
        """
        ended = bool(emitted) and emitted[-1] in self.end_ids
        ids = emitted[:-1] if ended else emitted
        text = self.tokenizer.decode(ids)
        cuts = [text.find(stop) for stop in request.stop if stop in text]
        if not cuts:
            end = emitted[-1] if ended else None
            return Generation(tuple(ids), text, ended, end), False
        text = text[: min(cuts)]
        # The fewest tokens whose text starts with the cut text.
        count = bisect.bisect_left(
            range(len(ids)), True, key=lambda n: self.tokenizer.decode(ids[:n]).startswith(text)
        )
        return Generation(tuple(ids[:count]), text), True

    def prefix_groups(
        self, params: Params, contexts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[SharedPrefix, Sequence[int]]]:
        """Yields groups of contexts (their indices), each with its computed common prefix.

        The caller finishes a group before it takes the next, so one prefix is in memory at a time.
        """
        for group in self.groups_of(contexts):
            ids = contexts[group.members[0]][: group.length]
            yield self.compute_prefix(params, ids, bucket(len(ids), 64)), group.members

    def groups_of(self, contexts: Sequence[Sequence[int]]) -> list[PrefixGroup]:
        """Divides contexts into groups with a common prefix; one group if none are shared."""
        if self.share_prefixes:
            return group_by_prefix(contexts)
        return [PrefixGroup(0, tuple(range(len(contexts))))]

    def compute_prefix(self, params: Params, ids: Sequence[int], slots: int) -> SharedPrefix:
        """Computes the keys and values of a prefix in a cache of `slots`; none of an empty one."""
        if not ids:
            return SharedPrefix()
        padded = np.zeros((1, slots), np.int32)
        padded[0, : len(ids)] = ids
        arguments = (params, self.put(padded), self.put(np.int32(len(ids))))
        return SharedPrefix(
            len(ids), slots, self.call(kernels.extend, arguments, ("extend", slots))
        )

    def call(self, kernel: Callable, arguments: tuple, name: tuple, **static: Any) -> Any:
        """Runs a kernel, and records its name and shapes in `programs`."""
        self.programs.add(name)
        return kernel(*arguments, runtime=self.runtime, **static)

    def put(self, array: np.ndarray, by_rows: bool = False) -> jax.Array:
        """Creates a global array from a host array, which every process has whole."""
        array = np.asarray(array)
        spec = self.runtime.rows if by_rows else jax.sharding.PartitionSpec()
        sharding = jax.NamedSharding(self.runtime.sharding.mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def put_keys(self, keys: jax.Array) -> jax.Array:
        """Creates a global array of random keys [rows], split by rows."""
        data = self.put(np.asarray(jax.random.key_data(keys)), by_rows=True)
        return jax.random.wrap_key_data(data)

    def rows_of(self, length: int, wanted: int) -> int:
        """The number of rows of a program call for `wanted` rows of `length` tokens.

        Each device gets a power of two that suffices, or fewer where tokens_per_batch limits it.
        """
        ways = self.runtime.row_ways
        most = max(1, self.tokens_per_batch // length // ways)
        return min(most, power_of_two(-(-wanted // ways))) * ways


class SharedPrefix(NamedTuple):
    """A computed prefix, with its length and number of slots as Python integers."""

    length: int = 0
    slots: int = 0
    prefix: Prefix | None = None
