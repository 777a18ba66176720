"""The table of what a step costs in each family: passes by count are the blocks that run, and every family is there."""

import dataclasses
import re
from collections import Counter

import other_families
import pytest
import torch
from nag_pag_flux.lab.cost import families
from nag_pag_flux.lab.cost.random_flux import sampled_seconds
from nag_pag_flux.lab.toy import small_families
from nag_pag_flux.nagpag.patch import find_model
from nag_pag_flux.nagpag.patch.families import FAMILIES

HERE = [timed for timed in families.TIMED if small_families.host_has(timed.small)]
STEPS = 7


def tiny(timed):
    """The same at the fewest tokens."""
    return dataclasses.replace(timed, latent=(*timed.latent[:-2], 4, 4))


def rows_in(given):
    """How many pictures a block is given: what runs in one batch is worked out all the same.

    MiniMax H3's are given one, without an axis of rows.
    """
    args, keywords = given
    first = next(one for one in (*args, *keywords.values()) if isinstance(one, torch.Tensor | tuple))
    first = first[0] if isinstance(first, tuple) else first
    return len(first) if first.ndim > 2 else 1


@pytest.mark.parametrize("timed", HERE, ids=lambda timed: timed.small)
def test_what_is_counted_are_the_blocks_that_run(timed):
    model, timed = families.load(timed), tiny(timed)
    found, calls = find_model(model), Counter()
    for name in found.family.stacks:
        for block in getattr(found.model, name):
            block.register_forward_pre_hook(lambda _, *given: calls.update(blocks=rows_in(given)), with_kwargs=True)

    def blocks(entry, cfg=1.0):
        calls.clear()
        sampled_seconds(entry, timed.start(), timed.prompts(), STEPS, cfg)
        return calls["blocks"]

    plain = blocks(model)
    assert plain == STEPS * sum(found.depths)
    entries = families.entries(model)
    for entry in entries:
        counted = entry.counted(families.share_of_a_block(model), STEPS)
        assert blocks(entry.model, entry.cfg) == pytest.approx(counted * plain), entry.name
    assert [entry.name for entry in entries][-1] == families.CFG
    # With one kind of block double blocks are output, and the prediction costs a whole pass in any model, as CFG does.
    assert {entry.reach for entry in entries[:-1]} == set(found.family.reaches) - {"double blocks"}


def test_the_page_has_every_family_with_what_is_counted_and_timed():
    made = list(families.rows(tuple(map(tiny, HERE)), rounds=1, steps=2))
    here = {case.family for case in other_families.HERE}
    assert {row[0] for row in made} == here and here <= {family.name for family in FAMILIES} - {"FLUX"}
    text = families.page(made, 1, 2)
    assert text.count("\n| ") == len(made) + 2
    assert len(re.findall(r"\| [\d.]+× \| [\d.]+× ± nan \|", text)) == len(made)  # the errors need a second round
    counted = families.page(list(families.rows(tuple(HERE), rounds=0)), 0)
    assert families.NOT_TIMED in counted
    committed = rows_of(families.PAGE.read_text())
    assert rows_of(counted) == [row for row in committed if row[0] in here] and {row[0] for row in committed} >= here


def rows_of(text):
    """The table's rows but for what is timed."""
    rows = [line[2:].split(" | ")[:3] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("family", "---")]
