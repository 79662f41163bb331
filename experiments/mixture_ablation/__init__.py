"""The mixture ablation as a study: planted worlds, and two stages against one."""
