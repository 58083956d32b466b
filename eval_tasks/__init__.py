"""Referring and grounding tasks for lmms-eval.

``catalogue`` lists the tasks and writes their YAML files, ``data`` loads their documents, a module a protocol
(``rec``, ``phrases``, ``classification``, ``captions``, ``description``) asks and scores, ``metrics`` sums
up. ``model_format`` says how the model writes boxes.
"""
