"""make test-beside: how unknown nodes are filled and called, what a row says, and that no pack stops the others."""

import signal

import pytest
from nag_pag_flux.lab.in_host import enter_host

enter_host()

import comfy.samplers  # noqa: E402
from comfy_api.latest import io  # noqa: E402
from nag_pag_flux.lab.beside import command, filling, packs, small, trial  # noqa: E402
from nag_pag_flux.lab.beside.row import NEXT_IN_ANOTHER, Row  # noqa: E402
from nag_pag_flux.lab.beside.table import markdown  # noqa: E402
from nag_pag_flux.lab.beside.ways import WAYS  # noqa: E402

INPUTS = {
    "required": {
        "model": ("MODEL",),
        "steps": ("INT", {"default": 7}),
        "at_least": ("FLOAT", {"min": 0.25}),
        "mode": (["first", "second"],),
        "kind": (["one", "two"], {"default": "two"}),
        "text": ("STRING", {}),
        "latent": ("LATENT",),
    },
    "optional": {"flag": ("BOOLEAN", {"default": True}), "mask": ("MASK",), "linked": ("INT", {"forceInput": True})},
}


def node_of(execute, inputs=None, returned=("MODEL",)):
    """A node of the older schema, as packs have them."""

    class Theirs:
        RETURN_TYPES = returned
        FUNCTION = "run"

        @classmethod
        def INPUT_TYPES(cls):
            return inputs or {"required": {"model": ("MODEL",)}}

        def run(self, **given):
            return (execute(**given),)

    (node,) = packs.model_nodes({"Theirs": Theirs})
    return node


# --- filling ---


def test_inputs_are_what_an_untouched_node_sends():
    given = filling.fill(node_of(lambda **given: None, INPUTS))
    assert given.pop("latent")["samples"].shape == filling.LATENT
    assert given == {"steps": 7, "at_least": 0.25, "mode": "first", "kind": "two", "text": "", "flag": True}


@pytest.mark.parametrize(
    "spec, why", [(("VAE",), "thing wants a VAE"), (([],), "nothing to choose from for thing"), (("*",), "wants a *")]
)
def test_what_cannot_be_filled_is_said(spec, why):
    node = node_of(lambda **given: None, {"required": {"model": ("MODEL",), "thing": spec}})
    with pytest.raises(filling.Unfillable) as reason:
        filling.fill(node)
    assert why in str(reason.value)


def test_a_node_of_the_new_schema_is_filled_and_called_with_its_nested_inputs():
    got = {}

    class Theirs(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            option = io.DynamicCombo.Option("tiles", [io.Int.Input("size", default=64)])
            how, strength = io.DynamicCombo.Input("how", options=[option]), io.Float.Input("s", default=2.0)
            inputs = [io.Model.Input("model"), how, strength]
            return io.Schema(node_id="Theirs", inputs=inputs, outputs=[io.Int.Output(), io.Model.Output()])

        @classmethod
        def execute(cls, model, how, s):
            got.update(how=how, s=s)
            return io.NodeOutput(1, model)

    (node,) = packs.model_nodes({"Theirs": Theirs})
    assert small.theirs("a model", node, filling.fill(node)) == "a model"
    assert got == {"how": {"how": "tiles", "size": 64}, "s": 2.0}


def test_only_nodes_that_take_and_return_a_model_are_tried():
    loader = node_of(lambda **given: None).cls
    without = type("Loader", (loader,), {"INPUT_TYPES": classmethod(lambda cls: {"required": {}})})
    broken = type("Broken", (loader,), {"INPUT_TYPES": classmethod(lambda cls: 1 / 0)})
    sampler = type("Sampler", (loader,), {"RETURN_TYPES": ("LATENT",)})
    found = packs.model_nodes({"b": loader, "a": loader, "l": without, "x": broken, "s": sampler})
    assert [node.name for node in found] == ["a", "b"]


# --- packs ---


def test_packs_are_folders_and_files_without_ours(tmp_path):
    for name in ("theirs", "ours/nagpag/patch"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("theirs/__init__.py", "ours/__init__.py", "one_file.py", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in packs.pack_folders(tmp_path)] == ["one_file.py", "theirs"]


def test_a_pack_that_fails_to_import_says_why_without_where(tmp_path):
    for name, text in (("good", "NODE_CLASS_MAPPINGS = {}"), ("bad", "open('/home/me/none/such')"), ("none", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    assert packs.import_nodes(tmp_path / "good") == []
    with pytest.raises(packs.NotImported, match=r"No such file or directory: '…'$"):
        packs.import_nodes(tmp_path / "bad")
    with pytest.raises(packs.NotImported, match="NODE_CLASS_MAPPINGS"):
        packs.import_nodes(tmp_path / "none")


# --- a trial ---


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(small, "DOUBLES", 3)
        patched.setattr(small, "SINGLES", 1)
        return trial.baselines(small.load(small.make_small(tmp_path_factory.mktemp("model"))))


def block_patch(model, patch, block=1):
    model = model.clone()
    model.set_model_patch_replace(patch, "dit", "double_block", block)
    return model


def grown(args, extra):
    out = extra["original_block"](args)
    return {**out, "img": out["img"] * 1.01}


def test_a_good_neighbour_keeps_every_promise(base):
    row = trial.try_node(node_of(lambda model: block_patch(model, grown, 0)), base)
    assert row.both == {way: {"ours last": "yes", "ours first": "yes"} for way in WAYS}
    assert (row.runs, row.exact, row.after, row.said, row.inspect, row.left) == ("yes",) * 5 + ("",)
    assert row.acts and row.kept
    assert row.renewed == {"prediction": [2, 2], "prediction, cfg 2": [5, 5], "longer": [2, 2], "attention": [0, 0]}


def test_where_ours_cannot_act_the_row_says_so_and_that_it_was_said(base):
    """Put behind ours it takes the slot of a block without calling what stood there."""
    row = trial.try_node(node_of(lambda model: block_patch(block_patch(model, grown, 1), grown, 2)), base)
    for way in WAYS:
        late = "yes" if "prediction" in way else "ours does not act"
        assert row.both[way] == {"ours last": "yes", "ours first": late}
    assert row.said == "yes" and row.kept


def test_a_silence_is_seen(base, monkeypatch):
    monkeypatch.setattr(small.Said, "emit", lambda self, record: None)
    row = trial.try_node(node_of(lambda model: block_patch(block_patch(model, grown, 1), grown, 2)), base)
    assert row.said == "NO: silent in longer, ours first; attention, ours first" and not row.kept


def test_a_failure_that_is_there_only_with_ours_breaks_a_promise(base):
    def fails_beside_ours(model):
        if "patches_replace" in model.model_options["transformer_options"]:
            raise KeyError("transformer_options in /home/me/packs/theirs.py")
        return block_patch(model, grown, 0)

    row = trial.try_node(node_of(fails_beside_ours), base)
    assert row.both["longer"] == {"ours last": "yes", "ours first": "fails: KeyError: 'transformer_options in …'"}
    assert row.exact == "yes" and not row.kept  # at scale 0 ours puts nothing there


def test_what_does_not_run_by_itself_is_no_promise_of_ours(base):
    row = trial.try_node(node_of(lambda model: 1 / 0), base)
    assert row.runs == "not by itself: ZeroDivisionError: division by zero" and row.kept and not row.left


def test_what_a_node_leaves_behind_is_seen(base, monkeypatch):
    plain = comfy.samplers.sampling_function

    def louder(*args, **kwargs):
        return plain(*args, **kwargs) * 1.01

    def leaves(model):
        monkeypatch.setattr(comfy.samplers, "sampling_function", louder)
        return model

    row = trial.try_node(node_of(leaves), base)
    assert row.left == "a fresh plain model draws something else"


# --- all packs ---


def test_a_pack_that_ends_its_process_is_a_row_and_the_rest_goes_on(monkeypatch, tmp_path):
    nodes, asked = ["a", "hangs", "changes the host", "d"], []
    answers = [
        ([Row("a", runs="yes")], nodes, -signal.SIGALRM, ""),
        ([Row("changes the host", runs="yes")], nodes, NEXT_IN_ANOTHER, ""),
        ([Row("d", runs="yes")], nodes, 0, ""),
    ]
    monkeypatch.setattr(
        command, "_run_child", lambda packs, name, wanted, start: (asked.append(start), answers.pop(0))[1]
    )
    rows = command._rows(tmp_path, "theirs", ["*"])
    assert [row.node for row in rows] == nodes and asked == [0, 2, 3]
    assert rows[1].runs == f"not tried to the end: takes longer than {command.SECONDS} s"


def test_the_table_has_what_ran_and_lists_what_did_not():
    yes = {"ours last": "yes", "ours first": "yes"}
    all_yes, renewed = dict.fromkeys(WAYS, yes), {way: [2, 2] for way in WAYS}
    fails = {**all_yes, "longer": {**yes, "ours last": "fails: KeyError"}}
    fine = Row("Fine", "yes", True, all_yes, renewed, "yes", "yes", "yes", "yes")
    odd = Row("Odd|Node", "yes", True, fails, {**renewed, "longer": [2, 5]}, "NO", "yes", "yes", "yes")
    text = markdown({"one": [fine, odd, Row("Never", runs="not tried: x wants a VAE")], "two": "not imported: no cv2"})
    assert "| one | Fine | yes | yes | yes | yes | yes | 2 / 2 / 2 | yes | yes | yes | yes |" in text
    longer = "ours last: fails: KeyError; ours first: yes"
    assert f"| one | Odd/Node | yes | yes | yes | {longer} | yes | 2 / 2 / 2, 5 | NO |" in text
    assert "3 nodes of 2 packs; 2 run here; every promise is kept beside 1 of them." in text
    assert text.endswith("- two: not imported: no cv2\n- one, Never: not tried: x wants a VAE")


def test_a_folder_that_is_none_and_a_pack_that_is_not_there(capsys, tmp_path):
    assert command.main([str(tmp_path / "none")]) == 2
    assert command.main([str(tmp_path), "--only", "theirs"]) == 2
    assert "no folder of packs" in capsys.readouterr().err
