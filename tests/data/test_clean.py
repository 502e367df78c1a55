"""Cleaning steps: results, idempotence, and speed on hostile input."""

from __future__ import annotations

import html
import time
from itertools import pairwise, permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loralab.data.clean import (
    STEPS,
    check_steps,
    clean_text,
    escapes,
    html_tags,
    normalize_text,
    show_steps,
    urls,
    whitespace,
)
from loralab.errors import LoralabError

ALL = ("escapes", "html", "urls", "whitespace")

# Fragments of entities, tags and URLs: joined, they make inputs that one application could leave unfinished.
_PIECES = [
    *("&", ";", "#", "\\", "<", ">", "/", "!", "-", "--", "lt;", "gt;", "amp;", "quot;", "nbsp;", "#39;", "#38;", "#92;", "#x26;"),
    *("#60;", "&lt;", "&amp;", "&#38;", "&AMP;", "AMP;", "&num;", "num;", "&bsol;", "&Tab;", "&NewLine;", "&semi;", "&notit;"),
    *("&ampx;", "lt", "gt", "amp", "quot", "39", "b", "<b>", "</b>", "<a", "<!--", "-->", "http://", "https://", "www.", "HTTP://"),
    *("x.y", "'", '"', "a", "B", "1", "é", "\xa0", "\u2003", " ", "\n", "\t", "\r", "\x1c", "\x85", "\0"),
]
nasty = st.one_of(
    st.text(),
    st.text(alphabet="&;#lt\\<>amp39 /!-x"),
    st.lists(st.sampled_from(_PIECES), max_size=30).map("".join),
)


@pytest.mark.parametrize("step", STEPS)
@given(text=nasty)
@settings(max_examples=150, deadline=None)
@example(text="&amp;amp;amp;lt;b&amp;gt;")
@example(text="&#38;#38;#38;lt;")
@example(text="&AMP;AMP;AMP;AMP;lt;")
@example(text="\\#\\39;")
@example(text="#&bsol;39;")
@example(text="<a<b>>")
@example(text="<<b>b>x</</b>b>")
@example(text="<!<!-- -->-- x -->")
@example(text="http://http://x www.www.x")
def test_step_twice_is_step_once(step: str, text: str) -> None:
    once = STEPS[step](text)
    assert STEPS[step](once) == once


@given(text=nasty)
@settings(max_examples=100, deadline=None)
def test_a_step_leaves_nothing_of_what_it_removes(text: str) -> None:
    assert "\\" not in escapes(text)
    assert "http://x" not in urls(text + " http://x").lower()
    cleaned = whitespace(text)
    assert cleaned == " ".join(cleaned.split())
    assert cleaned.split() == text.split()


@given(text=st.text(alphabet=st.characters(exclude_characters="&;#\\<>:.", exclude_categories=("Zs", "Zl", "Zp", "Cc", "Cs"))))
@settings(max_examples=100, deadline=None)
def test_clean_text_is_unchanged(text: str) -> None:
    assert clean_text(text, ALL) == text


@given(text=st.text(alphabet="<>&'\"ab é"))
@settings(max_examples=100, deadline=None)
def test_escapes_undoes_html_escape(text: str) -> None:
    # html.escape is the reference; a text that looks like an entity would be restored twice, so `;` is excluded
    assert escapes(html.escape(text)) == text


# The reference is the printed news: AG News replaced each `&` by a space, so the space belongs to the entity.
DAMAGE = {
    "Oil #39;s high": "Oil's high",
    "Google #39;s IPO": "Google's IPO",
    "the quot;big one quot; is near": 'the "big one" is near',
    "AT amp;T and S amp;P": "AT&T and S&P",
    "quot;Now, quot; he said": '"Now," he said',
    "#36;50 a barrel": "$50 a barrel",
    "1 lt; 2 gt; 0": "1< 2> 0",
    "lt;b gt;bold lt;/b gt;": "<b>bold</b>",
    "see lt;A HREF= quot;http://x.y/z quot; gt;Reuters lt;/A gt;": 'see<A HREF="http://x.y/z">Reuters</A>',
    "win #151; at last": "win — at last",  # 151 is a dash in Windows-1252, as in HTML
    "#x27;90s": "'90s",
    "up hellip; and away": "up… and away",
    "4 mdash;2 ndash;1": "4—2–1",
    "no nbsp;break": "no\xa0break",
    "one\\two": "one two",
    "line\\\\break": "line  break",
    "&lt;b&gt; &amp; &#39;": "<b> & '",
    "AT&amp;amp;T": "AT&T",  # escaped twice, as often in feeds
    "it&amp;#39;s &amp;lt;b&amp;gt; &amp;quot;": "it's <b> \"",
    "&#x41;&#66;&eacute;": "ABé",
}


@pytest.mark.parametrize(("damaged", "right"), DAMAGE.items())
def test_escapes_repairs_damage(damaged: str, right: str) -> None:
    assert escapes(damaged) == right


@pytest.mark.parametrize(
    "text",
    [
        "sea salt; water",  # ends in `lt;`
        "a vault; a bolt; a default;",
        "issue #39 of 40; next",
        "C# and F#; both",
        "fish & chips; peas",
        "R&D; Q&A;",
        "&unknownentity; &;",
        "amp and quot and lt",
        "&#; &#x; #;",
        "boatslip; stamp; ramp;",
    ],
)
def test_escapes_leaves_ordinary_text_alone(text: str) -> None:
    assert escapes(text) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a<b>c</b>d", "a c d"),
        ('<a href="x?a=1&b=2" target=_blank>word</a>', " word "),
        ("one<br/>two<br />three", "one two three"),
        ("x<!-- a <b> comment\nover lines -->y", "x y"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("a <3 b", "a <3 b"),
        ("<never closed", "<never closed"),
    ],
)
def test_html_removes_tags_and_keeps_their_content(text: str, right: str) -> None:
    assert html_tags(text) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("see http://a.b/c?d=1#e now", "see   now"),
        ("https://x.y", " "),
        ("at www.example.org/page for more", "at   for more"),
        ("HTTP://X.Y and WWW.Z.org", "  and  "),
        ('<a href="http://a.b">x</a>', '<a href=" ">x</a>'),
        ("no address: http and www", "no address: http and www"),
        ("see http://münchen.de/straße?ö=1, now", "see  , now"),
        ("on https://bücher.example and www.éclair.fr.", "on   and  ."),
        ("见https://t.cn/abc这款手机很差", "见 这款手机很差"),
        ("на https://a.b/cвсё плохо", "на  всё плохо"),
    ],
)
def test_urls_removes_addresses_only(text: str, right: str) -> None:
    assert urls(text) == right


def test_whitespace_keeps_words_and_drops_the_rest() -> None:
    assert whitespace(" \t a \r\n b\xa0\u2003c\x0b ") == "a b c"
    assert whitespace(" \n ") == ""


def test_all_steps_on_a_news_item() -> None:
    text = ' Oil #39;s  high:\\lt;b gt;\\$50 lt;/b gt; a barrel; see http://example.org/a?b=1 &amp; "more" '
    assert clean_text(text, ALL) == 'Oil\'s high: $50 a barrel; see & "more"'


def test_steps_are_applied_in_the_order_given() -> None:
    text = "lt;b gt;x"
    assert clean_text(text, ("escapes", "html")) == " x"
    assert clean_text(text, ("html", "escapes")) == "<b>x"
    assert clean_text(text, ()) == text


@pytest.mark.parametrize("steps", [*permutations(ALL, 4)][::5])
def test_show_steps_shows_every_step(steps: tuple[str, ...]) -> None:
    text = "AT amp;T  lt;b gt; http://x.y"
    shown = show_steps(text, steps)
    assert [name for name, _ in shown] == ["before", *steps]
    assert shown[0][1] == text
    assert shown[-1][1] == clean_text(text, steps)
    for (_, before), (name, after) in pairwise(shown):
        assert after == STEPS[name](before)


@pytest.mark.parametrize("check", [check_steps, lambda steps: show_steps("x", steps)])
@pytest.mark.parametrize(
    ("wrong", "meant"), [("url", "urls"), ("escape", "escapes"), ("htlm", "html"), ("white_space", "whitespace")]
)
def test_an_unknown_step_gets_a_suggestion(check: object, wrong: str, meant: str) -> None:
    with pytest.raises(LoralabError) as error:
        check(["html", wrong])  # type: ignore[operator]
    message = str(error.value)
    assert f"{wrong!r} is not a cleaning step" in message
    assert f"did you mean {meant!r}?" in message
    assert "valid: escapes, html, urls, whitespace" in message


def test_a_step_unlike_all_others_gets_no_suggestion() -> None:
    with pytest.raises(LoralabError) as error:
        check_steps(["zzzz"])
    assert "did you mean" not in str(error.value)
    assert "valid: " in str(error.value)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (r"first\nSecond\n\tthird", "first Second third"),
        (r"bad\nservice and\nopen late", "bad service and open late"),  # `nservice` is no word, so every `\n` is an escape
        (r"line one\nit broke", "line one it broke"),
        (r"great\r\n\r\nwe left", "great we left"),
        (r"a\\nb", "a b"),
        (r"profits\new jobs", "profits new jobs"),  # AG News: a word
        (r"dwindling\band of\new traders", "dwindling band of new traders"),
        (r"C:\new\temp", "C: new temp"),
        (r"in C:\Users\nina\temp\report.txt now\nThanks", "in C: Users nina temp report.txt now Thanks"),
        (r"\\server\new\table is gone", "server new table is gone"),
        (r"A:\nYes\nB:\nNo", "A: Yes B: No"),
        (r"caf\u00e9 \ud83d\ude00 \u003cb\u003ebold\u003c/b\u003e", "café 😀 bold"),
        (r"a lone \ud83d half", "a lone \ufffd half"),
        (r"she said \"never\", it\'s a\/b", 'she said "never", it\'s a/b'),
    ],
)
def test_backslashes_are_escapes_unless_they_join_words(text: str, right: str) -> None:
    assert clean_text(text, ALL) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("the quot;big quot; one", 'the "big" one'),
        ("the  quot;big quot;  one", 'the "big"  one'),
        ("she said: quot;no quot;, and quot;yes quot;.", 'she said: "no", and "yes".'),
        ("(quot;so quot;)", '("so")'),
        ("the #39;big #39; one", "the 'big' one"),
        ("O #39;Hare isn #39;t the players #39; choice", "O'Hare isn't the players' choice"),
        ("Shi #39;ite", "Shi'ite"),
        ("he paid #36;50, US #36;92 and ( #36;3)", "he paid $50, US$92 and ($3)"),
        ("Smith amp; Wesson and AT amp;T", "Smith & Wesson and AT&T"),
        ("time #151; again", "time — again"),
    ],
)
def test_a_space_that_a_text_needs_is_kept(text: str, right: str) -> None:
    assert escapes(text) == right


@pytest.mark.parametrize(
    "text",
    [
        "Map<Object> x; Box<B>, vector<int> <T> List<>",
        "my <address> at <time> from <NAME> <title> <link>",
        "if (a<b && c>d) a<-b; x <= y => z #include <stdio.h>",
        "[NAME] {x} <TAG> %s %NAME% @user #tag __X__ ${y}",
        "a@www.b.com ftp://www.x.org/a http://... www... www.",
        "def f(x): return x[0] # comment; next",
        "Привет, мир! 你好 สวัสดี العربية 🙂",
    ],
)
def test_code_placeholders_and_scripts_are_kept(text: str) -> None:
    assert clean_text(text, ALL) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<title>Hello</title> <address>x</address>", "Hello x"),
        ("<p>one<p>two<br>three<hr/>", "one two three"),
        ("WORD<B>bold</B><Br><FONT color=red>x</FONT>", "WORD bold x"),
        ("<option selected>One</option><td nowrap>two", "One two"),
        ('<!DOCTYPE html><html><a href="x">y</a>', "y"),
        ('<object data="x"> <link rel="y"/> <input>', "<input>"),
    ],
)
def test_markup_is_removed(text: str, right: str) -> None:
    assert clean_text(text, ALL) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("https://t.co/abc! Great.", "! Great."),
        ("so https://a.b/c. Then https://a.b/d?", "so . Then ?"),
        ("{https://a.b/{id}/x}", "{ {id}/x}"),
        ("https://[2001:db8::1]/x ok", "ok"),
        ("感谢www.ex.com/差评", "感谢 差评"),
        ("الموقع https://ex.com/ا جيد", "الموقع ا جيد"),
        ("смwww.ya.ruхуже", "см хуже"),
    ],
)
def test_an_address_ends_where_it_must(text: str, right: str) -> None:
    assert clean_text(text, ALL) == right


def test_known_steps_pass() -> None:
    check_steps(ALL)
    check_steps(())


# About 100 kB each. A file can have such a row by accident (a dump, an unclosed quote) or on purpose (an attack on a service).
HOSTILE = {
    "less": "<" * 50_000,
    "ampersand": "&" * 50_000,
    "address": "http://" * 10_000,
    "apostrophe": "#39;" * 20_000,
    "apostrophe-spaced": " #39;" * 20_000,
    "comment-open": "<!--" * 20_000,
    "comment-open-spaced": "<!-- " * 20_000,
    "comment-dashes": "<!" + "-" * 100_000,
    "comment-nested": "<!--" * 14_000 + "-->" * 14_000,
    "less-greater": "<" + ">" * 100_000,
    "tag-open": "<a" * 50_000,
    "tag-open-long": ("<a" + " " * 499) * 200,
    "tag-nested": "<a" * 33_000 + ">" * 33_000,
    "tag-nested-groups": ("<a" * 250 + ">" * 250) * 130,
    "entity-nested": "&" + "amp;" * 25_000,
    "entity-nested-capital": "&" + "AMP;" * 25_000,
    "entity-nested-number": "&" + "#38;" * 25_000,
    "entity-nested-name": "&" + "num;38;" * 14_000,
    "entity-nested-spaced": " amp;" * 20_000,
    "entity-damaged": "quot;" * 20_000,
    "entity-almost": ("&" + "a" * 31) * 3_000,
    "entity-number-almost": "&#" * 50_000,
    "backslashes": "\\" * 100_000,
    "backslash-entities": "#\\39;" * 20_000,
    "spaces": " " * 100_000,
    "spaced": " a" * 50_000,
    "www": "www." * 25_000,
    "letters": "a" * 100_000,
    "address-brackets": "http://a(" * 11_000,
    "address-full-stops": "http://a" + "." * 100_000,
    "backslash-escapes": "\\\\n" * 30_000,
    "backslash-paths": "C:\\" * 30_000,
    "code-points": "\\ud83d" * 16_000,
    "entity-quotes": "a quot;" * 14_000,
    "tag-words": "<object>" * 12_000,
    "tag-attributes": ("<a " + "=" * 1_500 + ">") * 60,
}


@pytest.mark.timed
@pytest.mark.timeout(10)  # a slow step would take minutes
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_steps_are_fast_on_hostile_text(kind: str, step: str) -> None:
    began = time.perf_counter()
    cleaned = STEPS[step](HOSTILE[kind])
    assert time.perf_counter() - began < 3
    assert STEPS[step](cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('say "a &quot;b&quot; c" d quot;e quot;', 'say "a "b" c" d "e"'),
        (r"\u00e9 and \u00E9 and \uD83D\uDE42", "é and é and 🙂"),
        (r"\ud800 x", "\ufffd x"),
        (r"\\u00e9", "é"),
    ],
)
def test_code_points_and_quotes(text: str, right: str) -> None:
    assert escapes(text) == right


def test_texts_are_equal_but_for_case_and_white_space() -> None:
    assert normalize_text("  One\n\tTWO\u00a0Straße ") == "one two strasse"
