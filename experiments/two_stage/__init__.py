"""Marco-LLM from base to export as one resumable chain of runs."""
