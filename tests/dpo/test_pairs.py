"""The rows of pairs."""

import torch

from spr_plugin.dpo.pairs import unshared


def test_tails_are_what_the_two_rows_do_not_share():
    def row(prompt, answer):
        return {
            "input_ids": torch.tensor(prompt + answer),
            "labels": torch.tensor([-100] * len(prompt) + answer),
        }

    assert unshared([row([1, 2, 3], [7, 8]), row([1, 2, 3], [7, 9, 9])]) == [2, 3]
    # The prompts' ends were tokenized differently.
    assert unshared([row([1, 2, 3], [7]), row([1, 2, 4], [7, 9])]) == [2, 3]
    assert unshared([row([1, 2], [3, 4]), row([1, 2, 3], [4])]) == [2, 2]
