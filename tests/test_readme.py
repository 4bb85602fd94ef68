"""What the documents show works: commands parse, recipes and overrides compose, links lead somewhere."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from s2s import app, cli, paths
from s2s.attention import names
from s2s.registry import ALIASES, group_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("recipes/*/*/README.md")], key=lambda path: path.as_posix()
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page_name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(language, text):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_words(line):
    """The words of each command in a line of a pipe, without comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    commands = [[]]
    for word in lexer:
        if set(word) <= set("|;&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [words for words in commands if words]


COMMANDS = [
    pytest.param(words, id=f"{page_name(page)}: {' '.join(words)}")
    for page in PAGES
    for block in blocks("sh", page.read_text(encoding="utf-8"))
    for line in block.replace("\\\n", " ").splitlines()
    for words in shell_words(line)
]


def check_s2s(words):
    """Parse an s2s command; compose what it trains or looks at. Nothing is run, no file is read but config."""
    command = words[0]
    args = cli.command_parser(command).parse_intermixed_args(words[1:])
    if command == "train":
        if args.recipe is None:
            assert args.resume
        elif args.multirun:
            assert len(app.sweep(args.recipe, args.overrides)) > 1
        elif (ROOT / args.recipe).suffix != ".yaml":
            app.compose(args.recipe, args.overrides)
    elif command == "demo":
        app.compose(args.recipe, args.overrides)
    elif command == "doctor":
        if args.corpus in group_names("corpus"):
            overrides = [f"corpus.{override}" for override in args.overrides]
            app.compose("translate/debian-en-de", [f"corpus={args.corpus}", *overrides])
        else:
            app.compose(args.corpus, args.overrides)


def check_make(words):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = [word for word in words if "=" not in word]
    assert asked
    assert set(asked) <= targets
    variables = re.findall(r"^([A-Z_]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word.partition("=")[0] for word in words if "=" in word} <= set(variables)


def check_pip(words):
    assert words[0] == "install"
    assert "constraints.txt" in words
    extras = re.findall(r"\[(.*)\]", " ".join(words))
    assert set(extras) <= {"dev", "tensorboard", "serve"}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_is_shown_works(words):
    while re.fullmatch(r"[A-Z0-9_]+=\S*", words[0]):  # the environment of a command
        words = words[1:]
    name, rest = words[0].rpartition("/")[2], words[1:]
    if name == "s2s":
        check_s2s(rest)
    elif name == "make":
        check_make(rest)
    elif name == "pip":
        check_pip(rest)
    elif name in ("python", "python3") and rest[0].startswith("bench/"):
        assert (ROOT / rest[0]).is_file()
        names, changes = ([word for word in rest[1:] if ("=" in word) is kind] for kind in (False, True))
        assert set(names) <= set(group_names("attention"))
        app.compose("translate/multi30k", changes)
    elif name in ("python", "python3"):
        assert rest[:2] in (["-m", "venv"], ["-m", "pytest"])
    else:
        assert name in ("echo", "pre-commit", "curl"), f"this test doesn't know how to check `{name}`"


def test_a_wrong_command_would_be_noticed():
    with pytest.raises(SystemExit):
        check_s2s(["translate", "runs/x", "--beem", "5"])
    for wrong in (["train", "translate/debian"], ["train", "teach/copy", "trainer.stebs=1"], ["doctor", "debain"]):
        with pytest.raises(app.ConfigError):
            check_s2s(wrong)
    with pytest.raises(AssertionError):
        check_make(["demos"])
    assert shell_words('echo "a | b" | s2s list  # names') == [["echo", "a | b"], ["s2s", "list"]]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_that_are_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and not link.startswith("#")]
    missing = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing
    # a file or folder of the project that is named in the text
    named = re.findall(r"`((?:s2s|conf|recipes|tests|data|bench)/[\w./-]*)`", text)
    examples = {"conf/attention/cosine.yaml", "data/task1/raw"}  # to be made by the reader; of another repository
    assert not [name for name in named if not (ROOT / name).exists() and name not in examples]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_python_that_is_shown_parses(page):
    for block in blocks("python", page.read_text(encoding="utf-8")):
        ast.parse(block)


def test_python_that_needs_no_model_runs(capsys):
    shown = [block for block in blocks("python", README) if "s2s.load" not in block and "base_url" not in block]
    assert shown
    for block in shown:
        exec(compile(block, "README.md", "exec"), {})
    assert "torch.Size([2, 5, 32]) torch.Size([2, 5, 7])" in capsys.readouterr().out


def test_the_table_of_commands_is_whole():
    table = README.partition("## Commands\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `s2s (\w+)", table, re.MULTILINE) == list_in_order(cli.COMMANDS)


def list_in_order(commands):
    """As `s2s --help` has them, but for what a newcomer needs first."""
    return sorted(commands, key=lambda name: name != "demo")


def test_the_table_of_mechanisms_names_all_of_them_and_their_aliases():
    (table,) = re.findall(r"^\| family \| names \|\n(.*?)\n\n", README, re.MULTILINE | re.DOTALL)
    told = re.findall(r"`(\w+)`", table)
    assert sorted(told) == sorted([*names(), *ALIASES["attention"]])


def test_every_recipe_has_a_page_with_its_command():
    for name, path in paths.recipe_files().items():
        page = (path.parent / "README.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {name}\n")
        assert f"s2s train {name}\n" in page


def test_the_set_up_names_no_host_and_no_place_of_one_machine():
    for name in ("Makefile", "constraints.txt", ".ci/run", ".pre-commit-config.yaml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file://|extra-index|/(home|root|tmp|opt)/", text)
