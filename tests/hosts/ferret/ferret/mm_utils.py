import torch

from ferret.constants import IMAGE_TOKEN_INDEX


def tokenizer_image_token(prompt, tokenizer, image_token_index=IMAGE_TOKEN_INDEX, return_tensors=None):
    """Ids of a text in which ``<image>`` is one negative id; one leading BOS in all."""
    ids = []
    for number, chunk in enumerate(prompt.split("<image>")):
        piece = tokenizer(chunk).input_ids
        bos = piece[:1] == [tokenizer.bos_token_id]
        ids += [image_token_index] * (number > 0) + (piece[1:] if bos and number else piece)
    return torch.tensor(ids) if return_tensors == "pt" else ids
