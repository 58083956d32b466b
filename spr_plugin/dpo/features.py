"""Image features, computed once a picture while what computes them is frozen."""

import contextlib
import hashlib

import torch

from spr_plugin.imports import replaced
from spr_plugin.training import ranks
from spr_plugin.training.host import Host


def picture_keys(host: Host, batch: dict) -> list[str]:
    """One hash of its pixels for each picture of a batch, in the encoder's order; on the CPU, in the data
    loader's processes.
    """
    return [
        hashlib.blake2b(picture.contiguous().view(torch.uint8).numpy(), digest_size=16).hexdigest()
        for picture in host.pictures(batch)
    ]


class FeatureCache:
    """Key → features of one picture, up to ``budget`` bytes of host memory.

    What came first stays: epochs go round and round, where a cache that evicts what was used longest ago
    never hits.
    """

    def __init__(self, budget: int):
        self.budget, self.bytes, self.kept = budget, 0, {}

    def keep(self, key: str, features: torch.Tensor) -> None:
        if key not in self.kept and self.bytes + features.nbytes <= self.budget:
            self.kept[key] = features.detach().cpu()
            self.bytes += features.nbytes

    def encode(self, pictures: torch.Tensor, keys: list[str], encoder, collective: bool) -> torch.Tensor:
        """Features of ``pictures``; the encoder gets each missing one once.

        ``collective``: the encoder is one (ZeRO-3 gathers its weights): if one rank misses, all go through
            it.
        """
        # Backwards, so that of a picture that stands there twice the first index stays.
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in self.kept}
        fresh = {}
        if ranks.any_of(bool(missing)) if collective else missing:
            # A rank that misses nothing takes part with any picture; what comes of it is not kept.
            asked = missing or {keys[0]: 0}
            # One call for all, in the order of the batch.
            computed = encoder(pictures[sorted(asked.values())])
            fresh = dict(zip(sorted(asked, key=lambda key: asked[key]), computed))
            for key in missing:
                self.keep(key, fresh[key])
        return torch.stack(
            [fresh[key] if key in fresh else self.kept[key].to(pictures.device) for key in keys]
        )


@contextlib.contextmanager
def cached_features(host: Host, cache: FeatureCache, keys: list[str], collective: bool):
    """Inside, the host's forward takes features of pictures from ``cache``; without effect where the encoder
    trains.
    """
    owner, name, modules = host.image_encoder() or (None, "", ())
    if owner is None or any(p.requires_grad for module in modules for p in module.parameters()):
        yield
        return
    encoder = getattr(owner, name)

    def encode(pictures):
        if not isinstance(pictures, torch.Tensor) or len(pictures) != len(keys):
            return encoder(pictures)
        with torch.no_grad():
            return cache.encode(pictures, keys, encoder, collective)

    with replaced(owner, name, encode):
        yield
