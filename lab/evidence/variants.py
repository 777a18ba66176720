"""Experiments: our node with a few of its functions replaced by variants while it samples. The product stays as it is.

Whole settings to try are in `experiments`, the variants in `merge_variants` and `renewal_variants`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ..toy import digests
from .contenders import Contender, describe

# What stands in for functions of nagpag.patch, by "module.function": each is called with the original before the rest.
Variants = dict[str, Callable]


def named(what: str, inputs: dict[str, Any]) -> str:
    """What is varied, and which inputs are."""
    return f"{what}, {describe(inputs)}" if inputs else what


def varied(base: Contender, words: str, begin: Callable[[], Variants], source: str, passes: float = 0.0) -> Contender:
    """The base with variants. words: which, with all of their numbers: the name, and a part of the pictures' key.

    begin: makes the variants of one sampling, which may remember; it can be pickled. source: the file that they are
    in, whose code is part of the key. passes: where they differ from the base's.
    """
    code = digests.digest(digests.sources(Path(__file__), Path(source)))
    key = f"{base.key}, {words} ({code})"
    changed = partial(_patch, base=base, begin=begin)
    return dataclasses.replace(base, name=words, key=key, patch=changed, passes=passes or base.passes)


def _patch(model: Any, base: Contender, begin: Callable[[], Variants]) -> Any:
    from comfy.patcher_extension import WrappersMP

    def sample(executor: Any, *args: Any, **keywords: Any) -> Any:
        with replaced(begin()):
            return executor(*args, **keywords)

    patched = base.patch(model).clone()
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "nag_pag_experiment", sample)
    return patched


@contextmanager
def replaced(variants: Variants) -> Iterator[None]:
    """Within it nagpag.patch calls the variants; one sampling at a time in a process.

    Raises what went wrong in one of them, where the product would warn and sample on without guidance, and RuntimeError
    where one was never called: the pictures would be another contender's.
    """
    called: set[str] = set()
    errors: list[Exception] = []
    with ExitStack() as stack:
        for place, variant in variants.items():
            module, name = place.split(".")
            there = importlib.import_module(f"...nagpag.patch.{module}", __package__)
            original = getattr(there, name)
            stack.enter_context(patch.object(there, name, _watched(place, partial(variant, original), called, errors)))
        yield
    if errors:
        raise errors[0]
    if unused := variants.keys() - called:
        raise RuntimeError(f"nagpag.patch never called {', '.join(sorted(unused))}")


def _watched(place: str, variant: Callable, called: set[str], errors: list[Exception]) -> Callable:
    def call(*args: Any) -> Any:
        called.add(place)
        try:
            return variant(*args)
        except Exception as error:
            errors.append(error)
            raise

    return call


def step_of(run: Any) -> tuple[int, int]:
    """Of a sampling run, the step going on, from 0, and how many there are. Raises ValueError where that is not known.

    The product reads the noise level only where something follows from it, such as renewal.
    """
    if run.sigma is None or run.schedule is None:
        raise ValueError("the sampling does not say at which step it is; renew_every above 1 makes it do so")
    return run.steps_between(float(run.schedule[0])), len(run.schedule) - 1
