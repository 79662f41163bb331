"""Mixture ablation: trains proxy runs around a prior, fits their metrics and proposes a mixture."""
