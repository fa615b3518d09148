"""A page of pictures tells what a run kept, in one file that asks nobody for anything, whatever the words in it are."""

import base64
import dataclasses
import hashlib
import html
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from PIL import Image

from advanchor.commands.gallery import main
from advanchor.compose import compose
from advanchor.core import BadInput
from advanchor.gallery import page as pages
from advanchor.gallery.curves import curves
from advanchor.gallery.seen import Band, Pair, Sight, bands
from advanchor.gallery.subject import subject
from advanchor.identity import run_id
from advanchor.images import Images, draw
from advanchor.judges.emoji import EmojiJudge
from advanchor.prompts import Prompt
from advanchor.results.overview import interference, plots, shade
from advanchor.run import run
from advanchor.trackers.wandb import WandB

HOSTILE = "</script><script>alert(1)</script>"
SAID = f'concept.evaluate=["{{}} in noto style","{{}} {HOSTILE}"]'  # a sentence that would end the data of the page
MEASURED = [*TINY, "metric=[erasure,content,broken,anchor]", SAID]
NAME = "<script>alert(1)</script>"
NAMED = [
    *("experiment=smoke", "tracker=none", "judge=none", "sample.steps=1", "anchor=concept", "method=none"),
    *(f'concept.name="{NAME}"', f'concept.phrase="{NAME}"', "concept.templates=['{}']", "concept.evaluate=['{}']"),
    *("concept.evaluate_cross=[]", "+concept.evaluate_near=['{}']"),
]


def made(root: Path, *words: str) -> tuple[Any, dict[str, Any], list[str]]:
    """A run: its config, its result and its words."""
    cfg = compose([*words, f"root={root}"])
    out = root / run_id(cfg)
    out.mkdir(parents=True, exist_ok=True)
    return cfg, run(cfg, out), [*words, f"root={root}"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two runs and one of a concept that is a script, finished."""
    folder = tmp_path_factory.mktemp("gallery")
    for method in ("esd", "none"):
        made(folder, *MEASURED, f"method={method}", "anchor=sibling")
    made(folder, *NAMED)
    return folder


def words(root: Path, method: str = "esd") -> list[str]:
    return [*MEASURED, f"root={root}", f"method={method}", "anchor=sibling"]


def written(to: Path, *asked: str) -> str:
    main([*asked, f"--to={to}"])
    return to.read_text()


def data(text: str) -> Any:
    """What page.js reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def found(root: Path, method: str = "esd") -> tuple[dict[str, Any], list[Band]]:
    cfg = compose(words(root, method))
    result = run(cfg, root / run_id(cfg))
    return result, bands(cfg, result)[1]


# --- What it says ------------------------------------------------------------------------------------------------


def test_what_stands_under_the_pictures_counts_what_the_scores_count(root: Path) -> None:
    result, shown = found(root)
    assert [one.name for one in shown] == ["erase", "nearnear", "keepin", "keepcross", "anchor"]
    each = {one.name: one.pairs for one in shown}

    def share(name: str, that: Callable[[Sight, Pair], bool], after: bool = True) -> float:
        pairs = [pair for pair in each[name] if name not in ("content",) or pair.rest]
        return sum(that((pair.after if after else pair.before)[0], pair) for pair in pairs) / len(pairs)

    def asked(sight: Sight, pair: Pair) -> bool:
        return sight.saw == pair.prompt.label

    scores = {name: score["value"] for name, score in result["scores"].items()}
    assert scores["erasure/hit"] == share("erase", asked)
    assert scores["erasure/hit@base"] == share("erase", asked, after=False)
    assert scores["keep/hit_near"] == share("nearnear", asked)
    assert scores["keep/hit_cross@base"] == share("keepcross", asked, after=False)
    assert scores["broken/erase"] == share("erase", lambda sight, _: sight.nothing)
    assert scores["anchor/broken"] == share("anchor", lambda sight, _: sight.nothing)
    rest = [pair for pair in each["erase"] if pair.rest]
    assert {pair.rest for pair in rest} == {"noto"}
    assert scores["content/hit"] == sum(pair.after[0].beside == "noto" for pair in rest) / len(rest)
    second = sum(pair.after[1].saw == pair.prompt.label for pair in each["erase"]) / len(each["erase"])
    assert scores["erasure/hit2"] == second


def test_no_judge_looks_where_a_record_is_and_where_it_is_gone_it_sees_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = found(root)
    with monkeypatch.context() as patched:
        patched.setattr(EmojiJudge, "find", lambda *_, **__: pytest.fail("looked again"))
        _, again = found(root)
    assert [one.pairs for one in again] == [one.pairs for one in before]
    gone = list((root / "store/samples").glob("*/seen-*/find-*.pt"))
    assert gone
    for record in gone:
        record.unlink()
    _, anew = found(root)
    assert [one.pairs for one in anew] == [one.pairs for one in before]


@pytest.mark.parametrize(
    ("kept", "was", "now", "happened"),
    [
        ("", "fox", "fox", ["found"]),
        ("", "fox", "dog", []),
        ("", "fox", "nothing", ["broken"]),
        ("in", "fox", "dog", ["lost"]),
        ("in", "dog", "dog", []),
        ("near", "dog", "fox", []),
        ("cross", "fox", "nothing", ["lost", "broken"]),
    ],
)
def test_what_happened_is_what_changed(kept: Any, was: str, now: str, happened: list[str]) -> None:
    one, other = (Sight(saw, "", saw == "nothing") for saw in (was, now))
    assert Pair(Prompt("a fox", 0, label="fox", kept=kept), "", (one,), (other,)).happened == happened
    both = Pair(Prompt("a fox", 0, label="fox", kept=kept), "", (one, one), (other, Sight("cat", "", False)))
    assert set(happened) <= {*both.happened}
    assert ("differ" in both.happened) == (now == "fox")


def test_the_rest_of_a_sentence_is_lost_where_it_was_found_before() -> None:
    def pair(was: str, now: str) -> Pair:
        return Pair(Prompt("a fox in noto style", 0, label="fox"), "noto", (Sight("fox", was, False),),
                    (Sight("dog", now, False),))  # fmt: skip

    assert pair("noto", "blob").happened == ["rest"]
    assert pair("blob", "blob").happened == pair("noto", "noto").happened == []


def test_a_page_has_every_pair_the_scores_with_their_intervals_and_the_command(root: Path, tmp_path: Path) -> None:
    text = written(tmp_path / "page.html", *words(root))
    result, shown = found(root)
    (bands_of,) = data(text)["runs"].values()
    assert {name: len(cards) for name, cards in bands_of.items()} == {one.name: len(one.pairs) for one in shown}
    score = result["scores"]["keep/hit"]
    assert f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" in text
    command = re.search(r'aria-label="command"><code>(.*?)</code>', text, re.DOTALL)
    assert command
    assert "method=esd" in html.unescape(command[1])
    assert "root=" not in command[1]
    assert str(root) not in text
    assert result["run"] in text
    prompts = data(text)["words"]
    assert all(prompts[card[0]] == pair.prompt.text and card[1] == pair.prompt.seed
               for card, pair in zip(bands_of["erase"], shown[0].pairs, strict=True))  # fmt: skip


def test_a_thumbnail_of_a_small_picture_is_the_picture(root: Path, tmp_path: Path) -> None:
    import io

    page = data(written(tmp_path / "page.html", *words(root)))
    _, shown = found(root)
    (bands_of,) = page["runs"].values()
    card, pair = bands_of["erase"][0], shown[0].pairs[0]
    content = base64.b64decode(page["pictures"][card[5]].partition(",")[2])
    drawn = Image.open(shown[0].after.root / pair.prompt.file).convert("RGB")
    assert Image.open(io.BytesIO(content)).convert("RGB").tobytes() == drawn.tobytes()


def test_the_same_page_is_written_twice(root: Path, tmp_path: Path) -> None:
    assert written(tmp_path / "page.html", *words(root)) == written(tmp_path / "page.html", *words(root))
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_curve_goes_through_what_was_written_down_and_leaves_out_what_is_not_finite() -> None:
    (loss,) = curves([{"loss": 4.0}, {"loss": float("nan")}, {"loss": 2.0, "once": 1.0}])
    assert (loss.count, loss.first, loss.last, loss.low, loss.high) == (2, 4.0, 2.0, 2.0, 4.0)
    assert loss.points == "0.0,0.0 240.0,80.0"
    (long,) = curves([{"loss": float(i)} for i in range(1000)])
    assert long.each == 9
    assert len(long.points.split()) <= 121
    assert long.points.endswith("240.0,0.0")
    assert curves([{"flat": 1.0}] * 3)[0].points == "0.0,80.0 120.0,80.0 240.0,80.0"


# --- Within its size ---------------------------------------------------------------------------------------------


def test_a_page_is_within_its_size_and_says_how_much_it_leaves_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(tmp_path / "page.html", *words(root))
    kept = Counter()
    for part in (0.9, 0.7):
        limit = int(len(whole.encode()) * part)
        monkeypatch.setattr(pages, "LIMIT", limit)
        text = written(tmp_path / "page.html", *words(root))
        assert len(text.encode()) <= limit
        (bands_of,) = data(text)["runs"].values()
        kept[part] = sum(map(len, bands_of.values()))
        left = sum(map(int, re.findall(r'data-left="(\d+)"', text)))
        assert kept[part] + left == sum(len(one.pairs) for one in found(root)[1])
        assert left
    assert kept[0.9] >= kept[0.7]
    monkeypatch.setattr(pages, "LIMIT", 1000)
    with pytest.raises(BadInput, match="name fewer runs"):
        written(tmp_path / "page.html", *words(root))


# --- Safe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["named", "said"])
def test_no_word_of_a_run_becomes_markup(which: str, root: Path, tmp_path: Path) -> None:
    asked = [*NAMED, f"root={root}"] if which == "named" else words(root)
    text = written(tmp_path / "page.html", *asked)
    assert "<script>alert" not in text
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 2
    assert any((NAME if which == "named" else HOSTILE) in one for one in data(text)["words"])
    if which == "named":
        assert "<h1>&lt;script&gt;alert(1)&lt;/script&gt;: none towards concept, seed 0</h1>" in text
        assert "no score is computed" in text


def test_a_page_may_load_nothing_and_runs_its_own_script_alone(root: Path, tmp_path: Path) -> None:
    text = written(tmp_path / "page.html", *words(root))
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)[1])  # type: ignore
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    outside = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href|action)=["'](?!#|data:)""", outside)
    assert not re.search(r"https?://|@import|url\(", outside)


# --- Refused -----------------------------------------------------------------------------------------------------


def test_a_run_that_is_not_there_gets_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^the run is in .*: `advanchor experiment=smoke .*` makes it\.$"):
        main(["experiment=smoke", f"root={tmp_path}", f"--to={tmp_path / 'page.html'}"])
    with pytest.raises(BadInput, match=r"^none of the 2 runs is in .*: `advanchor -m experiment=smoke .*` makes them"):
        main(["experiment=smoke", "seed=0,1", f"root={tmp_path}", f"--to={tmp_path / 'page.html'}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ([], "say where, --to=<page.html>"),
        (["--to=page"], "name a file that ends in .html"),
        (["--to={}/mine.html"], "is there already and is no gallery"),
        (["--to={}/folder.html"], "cannot be written"),
        (["--to={}/mine.html/page.html"], "cannot be written"),
        (["--as=folder", "--to={}/page.html"], "gallery does not know --as=folder"),
    ],
)
def test_a_place_that_will_not_do_gets_a_sentence_before_anything_is_read(
    to: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadInput, match=re.escape(said)):
        main(["concept=emoji/fox", *(one.format(tmp_path) for one in to)])
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><p>mine"


def test_another_judge_than_that_of_the_run_is_refused(root: Path, tmp_path: Path) -> None:
    asked = [word for word in words(root) if not word.startswith("metric=")]
    with pytest.raises(BadInput, match=r"was measured by another judge \(emoji\) than judge=none"):
        main([*asked, "judge=none", f"--to={tmp_path / 'page.html'}"])
    assert not list(tmp_path.iterdir())


def test_a_damaged_picture_is_refused_and_no_page_is_left(tmp_path: Path) -> None:
    *_, asked = made(tmp_path / "runs", *NAMED)
    picture = next((tmp_path / "runs/store/samples").glob("*/*.png"))
    picture.write_bytes(picture.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is damaged"):
        main([*asked, f"--to={tmp_path / 'page.html'}"])
    assert not list(tmp_path.glob("page*"))


# --- A sweep -----------------------------------------------------------------------------------------------------


def sweep(root: Path) -> list[str]:
    return words(root, "esd,none,uce")


def test_the_page_of_a_sweep_has_table_figure_map_and_every_run_and_names_the_missing(
    root: Path, tmp_path: Path
) -> None:
    text = written(tmp_path / "page.html", *sweep(root))
    runs = list(data(text)["runs"])
    assert len(runs) == 2
    for name in runs:
        assert f'<details class="run" id="run-{name}">' in text
        assert text.count(f'<a href="#run-{name}"') == 4  # table, two figures, map
    assert "1 run is missing; the command that makes it" in text
    (missing,) = re.findall(r'<pre tabindex="0" aria-label="commands of missing runs">(.*?)</pre>', text, re.DOTALL)
    assert "method=uce" in html.unescape(missing)
    assert "2 of 3 runs" in text


def test_a_map_is_after_minus_before_of_each_concept(root: Path) -> None:
    cfg = compose(words(root))
    result, shown = found(root)
    lost = interference([(cfg, result, [])])
    ((name, line),) = lost["lines"]
    assert name == result["run"]
    pairs = [pair for one in shown if one.name != "anchor" for pair in one.pairs]
    assert {*lost["concepts"]} == {pair.prompt.label for pair in pairs}
    for concept, (change, n, own) in line.items():
        of = [pair for pair in pairs if pair.prompt.label == concept]
        each = [(p.after[0].saw == concept) - (p.before[0].saw == concept) for p in of]
        assert (change, n) == (pytest.approx(sum(each) / len(each)), len(of))
        assert own == (concept == cfg.concept.name)


def test_a_shade_is_red_for_a_loss_only() -> None:
    assert [shade(x) for x in (0, -0.001, -0.1, -0.2, -1, 0.5)] == ["", "", "l1", "l1", "l5", "g3"]


def test_a_figure_has_a_point_for_each_run_that_has_both_scores() -> None:
    both = {"erasure/hit": {"value": 0.25, "n": 4}, "keep/hit": {"value": 1.0, "n": 4}}
    (plot,) = plots({"a": both, "b": {"keep/hit": {"value": 1.0, "n": 4}}, "c": {}})
    ((run_, _, _, across, down),) = plot["points"]
    assert (run_, across, down) == ("a", 90.0, 0.0)
    assert plots({"c": {}}) == []


# --- Weights & Biases --------------------------------------------------------------------------------------------


def tracker() -> WandB:
    return WandB(name="wandb", project="p", group="g", job_type="j", mode="offline", wait=1)


def test_wandb_keeps_the_page_of_a_run_beside_what_else_it_keeps(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    asked = [word for word in NAMED if word != "tracker=none"]
    _, result, _ = made(tmp_path / "runs", *asked, "tracker=wandb", "tracker.mode=offline")
    (file,) = Path(result["tracker"]).rglob("gallery.html")
    assert file.is_relative_to(tmp_path / "runs" / result["run"])
    assert file.read_text().startswith(pages.MARK)
    assert result["run"] in file.read_text()
    assert {at.suffix for at in (tmp_path / "home").rglob("*") if at.is_file()} <= {".log"}  # W&B's own log
    (log,) = Path(result["tracker"]).glob("*.wandb")
    until = time.monotonic() + 10
    while f"gallery-{result['run']}".encode() not in log.read_bytes():  # W&B's own process writes it, a little later
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_page_that_fails_is_said_and_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr("advanchor.run.one_run", fails)
    asked = [word for word in NAMED if word != "tracker=none"]
    _, result, _ = made(tmp_path, *asked, "tracker=wandb", "tracker.mode=offline")
    assert Path(result["tracker"]).exists()
    assert "The page of pictures could not be made (no page): the run goes on without it." in caplog.text
    assert caplog.text.count("the run goes on without it") == 1


def test_a_tracker_that_shows_nothing_asks_for_no_page(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet = WandB(name="wandb", project="p", group="g", job_type="j", mode="disabled")
    quiet.start("one", {}, tmp_path)
    quiet.show(lambda: pytest.fail("made"))
    assert not isinstance(object(), pages.Showing)
    assert isinstance(tracker(), pages.Showing)


# --- In a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; skipped where there is none."""
    import shutil

    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[test]'")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("there is no chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1200,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def complaints(browser: Any) -> list[str]:
    """What the browser says, and whatever it asks for beyond the file and what is in it."""
    said = [line["message"] for line in browser.get_log("browser")]
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [*said, *(url for url in asked if not url.startswith(("file://", "data:")))]


def opened(browser: Any, file: Path) -> float:
    """Seconds until a page is there."""
    browser.get("about:blank")
    complaints(browser)
    browser.get(file.as_uri())
    return float(browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")) / 1000


def seen_by(browser: Any, what: str) -> list[Any]:
    return [one for one in browser.find_elements("css selector", what) if one.is_displayed()]


@pytest.mark.parametrize("which", ["said", "named"])
def test_a_page_opens_without_a_word_of_complaint_and_asks_nobody(
    which: str, browser: Any, root: Path, tmp_path: Path
) -> None:
    written(tmp_path / "page.html", *(words(root) if which == "said" else [*NAMED, f"root={root}"]))
    opened(browser, tmp_path / "page.html")
    assert complaints(browser) == []
    assert browser.find_element("tag name", "h1").text.startswith(NAME if which == "named" else "fox")
    alts = [one.get_attribute("alt") for one in seen_by(browser, ".card img")]
    assert all(re.match(r"(before|after|drawn): .*, seed \d+\. ", alt) for alt in alts)
    assert any((HOSTILE if which == "said" else NAME) in alt for alt in alts)
    judged = "detector 1: " if which == "said" else "no judge looked"
    assert all(judged in alt for alt in alts)
    assert browser.execute_script("return [...document.images].every(one => one.decode && one.naturalWidth > 0)")


def test_what_was_lost_is_filtered_by_mouse_and_by_keyboard(browser: Any, root: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    written(tmp_path / "page.html", *words(root))
    opened(browser, tmp_path / "page.html")
    pairs = [pair for one in found(root)[1] for pair in one.pairs]
    names = ["", "lost", "rest", "found", "broken", "differ"]
    wanted = [sum(not name or name in pair.happened for pair in pairs) for name in names]
    assert len({*wanted}) > 2  # or a filter that does nothing would do
    for name, number in zip(names, wanted, strict=True):
        browser.find_element("css selector", f"input[name=show][value='{name}']").click()
        assert len(seen_by(browser, ".card")) == number
        assert browser.find_element("id", "count").text == f"{number} of {len(pairs)} shown"
    browser.find_element("css selector", "input[name=show][value='']").click()
    for number in wanted[1:]:
        browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
        assert len(seen_by(browser, ".card")) == number
    browser.find_element("css selector", "input[name=show][value='']").click()
    browser.find_element("id", "words").send_keys("NOTO")
    assert len(seen_by(browser, ".card")) == sum("noto" in pair.prompt.text for pair in pairs)
    assert complaints(browser) == []


def test_the_slider_moves_by_mouse_and_by_keyboard(browser: Any, root: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    written(tmp_path / "page.html", *words(root))
    opened(browser, tmp_path / "page.html")

    def clipped() -> str:
        return str(
            browser.execute_script("return getComputedStyle(document.querySelectorAll('.pair img')[1]).clipPath")
        )

    slider = browser.find_element("id", "cut")
    assert clipped() == "none"
    ActionChains(browser).drag_and_drop_by_offset(slider, 30, 0).perform()
    assert browser.find_element("css selector", "input[value=slide]").is_selected()
    at = int(slider.get_attribute("value"))
    assert at > 50
    assert f"{at}%" in clipped()
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert f"{at - 2}%" in clipped()
    slider.send_keys(Keys.END)
    assert "100%" in clipped()
    browser.find_element("css selector", "input[value=side]").click()
    assert clipped() == "none"
    assert complaints(browser) == []


def test_every_control_is_reached_by_tab_and_has_a_name_and_a_visible_focus(
    browser: Any, root: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    written(tmp_path / "page.html", *words(root))
    opened(browser, tmp_path / "page.html")
    reached = []
    for _ in range(40):
        browser.find_element("tag name", "body") if not reached else None
        browser.switch_to.active_element.send_keys(Keys.TAB)
        at = browser.switch_to.active_element
        if at.tag_name == "body":
            break
        reached.append(at.get_attribute("id") or at.get_attribute("name") or at.tag_name)
        assert at.accessible_name, at.get_attribute("outerHTML")
        assert at.value_of_css_property("outline-style") != "none", at.get_attribute("outerHTML")
    assert {"view", "cut", "show", "words", "seed", "summary"} <= {one.rpartition("--")[2] for one in reached} | (
        {"summary"} if any(one.endswith("--config") for one in reached) else set()
    )


def test_a_point_of_the_figure_opens_its_run_by_mouse_and_by_keyboard(browser: Any, root: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    written(tmp_path / "page.html", *sweep(root))
    opened(browser, tmp_path / "page.html")
    assert not seen_by(browser, ".card")
    first, second = browser.find_elements("css selector", ".plot a:not([tabindex])")
    assert "erasure/hit" in first.accessible_name
    browser.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ENTER)
    run_ = browser.find_element("css selector", str(first.get_dom_attribute("href")))
    assert run_.get_attribute("open")
    cards = len(seen_by(browser, ".card"))
    assert cards == len(run_.find_elements("css selector", ".card")) > 0
    assert browser.switch_to.active_element.tag_name == "summary"
    point = second.find_element("css selector", "path")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].parentElement.focus()", point)
    second.send_keys(Keys.ENTER)
    patience = time.monotonic() + 5  # the page opens it when the address has changed, which is after the key
    while len(seen_by(browser, ".card")) < 2 * cards and time.monotonic() < patience:
        time.sleep(0.05)
    assert len(seen_by(browser, ".card")) == 2 * cards
    assert complaints(browser) == []


def noise(folder: Path, runs: int, number: int) -> list[Band]:
    """A band of pairs for each run, of pictures of noise, which are as large as pictures can be."""
    import numpy as np

    prompts = [[Prompt(f"a fox, {n}", i, label="fox") for n in range(number)] for i in range(runs)]
    chance, sight = np.random.default_rng(0), (Sight("fox", "", False), Sight("dog", "", False))

    def paint(group: Any) -> list[Any]:
        return [Image.fromarray(chance.integers(0, 256, (32, 32, 3), np.uint8)) for _ in group]

    for which in ("before", "after"):
        draw(paint, [p for own in prompts for p in own], folder / which, batch=1000, label="noise")
    found = []
    for own in prompts:
        before, after = (Images(folder / which, own) for which in ("before", "after"))
        found.append(Band("erase", "Erased", before, after, [Pair(p, "", sight, sight) for p in own]))
    return found


@pytest.mark.parametrize(("runs", "pairs"), [(1, 740), pytest.param(180, 10, marks=pytest.mark.slow)])
def test_a_page_of_a_default_run_or_of_180_runs_opens_within_two_seconds(
    runs: int, pairs: int, browser: Any, root: Path, tmp_path: Path
) -> None:
    cfg = compose(words(root))
    one = subject(cfg, run(cfg, root / run_id(cfg)))
    several = [
        dataclasses.replace(one, run=f"{i:012x}", bands=[band], shown=[[]])
        for i, band in enumerate(noise(tmp_path, runs, pairs))
    ]
    place = ("esd", "sibling")
    overview = None
    if runs > 1:
        scores = {each.run: each.result["scores"] for each in several}
        overview = {
            "table": {"names": ["method", "anchor"], "heads": [], "rows": [(place, [], list(scores))]},
            "notes": [],
            "missing": [],
            "marks": {place: 0},
            "look": lambda _: ("c0", "M0 0h1"),
            "plots": plots(scores),
            "places": dict.fromkeys(scores, place),
            "titles": {each.run: each.title for each in several},
            "map": interference([(cfg, one.result, [])]) | {"lines": [(each.run, {}) for each in several]},
            "width": 360,
            "height": 280,
        }
    text = pages.page(several, "a page", overview)
    assert 3e6 < len(text.encode()) < 10e6
    (tmp_path / "page.html").write_text(text)
    took = [opened(browser, tmp_path / "page.html") for _ in range(3)]
    print(took)
    assert min(took) < 2
    assert complaints(browser) == []
