"""marco_jax: multilingual continual pretraining of Qwen2 in JAX (Marco-LLM, arXiv 2412.04003).

Importing the package starts no JAX backend and loads neither TensorFlow nor SeqIO.
"""

__version__ = "0.1.0"
