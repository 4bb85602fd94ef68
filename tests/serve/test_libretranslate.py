"""LibreTranslate's clients are answered as they expect."""

import json
from urllib.error import HTTPError

import libretranslatepy as library
import pytest
from serve_toys import running


@pytest.fixture(scope="module")
def languages(models):
    return models["reverse"].model.languages


def ask(server, languages, **body):
    return server.post("/translate", json={"source": languages[0], "target": languages[1], **body})


def test_their_python_client_translates(server, models, languages, sources):
    theirs = library.LibreTranslateAPI(str(server.base_url))
    assert theirs.translate(sources[0], *languages) == models["reverse"].model.translate(sources[0])
    assert theirs.translate("<b>é & ü</b>", *languages) == models["reverse"].model.translate("<b>é & ü</b>")
    (only,) = theirs.languages()
    assert (only["code"], only["targets"]) == (languages[0], [languages[1]])
    with pytest.raises(HTTPError) as error:
        theirs.detect("ba")
    assert error.value.code == 404


def test_their_python_client_shows_its_key(models, languages):
    with running(models, api_key="sesame") as address:
        assert library.LibreTranslateAPI(address, "sesame").translate("", *languages) == ""
        for key in (None, "", "wrong"):
            with pytest.raises(HTTPError) as error:
                library.LibreTranslateAPI(address, key).translate("ba", *languages)
            assert error.value.code == 401
            assert "error" in json.loads(error.value.read())


def test_a_list_gives_a_list_with_alternatives_for_each(server, models, languages, sources):
    expected = models["reverse"].model.translate(sources[:3], details=True, nbest=3)
    got = ask(server, languages, q=sources[:3], alternatives=2).json()
    assert got["translatedText"] == [one.text for one in expected]
    assert got["alternatives"] == [[other.text for other in one.nbest[1:]] for one in expected]
    got = ask(server, languages, q=sources[0], alternatives=1).json()
    assert got == {"translatedText": expected[0].text, "alternatives": [expected[0].nbest[1].text]}


def test_html_keeps_its_markup(server, models, languages, sources):
    one, two = models["reverse"].model.translate(sources[:2])
    source = f"<p class='x'>{sources[0]} <b>{sources[1]}</b></p><script>1 < 2</script>"
    expected = f"<p class='x'>{one} <b>{two}</b></p><script>1 < 2</script>"
    assert ask(server, languages, q=source, format="html").json() == {"translatedText": expected}
    assert ask(server, languages, q=[source, "<hr>"], format="html").json()["translatedText"] == [expected, "<hr>"]


def test_a_form_may_hold_several_texts(server, models, languages, sources):
    form = {"q": sources[:2], "source": languages[0], "target": languages[1], "alternatives": "1"}
    got = server.post("/translate", data=form).json()
    assert got["translatedText"] == models["reverse"].model.translate(sources[:2], nbest=2)
    assert [len(others) for others in got["alternatives"]] == [1, 1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"q": 1}, 400),
        ({"q": []}, 400),
        ({}, 400),
        ({"q": "ba", "format": "pdf"}, 400),
        ({"q": "ba", "alternatives": 99}, 400),
        ({"q": "ba", "alternatives": -1}, 400),
        ({"q": "<p>", "format": "html", "alternatives": 1}, 400),
        ({"q": "<b>a" * 2000, "format": "html"}, 400),
        ({"q": "ba", "file": "/etc/passwd"}, 400),
        ({"q": "ba", "source": "auto"}, 404),
        ({"q": "ba", "target": "xx"}, 404),
    ],
)
def test_what_is_wrong_is_refused_in_their_form(server, languages, body, status):
    answer = ask(server, languages, **body)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("body", [b"q", b"q=%ff", b"q=\xff", b"q=a&source=a&source=b", b"&".join([b"q=a"] * 100)])
def test_a_broken_form_is_refused(server, body):
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.post("/translate", content=body, headers=kind).status_code == 400
    assert server.post("/translate", content=body, headers={"Content-Type": "multipart/form-data"}).status_code == 415


def test_settings_are_told(server, languages):
    told = server.get("/frontend/settings").json()
    assert told["language"]["source"]["code"] == languages[0]
    assert not told["keyRequired"]
    assert server.get("/health").json() == {"status": "ok"}
