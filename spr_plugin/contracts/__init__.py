"""The checks of what plugins give.

A plugin is foreign code, and most of what it gives is used hours after it was asked. So hosts, formats,
scorers and models are tried at once on a small made-up picture, and what any plugin gives later (a recipe, a
repair, a pairing, an annotation source too) is checked as it comes, and made plain numbers. What is wrong is
one line that names plugin, hook and method (:mod:`spr_plugin.foreign`). Our own implementations have tests
instead.
"""
