# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a run says what its files say, without network and without foreign HTML.

Runs are made up by hand; the oracle is the parser of the standard library.
"""

import base64
import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from rfrec.codes import table
from rfrec.config import UserError, as_json
from rfrec.data.interactions import write_inter_json
from rfrec.data.synthetic import histories
from rfrec.reports import page as html
from rfrec.reports import published, sections
from tests.support.commands import ROOT, command, load_config

pytest.importorskip("jinja2", reason="pages are made by rfrec[plots]")
pytest.importorskip("matplotlib", reason="curves are drawn by rfrec[plots]")

ITEMS, USERS = 30, 8
EVIL = '<script>alert(1)</script> & "Co"'
GRAPH = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
RETRIEVAL = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10", "mrr")


class Page(HTMLParser):
    """Text, rows of tables, tags and addresses of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.addresses, self.texts, self.rows = [], [], [], []
        self.in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.texts.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(run, **overrides):
    """Makes the page and checks that it holds all that it shows."""
    numbers = str(ROOT / "third_party" / "reference_numbers.json")
    config = load_config("html", reference_numbers=numbers, **overrides)
    html.main(config, run)
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    return page


def metrics(names, first):
    values = {
        name: {"mean": first + i / 100, "low": first - 0.01, "high": first + 0.09}
        for i, name in enumerate(names)
    }
    return {"metrics": {"all": {"users": USERS, **values}}}


def make_run(folder, main, config, rows=(), listed=None, **report):
    folder.mkdir()
    base = {
        "main": main,
        "users": USERS,
        "items": ITEMS,
        "data": {"names": ["toys"], "sha256": "ab" * 32},
        "seed": 17,
        "device": "cpu x 1",
    }
    (folder / "config.json").write_text(json.dumps(as_json(config)))
    (folder / "report.json").write_text(json.dumps(base | report))
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if listed is not None:
        lines = [
            json.dumps(
                {"user": str(user), "items": items, "scores": [0.5] * len(items)}
            )
            for user, items in enumerate(listed)
        ]
        (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def data(tmp_path):
    """Histories, and titles of which one looks like HTML."""
    folder = tmp_path / "data"
    folder.mkdir()
    inter = histories(USERS, num_items=ITEMS, num_clusters=2, max_length=20, seed=0)
    write_inter_json(inter, folder / "toys.inter.json")
    titles = [EVIL if i == 3 else f"Title {i}" for i in range(ITEMS)]
    lines = [f"{i}\t{title}\t{i}.png" for i, title in enumerate(titles)]
    (folder / "toys.items.tsv").write_text("\n".join(["item\ttitle\timage", *lines]))
    return folder


@pytest.fixture
def graph_run(tmp_path, data):
    overrides = {"data.source": "folder", "data.name": "toys", "data.path": str(data)}
    rows = [
        {"step": e, "epoch": e, "split": split, "loss": 1 / e, "recall@20": 0.1 * e}
        for e in (1, 2)
        for split in ("train", "eval")
    ]
    return make_run(
        tmp_path / "graph",
        "gume",
        load_config("gume", "smoke", **overrides),
        rows,
        [[3, 4, 5]] * USERS,
        model="gume",
        warning="it ended on a plateau",
        pairs={"train": 100},
        data={"name": "baby", "sha256": "ab"},
        test=metrics(GRAPH, 0.3),
        valid=metrics(GRAPH, 0.2),
    )


@pytest.fixture
def lists_run(tmp_path, data):
    overrides = {"data.path": str(data), "data.names": ("toys",)}
    trained = make_run(
        tmp_path / "t5",
        "t5",
        load_config("t5", **overrides),
        models={"ndcg@10": {"step": 5306, "hr@10": 0.102}},
    )
    inter = histories(USERS, num_items=ITEMS, num_clusters=2, max_length=20, seed=0)
    taken = [int(inter.history(user)[-1]) for user in range(USERS)]
    listed = [[item, (item + 1) % ITEMS] for item in taken]
    how = {"by_item": metrics(RETRIEVAL, 0.1), "by_code": metrics(RETRIEVAL, 0.2)}
    return make_run(
        tmp_path / "lists_run",
        "recommend",
        load_config("recommend", run=str(trained)),
        (),
        listed,
        which="test",
        warnings=["two items share codes"],
        data={"names": ["Instruments"], "sha256": "cd"},
        lists={"text": how},
    )


@pytest.fixture
def tokenizer_run(tmp_path):
    level = {"size": 16, "used": 12, "perplexity": 9.5, "entropy": 2.0}
    count = {"items": ITEMS, "distinct": 25, "conflict_items": 5, "largest_group": 2}
    row = {"step": 1, "epoch": 1, "split": "eval", "loss": 0.5, "levels": [level] * 2}
    made = make_run(
        tmp_path / "tokenizer",
        "rqvae",
        load_config("rqvae", "smoke"),
        [row],
        data={"names": ["ml1m_catalog"], "sha256": "00"},
        codes={
            "before": count | {"collision_rate": 5 / ITEMS},
            "after": count | {"conflict_items": 0, "collision_rate": 0.0},
        },
        levels=[level] * 2,
        energy_left=0.625,
        models={"last": {"step": 7, "loss": 0.25, "levels": []}},
    )
    codes = np.stack([np.arange(ITEMS) % 4, np.arange(ITEMS) // 4], axis=1)
    table.write_index(made / "codes.json", codes)
    return made


def test_a_graph_recommender(graph_run):
    page = page_of(graph_run)
    assert ["seed", "17"] in page.rows and ["device", "cpu x 1"] in page.rows
    assert ["pairs, train", "100"] in page.rows
    assert "Warning: it ended on a plateau" in page.text
    cells = [f"{0.3 + i / 100:.4f} [0.2900,\xa00.3900]" for i in range(4)]
    assert ["all", str(USERS), *cells] in page.rows
    assert ["this run, test", *cells] in page.rows
    assert ["GUME", "0.0673", "0.1042", "0.0365", "0.046"] in page.rows
    assert ["train.epochs", "30"] in page.rows
    pictures = [a for a in page.addresses if a.startswith("data:")]
    assert len(pictures) == 1  # curves
    content = base64.b64decode(pictures[0].partition(",")[2], validate=True)
    assert content.startswith(b"\x89PNG")


def test_a_title_is_text_whatever_it_holds(graph_run):
    page = page_of(graph_run)
    assert EVIL in page.text
    assert "<script" not in (graph_run / "report.html").read_text()


def test_lists_of_a_t5(lists_run):
    page = page_of(lists_run)
    assert "Warning: two items share codes" in page.text
    by_item = [f"{0.1 + i / 100:.4f} [0.0900,\xa00.1900]" for i in range(6)]
    assert ["all", str(USERS), *by_item] in page.rows
    assert ["this run, test, text, by item", *by_item[:5]] in page.rows
    assert ["TIGER", "0.0754", "0.1007", "0.1221", "0.0882", "0.095"] in page.rows
    # Every list begins with the item that was held out.
    assert page.text.count(", held out") == 6
    assert "History, oldest item first" in page.text


def test_users_and_items_that_are_shown_can_be_chosen(lists_run):
    page = page_of(lists_run, **{"examples.users": 2, "examples.top_k": 1})
    assert page.text.count("Ranked list, best item first") == 2
    assert page.text.count("score 0.500") == 2
    page = page_of(lists_run, **{"examples.users": 0})
    assert "config.examples.users is 0" in page.text


def test_training_of_a_t5(lists_run, tmp_path):
    page = page_of(tmp_path / "t5")
    assert ["ndcg@10", "5,306", "0.102"] in page.rows
    assert "Curves None: metrics.jsonl has no rows." in page.text


def test_a_tokenizer(tokenizer_run):
    page = page_of(tokenizer_run)
    assert ["before repair", "30", "25", "5", "2", "16.67%"] in page.rows
    assert ["2", "16", "12", "75.0%", "9.5"] in page.rows
    assert ["last", "7", "0.25"] in page.rows
    assert ["random initialisation", "–", "1", "3,881", "–"] in page.rows
    assert ["this run, before repair", "30", "25", "5", "9.5"] in page.rows
    assert "0.6250" in page.text
    assert "No titles" in page.text  # the items are synthetic
    assert len([a for a in page.addresses if a.startswith("data:")]) == 3


def test_titles_tell_what_codes_hold(tokenizer_run, data):
    page = page_of(tokenizer_run, **{"examples.table": str(data / "toys.items.tsv")})
    titles = "; ".join(f"Title {i}" for i in (0, 4, 8, 12, 16, 20))
    assert ["0", "8", titles] in page.rows


def test_pictures_are_small_and_inside(graph_run, data):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    for item in (3, 4):
        image.new("RGB", (400, 200)).save(data / f"{item}.png")
    options = {"examples.users": 1, "examples.pixels": 40}
    for chosen in ({"examples.image": "image"}, {"examples.folder": str(data)}):
        page = page_of(graph_run, **options, **chosen)
        jpegs = [a for a in page.addresses if a.startswith("data:image/jpeg")]
        assert len(jpegs) >= 2
        with image.open(
            io.BytesIO(base64.b64decode(jpegs[0].partition(",")[2]))
        ) as one:
            assert one.size == (40, 20)
    (data / "5.png").write_text("no picture")
    with pytest.raises(UserError, match=r"5\.png is not an image"):
        page_of(graph_run, **{"examples.image": "image"})


def test_what_is_missing_is_said(graph_run, data):
    (data / "toys.items.tsv").unlink()
    (data / "toys.inter.json").unlink()
    (graph_run / "metrics.jsonl").unlink()
    page = page_of(graph_run)
    assert "None: metrics.jsonl has no rows." in page.text
    assert "Histories and held-out items are not shown: " in page.text
    assert "No titles" in page.text and "item 3" in page.text
    (graph_run / "predictions.jsonl").unlink()
    assert "None: there is no predictions.jsonl." in page_of(graph_run).text
    (graph_run / "report.json").unlink()
    page = page_of(graph_run)
    assert "The run is not finished" in page.text
    assert ["train.epochs", "30"] in page.rows
    config = load_config("html", reference_numbers="nowhere.json")
    report = sections.Report(graph_run, {"main": "gume"})
    section = published.section(graph_run / config.reference_numbers, report)
    assert "nowhere.json does not exist" in section.notes[0]


def test_numbers_of_other_data_are_not_shown(graph_run):
    content = json.loads((graph_run / "report.json").read_text())
    for name, expected in (("my_shop", "my_shop"), (None, "data without a name")):
        content["data"]["name"] = name
        (graph_run / "report.json").write_text(json.dumps(content))
        page = page_of(graph_run)
        assert f"There are none for {expected}." in page.text
        assert "FREEDOM" not in page.text


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("main",), 3, "main is 3, not a str"),
        (("main",), "bench", "runs of rfrec.launch.bench have no page"),
        (("data",), [], "data is .*, not a dict"),
        (("test",), {}, "test.metrics is missing"),
        (("test", "metrics", "all", "ndcg@10"), {"mean": "x"}, "is missing|is 'x'"),
        (("items",), "many", "items is 'many'"),
    ],
)
def test_a_damaged_report_is_one_line(graph_run, keys, value, message):
    path = graph_run / "report.json"
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        page_of(graph_run)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (graph_run / "report.html").exists()


@pytest.mark.parametrize("kind", ["graph_run", "lists_run", "tokenizer_run"])
def test_whatever_is_damaged_nothing_but_a_line_comes_of_it(kind, request):
    run, config = request.getfixturevalue(kind), load_config("html")
    (run / "metrics.jsonl").unlink()
    (run / "codes.json").unlink(missing_ok=True)
    path = run / "report.json"
    whole = json.loads(path.read_text())

    def places(value, at=()):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*at, key)
            if isinstance(value[key], dict | list):
                yield from places(value[key], (*at, key))

    refused = 0
    for *outer, last in places(whole):
        for damage in (3, {"y": None}):
            content = json.loads(json.dumps(whole))
            place = content
            for key in outer:
                place = place[key]
            place[last] = damage
            path.write_text(json.dumps(content))
            try:
                html.render("run", *html.build(config, run))
            except UserError as error:
                refused += 1
                assert str(path) in str(error) or "items" in str(error)
    assert refused > 20


def test_other_damage_is_one_line(graph_run, data):
    path = graph_run / "predictions.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"items"', '"things"'))
    with pytest.raises(UserError, match=r"predictions\.jsonl, line \d: is not a list"):
        page_of(graph_run)
    path.write_text(whole)
    items = data / "toys.items.tsv"
    items.write_text("".join(items.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="29 items, the run 30"):
        page_of(graph_run)
    (graph_run / "report.json").write_text('{"main": ')
    with pytest.raises(UserError, match=r"report\.json: is not valid JSON"):
        page_of(graph_run)
    with pytest.raises(UserError, match="does not exist"):
        page_of(graph_run / "nowhere")


def test_a_run_and_each_seed_of_one_get_their_page(graph_run, tmp_path):
    html.write_pages(graph_run)
    assert "Graph recommender" in Page((graph_run / html.PAGE).read_text()).text
    for seed in (0, 1):
        shutil.copytree(graph_run, tmp_path / "seeds" / f"seed_{seed}")
        (tmp_path / "seeds" / f"seed_{seed}" / html.PAGE).unlink()
    html.write_pages(tmp_path / "seeds")
    assert len([*(tmp_path / "seeds").glob("seed_*/report.html")]) == 2


def test_a_run_stands_without_its_page(graph_run, monkeypatch, caplog):
    def missing():
        raise UserError("figures need matplotlib: pip install 'rfrec[plots]'")

    monkeypatch.setattr(html.figures, "require_matplotlib", missing)
    html.write_pages(graph_run)
    assert not (graph_run / html.PAGE).exists()
    assert f"no page for {graph_run}: figures need matplotlib" in caplog.text


@pytest.mark.parametrize("flag", ["--page", "--nopage"])
def test_a_main_leaves_its_page(tmp_path, run_python, flag):
    done = run_python(command("rqvae", tmp_path / "run", flag)[1:], devices=1)
    wanted = flag == "--page"
    assert (tmp_path / "run" / html.PAGE).exists() == wanted
    assert ("page: " in done.stderr) == wanted
