"""Scale, page, claims, what they look like, the ledger and the table."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from gvlib import evidence, papers
from gvlib.evidence import KEYS, SYMBOLS

ONES = [1.0] * 5
SPREAD = [0.97, 0.98, 0.99, 0.98, 0.98]  # 95 % interval .971 to .989
PAGE = "memorization/random-labels"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No page yet, quick scale, an empty ledger, nothing recorded."""
    monkeypatch.setattr(evidence._Page, "name", None)
    monkeypatch.setattr(evidence._Page, "claims", {})
    for name in ("GV_SCALE", "GV_RECORD", "GV_STATIC"):
        monkeypatch.delenv(name, raising=False)
    real = evidence.resource
    where = {"data": tmp_path / "data"}
    monkeypatch.setattr(evidence, "resource", lambda f: where.get(f) or real(f))
    (tmp_path / "data" / "evidence").mkdir(parents=True)


@pytest.fixture
def shown(monkeypatch):
    """(html, text) of everything that was emitted."""
    out = []
    monkeypatch.setattr(evidence, "emit", lambda html, text: out.append((html, text)))
    return out


def claim(id="a-b", says="It fits.", paper="zhang2017", **kwargs):
    if not kwargs.keys() & {"values", "successes"}:
        kwargs["values"] = SPREAD
    if not kwargs.keys() & {"at_least", "at_most"}:
        kwargs["at_least"] = 0.95
    evidence.claim(id, says, paper=paper, **kwargs)


def record_in_ledger(tmp_path, scale="quick", **changes):
    evidence.page(PAGE)
    claim(paper_value="100 %")
    entries = [evidence.claims()[0] | {"scale": scale} | changes]
    evidence.write_json(tmp_path / "data/evidence" / f"{scale}.json", entries)
    evidence.page(PAGE)


class Balanced(HTMLParser):
    """Raises where a tag is closed that is not the open one."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# ---- scale, page, provenance


def test_scale(monkeypatch):
    assert evidence.scale(quick=1, full=2) == 1
    monkeypatch.setenv("GV_SCALE", "full")
    assert evidence.scale(quick=1, full=2) == 2
    assert evidence.scale_name() == "full"


@pytest.mark.parametrize("name", ["ful", "Quick", "1"])
def test_misspelt_scale_is_refused_by_scale_and_page(monkeypatch, name):
    monkeypatch.setenv("GV_SCALE", name)
    with pytest.raises(ValueError, match=f"GV_SCALE is '{name}', expected 'quick' or"):
        evidence.scale(quick=1, full=2)
    with pytest.raises(ValueError, match="GV_SCALE"):
        evidence.page(PAGE)


@pytest.mark.parametrize("name", ["", "/a", "a/../b", "A/b", "a/b.md", "a//b"])
def test_page_names_that_are_no_paths_are_refused(name):
    with pytest.raises(ValueError, match="page name"):
        evidence.page(name)


def test_page_emits_css_only_in_a_live_notebook(monkeypatch, shown):
    evidence.page(PAGE)
    monkeypatch.setattr(evidence, "in_notebook", lambda: True)
    monkeypatch.setenv("GV_STATIC", "1")
    evidence.page(PAGE)
    assert shown == []
    monkeypatch.setenv("GV_STATIC", "0")
    evidence.page(PAGE)
    assert len(shown) == 1
    assert ".gv-claim" in shown[0][0]


def test_provenance_names_seeds_scale_device_versions_and_time():
    assert evidence.provenance(1).startswith("1 seed · quick scale · ")
    assert " s" not in evidence.provenance().split(" · ")[-1]  # no page, no clock
    evidence.page(PAGE)
    line = evidence.provenance(seeds=5)
    assert line.startswith("5 seeds · quick scale · ")
    assert f"torch {torch.__version__.split('+')[0]}" in line
    assert f"numpy {np.__version__}" in line
    assert re.search(r" · \d+ s$", line)


def test_device_is_the_one_that_was_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert "NVIDIA H100" in evidence.provenance()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert " · CPU · " in evidence.provenance()


def test_commit_is_that_of_the_checkout(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    assert evidence._git(tmp_path, "rev-parse", "HEAD") is None
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", evidence._git(tmp_path, "rev-parse", "HEAD"))


# ---- claims


@pytest.mark.parametrize(
    "bounds, said",
    [
        ({"at_least": 0.95}, "shown"),
        ({"at_least": 0.98}, "undecided"),
        ({"at_least": 0.995}, "not shown"),
        ({"at_most": 0.995}, "shown"),
        ({"at_most": 0.98}, "undecided"),
        ({"at_most": 0.95}, "not shown"),
        ({"at_least": 0.95, "at_most": 0.995}, "shown"),
    ],
)
def test_verdict_stands_in_ledger_html_and_text(shown, bounds, said):
    evidence.page(PAGE)
    claim(**bounds)
    html, text = shown[0]
    assert evidence.claims()[0]["verdict"] == said
    assert text.startswith(f"[{SYMBOLS[said]} {said}] It fits.")
    assert f'data-verdict="{said}"' in html
    assert f'<span aria-hidden="true">{SYMBOLS[said]}</span> {said}</span>' in html


def test_script_says_what_the_page_says(capsys, shown, monkeypatch):
    evidence.page(PAGE)
    claim(paper_value="100 % (Inception, CIFAR-10)", unit="points")
    html, text = shown[0]
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html)
    bare = [tuple(re.sub("<.*?>", "", part) for part in row) for row in rows]
    lines = [tuple(line.strip().split(": ", 1)) for line in text.splitlines()[1:-1]]
    assert [(k, v.replace("&#x27;", "'")) for k, v in bare] == lines
    assert lines[0][1].startswith("0.980 points (95 % interval 0.971 to 0.989, n = 5)")
    assert lines[1] == ("Claimed", "at least 0.95 points")
    assert lines[2] == ("Zhang et al. (2017)", "100 % (Inception, CIFAR-10)")
    assert text.splitlines()[-1].strip() in html
    monkeypatch.undo()  # and in a script it is printed
    evidence.page("other/page")
    claim("printed")
    assert "[✓ shown] It fits." in capsys.readouterr().out


def test_box_is_labelled_linked_and_well_formed(shown):
    evidence.page(PAGE)
    claim(says="a < b & <script>")
    tags = Balanced(shown[0][0]).tags
    box = tags[0][1]
    assert box["role"] == "group"
    assert box["id"] == "claim-a-b"
    assert box["aria-labelledby"] in [attrs.get("id") for _, attrs in tags]
    assert ("a", "https://arxiv.org/abs/1611.03530") in [
        (tag, attrs.get("href")) for tag, attrs in tags
    ]
    assert "a &lt; b &amp; &lt;script&gt;" in shown[0][0]


def test_paired_claim_is_about_the_differences():
    base = np.array([0.1, 0.5, 0.3, 0.9, 0.7])  # spread far wider than the effect
    evidence.page(PAGE)
    gain = np.array([0.04, 0.05, 0.06, 0.05, 0.05])
    claim(values=base + gain, baseline=base, at_least=0.03)
    found = evidence.claims()[0]
    assert found["estimate"] == pytest.approx(0.05)
    assert (found["verdict"], found["n"]) == ("shown", 5)


def test_counted_claim_and_statistic():
    evidence.page(PAGE)
    claim("counted", successes=20, trials=20, at_least=0.8)
    claim("median", values=np.linspace(0, 1, 21), statistic=np.median, at_most=0.9)
    counted, median = evidence.claims()
    assert (counted["estimate"], counted["n"]) == (1.0, 20)
    assert counted["low"] == pytest.approx(0.8316, abs=1e-4)
    assert median["estimate"] == 0.5
    assert [counted["verdict"], median["verdict"]] == ["shown", "shown"]


def test_all_equal_is_said_not_drawn_as_certainty(shown):
    evidence.page(PAGE)
    claim(values=ONES, at_least=0.99)
    assert "all 5 values equal 1.000; no interval can be drawn" in shown[0][1]
    assert "95 %" not in shown[0][1]


def test_full_claim_is_shown_but_not_judged_at_quick(monkeypatch, shown):
    evidence.page(PAGE)
    claim(needs="full")
    assert evidence.claims()[0]["verdict"] == "needs full scale"
    assert "0.980" in shown[0][1]
    assert "needs full scale" in shown[0][0]
    monkeypatch.setenv("GV_SCALE", "full")
    claim(needs="full")
    assert evidence.claims()[0]["verdict"] == "shown"


def test_rerun_cell_replaces_and_keeps_its_place():
    evidence.page(PAGE)
    claim("one")
    claim("two", "It is slower.")
    claim("one", values=ONES)
    assert [c["id"] for c in evidence.claims()] == ["one", "two"]
    assert evidence.claims()[0]["estimate"] == 1.0


def test_id_in_use_for_another_sentence_or_page_is_refused():
    evidence.page(PAGE)
    claim()
    with pytest.raises(ValueError, match=r"'a-b' is in use .* 'It fits\.'"):
        claim(says="It does not fit.")
    evidence.page("other/page")
    with pytest.raises(ValueError, match=f"in use on page '{PAGE}'"):
        claim()
    evidence.page(PAGE)  # from the first cell: the sentence may have changed
    claim(says="It does not fit.")


NAN = [0.9, np.nan, 0.9, 0.9, 0.9]


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"values": ONES[:4]}, "4 given, at least 5"),
        ({"values": NAN}, r"index \[1\] not finite"),
        ({"values": [ONES]}, "one per seed"),
        ({"values": ONES, "baseline": ONES + ONES}, "5 values but 10 in baseline"),
        ({"values": ONES, "baseline": NAN}, "baseline at index"),
        ({"values": ONES, "successes": 5, "trials": 5}, "either values"),
        ({"successes": 5, "trials": 5, "baseline": np.ones(5)}, "either values"),
        ({"successes": 3, "trials": 4}, "at least 5 trials"),
        ({"successes": 9}, "expected both"),
        ({"successes": 9, "trials": 8}, "9 of 8"),
        ({"values": None}, "either values"),
        ({"values": ONES, "statistic": np.median}, "at least 20"),
        ({"at_least": None}, "smallest effect that matters"),
        ({"at_least": np.nan}, "finite"),
        ({"at_least": 0.9, "at_most": 0.1}, "lies above"),
        ({"needs": "huge"}, "needs 'huge'"),
        ({"paper": "zhang2071"}, "'zhang2071' is not in .*references.bib.*zhang2017"),
        ({"id": "Not an id"}, "lower case with dashes"),
        ({"says": "  "}, "says nothing"),
    ],
)
def test_bad_claims_are_refused_and_leave_nothing(
    monkeypatch, tmp_path, kwargs, message
):
    monkeypatch.setenv("GV_RECORD", str(tmp_path))
    evidence.page(PAGE)
    with pytest.raises(ValueError, match=message):
        claim(**kwargs)
    assert evidence.claims() == []
    assert json.loads((tmp_path / f"{PAGE}.json").read_text()) == []


def test_claim_before_page_is_refused():
    with pytest.raises(RuntimeError, match=r"must call gv\.page"):
        claim()


def test_claim_at_unknown_scale_is_refused(monkeypatch):
    evidence.page(PAGE)
    monkeypatch.setenv("GV_SCALE", "fulll")
    with pytest.raises(ValueError, match="GV_SCALE"):
        claim()
    assert evidence.claims() == []


# ---- recording


def test_each_claim_is_recorded_at_once_with_the_ledgers_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("GV_RECORD", str(tmp_path / "new" / "folder"))
    file = tmp_path / "new" / "folder" / f"{PAGE}.json"
    evidence.page(PAGE)
    claim("one", paper_value="100 %")
    claim("two")
    entries = json.loads(file.read_text("utf-8"))
    assert [e["id"] for e in entries] == ["one", "two"]
    assert all(tuple(e) == KEYS for e in entries)
    assert entries[0]["page"] == PAGE
    assert entries[0]["paper_value"] == "100 %"
    assert entries[1]["paper_value"] is None
    assert entries[0]["versions"]["torch"] in torch.__version__
    assert entries[0]["low"] < entries[0]["estimate"] < entries[0]["high"]
    evidence.page(PAGE)
    assert json.loads(file.read_text()) == []  # a new run owes nothing to the last


@pytest.mark.parametrize("where", ["replace", "write_text"])
def test_a_crash_in_mid_write_leaves_the_old_file(monkeypatch, tmp_path, where):
    file = tmp_path / "ledger.json"
    evidence.write_json(file, [{"id": "old"}])

    def crash(path, *args, **kwargs):
        if where == "write_text":
            path.write_bytes(b'[{"id": "ne')  # half of it
        raise KeyboardInterrupt

    target = os if where == "replace" else type(file)
    monkeypatch.setattr(target, where, crash)
    with pytest.raises(KeyboardInterrupt):
        evidence.write_json(file, [{"id": "new"}])
    assert json.loads(file.read_bytes()) == [{"id": "old"}]
    assert [f.name for f in tmp_path.glob("*.json*")] == ["ledger.json"]
    assert list(tmp_path.glob(".ledger*")) == []


def test_nan_never_enters_a_ledger(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        evidence.write_json(tmp_path / "x.json", [{"estimate": float("nan")}])
    assert list(tmp_path.glob("*x.json*")) == []


def test_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GV_RECORD", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set GV_RECORD to a folder"):
        evidence.page(PAGE)


# ---- the ledger


def test_recorded_result_stands_beside_the_new_one(shown, tmp_path):
    record_in_ledger(tmp_path, verdict="undecided", device="NVIDIA H100")
    record_in_ledger(tmp_path, scale="full", estimate=0.5, low=0.4, high=0.6)
    shown.clear()
    claim()
    assert "Recorded (quick): ? undecided: 0.980" in shown[0][1]
    assert "NVIDIA H100; this run says otherwise" in shown[0][1]
    assert "Recorded (full): ✓ shown: 0.500 (95 % interval 0.400" in shown[0][1]
    claim("unrecorded")
    assert "Recorded" not in shown[1][1]


def test_ledger_missing_broken_or_unknown(tmp_path):
    assert evidence.ledger() == []
    (tmp_path / "data/evidence/full.json").write_text('[{"id": ')
    with pytest.raises(ValueError, match=r"full\.json is not JSON"):
        evidence.ledger("full")
    with pytest.raises(ValueError, match="scale 'big'"):
        evidence.ledger("big")


def test_committed_ledgers_have_their_keys_and_known_papers(monkeypatch):
    monkeypatch.undo()
    for scale in evidence.SCALES:
        entries = evidence.ledger(scale)
        assert len({e["id"] for e in entries}) == len(entries)
        for entry in entries:
            assert tuple(entry) == KEYS
            assert entry["scale"] == scale
            assert entry["paper"] in papers.papers()
            assert entry["verdict"] in SYMBOLS
            assert entry["low"] <= entry["estimate"] <= entry["high"]
            assert entry["n"] >= 5


def test_compare_names_changed_missing_and_new_claims_of_the_pages_measured():
    evidence.page(PAGE)
    for id in ("same", "changed", "gone"):
        claim(id)
    evidence.page("other/page")
    claim("elsewhere")
    old = evidence.claims()
    new = [c for c in evidence.claims() if c["id"] in ("same", "changed")]
    new[0]["estimate"] += 1e-3  # numbers may move
    new[1]["verdict"] = "undecided"
    new.append(new[0] | {"id": "new"})
    assert [line.split()[0] for line in evidence.compare(old, new)] == [
        "changed",
        "gone",
        "new",
    ]
    assert "was shown" in evidence.compare(old, new)[0]
    assert "now undecided" in evidence.compare(old, new)[0]
    assert evidence.compare(old, old) == []


# ---- the table


def test_table_of_an_empty_ledger_says_so(shown):
    evidence.table()
    assert "Nothing is recorded yet" in shown[0][0]
    assert "Nothing is recorded yet" in shown[0][1]
    Balanced(shown[0][0])


def test_table_markup_is_complete(monkeypatch, shown, tmp_path):
    monkeypatch.setenv("GV_STATIC", "1")
    record_in_ledger(tmp_path, says="Random <labels> are fitted.")
    shown.clear()
    evidence.table()
    html, text = shown[0]
    tags = Balanced(html).tags
    names = {attrs["name"]: tag for tag, attrs in tags if "name" in attrs}
    assert names == {
        "text": "input",
        "verdict": "select",
        "chapter": "select",
        "paper": "select",
    }
    assert html.count("<label>") == 4
    assert html.count('<th scope="col">') == 5
    assert html.count('<th scope="row">') == 1
    assert "<caption" in html
    assert 'role="status">1 of 1 claims<' in html
    assert "No claim matches" in html
    assert "not recorded yet" in html
    assert "Random &lt;labels&gt; are fitted." in html
    assert f'href="{PAGE}.html#claim-a-b"' in html
    form = next(attrs for tag, attrs in tags if tag == "form")
    assert "hidden" in form  # without a script it could do nothing
    row = next(attrs for tag, attrs in tags if "data-verdicts" in attrs)
    assert row["data-verdicts"] == "shown"
    assert row["data-chapter"] == "Memorization"
    assert "zhang et al. (2017)" in row["data-text"]
    assert "quick: shown, 0.980" in text
    assert "full: not recorded yet" in text
    assert "Recorded at full scale: nothing yet." in text


def test_table_sets_quick_beside_full_and_loads_nothing(shown, tmp_path):
    record_in_ledger(tmp_path)
    record_in_ledger(tmp_path, scale="full", verdict="undecided")
    shown.clear()
    evidence.table()
    html = shown[0][0]
    assert html.count("<tr ") == 1
    assert 'data-verdicts="shown|undecided"' in html
    assert f"{PAGE}.html" not in html  # no site, no link
    assert "Recorded at quick scale: CPU, torch" in html
    assert "Recorded at full scale: CPU, torch" in html
    assert not re.search(r"src=|fetch\(|import", html)


# ---- papers


def test_own_reader_agrees_with_pybtex():
    database = pytest.importorskip("pybtex.database")
    book = database.parse_file(str(evidence.resource("chapters") / "references.bib"))
    ours = papers.papers()
    assert set(ours) == set(book.entries)
    for key, entry in book.entries.items():
        people = entry.persons["author"]
        family = [" ".join(p.prelast_names + p.last_names) for p in people]
        assert list(ours[key].authors) == family
        assert ours[key].year == entry.fields["year"]
        assert ours[key].title == entry.fields["title"].replace("{", "").replace(
            "}", ""
        )


def test_keys_are_first_author_and_year():
    for key, paper in papers.papers().items():
        first = re.sub("[^a-z]", "", paper.authors[0].lower())
        assert key == f"{first}{paper.year}"
        assert paper.label.startswith(paper.authors[0])


@pytest.mark.parametrize(
    "text, message",
    [
        ("@misc{a2020, title = {T}, year = {2020}}", "no author"),
        ("@misc{}", "no key"),
        ("@misc{a, author={A}, title={T}, year=1}\n" * 2, "occurs twice"),
    ],
)
def test_broken_bibliography_is_named(tmp_path, text, message):
    path = tmp_path / "references.bib"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        papers._read_bib(path, 0)


@pytest.mark.parametrize(
    "authors, label",
    [
        ("Solo, Han", "Solo (2020)"),
        ("Frankle, J. and Carbin, M.", "Frankle and Carbin (2020)"),
        ("Ada Lovelace and B, C and D, E", "Lovelace et al. (2020)"),
    ],
)
def test_label(tmp_path, authors, label):
    path = tmp_path / "references.bib"
    path.write_text(f"@misc{{k,\n author = {{{authors}}}, title={{T}}, year = 2020}}")
    found = papers._read_bib(path, 0)["k"]
    assert found.label == label
    assert found.html() == label  # no address, no link


def test_import_of_evidence_does_not_import_scipy():
    code = "import sys, gvlib.evidence; sys.exit('scipy' in sys.modules)"
    root = evidence.resource("chapters").parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
