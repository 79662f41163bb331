"""Planning a run without its TPUs: ahead-of-time compilation, HLO costs, mesh search, dry runs."""
