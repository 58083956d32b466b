"""Ids of records: hashes of what a record was made from."""

import hashlib
import json


def digest(value: object) -> str:
    """Stable 16-digit hash of plain data. Region and candidate ids are made with it, and seed the
    sampling.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
