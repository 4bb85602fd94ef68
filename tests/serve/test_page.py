"""The page in a real browser: outputs, attention, n-best, conversations; by pointer and keys; asking nobody else."""

import os
import re
from pathlib import Path

import pytest
from serve_toys import running

from s2s.serve.page import FILES

pytestmark = pytest.mark.slow  # a browser is started; .ci/run does it too

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)</script> ba"


@pytest.fixture(scope="module")
def browser():
    library = pytest.importorskip(
        "playwright.sync_api", reason="the page is tested by playwright: pip install -e '.[dev]'"
    )
    found = next((path for path in BROWSERS if os.path.exists(path)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")
    with library.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser, address):
    """`opened()` gives the page; whatever it asks of others, and each of its errors, fails the test."""
    contexts, problems = [], []
    refusal = "responded with a status of 40"  # which the page tells by itself

    def visit(place=address, **options):
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda one: one.url.startswith(place) or problems.append(one.url))
        page.on("console", lambda one: one.type == "error" and refusal not in one.text and problems.append(one.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.goto(place)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def expect(what):
    from playwright.sync_api import expect as real

    return real(what, None)


def translate(page, text, model="reverse", beside=""):
    page.get_by_label("Model", exact=True).select_option(model)
    if beside:
        page.get_by_label("Beside it").select_option(beside)
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Translate").click()
    expect(page.locator("article.sample dl")).to_have_count(2 if beside else 1)


def output(page, place=0):
    return page.get_by_role("listbox", name="Output words").nth(place)


def weights(words):
    return [float(word.evaluate("e => e.style.getPropertyValue('--w')")) for word in words.all()]


def test_a_text_is_translated_with_its_best_outputs(opened, models, sources):
    page, (text, *_) = opened(), sources
    translate(page, text)
    result = models["reverse"].model.translate(text, details=True, nbest=3)
    expect(output(page)).to_have_text(f"{result.text}</s>")
    listed = page.locator("ol.nbest li")
    assert listed.locator(".output").all_inner_texts() == [one.text for one in result.nbest]
    assert listed.locator(".score").all_inner_texts() == [f"{one.score:.2f}" for one in result.nbest]


def test_pointing_at_an_output_word_shows_what_it_looked_at(opened, models, sources):
    page, text = opened(), max(sources, key=len)
    translate(page, text)
    result = models["reverse"].model.translate(text, details=True, nbest=3)
    source = page.get_by_role("listbox", name="Source words").locator(".word")
    for place in (2, 1):
        output(page).locator(".word").nth(place).hover()
        assert weights(source) == pytest.approx(result.alignment[place], abs=1e-3)
        strongest = result.source_pieces[max(range(len(result.source_pieces)), key=result.alignment[place].__getitem__)]
        expect(page.locator(".readout").first).to_contain_text(f"{result.pieces[place]} looked at {strongest}")
    source.nth(0).hover()
    assert weights(output(page).locator(".word")) == pytest.approx([row[0] for row in result.alignment], abs=1e-3)


def test_all_of_it_works_by_keys(opened, models, sources):
    page, text = opened(), max(sources, key=len)
    page.get_by_label("Model", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type(text)
    page.keyboard.press("Control+Enter")
    expect(output(page)).to_be_visible()
    for _ in range(5):  # to the words of the source, and on to those of the output
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.parentElement.getAttribute('aria-label')") == "Output words":
            break
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    result = models["reverse"].model.translate(text, details=True, nbest=3)
    assert page.evaluate("document.activeElement.textContent") == result.pieces[1]
    assert "looked at: " in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.textContent") == "</s>"


def test_the_matrix_has_all_weights_and_marks_what_is_pointed_at(opened, models, sources):
    page, text = opened(), sources[0]
    translate(page, text)
    result = models["reverse"].model.translate(text, details=True, nbest=3)
    page.get_by_text("Matrix of all weights").click()
    expect(page.locator(".matrix")).to_be_visible()
    rows = [weights(row.locator("td")) for row in page.locator(".matrix tbody tr").all()]
    assert rows == [pytest.approx(row, abs=1e-3) for row in result.alignment]
    page.locator(".matrix tbody tr").nth(1).locator("td").nth(0).hover()
    expect(page.locator(".matrix td.here")).to_have_count(1)
    expect(page.locator(".matrix th.here").first).to_have_text(result.source_pieces[0])


def test_two_models_stand_side_by_side(opened, models, sources):
    page, text = opened(), sources[0]
    translate(page, text, "reverse", "copy")
    first, second = page.locator("article.sample").all()
    assert [one.locator("h3").inner_text() for one in (first, second)] == ["reverse", "copy"]
    for card, name in ((first, "reverse"), (second, "copy")):
        best = models[name].model.translate(text, nbest=3)
        assert card.locator("ol.nbest .output").first.inner_text() == best
    assert first.bounding_box()["y"] == second.bounding_box()["y"]


def test_a_search_is_chosen(opened, models, sources):
    page, text = opened(), sources[0]
    page.get_by_text("Search", exact=True).click()
    page.get_by_label("How").select_option("sample")
    page.get_by_label("Temperature").fill("2")
    page.get_by_label("Seed").fill("3")
    translate(page, text)
    options = {"sample": True, "temperature": 2.0, "top_p": 0.95, "seed": 3, "nbest": 3}
    expected = models["reverse"].model.translate(text, details=True, **options)
    assert page.locator("ol.nbest .output").all_inner_texts() == [one.text or "empty" for one in expected.nbest]
    page.get_by_label("How").select_option("greedy")
    page.get_by_role("button", name="Translate").click()
    expect(page.locator("ol.nbest")).to_have_count(0)
    expect(output(page)).to_have_text(re.compile(re.escape(models["reverse"].model.translate(text, beam=1))))


def say(page, text):
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def test_a_conversation_goes_on_and_shows_what_it_looked_at(opened, models, sources):
    page = opened()
    page.get_by_label("Model", exact=True).select_option("talk")
    messages = []
    for text in sources[:2]:
        say(page, text)
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": models["talk"].model.chat(messages)})
        expect(page.get_by_role("button", name="What it looked at")).to_have_count(len(messages) // 2)
    assert page.locator(".bubble").all_inner_texts() == [message["content"] for message in messages]
    page.get_by_role("button", name="What it looked at").last.click()
    expect(output(page)).to_have_text(f"{messages[-1]['content']}</s>")
    page.get_by_role("button", name="Start again").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_a_reply_is_shown_while_it_is_written_and_can_be_stopped(opened, models):
    page = opened()
    page.get_by_label("Model", exact=True).select_option("slow")
    models["slow"].ended.clear()
    say(page, "go")
    expect(page.locator(".turn.assistant .bubble")).to_contain_text("on on on on")
    assert not models["slow"].ended.is_set()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".below")).to_have_text("stopped")
    assert models["slow"].ended.wait(10)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_markup_is_shown_as_text(opened):
    page = opened()
    translate(page, HOSTILE)
    page.get_by_text("Matrix of all weights").click()
    expect(page.get_by_role("listbox", name="Source words")).to_be_visible()
    page.get_by_label("Model", exact=True).select_option("talk")
    say(page, HOSTILE)
    expect(page.locator(".turn.user .bubble")).to_have_text(HOSTILE)
    expect(page.locator("main img, main script")).to_have_count(0)


def test_a_failure_is_told(opened, sources):
    page = opened()
    page.get_by_label("Text").fill("x" * 60_000)
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_role("alert")).to_contain_text("text: ")
    translate(page, sources[0])
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_key_is_asked_for(opened, models, sources):
    with running(models, api_key="sesame") as locked:
        page = opened(locked)
        for key in ("wrong", "sesame"):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Unlock").click()
            if key == "wrong":
                expect(page.get_by_role("alert")).to_contain_text("API key")
        translate(page, sources[0])
        expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(opened, sources, scheme):
    page = opened(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 800})
    translate(page, " ".join(sources[:3]), "reverse", "copy")
    page.get_by_text("Matrix of all weights").first.click()
    page.get_by_text("Search", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_label("Model", exact=True).select_option("talk")
    say(page, "ba " * 100)
    expect(page.get_by_role("button", name="What it looked at")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour))) < 200) == (scheme == "dark")


def test_every_control_has_a_name(opened, sources):
    page = opened()
    translate(page, sources[0])
    nameless = """[...document.querySelectorAll('select, input, textarea, button, summary, [role]')].filter(e =>
        !e.getAttribute('aria-label') && !e.labels?.length && !e.textContent.trim() && e.id !== 'failure').length"""
    assert page.evaluate(nameless) == 0


def test_no_file_has_inline_code_or_markup_made_of_text():
    folder = Path(__file__).parents[2] / "s2s" / "serve" / "page"
    assert {path.name for path in folder.iterdir()} == {name for name, _ in FILES.values()}
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", text)
        if path.suffix == ".html":
            assert not re.search(r"<style|style=|\son\w+=|<script(?! type=\"module\" src=\"/page/)", text)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
