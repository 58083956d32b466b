"""Referring and grounding tasks for lmms-eval.

A task is a YAML file, and a *source* file that says where its documents come from. Adding a benchmark of the same protocol means
adding these two; adding a protocol means adding a module like :mod:`spr_plugin.eval_tasks.rec`.
"""
