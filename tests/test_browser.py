"""The pages that have scripts, in a browser without a network: controls, keys, labels, contrast."""

from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow

STATE = (
    "A=12-bit+data%7Ctanh%7C85+%25%7CBinning%7C3&B=12-bit+data%7Crelu%7C%E2%80%93%7CBinning%7Cmean"
)
CHATTER = "[PST]", "[togglebutton]"  # what the theme tells the console of itself


@pytest.fixture
def visit(browser, book, request):
    """Open a page of the book; at the end nothing was fetched and nothing complained."""
    opened = []

    def go(name, width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: said.append(asked.url))
        opened.append((context, said))
        page.goto(f"{book.as_uri()}/{name}", wait_until="load")
        return page

    yield go
    for context, said in opened:
        context.close()
        kept = ("file:", "data:", *CHATTER)
        assert [text for text in said if not text.startswith(kept)] == []


def explorer(visit, state="", **options):
    page = visit(f"explorer.html{state and '#' + state}", **options)
    page.wait_for_selector("#explorer[data-ready]")
    return page


def reading(page, panel=0):
    return page.locator("#explorer output").nth(panel).inner_text()


def test_the_explorer_says_what_a_point_is_and_its_limits(visit):
    page = explorer(visit)
    for words in ("Layer 1, tanh1, epoch 8000", "I(X;T) 12.00", "log₂ N 12.00", "saturated"):
        assert words in reading(page)
    assert page.locator("#explorer svg circle").count() == 10  # five layers twice


def test_the_explorer_is_light(visit):
    page = explorer(visit)
    names = []
    page.on("request", lambda asked: names.append(asked.url))
    page.reload(wait_until="load")
    paths = {unquote(urlsplit(name).path) for name in names if name.startswith("file:")}
    assert any(path.endswith("planes.js") for path in paths)
    assert sum(Path(path).stat().st_size for path in paths) < 6e6


def test_every_choice_of_the_explorer_leads_to_a_plane(visit):
    page = explorer(visit)
    data = page.get_by_label("Plane A, data")
    names = data.locator("option").all_inner_texts()
    assert {"12-bit data", "Cora", "names", "MNIST", "black box"} <= set(names)
    for name in names:
        data.select_option(name)
        for part in ("network", "trained on", "estimator", "seed"):
            select = page.get_by_label(f"Plane A, {part}")
            values = select.locator("option").all()
            select.select_option(index=len(values) - 1) if len(values) > 1 else None
            assert "bits" in reading(page)
            assert "NaN" not in page.locator("#explorer svg").first.inner_html()


def test_the_epoch_is_dragged_played_and_kept_in_the_address(visit):
    page = explorer(visit)
    slider = page.get_by_label("Epoch of both planes")
    slider.fill("0")
    assert "epoch 1:" in reading(page)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("Number(document.querySelector('#explorer input').value) > 50")
    page.get_by_role("button", name="Stop").click()
    address = page.evaluate("location.hash")
    again = explorer(visit, address.lstrip("#"))
    assert reading(again) == reading(page)


def test_the_explorer_works_by_keys_alone(visit):
    page = explorer(visit)
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName.toLowerCase()") == "svg":
            break
    page.keyboard.press("ArrowUp")
    assert reading(page).startswith("Layer 2, tanh2, epoch 8000")
    page.keyboard.press("ArrowLeft")
    assert "epoch 8000" not in reading(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert reading(page).startswith("Layer 5, tanh5")


def test_a_point_is_read_under_the_pointer(visit):
    page = explorer(visit)
    page.locator("#explorer svg").first.locator("circle").nth(3).hover()
    assert reading(page).startswith("Layer 4, tanh4")


def test_a_shared_address_is_found_again_and_an_unknown_one_is_named(visit):
    page = explorer(visit, STATE + "&t=0")
    assert page.get_by_label("Plane A, seed").input_value() == "3"
    assert "epoch 1:" in reading(page)
    page = explorer(visit, "A=nothing%7Cof%7Cthe%7Ckind%7Cmean&t=2")
    said = page.locator("#explorer-status").inner_text()
    assert "names a plane that is not here (nothing|of|the|kind|mean)" in said
    assert "names a time that is none (2)" in said
    assert "bits" in reading(page)


def sizes(visit, state="", **options):
    page = visit(f"sizes.html{state and '#' + state}", **options)
    page.wait_for_selector("#explorer[data-ready]")
    return page


def test_layers_and_files_are_read_by_keys_and_pointer(visit):
    page = sizes(visit)
    layers, files = page.locator("#explorer svg").all()
    first = reading(page)
    assert "the answer needs" in first
    layers.press("ArrowDown")
    assert reading(page) != first
    page.locator("#explorer svg rect.bar-needed").first.hover()
    assert reading(page) == first
    assert reading(page, 1).startswith("nearest, step 2^-5")
    files.press("ArrowRight")
    assert reading(page, 1).startswith("nearest, step 2^-4")
    files.press("ArrowUp")
    assert "times smaller than in float32" in reading(page, 1)
    assert "step" not in reading(page, 1)  # a technique
    files.locator("circle.dot").first.hover(force=True)  # others lie over it; the nearest is read
    assert reading(page, 1).startswith("nearest, step 2^-5")


def test_every_network_has_its_layers_or_files_and_the_address_keeps_the_choice(visit):
    page = sizes(visit)
    for place, name in enumerate(("Layers", "Files")):
        select = page.get_by_label(f"{name}, network")
        for value in select.locator("option").all_inner_texts():
            select.select_option(value)
            assert "NaN" not in page.locator("#explorer svg").nth(place).inner_html()
            assert "Mean of" in reading(page, place)
    again = sizes(visit, page.evaluate("location.hash").lstrip("#"))
    assert [reading(again, place) for place in (0, 1)] == [reading(page, p) for p in (0, 1)]
    page = sizes(visit, "layers=none+of+them")
    said = page.locator("#explorer-status").inner_text()
    assert "names a network that is not here (none of them)" in said


@pytest.mark.parametrize("name", ["explorer", "sizes"])
def test_without_its_data_a_page_says_how_to_make_them(browser, book, name):
    context = browser.new_context()
    page = context.new_page()
    data = {"explorer": "planes", "sizes": "sizes_data"}[name]
    page.route(f"**/{data}.js", lambda route: route.abort())
    page.goto(f"{book.as_uri()}/{name}.html")
    assert "make thesis" in page.locator("#explorer-status").inner_text()
    context.close()


def test_the_gallery_is_searched_and_filtered(visit):
    page = visit("gallery.html")
    count = page.locator("#cards-choice output")
    every = page.locator("#cards article").count()
    assert count.inner_text() == f"{every} of {every} figures"
    page.get_by_role("combobox", name="Chapter").select_option("Cora")
    shown = page.locator("#cards article:visible")
    assert 0 < shown.count() < every
    assert {card.get_attribute("data-chapter") for card in shown.all()} == {"Cora"}
    page.get_by_role("combobox", name="Verdict").select_option("saturated")
    assert all("saturated" in card.inner_text() for card in shown.all())
    page.get_by_role("combobox", name="Verdict").select_option("all")
    page.get_by_role("searchbox").fill("no such words")
    assert count.inner_text() == f"0 of {every} figures"
    page.get_by_role("searchbox").fill("DISTANCE")
    assert shown.count() > 0


def test_a_card_leads_to_its_figure(visit):
    page = visit("gallery.html")
    page.get_by_role("link", name="Thesis, figure 4.2", exact=True).click()
    page.wait_for_load_state()
    assert page.url.endswith("01_tishby.html#fig-tishby-fractions")
    assert page.locator("#fig-tishby-fractions").count() == 1


def test_a_table_of_claims_is_sorted_by_its_headings(visit):
    page = visit("figures.html")
    table = page.locator("table.ledger").first
    table.get_by_role("button", name="Verdict").click()
    found = table.locator("tbody tr td:last-child").all_inner_texts()
    assert found == sorted(found)
    table.get_by_role("button", name="Verdict").click()
    falling = table.locator("tbody tr td:last-child").all_inner_texts()
    assert falling == sorted(found, reverse=True)
    assert falling[0] != falling[-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["explorer.html", "sizes.html", "gallery.html"])
def test_pages_are_labelled_legible_and_no_wider_than_the_screen(visit, name, scheme, width):
    page = visit(name, width=width, scheme=scheme)
    page.add_script_tag(path=str(files("axe_playwright_python") / "axe.min.js"))
    found = page.evaluate("axe.run('article', {preload: false})")
    broken = [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in found["violations"]]
    assert broken == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
