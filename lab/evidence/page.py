"""docs/evidence.md, from the pictures that `evidence` made."""

from __future__ import annotations

from .. import host
from ..make.markdown import table
from ..toy.emoji_art import attribution
from . import choosing, few_steps, gains, obedience
from .contenders import DEPTHS, Contender, plain
from .domains import EMOJI
from .plots import first_of_domain, sheet_name
from .results import LOOKS, Results, Row, by_both, looks
from .rounds import COUNT, ROUNDS
from .runs import OPEN_CHOOSING, OPEN_REPORTING, REPORTED, REPORTING
from .sampling import STEPS
from .subjects import GUIDANCE, Subject

OUTPUT = host.REPO / "docs" / "evidence.md"


# What a person read out of the tables below; who makes them anew reads anew.
CONCLUSIONS = """\
- **Better pictures for a tenth of a step**: the defaults gain four fifths of what CFG 2 gains for a whole one.
- **On guidance-distilled models**, as FLUX.1 [dev] is one, one judge sees as much gain as by CFG 2, the other none.
- **On emoji**, where nothing was chosen: nine tenths; on distilled ones nothing. None is harmed by over two errors.
- **A negative prompt with words** is obeyed as often as by CFG 2 on shapes, two thirds as often on emoji (1.15 passes).
- **Two nodes in turn**, for 1.10 passes, are obeyed nearly as often as NAGuidance for 2, and spoil about as much.
- **In 8 steps** the defaults cost 1.25 passes and gain three quarters of CFG 2; in 4 they may harm distilled models.
- **Without a negative prompt** a disturbed attention gains little, on distilled models nothing; as published it harms.
- **Others, at 2 passes**: classic PAG, token perturbation and NAGuidance at its best gain half as much or less.
- CFG 2 that is computed at every 4th step, for 1.25 passes, gains as much as CFG 2.
- Two models of each kind are few, they differ, and what FLUX.1's own weights do with all this is unknown."""
READING = """\
## What the tables say
On two models of each kind (they draw shapes or emoji; their students are guidance-distilled):
- Pictures get better for a tenth of a step. The node's defaults have the model's prediction under the negative prompt
  (here an empty one), too, from 45 % of the sampling on, at 2 of 20 steps, and hold what the two differ by in between.
  On models that are not distilled they gain four fifths of what CFG 2 gains, which takes a second pass at each step;
  on emoji, on which nothing was chosen, nine tenths.
- On guidance-distilled models, as FLUX.1 [dev] is one, one judge sees as much gain on shapes as by CFG 2, the other
  none by either. On emoji they gain nothing, where CFG 2 gains some. No model is harmed by more than two errors by
  either judge; one that draws emoji comes near (-.039 ± .020 by the mean of both). CFG 1.5 helps the students most.
- A negative prompt with words is obeyed, from 20 % on (1.15 passes), as often as by CFG 2 or somewhat more often on
  shapes, two thirds as often on emoji, and more of what was asked for is right than without guidance, but for one judge
  of the students that draw shapes. ComfyUI's NAGuidance, at 2 passes, is obeyed twice as often on shapes, but leaves
  less right, on distilled models less than no guidance. Two of our nodes in turn are obeyed four fifths to nine tenths
  as often as NAGuidance for 1.10 passes, and from that to as often for 1.15: reach attention, which is NAG, in all
  blocks from 5 to 44 %, computed once, and behind it the prediction, once or as the defaults have it. Of what was asked
  for they leave right what NAGuidance does within the errors, on emoji more. On the students that draw shapes both
  harm: of what was right there one judge misses two fifths, with NAGuidance a third. Reach attention that is held to
  the end is obeyed as NAGuidance for 1.10, and spoils more.
- Merged before the model's last layer (reach output), the same push gains half to two thirds of CFG 2, and at the
  greater strength distilled models less than nothing by one judge. Merged earlier in depth, after the double blocks,
  it gains nothing and harms distilled models. One head alone, in its attention, changes nothing.
- The gain is made late. Held from an early step on, a difference harms; the same from the middle on helps. A strength
  that fades in or out, a fading difference, or renewals at other steps gained no more.
- Nor does another difference at the prediction: without what lies along it (APG, arXiv 2410.02416; GAG, 2603.02531),
  bounded in length over the whole picture, with momentum, or ended at 80 %, it gained as much or less; without any
  limit as much. Beside the blocks a difference that is extrapolated between renewals gained less than a held one.
- A difference must not be held for long. In 8 steps one that stands for half of the sampling harmed the students, one
  renewed at every 2nd step did not. So the node renews it after 30 % of the sampling: in 8 steps, for 1.25 passes, it
  gains three quarters of CFG 2 and harms none; in 4, for 1.50, one judge sees a harm on the students, as by CFG 2.
- CFG 2 whose difference is computed at every 4th step from the first on, for 1.25 passes, gains as much as
  CFG 2. CFG 3 gains more on models that are not distilled, and nothing on their students.
- For a second pass at each step classic PAG and token perturbation gain half as much as the defaults or less, but need
  no negative prompt; NAGuidance at its best about as much, at its default strength nothing, and it harms distilled
  models then. ComfyUI's SkipLayerGuidanceDiT gains nothing, and harms them. Momentum guidance gains nothing.
- Without a negative prompt a disturbed attention gains a little, on distilled models nothing, and the published form
  harms all. On [models with one head](evidence/one_head.md), whose double blocks are two thirds of the depth, it had
  helped some.
- A negative of zeros (ConditioningZeroOut) served CFG 2 as well as the empty one; the node's late form it harmed by
  one judge (+.04 / -.15 on seed 0), so that the node takes zeros for none.
- A model can rank such settings itself ([calibration](calibration.md)), but a distilled one takes too much.
- The models differ: what helps the one much helps the other little. Two are few, and what FLUX.1's own weights do with
  all this is unknown."""


def page(found: list[Results], untrained: list[Subject]) -> str:
    """The whole page, of the contenders whose pictures were made. untrained: models that were to be asked, too."""
    title = "# What guidance does, measured\n\n**Nothing here was measured on FLUX.1's own weights.**"
    begin = [title, CONCLUSIONS, _pictures(found), READING, _method(found, untrained)]
    parts = [*begin, *map(_group, found), _unguided(found)]
    return "\n\n".join([*parts, _chosen()]) + "\n"


def _pictures(found: list[Results]) -> str:
    sheets = [
        f"![{results.domain.name}: the same prompts and noise under each contender]"
        f"(evidence/{sheet_name(results.domain)}.png)"
        for results in first_of_domain(found)
    ]
    drawings = [attribution()] if any(results.domain is EMOJI for results in found) else []
    return "\n\n".join(["![Gain against cost](evidence/pareto.png)", *sheets, *drawings])


def _method(found: list[Results], untrained: list[Subject]) -> str:
    not_yet = f"\n\nNot trained yet: {'; '.join(map(str, untrained))}." if untrained else ""
    doubles, singles = DEPTHS
    return f"""## How it was measured
Made by `make evidence` on models that `make lab` trains: small FLUX models in FLUX.1's proportions \
({doubles} double and {singles} single blocks,
2 heads) that draw coloured shapes or [emoji](emoji.md), and guidance-distilled students of theirs, as FLUX.1 [dev] \
is one. Students are told a guidance of {GUIDANCE:g}.

A shape is right when it and its colour are as asked for, in its place; an emoji when all that the prompt tells is: \
the thing, whose drawing, place, size and ground. Two judges that know nothing of each other: a small CNN \
({_accuracy(found)} right on held-out renders) and a fit of the drawings themselves. \
All contenders have the same prompts and noise, {REPORTED} Euler steps through ComfyUI's
sampler and nodes; the negative prompt is empty unless something else is said.

Errors are of a paired bootstrap over the prompts, and hold nothing of how training
runs differ: for that, look at each model. A gain counts when it is above two errors for both judges; \
"harms" means below minus two errors for either. Passes are counted at FLUX.1's proportions of blocks.

Settings were chosen on other models, prompts and noise (*what was tried*, below), and never on emoji; \
what the tables say was measured on models that nobody had looked at.{not_yet}"""


def _accuracy(found: list[Results]) -> str:
    domains = [results.domain for results in first_of_domain(found)]
    return " and ".join(f"{domain.judges.held_out_accuracy():.1%} of {domain.name}" for domain in domains)


def _group(results: Results) -> str:
    judged = ("CNN", "template fit", "so it", "helps", "harms", "Fréchet")
    head = ("", "passes", "pictures", *judged, *LOOKS, "diversity")
    real = ["real renders", *[""] * 8, *map(_look, looks([results.domain.judges.real_scores()])), ""]
    return f"""## {results.group.title}
Change in the share of {results.domain.name} right on {_names(results.subjects)}; *pictures*: by each of
them; the Fréchet distance of the CNN's features to real renders (change; lower is better).

{table(head, [*map(_cells, results.rows()), real])}
{_missing(results)}{_on_fewer(results)}
Each model, mean of both judges:

{_by_subject(results)}

{_obedience(results)}

{_few_steps(results)}"""


def _missing(results: Results) -> str:
    names = "; ".join(contender.name for contender in results.missing)
    return f"\nNot measured yet: {names}.\n" if names else ""


def _on_fewer(results: Results) -> str:
    """What those with more pictures gain on the first of them, which the others have."""
    few = min(map(results.count, results.contenders), default=0)
    rows = []
    for contender in results.contenders:
        if results.count(contender) > few:
            rows.append([contender.name, *map(str, by_both(results.subjects, contender, few))])
    if not rows:
        return ""
    return (
        f"\nOn the first {few} pictures alone, as those with no more:\n\n{table(('', 'CNN', 'template fit'), rows)}\n"
    )


def _listed(kinds: tuple[str, ...]) -> str:
    return f"{', a '.join(kinds[:-1])} or a {kinds[-1]}"


def _names(subjects: list[Subject]) -> str:
    return " and ".join(map(str, subjects))


def _cells(row: Row) -> list[str]:
    verdicts = [row.verdict, row.models("helps"), row.models("harms")]
    change = [str(row.cnn), str(row.template), *verdicts, f"{row.frechet:+.1f}"]
    if row.contender.key == plain().key:
        change = [""] * len(change)
    passes = f"{row.contender.passes:.2f}"
    return [row.contender.name, passes, str(row.count), *change, *map(_look, row.looks), f"{row.diversity:.2f}"]


def _look(value: float) -> str:
    return f"{value:.3f}"


def _by_subject(results: Results) -> str:
    def row(contender: Contender) -> list[str]:
        count = results.count(contender)
        each = (gains.gain([s], contender, REPORTING, count) for s in results.subjects)
        return [contender.name, *map(str, each)]

    return table(("", *map(str, results.subjects)), map(row, results.contenders))


def _obedience(results: Results) -> str:
    title = f"### Is a negative prompt obeyed? ({_names(results.subjects)})"
    try:
        found = obedience.table(results.subjects, obedience.contenders(), OPEN_REPORTING, obedience.COUNT)
    except LookupError:
        return f"{title}\nNot measured yet."
    return f"""{title}
Prompts leave a {_listed(results.domain.prompts.KINDS)} open, and the negative prompt names one.
*held*: the share of pictures that hold what was forbidden; *right*: of {results.domain.name} that are
as the prompt says. Without guidance as it is, then the change; for *held*, lower is better.
{obedience.COUNT} pictures by each model.

{found}"""


def _few_steps(results: Results) -> str:
    title = f"### In few steps ({_names(results.subjects)})"
    try:
        found = few_steps.table(results.subjects)
    except LookupError:
        return f"{title}\nNot measured yet."
    return f"""{title}
Change in the share of {results.domain.name} right against no guidance in as many steps; each model by the mean
of both judges. {few_steps.COUNT} pictures by each model.

{found}"""


def _unguided(found: list[Results]) -> str:
    def row(results: Results, subject: Subject) -> list[str]:
        cnn, template, frechet = results.unguided(subject)
        return [str(subject), f"{cnn:.3f}", f"{template:.3f}", f"{frechet:.2f}"]

    rows = [row(results, subject) for results in found for subject in results.subjects]
    return f"## The models without guidance\n\n{table(('', 'CNN', 'template fit', 'Fréchet'), rows)}"


def _chosen() -> str:
    """What was looked at before settings were chosen, as far as it was made."""
    made = {name: asked for name, asked in ROUNDS.items() if asked.measured}
    tables = [f"### Round: {name}\n\n{choosing.table(asked)}" for name, asked in made.items()]
    not_yet = "; ".join(name for name in ROUNDS if name not in made)
    introduction = f"""## What was tried
On other models, prompts and noise than above: change in the share of objects right, {COUNT} pictures by each model, \
in {STEPS} steps where the round names no others.
*negative*: the branch that carries the negative prompt (here the empty one) with scale 0.5, tau 1.1, alpha 1,
perturbation 0 in all blocks, reach double blocks, renewed every 4th step, but for what is named. *identity*: the
identity branch with scale 3, tau 1.5, alpha 0.15, perturbation 0.3 in the blocks `auto`. The best of many is too good
by selection; what counts are the tables above."""
    missing = [f"Not measured yet: {not_yet}."] if not_yet else []
    return "\n\n".join([introduction, *missing, *tables, *_tried_in_words()])


def _tried_in_words() -> list[str]:
    """What was looked at before two nodes in turn were chosen, as far as its pictures are there."""
    found = []
    for names in (("0", "1", "2"), ("0s",)):
        models = [subject for subject in map(Subject, names) if subject.trained]
        if models and gains.was_made(models, plain(), OPEN_CHOOSING, obedience.COUNT):
            table_of = obedience.table(models, obedience.tried(), OPEN_CHOOSING, obedience.COUNT)
            found.append(f"On {_names(models)}:\n\n{table_of}")
    if not found:
        return []
    return [
        f"""### Round: a negative prompt with words, {REPORTED} steps
As in *Is a negative prompt obeyed?*. The first node has reach attention in all blocks, scale 4, tau 1.5, alpha 0.5,
from 5 to 44 %, computed once, but for what is named.""",
        *found,
    ]
