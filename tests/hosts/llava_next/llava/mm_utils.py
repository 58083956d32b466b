"""anyres: a picture is fitted into the best of several grids, cut into tiles, and shown once more whole, squeezed to a square."""

import torch
from PIL import Image


def select_best_resolution(size, possible):
    """The grid that keeps most pixels of the picture, then the one that wastes least."""

    def quality(grid):
        scale = min(grid[0] / size[0], grid[1] / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return kept, kept - grid[0] * grid[1]

    return max(possible, key=quality)


def resize_and_pad_image(image, grid):
    scale = min(grid[0] / image.width, grid[1] / image.height)
    width, height = (min(-int(-side * scale // 1), end) for side, end in zip(image.size, grid))
    padded = Image.new("RGB", tuple(grid), (0, 0, 0))
    padded.paste(image.resize((width, height)), ((grid[0] - width) // 2, (grid[1] - height) // 2))
    return padded


def process_anyres_image(image, processor, grid_pinpoints):
    side = processor.crop_size["height"]
    padded = resize_and_pad_image(image, select_best_resolution(image.size, grid_pinpoints))
    tiles = [padded.crop((x, y, x + side, y + side)) for y in range(0, padded.height, side) for x in range(0, padded.width, side)]
    shown = [image.resize((side, side)), *tiles]
    return torch.stack([processor.preprocess(tile, return_tensors="pt")["pixel_values"][0] for tile in shown])
