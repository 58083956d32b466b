"""A host's image processor, for as long as only one question's pictures are put to it."""

import copy


class TransformedOnce:
    """Stands for an image processor, which is called or whose ``preprocess`` is: later calls get a copy of
    what the first one made, with the same tensors in it.
    """

    def __init__(self, processor):
        self._processor, self._made = processor, None

    def __getattr__(self, name):
        return getattr(self._processor, name)

    def __call__(self, *args, **kwargs):
        return self._once(self._processor, args, kwargs)

    def preprocess(self, *args, **kwargs):
        return self._once(self._processor.preprocess, args, kwargs)

    def _once(self, transform, args, kwargs):
        if self._made is None:
            self._made = transform(*args, **kwargs)
        return copy.copy(self._made)  # a processor takes out of its own what is not for the model
