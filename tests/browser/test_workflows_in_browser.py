"""The shipped workflows, nodes, help and blueprint in the real frontend, in a real browser."""

import io
import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from nag_pag_flux.lab import graphs, host
from nag_pag_flux.lab.make import blueprint, locales
from nag_pag_flux.lab.server import run_graph
from nag_pag_flux.nagpag.inputs.calibration import CALIBRATE
from nag_pag_flux.nagpag.inputs.guidance import (
    ADVANCED,
    GUIDANCE,
    NEGATIVE,
    NEGATIVE_PROMPT,
    REACH,
    SAVED_WIDGETS,
    SCHEDULE,
)
from nag_pag_flux.nagpag.inputs.presets import OWN, PRESET, PRESETS
from PIL import Image
from playwright.sync_api import TimeoutError, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What the frontend itself logs as errors while it starts, in a closed network, or for files that nobody has yet.
HOST_NOISE = re.compile(
    r"graph accessed before initialization|net::ERR_|Failed to load resource|user\.css|userdata"
    r"|huggingface|githubusercontent|comfy\.org"
)
SAVED = host.REPO / "tests" / "server" / "saved"
ARTEFACTS = Path(os.environ.get("NAGPAG_ARTEFACTS") or Path(tempfile.gettempdir()) / "nag-pag-flux-artefacts")


@pytest.fixture(scope="module")
def browser(chromium_path):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=FLAGS)
        yield browser
        browser.close()


def loaded(browser, server, language=None):
    """The frontend, loaded, with what it logs as an error in `page.errors`; in a language that is not saved.

    To someone who was here before: a newcomer is shown the host's templates, over everything.
    """
    page = browser.new_page(viewport={"width": 2600, "height": 1200})

    known = {"Comfy.TutorialCompleted": True, **({"Comfy.Locale": language} if language else {})}

    def answer(route):
        found = route.fetch()
        route.fulfill(response=found, json={**found.json(), **known})

    page.route("**/api/settings", answer)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.set_default_timeout(120_000)  # of anything that is waited for; a busy machine takes a while for a page
    page.goto(server.url)
    # The spinner ends when the frontend has put its default graph up, which would come over what a test opens.
    page.wait_for_function("window.app?.canvas?.graph && window.app.extensionManager?.spinner === false")
    page.locator("#splash-loader").wait_for(state="hidden")  # it would take the clicks
    return page


@pytest.fixture(scope="module")
def frontend(browser, server):
    """Loaded once, as that takes seconds."""
    page = loaded(browser, server)
    yield page
    page.close()


@pytest.fixture(scope="module")
def other_page(browser, server):
    """For who changes how the frontend draws, or needs new nodes: those take numbers of their own with NUMBERED."""
    page = loaded(browser, server, "en")
    yield page
    page.close()


@pytest.fixture(scope="module")
def spanish(browser, server):
    page = loaded(browser, server, "es")
    yield page
    page.close()


# The frontend keeps a node's values for the next of its number, whatever graph that is in.
NUMBERED = "window.app.graph.clear(); window.app.graph.last_node_id = "


@pytest.fixture
def page(frontend):
    """The frontend with an empty graph and no dialog. Errors of its start are the first test's."""
    frontend.keyboard.press("Escape")
    frontend.evaluate("() => window.app.graph.clear()")
    yield frontend
    frontend.errors.clear()


def workflow(name):
    return json.loads(graphs.template(name).read_text())


def open_workflow(page, name):
    page.evaluate("graph => window.app.loadGraphData(graph)", workflow(name))
    page.wait_for_function("count => window.app.graph._nodes.length === count", arg=len(workflow(name)["nodes"]))


def errors_of_ours(page):
    page.wait_for_timeout(300)  # some come late
    return [error for error in page.errors if not HOST_NOISE.search(error)]


# Two frames of the page: what was asked for is drawn.
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def screenshot(page, name):
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.keyboard.press("Escape")  # the dialog about models that are not installed here
    page.wait_for_function("() => !document.querySelector('.p-dialog-mask')")
    page.evaluate(f"""() => {{
        const canvas = window.app.canvas;
        canvas.ds.fitToBounds(window.app.graph.createBounds?.() ?? [-600, 0, 2800, 950]);
        canvas.setDirty(true, true);
        return {DRAWN};
    }}""")
    page.screenshot(path=ARTEFACTS / f"{name}.png")


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_it_opens_whole_and_without_an_error(page, name):
    open_workflow(page, name)
    nodes = page.evaluate("""() => window.app.graph._nodes.map(node => ({
        type: node.type, known: node.type in LiteGraph.registered_node_types || node.type === 'MarkdownNote',
        red: Boolean(node.has_errors), links: (node.inputs ?? []).filter(input => input.link != null).length,
    }))""")
    # The files are not installed here, so their loaders are marked: that is the missing-model dialog at work.
    assert all(node["known"] and (not node["red"] or "Loader" in node["type"]) for node in nodes), nodes
    shipped = workflow(name)
    assert sum(node["links"] for node in nodes) == len(shipped["links"])
    screenshot(page, name)
    assert not errors_of_ours(page)


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_what_the_frontend_queues_is_the_shipped_api_graph(page, name):
    open_workflow(page, name)
    queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    shipped = graphs.load_graph(name)
    assert queued.keys() == shipped.keys()
    for node_id, node in shipped.items():
        assert queued[node_id]["class_type"] == node["class_type"]
        assert queued[node_id]["inputs"] == node["inputs"]


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_nothing_overlaps_and_groups_hold_their_nodes(page, name):
    """By the sizes that the frontend really draws."""
    open_workflow(page, name)
    boxes = page.evaluate("""() => window.app.graph._nodes.map(
        n => [n.type, n.pos[0], n.pos[1] - LiteGraph.NODE_TITLE_HEIGHT, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])""")
    for i, (a, *box) in enumerate(boxes):
        for b, *other in boxes[i + 1 :]:
            apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
            assert apart, f"{a} {box} overlaps {b} {other}"
    for group in workflow(name)["groups"]:
        x, y, width, height = group["bounding"]
        inside = [box for box in boxes if x < box[1] and box[3] < x + width and y < box[2] and box[4] < y + height]
        assert inside, group["title"]


@pytest.mark.parametrize("node", [GUIDANCE, ADVANCED], ids=lambda node: node.id)
def test_the_node_is_dragged_in_between(page, node):
    """An empty graph, three nodes from the registry, two connections: what a user does first."""
    connected = page.evaluate(
        """kind => {
        window.app.graph.clear();
        const [loader, ours, sampler] = ['UNETLoader', kind, 'KSampler'].map(type => {
            const node = LiteGraph.createNode(type);
            window.app.graph.add(node);
            return node;
        });
        const slot = (node, name) => node.inputs.findIndex(input => input.name === name);
        loader.connect(0, ours, slot(ours, 'model'));
        ours.connect(0, sampler, slot(sampler, 'model'));
        const saved = ours.widgets.filter(w => w.serialize !== false);
        return {title: ours.title, names: saved.map(w => w.name),
                widgets: Object.fromEntries(saved.map(w => [w.name, w.value])),
                links: [ours.inputs[slot(ours, 'model')].link, sampler.inputs[slot(sampler, 'model')].link]};
    }""",
        node.id,
    )
    assert connected["title"] == node.title
    # curve is no widget: as one it would always have a value, and always win over schedule.
    assert connected["widgets"] == node.defaults and connected["names"] == list(node.defaults)
    assert None not in connected["links"]
    assert not errors_of_ours(page)


# --- finding the node ---

# What it is typed for; beside core's own NAGuidance, PerturbedAttentionGuidance, FluxGuidance and CLIPTextEncode.
SEARCHED = [
    *("nag", "pag", "nag-pag", "slg", "better quality", "negative prompt"),
    *("attention guidance", "perturbed attention", "flux guidance"),
]


def found_by(page, words):
    """The titles that the frontend's own search box lists for these words, in its order."""
    page.locator("input[aria-controls=results-list]").fill(words)
    page.wait_for_timeout(400)
    return [shown.partition("\n")[0] for shown in page.locator("[data-testid=result-item]").all_inner_texts()]


def test_whoever_types_what_it_is_for_finds_guidance_first(page):
    page.evaluate("() => window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    found = {words: found_by(page, words)[:2] for words in SEARCHED}
    assert found == dict.fromkeys(SEARCHED, [GUIDANCE.title, ADVANCED.title])
    # Whose title was typed stays first.
    assert {found_by(page, words)[0] for words in ("fluxguidance", "guidance")} == {"FluxGuidance"}
    assert not errors_of_ours(page)


# --- languages ---


def test_the_page_offers_no_language_that_the_pack_lacks(page, server):
    offered = page.evaluate(
        "() => window.app.extensionManager.setting.settings['Comfy.Locale'].options.map(o => o.value)"
    )
    assert len(offered) > 12
    ours = page.evaluate("async () => await (await fetch('/i18n')).json()")
    assert [language for language in offered if GUIDANCE.id not in ours.get(language, {}).get("nodeDefs", {})] == []


def test_compare_and_the_presets_speak_the_pages_language(spanish):
    texts = {name: json.loads((host.REPO / f"locales/es/{name}.json").read_text()) for name in ("nodeDefs", "main")}
    found = spanish.evaluate("""() => {
        const [compare, ours] = ['NAGPAGCompare', 'NAGPAGGuidanceAdvanced'].map(type => LiteGraph.createNode(type));
        const preset = ours.widgets.find(one => one.name === 'preset');
        return [compare.title, preset.label, preset.tooltip, preset.options.values.at(-1)];
    }""")
    words = texts["main"]["nagPag"]["preset"]
    assert found == [texts["nodeDefs"]["NAGPAGCompare"]["display_name"], words["name"], words["tooltip"], words["own"]]


def place_wide(page):
    """One advanced node, wide enough for all that its widgets show."""
    page.evaluate("""() => {
        window.app.graph.clear();
        const node = LiteGraph.createNode('NAGPAGGuidanceAdvanced');
        node.pos = [400, 200];
        node.size = [700, node.size[1]];
        window.app.graph.add(node);
        Object.assign(window.app.canvas.ds, {offset: [0, 0], scale: 1});
        window.app.canvas.setDirty(true, true);
    }""")


def texts_drawn(page):
    """What the classic canvas writes when it is drawn anew."""
    return page.evaluate("""() => {
        const drawn = [];
        const {fillText} = CanvasRenderingContext2D.prototype;
        CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
            drawn.push(text);
            return fillText.call(this, text, ...rest);
        };
        window.app.canvas.draw(true, true);
        CanvasRenderingContext2D.prototype.fillText = fillText;
        return drawn;
    }""")


def open_choice(page, name):
    """What a widget of the classic canvas offers, once it is open.

    Clicked again where nothing opens: on a busy machine the page may still move the canvas, or take the first click.
    """
    menu = page.locator(".litecontextmenu .litemenu-entry")
    for _ in range(10):
        page.mouse.click(*middle_of(page, name))
        with suppress(TimeoutError):
            menu.first.wait_for(timeout=3_000)
            return menu
    raise AssertionError(f"{name} does not open")


def middle_of(page, name):
    """Where the classic canvas has drawn a widget, (x, y) on the page."""
    return page.evaluate(
        """name => {
        const [node] = window.app.graph._nodes;
        const widget = node.widgets.find(one => one.name === name);
        const [x, y] = window.app.canvas.ds.convertOffsetToCanvas([
            node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]);
        const {left, top} = window.app.canvas.canvas.getBoundingClientRect();
        return [left + x, top + y];
    }""",
        name,
    )


def sent_reach(page):
    (node,) = page.evaluate("async () => Object.values((await window.app.graphToPrompt()).output)")
    return node["inputs"]["reach"]


def test_a_choice_shows_what_its_words_mean_and_sends_the_word(spanish):
    """In both canvases."""
    page = spanish
    words = json.loads((host.REPO / "locales/es/main.json").read_text())["nagPag"]
    label = {name: {word: f"{word} ({said})" for word, said in all_.items()} for name, all_ in words["choices"].items()}
    first = [label[item.name][item.default] for item in (REACH, NEGATIVE_PROMPT, NEGATIVE, SCHEDULE, PRESET)]
    try:
        place_wide(page)
        drawn = texts_drawn(page)
        assert [one for one in first if one not in drawn] == []
        assert any(one.endswith(f"({words['idle']})") for one in drawn)
        menu = open_choice(page, "reach")
        assert menu.all_inner_texts() == list(label["reach"].values())
        menu.get_by_text(label["reach"]["attention"], exact=True).click()
        assert label["reach"]["attention"] in texts_drawn(page) and sent_reach(page) == "attention"
        page.screenshot(path=ARTEFACTS / "choices_classic.png")

        page.evaluate("() => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
        node = page.locator(".lg-node")
        node.get_by_text(words["preset"]["own"], exact=True).wait_for()
        node.get_by_text(label["reach"]["attention"], exact=True).click()
        page.get_by_role("option", name=label["reach"][REACH.default]).click()
        for one in first:
            node.get_by_text(one, exact=True).wait_for()
        assert node.get_by_text(f"({words['idle']})").count()
        assert sent_reach(page) == REACH.default
        page.screenshot(path=ARTEFACTS / "choices_nodes_2.png")
        assert not errors_of_ours(page)
    finally:
        page.evaluate("() => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


# --- workflows saved before the node had a sister ---

VALUES = [2.0, "8, 12", 2.0, 0.5, 0.1, 0.9, "output", 7, "softened", 3.0, 0.5, 2, "bell", True]


def test_the_page_knows_the_node_as_it_was():
    """The order of its widgets, by which a workflow's values are told apart, stands in the page's script, too."""
    script = (host.REPO / "web" / "saved_workflows.js").read_text()
    names = re.findall(r'"(\w+)"', re.search(r"const SAVED = \[(.*?)\]", script, re.DOTALL)[1])
    assert names == [item.name for item in SAVED_WIDGETS] and len(VALUES) == len(names)
    calibrate = re.findall(r'"(\w+)"', re.search(r"const CALIBRATE_HAD = \[(.*?)\]", script, re.DOTALL)[1])
    assert calibrate == [name for name in CALIBRATE.defaults if name != NEGATIVE_PROMPT.name]
    simple = re.findall(r'"(\w+)"', re.search(r"const SIMPLE_HAS = \[(.*?)\]", script, re.DOTALL)[1])
    assert simple == list(GUIDANCE.defaults)


def saved_workflow(count):
    """The 12-input workflow as the frontend saved it, with so many values."""
    saved = json.loads((SAVED / "flux_dev_text_to_image_12_inputs.json").read_text())
    node = next(node for node in saved["nodes"] if node["type"] == GUIDANCE.id)
    node["widgets_values"] = VALUES[:count]
    return saved, str(node["id"])


def opened(page, saved):
    page.evaluate("graph => window.app.loadGraphData(graph)", saved)
    page.wait_for_function("count => window.app.graph._nodes.length === count", arg=len(saved["nodes"]))
    return page.evaluate("async () => (await window.app.graphToPrompt()).output")


BEFORE = {**ADVANCED.defaults, "negative_prompt": "off"}  # a node of before carried none


def expected_of(count):
    names = [item.name for item in SAVED_WIDGETS]
    return BEFORE | dict(zip(names[:count], VALUES[:count], strict=True))


@pytest.mark.parametrize("count", [6, 12, 14])
def test_it_opens_with_the_sister_in_the_nodes_place(page, count):
    """Its values stay what they were, and what came later has its default; no curve is sent."""
    saved, number = saved_workflow(count)
    prompt = opened(page, saved)
    found = prompt[number]
    assert found["class_type"] == ADVANCED.id
    assert {name: value for name, value in found["inputs"].items() if name != "model"} == expected_of(count)
    others = {n: node for n, node in prompt.items() if n != number}
    assert [number, 0] in [value for node in others.values() for value in node["inputs"].values()]
    assert found["inputs"]["model"] == ["1", 0]
    assert page.evaluate("id => window.app.graph.getNodeById(id).title", int(number)) == ADVANCED.title
    screenshot(page, f"saved_with_{count}_inputs")
    assert not errors_of_ours(page)


def test_it_opens_with_links_to_its_widgets_and_its_curve(page):
    """A value and a curve that come over links go on doing so, though the inputs stand in another order now."""
    saved, number = saved_workflow(14)
    node = next(node for node in saved["nodes"] if node["type"] == GUIDANCE.id)
    links = max(link[0] for link in saved["links"])
    for i, (kind, gives, values) in enumerate((("PrimitiveFloat", "FLOAT", [2.5]), ("CurveEditor", "CURVE", []))):
        out = {"name": gives, "type": gives, "links": [links + 1 + i]}
        place = {"pos": [0, 900], "size": [200, 80], "flags": {}, "order": 0, "mode": 0, "inputs": [], "properties": {}}
        saved["nodes"].append({"id": 90 + i, "type": kind, "outputs": [out], "widgets_values": values, **place})
    slots = len(node["inputs"])
    node["inputs"] += [
        {"name": "tau", "type": "FLOAT", "widget": {"name": "tau"}, "link": links + 1},
        {"name": "curve", "type": "CURVE", "link": links + 2},
    ]
    saved["links"] += [
        [links + 1, 90, 0, node["id"], slots, "FLOAT"],
        [links + 2, 91, 0, node["id"], slots + 1, "CURVE"],
    ]
    found = opened(page, saved)[number]
    assert found["class_type"] == ADVANCED.id
    assert (found["inputs"]["tau"], found["inputs"]["curve"]) == (["90", 0], ["91", 0])
    rest = {name: value for name, value in expected_of(14).items() if name != "tau"}
    assert {name: found["inputs"][name] for name in rest} == rest


def test_it_opens_within_a_subgraph(page):
    saved, number = saved_workflow(12)
    inner = next(node for node in saved["nodes"] if node["type"] == GUIDANCE.id)
    replaced = page.evaluate(
        """([graph, id]) => {
        const data = {nodes: [], links: [], definitions: {subgraphs: [{nodes: graph.nodes, links: []}]}};
        for (const extension of window.app.extensions) if (extension.name === 'nag-pag-flux.saved-workflows')
            extension.beforeConfigureGraph(data, []);
        return data.definitions.subgraphs[0].nodes.find(node => node.id === id);
    }""",
        [saved, inner["id"]],
    )
    assert replaced["type"] == ADVANCED.id
    assert dict(zip(ADVANCED.defaults, replaced["widgets_values"], strict=True)) == expected_of(12)


def test_an_api_graph_of_before_opens_with_it_too(page):
    values = dict(zip([item.name for item in SAVED_WIDGETS], VALUES, strict=True))
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "x", "weight_dtype": "default"}},
        "2": {"class_type": GUIDANCE.id, "inputs": {"model": ["1", 0], **values}},
        "3": {"class_type": GUIDANCE.id, "inputs": {"model": ["2", 0], **GUIDANCE.defaults}},
    }
    page.evaluate("graph => window.app.loadApiJson(graph, 'saved')", graph)
    page.wait_for_function("window.app.graph._nodes.length === 3")
    found = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    assert [found[number]["class_type"] for number in "123"] == ["UNETLoader", ADVANCED.id, GUIDANCE.id]
    assert found["2"]["inputs"] == {**BEFORE, **values, "model": ["1", 0]}


def test_calibrate_of_before_it_knew_of_a_negative_prompt_opens_without_one(page):
    """As a workflow or an API graph; one of now keeps what it says."""
    graph = json.loads(graphs.template(graphs.CALIBRATE).read_text())
    (node,) = (node for node in graph["nodes"] if node["type"] == CALIBRATE.id)
    now = dict(zip(CALIBRATE.defaults, node["widgets_values"], strict=True))
    before = {**now, "alphas": "0.05", "pictures": 7, "seed": 3}
    del before["negative_prompt"]
    for saved, expected in ((now, now), (before, {**before, "negative_prompt": "off"})):
        node["widgets_values"] = list(saved.values())
        found = opened(page, graph)[str(node["id"])]["inputs"]
        assert {name: found[name] for name in expected} == expected
        api = {"1": {"class_type": CALIBRATE.id, "inputs": saved}}
        page.evaluate("graph => window.app.loadApiJson(graph, 'saved')", api)
        page.wait_for_function("window.app.graph._nodes.length === 1")
        assert page.evaluate("async () => (await window.app.graphToPrompt()).output")["1"]["inputs"] == expected
    assert not errors_of_ours(page)


def test_one_that_is_pasted_takes_what_it_has_inputs_for_and_says_what_it_has_not(page):
    """The host makes a pasted node by its type before anybody may change that."""
    found = page.evaluate(
        """values => {
        window.app.graph.clear();
        const node = LiteGraph.createNode('NAGPAGGuidance');
        window.app.graph.add(node);
        node.configure({...node.serialize(), widgets_values: values});
        return Object.fromEntries(node.widgets.map(one => [one.name, one.value]));
    }""",
        VALUES[:12],
    )
    kept = dict(zip([item.name for item in SAVED_WIDGETS], VALUES[:12], strict=False))
    assert {name: found[name] for name in GUIDANCE.defaults} == {
        name: kept.get(name, BEFORE[name]) for name in GUIDANCE.defaults
    }
    toast = page.locator(".p-toast-message", has_text="was copied from an earlier version")
    toast.wait_for()
    assert "It has no tau, alpha" in toast.inner_text() and ADVANCED.title in toast.inner_text()
    assert not errors_of_ours(page)


def test_a_workflow_of_now_stays_as_it_is(page):
    """A simple node has four values; neither it nor the sister is taken for an old one."""
    for name in graphs.NAMES:
        kept = opened(page, workflow(name))
        assert {node["class_type"] for node in kept.values()} & {GUIDANCE.id, ADVANCED.id} == {
            ADVANCED.id if name == graphs.DIAGNOSTICS else GUIDANCE.id
        }


def test_it_says_so_in_nodes_2_too(other_page):
    """Nodes 2.0 draws widgets by other means; what was chosen there is heard, too."""
    page = other_page
    page.evaluate("() => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        page.evaluate(f"() => {{ {NUMBERED} 100; }}")
        page.evaluate("""() => {
            const node = LiteGraph.createNode('NAGPAGGuidanceAdvanced');
            node.pos = [300, 200];
            window.app.graph.add(node);
        }""")
        node = page.locator(".lg-node")
        node.get_by_text("temperature (no effect)").wait_for()
        assert node.get_by_text("renew_every (no effect)").count() == 0
        page.evaluate("""() => {
            const [node] = window.app.graph._nodes;
            for (const [name, value] of [['negative_prompt', 'off'], ['reach', 'attention']]) {
                const widget = node.widgets.find(one => one.name === name);
                widget.value = value;
                widget.callback(widget.value);
            }
        }""")
        node.get_by_text("renew_every (no effect)").wait_for()
        screenshot(page, "idle_inputs_nodes_2")
    finally:
        page.evaluate("() => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_an_input_that_does_nothing_says_so_when_that_is_chosen(page):
    labels = page.evaluate("""() => {
        window.app.graph.clear();
        const node = LiteGraph.createNode('NAGPAGGuidanceAdvanced');
        window.app.graph.add(node);
        const widget = name => node.widgets.find(one => one.name === name);
        const idle = one => (one.label ?? one.name).endsWith('(no effect)');
        const shown = () => node.widgets.filter(idle).map(one => one.name);
        const found = [shown()];
        widget('negative_prompt').value = 'off';
        const choose = (name, value) => {
            widget(name).value = value;
            widget(name).callback?.(value, window.app.canvas, node);
            found.push(shown());
        };
        choose('reach', 'attention');
        choose('negative', 'softened');
        choose('reach_blocks', 3);
        const editor = LiteGraph.createNode('CurveEditor');
        window.app.graph.add(editor);
        editor.connect(0, node, node.inputs.findIndex(input => input.name === 'curve'));
        found.push(shown());
        node.disconnectInput(node.inputs.findIndex(input => input.name === 'curve'));
        choose('reach_blocks', 0);
        choose('perturbation', 0);
        const primitive = LiteGraph.createNode('PrimitiveFloat');
        window.app.graph.add(primitive);
        primitive.connect(0, node, node.inputs.findIndex(input => input.name === 'perturbation'));
        found.push(shown());  // what comes over the link is not known here
        choose('negative_prompt', "sampler's");
        return found;
    }""")
    assert labels == [
        ["temperature"],
        ["temperature", "renew_every"],
        ["renew_every"],
        ["reach"],
        ["reach", "schedule"],
        ["renew_every"],
        ["negative", "renew_every"],
        ["renew_every"],
        [],  # a branch that carries a negative prompt meets the attention, and is renewed
    ]
    screenshot(page, "idle_inputs")
    assert not errors_of_ours(page)


def test_a_preset_sets_what_it_says_and_is_told_by_the_inputs(other_page):
    """Chosen, it sets all inputs; turned by hand, they are the user's own; saved and queued are the inputs alone."""
    page = other_page
    page.evaluate(f"() => {{ {NUMBERED} 200; }}")
    found = page.evaluate(
        """names => {
        const node = LiteGraph.createNode('NAGPAGGuidanceAdvanced');
        window.app.graph.add(node);
        const widget = name => node.widgets.find(one => one.name === name);
        const choose = (name, value) => { widget(name).value = value; widget(name).callback?.(value); };
        const values = () => Object.fromEntries(
            node.widgets.filter(one => one.name !== 'preset').map(one => [one.name, one.value]));
        const shown = [widget('preset').value];
        const set = Object.fromEntries(names.map(name => {
            choose('preset', name);
            return [name, [widget('preset').value, values()]];
        }));
        choose('alpha', 0.07);
        shown.push(widget('preset').value);
        choose('preset', 'gentle');
        const saved = node.serialize();
        const again = LiteGraph.createNode('NAGPAGGuidanceAdvanced');
        window.app.graph.add(again);
        again.configure({...saved, id: again.id});
        const chosen = again.widgets.find(one => one.name === 'preset');
        shown.push(chosen.value);
        const linked = LiteGraph.createNode('NAGPAGCalibrate');
        window.app.graph.add(linked);
        linked.connect(0, again, again.inputs.findIndex(input => input.name === 'blocks'));
        shown.push(chosen.value);
        return {shown, set, saved: saved.widgets_values, words: [chosen.label, chosen.tooltip]};
    }""",
        list(PRESETS),
    )
    assert found["shown"] == ["default", OWN, "gentle", OWN]
    assert found["words"] == [PRESET.name, PRESET.does]
    assert found["set"] == {name: [name, {**ADVANCED.defaults, **values}] for name, values in PRESETS.items()}
    assert found["saved"] == list({**ADVANCED.defaults, **PRESETS["gentle"]}.values())
    screenshot(page, "preset")
    assert not errors_of_ours(page)


def test_a_curve_editor_is_connected(page):
    """Two nodes from the registry and one connection; what is queued carries the link."""
    queued = page.evaluate("""async () => {
        window.app.graph.clear();
        const [editor, ours] = ['CurveEditor', 'NAGPAGGuidanceAdvanced'].map(type => {
            const node = LiteGraph.createNode(type);
            window.app.graph.add(node);
            return node;
        });
        editor.connect(0, ours, ours.inputs.findIndex(input => input.name === 'curve'));
        ours.pos = [editor.pos[0] + 500, editor.pos[1]];
        const prompt = (await window.app.graphToPrompt()).output;
        return {editor: String(editor.id), curve: prompt[String(ours.id)].inputs.curve,
                drawn: prompt[String(editor.id)].inputs.curve};
    }""")
    assert queued["curve"] == [queued["editor"], 0]
    assert queued["drawn"]["points"] == [[0, 0], [1, 1]]
    screenshot(page, "curve_editor")
    assert not errors_of_ours(page)


def test_the_text_and_the_plot_show_on_their_nodes(page):
    """The shipped diagnostics graph, queued from the page on the small models."""
    open_workflow(page, graphs.DIAGNOSTICS)
    graph = graphs.for_small_models(graphs.load_graph(graphs.DIAGNOSTICS), 128, 128, steps=4)
    page.evaluate(
        """graph => { for (const [id, node] of Object.entries(graph)) {
            const shown = window.app.graph.getNodeById(Number(id));
            for (const widget of shown.widgets ?? [])
                if (['string', 'number'].includes(typeof node.inputs[widget.name]))
                    widget.value = node.inputs[widget.name];
        } }""",
        graph,
    )
    before = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    page.evaluate("async () => { await window.app.queuePrompt(0, 1); }")
    page.wait_for_function(
        """() => {
            const of = type => window.app.graph._nodes.find(node => node.type === type);
            const text = of('NAGPAGInspect').widgets.find(widget => widget.name === 'found')?.value ?? '';
            return text.includes('19 double, 4 single') && of('NAGPAGPlot').imgs?.[0]?.naturalWidth === 1280;
        }""",
    )
    # What is shown does not go into the next prompt.
    assert page.evaluate("async () => (await window.app.graphToPrompt()).output") == before
    screenshot(page, "flux_dev_diagnostics_run")
    assert not errors_of_ours(page)


# --- the blueprint ---


def test_the_blueprint_is_found_placed_and_queued(page, server):
    """On the small models; the picture without guidance is that of the graph with scale 0."""
    place_blueprint(page)
    screenshot(page, "blueprint")
    graph = graphs.for_small_models(graphs.load_graph(graphs.WITH_NEGATIVE), 64, 64, steps=4)
    first = {name: widgets[0] for name, (_, widgets) in blueprint.INPUTS.items()}
    values = {name: graph[str(number)]["inputs"][widget] for name, (number, widget) in first.items()}
    queued = page.evaluate(
        """async ([values, type]) => {
        const [node] = window.app.graph._nodes;
        for (const widget of node.widgets) widget.value = values[widget.name];
        // Not on the node: the small text encoder is of another type.
        const loader = node.subgraph.nodes.find(one => one.type === 'DualCLIPLoader');
        loader.widgets.find(one => one.name === 'type').value = type;
        for (const slot of [0, 1]) {
            const shown = LiteGraph.createNode('PreviewImage');
            shown.pos = [node.pos[0] + 500, node.pos[1] + 350 * slot];
            window.app.graph.add(shown);
            node.connect(slot, shown, 0);
        }
        return (await window.app.graphToPrompt()).output;
    }""",
        [values, graph["2"]["inputs"]["type"]],
    )
    within = {key.rpartition(":")[2]: node["inputs"] for key, node in queued.items() if ":" in key}
    for key, node in graph.items():
        if node["class_type"] != "SaveImage":
            assert _unnested(within[key]) == node["inputs"], node["class_type"]
    assert _unnested(within["18"]) == {**graph["9"]["inputs"], "model": ["1", 0]}
    off, on = _previews(page, server)
    both = [graphs.with_guidance(graph, scale=0.0), graph]
    with ThreadPoolExecutor(1) as pool:  # Playwright has this thread's event loop
        (plain,), (guided,) = pool.map(lambda one: run_graph(server, one), both)
    assert [one.tobytes() for one in (off, on)] == [_pixels(one).tobytes() for one in (plain, guided)]
    assert off.tobytes() != on.tobytes()
    screenshot(page, "blueprint_run")
    assert not errors_of_ours(page)


def place_blueprint(page):
    """As a person does; alone in the graph."""
    for _ in range(5):
        page.evaluate("() => window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        assert found_at_last(page, "NAG-PAG, off") == [blueprint.NAME]
        page.locator("[data-testid=result-item]").click()
        page.wait_for_function("() => window.app.graph._nodes.length === 1")
        page.locator("input[aria-controls=results-list]").wait_for(state="hidden")
        page.mouse.move(900, 300)
        page.wait_for_timeout(200)
        page.mouse.click(900, 300)  # the node hangs on the pointer until then
        page.wait_for_timeout(200)
        if page.evaluate("() => window.app.graph._nodes.length") == 1:
            break  # a click that comes before the search has closed puts the node away again
    assert page.evaluate("() => window.app.graph._nodes.length") == 1


def found_at_last(page, words):
    """What is found as soon as anything is: the frontend fetches blueprints after all else, and searches but once."""
    for _ in range(150):
        if found := found_by(page, words):
            return found
        page.locator("input[aria-controls=results-list]").fill("")
    return []


def _unnested(inputs):
    """Links without the number of the node that the subgraph is."""
    return {name: [v[0].rpartition(":")[2], v[1]] if isinstance(v, list) else v for name, v in inputs.items()}


def _previews(page, server):
    """Queue what is on the page; the pictures that its two previews then show."""
    page.evaluate("async () => { await window.app.queuePrompt(0, 1); }")
    page.wait_for_function("() => window.app.graph._nodes.filter(one => one.imgs?.[0]?.naturalWidth).length === 2")
    while requests.get(f"{server.url}/prompt", timeout=30).json()["exec_info"]["queue_remaining"]:
        page.wait_for_timeout(50)  # the pictures show before the history has them
    (last,) = requests.get(f"{server.url}/history?max_items=1", timeout=30).json().values()
    shown = [image for _, output in sorted(last["outputs"].items()) for image in output["images"]]
    return [_pixels(requests.get(f"{server.url}/view", params=image, timeout=30).content) for image in shown]


def _pixels(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


# --- everything, in both canvases and in two languages ---

BLANK = 48  # pixels below the last thing on a node: the pack's name, or the bar that shows more inputs


def place_all(page):
    """All nodes of the pack on an empty graph; their titles."""
    return page.evaluate(
        """ids => {
        window.app.graph.clear();
        return ids.map((id, i) => {
            const node = LiteGraph.createNode(id);
            node.pos = [460 * (i % 4), 700 * Math.floor(i / 4)];
            window.app.graph.add(node);
            return node.title;
        });
    }""",
        [node.id for node in locales.NODES],
    )


def blanks(page):
    """How many pixels are empty at each node's foot, as Nodes 2.0 draws it, at the scale 1, once it is laid out."""
    page.wait_for_function("count => document.querySelectorAll('.lg-node').length === count", arg=len(locales.NODES))
    for _ in range(60):
        page.wait_for_timeout(500)
        if max(found := _blanks_now(page)) <= BLANK:
            break
    return found


def _blanks_now(page):
    return page.evaluate("""() => [...document.querySelectorAll('.lg-node')].map(node => {
        const last = [...node.querySelectorAll('*')].filter(one => !one.children.length);
        const bottom = Math.max(...last.map(one => one.getBoundingClientRect().bottom));
        return (node.getBoundingClientRect().bottom - bottom) / window.app.canvas.ds.scale;
    })""")


def help_of(page, node, language):
    """Select the node and have its help open at its side."""
    page.evaluate(
        """id => {
        const {graph, canvas} = window.app;
        canvas.selectNode(graph._nodes.find(one => one.type === id));
        canvas.setDirty(true, true);
    }""",
        node.id,
    )
    translated = host.REPO / "web" / "docs" / node.id / f"{language}.md"
    file = translated if translated.exists() else host.REPO / "web" / "docs" / f"{node.id}.md"
    title = re.search(r"^# (.+)$", file.read_text(), re.MULTILINE)[1]
    heading = page.get_by_role("heading", level=1, name=title, exact=True)
    if not heading.count():
        page.locator("[data-testid=info-button]").click()
    heading.wait_for()
    panel = {"x": 1900, "y": 0, "width": 700, "height": 1200}
    page.screenshot(path=ARTEFACTS / f"help_{node.id}_{language}.png", clip=panel)


def test_everything_opens_in_both_canvases(other_page):
    """In English; each workflow in the classic canvas is seen above, in Nodes 2.0 below."""
    everything(other_page, "en")


def test_everything_opens_in_both_canvases_in_another_language(browser, server):
    """In Russian, whose words are the longest; and each workflow in Nodes 2.0."""
    page = loaded(browser, server, "ru")
    try:
        everything(page, "ru", workflows=graphs.TEMPLATES)
    finally:
        page.close()


def everything(page, language, workflows=()):
    """Nodes and blueprint in both canvases, and the help; these workflows in Nodes 2.0."""
    texts = json.loads((host.REPO / f"locales/{language}/nodeDefs.json").read_text())
    try:
        for canvas, nodes_2 in (("classic", False), ("nodes_2", True)):
            page.evaluate("on => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", nodes_2)
            assert place_all(page) == [texts[node.id]["display_name"] for node in locales.NODES]
            screenshot(page, f"nodes_{canvas}_{language}")
            assert not nodes_2 or max(blanks(page)) <= BLANK
            for name in workflows if nodes_2 else ():
                open_workflow(page, name)
                screenshot(page, f"{name}_{canvas}_{language}")
            page.evaluate("() => window.app.graph.clear()")
            place_blueprint(page)
            screenshot(page, f"blueprint_{canvas}_{language}")
        place_all(page)
        for node in locales.NODES:
            help_of(page, node, language)
        assert not errors_of_ours(page)
    finally:
        page.evaluate("() => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
