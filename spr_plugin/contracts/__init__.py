"""The checks of what plugins give.

A plugin is foreign code, and most of what it gives is used hours after it was asked. So each answer to a hook
is tried at once on a small made-up picture, and a recipe's, scorer's, similarity model's, detector's or
annotation source's later results pass the same checks, which also turn them into plain numbers. What is wrong
is one line that names plugin, hook and method (:mod:`spr_plugin.foreign`). Our own implementations have tests
instead.
"""
