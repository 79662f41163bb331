"""TPU slices by the names that `marco plan` uses, and as the cloud names them."""

from __future__ import annotations

import dataclasses
import math

from marco_jax.runtime.chips import slice_shape


@dataclasses.dataclass(frozen=True)
class Generation:
    """How the cloud writes one generation (cloud.google.com/tpu/docs, "TPU versions").

    Attributes:
        type: the word before the size of an accelerator type.
        counted: what the size counts a chip: TensorCores or chips.
        runtime: the software of its machines.
        whole_host: the largest slice that is one machine; larger ones have machines of four chips.
    """

    type: str
    counted: int
    runtime: str
    whole_host: int


GENERATIONS = {
    "v5e": Generation("v5litepod", 1, "v2-alpha-tpuv5-lite", 8),
    "v5p": Generation("v5p", 2, "v2-alpha-tpuv5", 4),
    "v6e": Generation("v6e", 1, "v2-alpha-tpuv6e", 8),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice, such as v5p:4x4x4, which the cloud also calls v5p-128."""

    name: str
    generation: Generation
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> Slice:
        """Reads a topology's name.

        Raises:
            ValueError: no such generation, or a shape that it cannot have.
        """
        kind = name.partition(":")[0]
        if kind not in GENERATIONS:
            raise ValueError(
                f"--topology={name}: the generation is none of {', '.join(GENERATIONS)}"
            )
        return cls(name, GENERATIONS[kind], slice_shape(name))

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(self.shape)

    @property
    def hosts(self) -> int:
        """Machines of the slice: a process of `marco train` each."""
        return 1 if self.chips <= self.generation.whole_host else self.chips // 4

    @property
    def accelerator_type(self) -> str:
        """Such as v5p-128 (counted in TensorCores) or v5litepod-256 (counted in chips)."""
        return f"{self.generation.type}-{self.chips * self.generation.counted}"

    @property
    def xpk_type(self) -> str:
        """Such as v5p-4x4x4: xpk takes the shape, which a size alone leaves open."""
        return f"{self.generation.type}-{'x'.join(map(str, self.shape))}"

    def gcloud_flags(self) -> list[str]:
        """What `gcloud compute tpus queued-resources create` takes.

        A size has one shape where chips lie on a plane; in space the shape is stated, so that the
        mesh is the one that was planned.
        """
        if len(self.shape) == 2:
            return [f"--accelerator-type={self.accelerator_type}"]
        shape = "x".join(map(str, self.shape))
        return [f"--type={self.generation.type}", f"--topology={shape}"]
