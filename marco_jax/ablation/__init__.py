"""Which mixture? Proxy runs around a prior, a fit of their figures, and a mixture to try next."""
