"""What scoring, generation and beam search share: arrays, kernels, common beginnings, prompts."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.decoding import kernels
from marco_jax.decoding.caches import Prefix
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.prefixes import group_by_prefix
from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.decoding.shapes import bucket, power_of_two
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2_config import Qwen2Config


class Decoder(Protocol):
    """What the engine needs of a tokenizer."""

    vocab_size: int
    eos_id: int

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        ...


class Launcher:
    """Runs kernels on a mesh, and knows how requests become rows.

    Attributes:
        truncated: how many inputs were cut on the left so far.
        programs: the kernels that were compiled so far, each with its shapes.
    """

    def __init__(
        self,
        config: Qwen2Config,
        tokenizer: Decoder,
        *,
        sharding: Sharding | None = None,
        dtype: jnp.dtype = jnp.float32,
        max_length: int | None = None,
        tokens_per_batch: int = 8192,
        share_prefixes: bool = True,
        end_ids: Sequence[int] = (),
    ) -> None:
        """Prepares an engine; nothing compiles before the first request.

        Args:
            config: the model.
            tokenizer: decodes generated ids and names the separator.
            sharding: the mesh that the parameters live on; None for one device.
            dtype: of the computation.
            max_length: longest row in tokens, config.max_position_embeddings by default. Longer
                inputs are cut on the left and counted in `truncated`.
            tokens_per_batch: padded tokens that one program call may hold.
            share_prefixes: whether common beginnings of requests are computed once.
            end_ids: tokens that end an answer besides the separator, such as that of <|im_end|>;
                beam search knows the separator alone.
        """
        self.config, self.tokenizer = config, tokenizer
        self.max_length = max_length or config.max_position_embeddings
        self.tokens_per_batch = tokens_per_batch
        self.share_prefixes = share_prefixes
        self.end_ids = tuple(sorted({tokenizer.eos_id, *end_ids}))
        self.truncated = 0
        self.programs: set[tuple] = set()
        self.runtime = Runtime.create(config, tokenizer.vocab_size, sharding, dtype)

    def cut_prompt(self, request: GenerateRequest) -> list[int]:
        """The prompt, cut on the left to leave room for its new tokens.

        Raises:
            ValueError: there is no room for a prompt at all.
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
        """What a row has emitted as an answer, and whether a stop string has cut it."""
        ended = bool(emitted) and emitted[-1] in self.end_ids
        ids = emitted[:-1] if ended else emitted
        text = self.tokenizer.decode(ids)
        cuts = [text.find(stop) for stop in request.stop if stop in text]
        if not cuts:
            return Generation(tuple(ids), text, ended), False
        text = text[: min(cuts)]
        # The fewest tokens that hold the text; the last of them may begin the stop string.
        count = bisect.bisect_left(
            range(len(ids)), True, key=lambda n: self.tokenizer.decode(ids[:n]).startswith(text)
        )
        return Generation(tuple(ids[:count]), text), True

    def prefix_groups(
        self, params: Params, contexts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[SharedPrefix | None, Sequence[int]]]:
        """Groups of contexts (their indices) with what they begin with, computed once.

        The caller is done with a group when it asks for the next: one prefix is held at a time.
        """
        if not self.share_prefixes:
            yield None, range(len(contexts))
            return
        for group in group_by_prefix(contexts):
            if not group.length:
                yield None, group.members
                continue
            ids = contexts[group.members[0]][: group.length]
            padded = np.zeros((1, bucket(len(ids), 64)), np.int32)
            padded[0, : len(ids)] = ids
            held = self.call(
                kernels.extend,
                (params, self.put(padded), self.put(np.int32(len(ids)))),
                ("extend", padded.shape[1]),
            )
            yield SharedPrefix(len(ids), padded.shape[1], held), group.members

    def call(self, kernel: Callable, arguments: tuple, name: tuple, **static: Any) -> Any:
        """Runs a kernel, and counts its program."""
        self.programs.add(name)
        return kernel(*arguments, runtime=self.runtime, **static)

    def put(self, array: np.ndarray, by_rows: bool = False) -> jax.Array:
        """A global array from a host array that every process holds whole."""
        array = np.asarray(array)
        spec = self.runtime.rows if by_rows else jax.sharding.PartitionSpec()
        sharding = jax.NamedSharding(self.runtime.sharding.mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def put_keys(self, keys: jax.Array) -> jax.Array:
        """Random keys [rows] as a global array."""
        data = self.put(np.asarray(jax.random.key_data(keys)), by_rows=True)
        return jax.random.wrap_key_data(data)

    def rows_of(self, length: int, wanted: int) -> int:
        """Rows of a program call: as many as it may hold, or the next power of two that does."""
        ways = self.runtime.row_ways
        most = max(1, self.tokens_per_batch // length // ways)
        return min(most, power_of_two(-(-wanted // ways))) * ways


class SharedPrefix:
    """A computed beginning, with its length and slots as the host knows them."""

    def __init__(self, length: int, slots: int, held: Prefix) -> None:
        self.length, self.slots, self.held = length, slots, held
