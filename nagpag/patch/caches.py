"""Other packs' caches of the model's work, known by a word of theirs: what they keep lies in the model or the pack."""

from __future__ import annotations

CACHES = {
    "teacache": "TeaCache",
    "rel_l1_thresh": "TeaCache",
    "magcache": "MagCache",
    "fbcache": "a first-block cache",
    "first_block": "a first-block cache",
    "wavespeed": "WaveSpeed's cache",
    "cachedit": "Cache-DiT",
}


def cache_on(model_options: dict) -> str | None:
    """The name of a pack's cache on a model: by what it adds to the options, or by where it comes from."""
    wrapper = model_options.get("model_function_wrapper")
    from_where = (getattr(wrapper, name, "") for name in ("__module__", "__qualname__"))
    found = " ".join(map(str, (*from_where, *model_options.get("transformer_options", {})))).lower()
    return next((name for word, name in CACHES.items() if word in found), None)
