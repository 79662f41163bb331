"""Two processes with a mesh over both give the answers of one device."""

import json
import os
import socket
import subprocess
import sys

import numpy as np

PROCESS = """
import json, sys
import jax
# Threads of JAX get the interpreter's lock late: the process must still end well.
sys.setswitchinterval(10)
rank, processes, port = (int(argument) for argument in sys.argv[1:4])
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=processes, process_id=rank)
import numpy as np
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import GenerateRequest, ScoreRequest
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2 import init_params
from marco_jax.tokenizers.tokenizer_files import Companions

class Words:
    vocab_size, eos_id = 250, 3
    companions = Companions()
    def decode(self, ids):
        return " ".join(map(str, ids))

sharding = Sharding(create_mesh({"fsdp": -1})) if processes > 1 else None
params = init_params(PRESETS["tiny"], seed=1, sharding=sharding)
random = np.random.default_rng(0)
shared = random.integers(0, 250, 90).tolist()
contexts = [shared + random.integers(0, 250, 2 + n).tolist() for n in range(6)]
engine = Engine(PRESETS["tiny"], Words(), sharding=sharding, max_length=256)
scores = engine.score(params, [ScoreRequest(c, [n, 7]) for c in contexts for n in (1, 2)])
generated = engine.generate(params, [GenerateRequest(c, 6) for c in contexts[:3]])
assert any(name[0] == "extend" for name in engine.programs)
print(json.dumps([[s.logprob for s in scores], [g.ids for g in generated]]))
"""


def run(processes: int) -> list:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["JAX_PLATFORMS"] = "cpu"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(processes), port],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_two_processes_answer_as_one_device_does():
    [alone], together = run(1), run(2)
    for scores, generated in together:
        # Sums of two float32 log-probabilities near 6.
        np.testing.assert_allclose(scores, alone[0], atol=1e-5)
        assert generated == alone[1]
